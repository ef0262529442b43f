#!/bin/sh
# A job script for ippd: takes experiments from the queue, runs their app on this machine, brings the results back.
#
#   job.sh [--once] [URL]        URL of the local listener, else $JOB_URL, else http://127.0.0.1:8080
#
# It needs curl and jq, and unzip or python3. Copy it together with the folder apps/, which holds one definition per app
# ($JOB_APPS names another folder), and run as many of it as there shall be experiments at a time. It polls every
# $JOB_INTERVAL seconds (10) until it gets a TERM, and finishes the experiment in hand first; --once ends when nothing waits.
#
# A definition <app>.json says how a command is made of what was submitted:
#   Executable  the program; relative to the folder of the definition
#   PARAMS      {field: flag}: the flag and then the value are given, as one word if the flag ends with =
#   BINOPTS     {field: flag}: the flag alone is given, unless the value is empty, 0, no, false or off
#   DEFAULTS    {field: value}: for fields that were not submitted. One that begins with $experdir is a path of this script
#               ($experdir is the working folder, what lies in $experdir/results is uploaded): nobody can submit another.
#   FILES       [field]: these must be uploaded files. A text would let a user name any file of this machine.
#
# Nothing that a user sends is ever evaluated, and each value is one word whatever stands in it.
set -u
umask 077

say() { printf 'job.sh: %s\n' "$*"; }
stop() { printf 'job.sh: %s\n' "$*" >&2; exit 1; }

once=
if [ "${1:-}" = --once ]; then
    once=yes
    shift
fi
case ${1:-} in
    -*) stop "usage: job.sh [--once] [URL of the local listener]" ;;
esac
url=${1:-${JOB_URL:-http://127.0.0.1:8080}}
for tool in curl jq; do
    command -v "$tool" >/dev/null || stop "the program $tool is needed; the package of that name has it"
done
apps=$(cd "${JOB_APPS:-$(dirname "$0")/apps}" && pwd) || stop "there is no folder with definitions of apps (JOB_APPS)"
work=$(mktemp -d "${TMPDIR:-/tmp}/ippd-job.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
ending=
trap 'ending=yes' INT TERM

call() { curl --silent --show-error --fail --noproxy '*' --connect-timeout 10 "$@"; }

# The words of the command, as a JSON array, of the item on standard input. An empty text was not submitted.
# shellcheck disable=SC2016
words='
def ours: tostring | . == "$experdir" or startswith("$experdir/");
def on: ascii_downcase as $text | ["", "0", "no", "false", "off"] | index([$text]) == null;
$definition[0] as $app | .files as $files | ($app.DEFAULTS // {}) as $defaults
| ($defaults + (.params | with_entries(select(.value != ""))) + ($defaults | with_entries(select(.value | ours)))
   | map_values(tostring)) as $values
| ([$app.FILES[]? | select($values[.] != null and $files[.] == null)] | first) as $wrong
| if $wrong then error("the field \($wrong) must be a file") else . end
| [($app.PARAMS // {} | to_entries[] | $values[.key] as $value | select($value != null)
    | (if $defaults[.key] | ours then $folder + $value[9:] else $value end) as $value
    | if .value | endswith("=") then .value + $value else .value, $value end),
   ($app.BINOPTS // {} | to_entries[] | select($values[.key] // "" | on) | .value)]'

fetch() { # downloads the inputs of experiment $id into the folder inputs
    [ "$(jq '[.files[]?[]?] | length' item.json)" -gt 0 ] || return 0
    call --retry 3 --output inputs.zip "$url/experiments/$id/files" || return 1
    if command -v unzip >/dev/null; then
        LC_ALL=C.UTF-8 unzip -q -o inputs.zip -d inputs </dev/null
    else
        python3 -m zipfile -e inputs.zip inputs
    fi
}

run() { # runs the app of experiment $id; its status, and the reason in $reason when that is not 0
    app=$(jq -r .app item.json)
    case $app in
        '' | .* | */*) definition= ;;
        *) definition=$apps/$app.json ;;
    esac
    if ! program=$(jq -e -r '.Executable | strings' "$definition" 2>/dev/null); then
        reason="there is no such app here"
        return 1
    fi
    case $program in
        /*) ;;
        *) program=$apps/$program ;;
    esac
    if [ ! -f "$program" ] || [ ! -x "$program" ]; then
        reason="the program ${program##*/} cannot be run"
        return 127
    fi
    if ! jq --slurpfile definition "$definition" --arg folder "$PWD" "$words" item.json >words.json 2>words.error; then
        reason=$(sed 's/^jq: error ([^)]*): //' words.error)
        return 1
    fi
    set --
    wanted=$(jq length words.json)
    while [ $# -lt "$wanted" ]; do
        word=$(jq -j ".[$#]" words.json && printf .) || return 1 # the dot keeps newlines at the end
        set -- "$@" "${word%.}"
    done
    "$program" "$@" >log.txt 2>&1 </dev/null && return 0
    status=$?
    reason=$(tail -n 1 log.txt | jq -R -r -s '.[0:300]')
    return "$status"
}

upload() { # uploads what lies in the folder results, each file under its name, and what the app printed
    [ ! -s log.txt ] || cp log.txt results/log.txt
    set --
    for file in results/*; do
        [ -f "$file" ] || continue
        # curl reads a name in quotes as it is, but for quotes and backslashes
        set -- "$@" --form "file=@\"$(printf '%s' "$file" | sed 's/["\\]/\\&/g')\""
    done
    if [ $# -eq 0 ]; then
        reason="the app made no results"
        return 1
    fi
    (cd results && sha256sum -- *)
    reason="the results could not be uploaded"
    [ "$(call --retry 3 "$@" "$url/experiments/$id/results")" = true ]
}

handle() { # the experiment of item.json, from its inputs to its results
    id=$(jq -r .id item.json)
    case $id in
        '' | *[!0123456789]*) say "an experiment without a number: left out"; return ;;
    esac
    if ! call --request POST --output answer "$url/experiments/$id/running"; then
        say "experiment $id: not ours any more"
        return
    fi
    say "experiment $id: started"
    mkdir inputs results
    status=0 reason="the inputs could not be downloaded"
    if fetch; then
        run || status=$?
        if [ "$status" -eq 0 ]; then
            upload && say "experiment $id: completed" && return
            status=1
        fi
    else
        status=1
    fi
    say "experiment $id: failed with status $status: $reason" | tr -d '\000-\011\013-\037\177'
    call --output answer --data-urlencode "exit_code=$status" --data-urlencode "message=$reason" \
        "$url/experiments/$id/failed" || say "experiment $id: and that could not be told"
}

poll() { # takes one experiment, if one waits, and handles it; $found says whether
    call --output "$work/items.json" "$url/experiments/queue?limit=1" || return 1
    found=$(jq length "$work/items.json") || return 1
    [ "$found" -gt 0 ] || return 0
    mkdir "$work/job" || return 1
    jq -c '.[0]' "$work/items.json" >"$work/job/item.json"
    cd "$work/job" && handle
    cd "$work" && rm -rf "$work/job"
}

[ -n "$once" ] || say "polling $url"
while [ -z "$ending" ]; do
    found=0
    if ! poll; then
        [ -z "$once" ] || stop "the queue at $url cannot be polled"
        say "the queue at $url cannot be polled, trying again"
    fi
    if [ "$found" -eq 0 ]; then
        [ -z "$once" ] || break
        sleep "${JOB_INTERVAL:-10}" &
        wait $!
        [ -z "$ending" ] || kill $! 2>/dev/null
    fi
done
exit 0
