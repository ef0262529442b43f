#!/bin/bash
# Makes the Python for glibc 2.12 (or takes it from the cache) and prints its folder. packaging/binary.sh sources this file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/compiler.sh"
require apt-get=apt make=make patch=patch perl=perl xz=xz-utils

for name in openssl sqlite xz libffi zlib bzip2; do unit "${name^^}" "$recipes/$name.sh" "$TOOLCHAIN"; done
settle
unit PYTHON_PREFIX "$recipes/cpython.sh" "$recipes/lower.py" "$CENTOS/elf.py" \
    "$TOOLCHAIN" "$ZLIB" "$BZIP2" "$XZ" "$LIBFFI" "$SQLITE" "$OPENSSL"
settle
[ "${BASH_SOURCE[0]}" != "$0" ] || echo "$PYTHON_PREFIX"
