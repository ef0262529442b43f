# PyInstaller, with a bootloader that the old compiler makes (the one in its wheel needs glibc 2.14) and packaging/bootloader.patch.
# Its collection of hooks for hundreds of libraries is left out on purpose: what ippd needs is said in ippd.spec.

packaging=$CENTOS/../packaging
python=$PYTHON_PREFIX/bin/python3.13
pip="$python -m pip --quiet --disable-pip-version-check"
grep -v '^pyinstaller==' "$packaging/freeze.lock" >tools.txt
grep '^pyinstaller==' "$packaging/freeze.lock" >pyinstaller.txt
$pip install --target tools --no-deps --only-binary :all: --require-hashes --requirement tools.txt
# zlib linked in: a host need not have one. Said here already, because pip compiles the bootloader once to learn the package's name.
export PYI_STATIC_ZLIB=1
PYTHONPATH=$PWD/tools $pip download --no-deps --no-build-isolation --no-binary :all: --require-hashes --requirement pyinstaller.txt

mkdir source
tar --extract --file pyinstaller-*.tar.gz --strip-components=1 --no-same-owner --directory source
cd source
patch --strip=1 --silent --force <"$packaging/bootloader.patch"
(cd bootloader && "$python" ./waf configure build_release install_release)
"${PYTHON:-python3}" "$CENTOS/python/lower.py" PyInstaller/bootloader
mkdir "$OUT/lib" "$OUT/libgcc"
cp -a PyInstaller ../tools/altgraph ../tools/altgraph-*.dist-info ../tools/packaging "$OUT/lib"

# The libgcc that PyInstaller shall find, and not the one of the build machine, which needs glibc 2.35.
cp -L "$TOOLCHAIN/x86_64-linux-gnu/x86_64-linux-gnu/sysroot/lib/libgcc_s.so.1" "$OUT/libgcc"
strip --strip-unneeded "$OUT/libgcc/libgcc_s.so.1"
"${PYTHON:-python3}" "$CENTOS/python/lower.py" "$OUT/libgcc"
