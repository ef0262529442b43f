# The old compiler: gcc 11.2 with the headers and libraries of glibc 2.17 (the wheel ppbt carries it whole), under the plain names
# gcc, ar, strip, ... in $OUT/bin, so that every configure script finds it by itself and no path of it ends up in what is built.

"${PYTHON:-python3}" -m venv venv
venv/bin/pip download --quiet --no-deps --require-hashes --dest . --requirement "$CENTOS/python/toolchain.lock"
venv/bin/python - "$OUT" <<'PY'
import glob, sys, tarfile, zipfile
with (zipfile.ZipFile(glob.glob("ppbt-*.whl")[0]) as wheel,
      wheel.open("ppbt/_toolchain/x86_64-linux-gnu.tar.xz") as packed,
      tarfile.open(fileobj=packed, mode="r|xz") as tree):
    tree.extractall(sys.argv[1])
PY

# glibc 2.17's headers announce functions that 2.12 lacks: those who ask by version (OpenSSL: getauxval, secure_getenv, sendmmsg)
# are told 2.12. A file that stands before the real one, not "-include", which SQLite cannot bear.
mkdir -p "$OUT/glibc-2.12" "$OUT/bin"
cat >"$OUT/glibc-2.12/features.h" <<'H'
#include_next <features.h>
#undef __GLIBC_MINOR__
#define __GLIBC_MINOR__ 12
H

for tool in ar as ld nm objcopy objdump ranlib readelf strip; do
    ln -s "../x86_64-linux-gnu/bin/x86_64-linux-gnu-$tool" "$OUT/bin/$tool"
done
ln -s ../x86_64-linux-gnu/bin/patchelf "$OUT/bin/patchelf"
cp "$CENTOS/python/gcc" "$OUT/bin/gcc"
chmod 755 "$OUT/bin/gcc"
ln -s gcc "$OUT/bin/cc"
