#!/bin/bash
# Makes the old compiler (or takes it from the cache) and prints its folder, in which the old glibc lies too. build.sh sources this file.
set -euo pipefail
if [ -n "${IPPD_BUILD_CACHE:-}" ]; then IPPD_BUILD_CACHE=$(realpath -m "$IPPD_BUILD_CACHE"); fi
. "$(dirname "${BASH_SOURCE[0]}")/../units.sh"
require flock=util-linux python3=python3-venv

recipes=$CENTOS/python
unit TOOLCHAIN "$recipes/toolchain.sh" "$recipes/toolchain.lock" "$recipes/gcc"
settle
[ "${BASH_SOURCE[0]}" != "$0" ] || echo "$TOOLCHAIN"
