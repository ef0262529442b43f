# What every unit's script finds (see units.sh): $BUILD, the empty folder it runs in; $OUT, the folder to fill; the folders of
# earlier units, the old compiler first on PATH once there is one, and these two functions.

if [ -n "${TOOLCHAIN:-}" ]; then export PATH=$TOOLCHAIN/bin:$PATH; fi
# Each function in a section of its own, so that the link of libpython can leave out what nothing calls.
export CFLAGS="-O2 -fPIC -fno-semantic-interposition -ffunction-sections -fdata-sections"

fetch() { # NAME: prints the file that sources.txt pins under this name, downloading it if need be
    local sha256 pool file mirror
    read -r _ sha256 pool < <(grep -E "^$1\s" "$SOURCES")
    file=$CACHE/sources/${pool##*/}
    mkdir -p "$CACHE/sources"
    for mirror in $(apt-get indextargets --format '$(REPO_URI)' | awk '!seen[$0]++'); do
        [ ! -f "$file" ] || break
        # apt's own downloader: it follows the machine's settings (mirror, proxy) and refuses a file with another hash.
        if /usr/lib/apt/apt-helper -o Acquire::Retries=3 -o APT::Sandbox::User=root \
            download-file "${mirror%/}/${pool//\~/%7e}" "$file.$$" "SHA256:$sha256" >&2; then mv "$file.$$" "$file"; fi
    done
    if [ ! -f "$file" ]; then
        echo "No mirror of this machine's apt sources has $pool. Debian keeps only the newest version of a source package, so a newer"
        echo "one has probably replaced it: 'bash centos/python/newer.sh $1' shows which, and the line for centos/python/sources.txt."
        return 1
    fi >&2
    echo "$sha256  $file" | sha256sum --check --quiet >&2 || { echo "$file is not what sources.txt pins: delete it." >&2; return 1; }
    echo "$file"
}

unpack() { # NAME: the upstream source into this folder; the fixes in NAME-patches, if pinned, are applied on top
    local archive patches patch
    archive=$(fetch "$1")
    tar --extract --file "$archive" --strip-components=1 --no-same-owner
    grep -qE "^$1-patches\s" "$SOURCES" || return 0
    patches=$(fetch "$1-patches")
    tar --extract --file "$patches" --no-same-owner debian/patches
    for patch in $(sed 's/#.*//' debian/patches/series); do patch --strip=1 --silent --force <"debian/patches/$patch"; done
}
