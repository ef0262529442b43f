#!/bin/bash
# newer.sh [NAME...]: shows, for each source that sources.txt pins, which versions the Debian mirror of this machine lists now, in
# the form of sources.txt, newest last. apt's state for this is a folder of its own; the machine's sources stay as they are.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(awk '/^[a-z]/ {print $1}' sources.txt)
SUITES=${SUITES:-trixie forky unstable}

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state"/{parts,lists/partial,cache}
touch "$state/empty"
# The first of the machine's own sources that is no addition (updates, security, backports) and has the suites.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 !~ /-/ && $1 ~ /\/debian\/?$/ {print $1; exit}')
: "${mirror:?no Debian mirror among the sources of this machine}"
printf 'deb-src %s %s main\n' $(for suite in $SUITES; do echo "$mirror $suite"; done) >"$state/parts/here.list"
apt=(-qq -o "Dir::Etc::SourceList=$state/empty" -o "Dir::Etc::SourceParts=$state/parts" -o "Dir::State::Lists=$state/lists"
    -o "Dir::State::status=$state/empty" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update

for name; do
    pinned=$(awk -v name="$name" '$1 == name {print $3}' sources.txt)
    package=$(basename "$(dirname "$pinned")")
    case $name in *-patches) kind='[.]debian[.]tar' ;; *) kind='[.]orig[.]tar' ;; esac
    apt-cache "${apt[@]}" showsrc --only-source "$package" | awk -v name="$name" -v kind="$kind" '
        /^Directory:/ {folder = $2}
        /^[A-Z]/ {sums = /^Checksums-Sha256:/}
        sums && $3 ~ kind && $3 !~ /[.]asc$/ {files[++count] = $3; hash[$3] = $1}
        /^$/ {for (i = 1; i <= count; i++) print name, hash[files[i]], folder "/" files[i]; count = 0}' | sort -u -V -k 3
done
