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
  test [ARGUMENTS]  run the tests; the arguments are pytest's
  lint              check the style (ruff) and the types (mypy)
  binary            make dist/ippd, one file for hosts as old as CentOS 6 (on Debian; what it needs: centos/README.md)
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
        exec .venv/bin/python -m pytest "$@"
        ;;
    lint)
        setup requirements-test.lock
        .venv/bin/python -m ruff check .
        exec .venv/bin/python -m mypy
        ;;
    binary)
        exec bash packaging/binary.sh "$@"
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
