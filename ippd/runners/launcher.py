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
uname -n >node
date +%s >start
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
if [ -x /usr/bin/time ]; then
    /usr/bin/time -q -o ../peak -f %M -- "$@" >../stdout.txt 2>../stderr.txt </dev/null
else
    "$@" >../stdout.txt 2>../stderr.txt </dev/null
fi
status=$?
cd "$folder" || exit 1
times >times
date +%s >end
printf '%s\n' "$status" >exit.new && mv exit.new exit
exit "$status"
"""
