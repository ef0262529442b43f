#!/bin/bash
# Makes dist/ippd: the program, its libraries and its Python in one file for every x86-64 Linux with glibc 2.12 (CentOS 6) or newer.
# All that seldom changes comes from the cache (centos/units.sh); the freezing itself is done each time.
set -euo pipefail
. "$(dirname "$0")/../centos/python/build.sh"
cd "$CENTOS/.."

here=$CENTOS/../packaging
unit WHEELS "$here/wheels.sh" "$here/requirements.lock" "$CENTOS/python/lower.py" "$CENTOS/elf.py" "$PYTHON_PREFIX"
unit FREEZER "$here/freezer.sh" "$here/freeze.lock" "$here/bootloader.patch" "$CENTOS/python/lower.py" "$CENTOS/elf.py" \
    "$PYTHON_PREFIX" "$TOOLCHAIN"
settle

# The time that goes into the binary is the commit's, so that the same commit gives the same bytes.
commit_time=$(git log -1 --format=%ct 2>/dev/null || echo "$SOURCE_DATE_EPOCH")
mkdir -p "$CACHE/work"
work=$(mktemp -d "$CACHE/work/freeze.XXXXXX")
trap 'rm -rf "$work"' EXIT
# PATH: the old objcopy. LD_LIBRARY_PATH: the only libgcc there is. PYTHONNOUSERSITE: only what is locked is seen.
# PYINSTALLER_CONFIG_DIR: nothing from earlier runs is taken. PYTHONNODEBUGRANGES: no columns of a source that is not there; 1.3 MB less.
env SOURCE_DATE_EPOCH="$commit_time" PATH="$TOOLCHAIN/bin:$PATH" LD_LIBRARY_PATH="$FREEZER/libgcc" \
    PYTHONNODEBUGRANGES=1 PYTHONPATH="$FREEZER/lib:$WHEELS" PYTHONNOUSERSITE=1 PYINSTALLER_CONFIG_DIR="$work/config" \
    "$PYTHON_PREFIX/bin/python3.13" -m PyInstaller --log-level ERROR --noconfirm \
    --distpath "$work/dist" --workpath "$work/build" packaging/ippd.spec
mkdir -p dist
mv "$work/dist/ippd" dist/ippd
say "dist/ippd: $(stat --format %s dist/ippd) bytes, sha256 $(sha256sum dist/ippd | cut -c 1-16)..., $SECONDS s in all"
