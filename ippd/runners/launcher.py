"""The script that an engine starts for each job, the same for all: it holds nothing of a user, it reads words from files."""

# What happened is written into the job's folder, so that it is known whatever the engine remembers: begun (a folder: only the first
# job of a name gets past it), pid (with the process's start time), node, start, times, peak (kilobytes), end, and exit, the last.
LAUNCHER = r"""#!/bin/sh
folder=$1
cd "$folder" || exit 1
mkdir begun 2>/dev/null || exit 0
read -r line </proc/$$/stat
set -f
set -- $line
printf '%s %s\n' "$$" "${22}" >pid.new && mv pid.new pid
printf '%16s' '' >exit.new # a disk that is full at the end has room for what stands here already
uname -n >node
date +%s >start
reaps=$IPPD_REAPS
unset IPPD_REAPS
IPPD_JOB=${folder##*/}
export IPPD_JOB
if [ -f path ]; then
    PATH=$(cat path)
    export PATH
fi
set --
number=0
while [ -f "words/$number" ]; do
    word=$(cat "words/$number" && printf .) || exit 1
    set -- "$@" "${word%.}"
    number=$((number + 1))
done
cd work || exit 1
code=
case $1 in
    */*) [ -x "$1" ] || { code=126 why='it may not be executed'; [ -e "$1" ] || { code=127 why='there is no such file'; }; } ;;
esac
if [ -n "$code" ]; then
    # Users read this: it names the program, and not the folder in which it should be.
    printf 'the program %s cannot be run: %s\n' "${1##*/}" "$why" >../stderr.txt
    : >../stdout.txt
    (exit "$code")
elif [ -x /usr/bin/time ]; then
    /usr/bin/time -q -o ../peak -f %M -- "$@" >../stdout.txt 2>../stderr.txt </dev/null
else
    "$@" >../stdout.txt 2>../stderr.txt </dev/null
fi
status=$?
cd "$folder" || exit 1
# Where this process gets all that escaped from its parents: it ends after them. They have 5 s to end by themselves; then it kills what
# carries the job's name. What does not carry it, as a helper that has a container to put away, has 10 s more.
name=$IPPD_JOB
unset IPPD_JOB
left() {
    children=
    set +f
    for place in /proc/[0-9]*/stat; do
        { read -r line <"$place"; } 2>/dev/null || continue
        pid=${line%% *}
        line=${line##*) }
        state=${line%% *}
        line=${line#* }
        if [ "${line%% *}" = $$ ] && [ "$state" != Z ]; then
            children="$children $pid"
        fi
    done
    set -f
    [ -n "$children" ]
}
named() {
    set +f
    for place in /proc/[0-9]*/environ; do
        pid=${place#/proc/}
        pid=${pid%/environ}
        if [ "$pid" != $$ ] && [ -r "$place" ] && { tr '\0' '\n' <"$place" | grep -qxF "IPPD_JOB=$name"; } 2>/dev/null; then
            printf '%s ' "$pid"
        fi
    done
}
number=0
while [ -n "$reaps" ] && [ $number -lt 30 ] && left; do
    # shellcheck disable=SC2046,SC2086
    [ $number -lt 15 ] || kill -9 $children 2>/dev/null
    [ $number -lt 5 ] || kill -9 $(named) 2>/dev/null
    sleep 1
    number=$((number + 1))
done
times >times
date +%s >end
printf '%s\n' "$status" 1<>exit.new && mv exit.new exit
exit "$status"
"""
