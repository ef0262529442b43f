#!/bin/sh
# Everything that is done with a clone of ippd: see "usage" below.
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<'END'
usage: ./build.sh COMMAND

  setup             make .venv with all that ippd needs; .venv/bin/ippd is the command then
  demo [--keep] [--engine ENGINE]
                    start a daemon in a temporary folder and run one experiment through it, from sign-up to result, by the
                    job script, or by ippd worker in ENGINE: local, slurm or gridengine (as root; both must be installed);
                    --keep leaves the daemon running and says where it is
  test [--binary [FILE]] [ARGUMENTS]
                    run the tests; the arguments are pytest's. With --binary all tests that start ippd, the whole HTTP suite among
                    them, start dist/ippd (made first if it is missing or older than the sources) or FILE instead of the source
  lint              check the style (ruff) and the types (mypy)
  binary            make dist/ippd, one file for hosts as old as CentOS 6 (on Debian; what it needs: centos/README.md)
  test-legacy [ARGUMENTS]
                    run dist/ippd (made first if it is missing or older than the sources; IPPD_BINARY=FILE takes another) in
                    roots with nothing but an old glibc and busybox, also on an emulated Linux 2.6.32, with all that can befall
                    it there; as root; the arguments are pytest's
  audit             look at every file in dist/ippd: glibc symbols, search paths, stack, versions, size
  bench [PART ...]  measure the daemon against a bare cheroot server; without arguments all parts

Each command does the set-up that it needs first. The Python is python3.13, 3.12, 3.11 or python3, whichever is found
first; PYTHON=/path/to/python ./build.sh setup takes another (remove .venv to change it later).
END
}

say() { printf '%s\n' "build.sh: $*" >&2; }

find_python() { # prints the first Python that is new enough and can make a virtual environment; $PYTHON alone if it is set
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3; fi
    for python; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    say "no Python 3.11 or newer that can make a virtual environment was found (looked for $*)." \
        "On Debian: apt-get install python3 python3-venv; or name one: PYTHON=/path/to/python ./build.sh setup"
    return 1
}

wanted() { # LOCK: what .venv is made of; when this text has not changed, there is nothing to do
    { pwd; cat "packaging/$1" setup.cfg pyproject.toml; grep VERSION ippd/__init__.py; } | sha256sum
}

install() { # LOCK: brings .venv to what the lock file says
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
        python=$(find_python)
        say "making .venv with $("$python" -V)"
        "$python" -m venv --clear .venv
    fi
    say "installing packaging/$1"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r "packaging/$1"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
    wanted "$1" >".venv/$1.stamp.$$"
    mv ".venv/$1.stamp.$$" ".venv/$1.stamp"
}

ready() { # LOCK: true when .venv holds what the lock file says
    [ -x .venv/bin/python ] && [ "$(cat ".venv/$1.stamp" 2>/dev/null)" = "$(wanted "$1")" ]
}

setup() { # [LOCK]: install if anything has changed; of two at once, one waits for the other
    lock=${1:-requirements-demo.lock}
    ready "$lock" && return
    # The folder itself is the lock, so that no file is left behind; the install runs without it (children would keep it).
    exec 9<.
    if ! flock --nonblock 9; then
        say "another setup is running here, waiting for it"
        flock 9
    fi
    ready "$lock" || install "$lock" 9<&-
    exec 9<&-
}

current_binary() { # makes dist/ippd if it is missing or older than what it is made of
    sources="ippd packaging centos/python centos/elf.py centos/recipe.sh centos/units.sh setup.cfg"
    # shellcheck disable=SC2086
    if [ -f dist/ippd ] && [ -z "$(find $sources -name __pycache__ -prune -o -type f -newer dist/ippd -print -quit)" ]; then
        return
    fi
    bash packaging/binary.sh
}

legacy() { # what test-legacy needs besides the test environment: says all that is missing at once; makes the binary and the old glibc
    missing=
    for pair in busybox=busybox-static strace=strace unshare=util-linux curl=curl jq=jq unzip=unzip; do
        command -v "${pair%=*}" >/dev/null || missing="$missing ${pair#*=}"
    done
    if [ -n "$missing" ]; then
        say "test-legacy needs more programs: apt-get install$missing"
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "test-legacy makes roots and mounts file systems: run it as root"
        return 1
    fi
    [ -n "${IPPD_BINARY:-}" ] || current_binary
    TOOLCHAIN=$(bash centos/python/compiler.sh)
    export TOOLCHAIN
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    setup)
        setup
        say "ready: .venv/bin/ippd"
        ;;
    demo)
        setup
        exec .venv/bin/python examples/demo "$@"
        ;;
    test)
        setup requirements-test.lock
        left=$# together=
        while [ "$left" -gt 0 ]; do # each word to the end, so that all have been there once
            word=$1 left=$((left - 1))
            shift
            if [ "$word" = --binary ]; then
                if [ "$left" -gt 0 ] && [ -f "$1" ] && [ -x "$1" ]; then
                    word=--binary=$1 left=$((left - 1))
                    shift
                else
                    current_binary
                    word=--binary=dist/ippd
                fi
            fi
            case $word in --binary=*) together="--numprocesses=2 --dist=loadfile" ;; esac # most of the time goes into starts
            set -- "$@" "$word"
        done
        exec .venv/bin/python -m pytest $together "$@"
        ;;
    lint)
        setup requirements-test.lock
        .venv/bin/python -m ruff check .
        exec .venv/bin/python -m mypy
        ;;
    binary)
        exec bash packaging/binary.sh "$@"
        ;;
    test-legacy)
        setup requirements-test.lock
        legacy
        exec .venv/bin/python -m pytest -o testpaths=centos/tests -o pythonpath=tests "$@"
        ;;
    audit)
        exec packaging/audit.py "$@"
        ;;
    bench)
        setup
        exec .venv/bin/python bench "$@"
        ;;
    help | -h | --help)
        usage
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac
