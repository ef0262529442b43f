# Building by content. A unit is one script (centos/python/*.sh, packaging/*.sh) that fills the folder $OUT. What it made lies in
# the cache under a name with the hash of all that went into it: the script, its pinned sources, the units before it. So nothing is
# built twice, nothing stale is ever used, an interrupted build goes on where it was, and deleting the cache is always safe.
# This file is sourced by bash scripts that have said "set -euo pipefail".

CENTOS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${IPPD_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ippd-build}
JOBS=${JOBS:-$(nproc)}
SOURCES=$CENTOS/python/sources.txt
# Where a unit is made is no part of the result (the compiler wrapper takes the path out), and neither is when, where in the world
# and in which language: the same inputs give the same bytes.
export CENTOS CACHE JOBS SOURCES SOURCE_DATE_EPOCH=315532800 PYTHONHASHSEED=0 LC_ALL=C TZ=UTC
# Only what the units say counts, not the settings of whoever builds.
unset CC CXX CPP CFLAGS CPPFLAGS CXXFLAGS LDFLAGS LIBS PYTHONPATH PYTHONHOME MAKEFLAGS
umask 022

say() { printf '%s\n' "$*" >&2; }

require() { # PROGRAM=DEBIAN-PACKAGE...: names all that is missing at once
    local pair missing=
    for pair; do command -v "${pair%=*}" >/dev/null || missing="$missing ${pair#*=}"; done
    [ -z "$missing" ] || { say "missing here: apt-get install$missing"; return 1; }
}

unit() { # VARIABLE SCRIPT [INPUT...]: starts the making; VARIABLE is the folder. INPUT: a file whose text counts, or a unit's folder
    local variable=$1 script=$2 name key
    shift 2
    name=$(basename "$script" .sh)
    key=$({
        cat "$CENTOS/units.sh" "$CENTOS/recipe.sh" "$script"
        grep -E "^$name(-|\s)" "$SOURCES" || true
        local input
        for input; do if [ -f "$input" ]; then cat "$input"; else basename "$input"; fi; done
    } | sha256sum | cut -c 1-12)
    export "$variable=$CACHE/$name-$key"
    make_unit "$CACHE/$name-$key" "$script" &
    UNITS_STARTED+=($!)
}
UNITS_STARTED=()

settle() { # waits for the units started so far; fails if one failed
    local pid bad=0
    for pid in "${UNITS_STARTED[@]}"; do wait "$pid" || bad=1; done
    UNITS_STARTED=()
    return $bad
}

make_unit() { # FOLDER SCRIPT
    local folder=$1 script=$2 work log began=$SECONDS
    [ ! -d "$folder" ] || return 0
    mkdir -p "$CACHE/logs" "$CACHE/work"
    log=$CACHE/logs/$(basename "$folder").log
    # Two builds at once share the cache: the second one waits for the first one's unit and takes it.
    exec 8>"$CACHE/work/$(basename "$folder").lock"
    flock 8
    [ ! -d "$folder" ] || return 0
    work=$CACHE/work/$(basename "$folder")
    rm -rf "$work"
    mkdir -p "$work/build" "$work/out"
    # A process of its own: inside "if" or "||" bash would ignore "set -e" in a function.
    if ! (cd "$work/build" && BUILD=$work/build OUT=$work/out exec bash -euo pipefail -c '. "$1"; . "$2"' - \
        "$CENTOS/recipe.sh" "$script") >"$log" 2>&1 8>&- </dev/null; then
        say "$(basename "$folder") failed; the last lines of $log:"
        tail -n 25 "$log" >&2
        return 1
    fi
    mv "$work/out" "$folder"
    rm -rf "$work"
    say "$(basename "$folder"): made in $((SECONDS - began)) s"
}
