#!/bin/sh
# Writes packaging/requirements*.lock anew: every version and every file's hash, for all Pythons from 3.11 on.
# Run it after a change of the requirements in setup.cfg; give "--upgrade" to take newer versions as well.
# It asks the package registry that the machine is set up for, through uv in a folder of its own.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet uv

lock() { # FILE [uv options]: one lock file; what stands in it stays, unless --upgrade is given
    file=$1
    shift
    echo "packaging/$file"
    "$tools/venv/bin/uv" pip compile setup.cfg "$@" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "packaging/$file"
}

lock requirements.lock "$@"
lock requirements-demo.lock --extra build --extra demo --constraint packaging/requirements.lock "$@"
lock requirements-test.lock --extra build --extra demo --extra test --extra lint \
    --constraint packaging/requirements-demo.lock "$@"
