#!/bin/bash
# Makes the Python for glibc 2.12 (or takes it from the cache) and prints its folder. packaging/binary.sh sources this file.
set -euo pipefail
if [ -n "${IPPD_BUILD_CACHE:-}" ]; then IPPD_BUILD_CACHE=$(realpath -m "$IPPD_BUILD_CACHE"); fi
. "$(dirname "${BASH_SOURCE[0]}")/../units.sh"
require apt-get=apt make=make patch=patch perl=perl xz=xz-utils flock=util-linux python3=python3-venv

recipes=$CENTOS/python
unit TOOLCHAIN "$recipes/toolchain.sh" "$recipes/toolchain.lock" "$recipes/gcc"
settle
for name in openssl sqlite xz libffi zlib bzip2; do unit "${name^^}" "$recipes/$name.sh" "$TOOLCHAIN"; done
settle
unit PYTHON_PREFIX "$recipes/cpython.sh" "$recipes/lower.py" "$CENTOS/elf.py" \
    "$TOOLCHAIN" "$ZLIB" "$BZIP2" "$XZ" "$LIBFFI" "$SQLITE" "$OPENSSL"
settle
[ "${BASH_SOURCE[0]}" != "$0" ] || echo "$PYTHON_PREFIX"
