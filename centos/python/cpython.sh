# CPython for glibc 2.12. Every C module, and with them OpenSSL, SQLite and the rest, is linked into libpython: one copy of each,
# nothing to find or to mix up at run time. The prefix only names the place; the interpreter finds its library from where it lies.

unpack cpython
mkdir deps
for unit in "$ZLIB" "$BZIP2" "$XZ" "$LIBFFI" "$SQLITE" "$OPENSSL"; do cp -a "$unit/." deps; done
here=-I$PWD/deps/include
there=-L$PWD/deps/lib

export CPPFLAGS=$here LDFLAGS=$there
# Their symbols stay inside, so that no other library in the process can meet them, and what Python does not use of them is left out.
export LDFLAGS_NODIST="-Wl,--exclude-libs,ALL -Wl,--gc-sections"
# librt has had clock_gettime and its kin since ever, libc only from 2.17 on: who comes first is bound.
export LIBS=-lrt
export MODULE_BUILDTYPE=static PKG_CONFIG=false
# These are in the headers of glibc 2.17, and not in 2.12.
export ac_cv_header_sys_auxv_h=no ac_cv_header_linux_auxvec_h=no ac_cv_func_prlimit=no ac_cv_func_setns=no
# Needs libraries that are not here, or a megabyte of tables that a program which speaks UTF-8 never reads.
for module in _tkinter _curses _curses_panel readline _gdbm _dbm _uuid _multibytecodec _codecs_{cn,hk,iso2022,jp,kr,tw}; do
    export "py_cv_module_$module=n/a"
done
./configure --prefix=/opt/ippd-python --enable-shared --without-static-libpython --disable-test-modules --without-doc-strings \
    --with-ensurepip=install --with-openssl="$PWD/deps" OPT="-DNDEBUG -fwrapv" \
    ZLIB_CFLAGS="$here" ZLIB_LIBS="$there -lz" BZIP2_CFLAGS="$here" BZIP2_LIBS="$there -lbz2" \
    LIBLZMA_CFLAGS="$here" LIBLZMA_LIBS="$there -llzma -lpthread" LIBFFI_CFLAGS="$here" LIBFFI_LIBS="$there -lffi" \
    LIBSQLITE3_CFLAGS="$here" LIBSQLITE3_LIBS="$there -lsqlite3 -lpthread -lm"
cp Modules/Setup.stdlib Modules/Setup.local
make -j "$JOBS"
# "-x .": no compiled modules are installed, three sets of them would be; those that are used are made when they are.
LD_LIBRARY_PATH=$PWD make install DESTDIR="$PWD/root" COMPILEALL_OPTS="-q -x ."

prefix=$PWD/root/opt/ippd-python
library=$prefix/lib/libpython3.13.so.1.0
rm -rf "$prefix"/lib/python3.13/{idlelib,tkinter,turtledemo,config-3.13-*} "$prefix"/bin/{idle,pydoc}* "$prefix/share"
find "$prefix" -name __pycache__ -prune -exec rm -rf {} +
strip --strip-unneeded "$library" "$prefix/bin/python3.13"
# Only this interpreter, which never leaves the build machine, is told where its library is; a path in libpython would be shipped.
patchelf --set-rpath '$ORIGIN/../lib' "$prefix/bin/python3.13"
"${PYTHON:-python3}" "$CENTOS/python/lower.py" "$library" "$prefix/bin/python3.13"

# The build's path is left in lists of settings only (sysconfig); they must be the same wherever it was built.
grep -rlIF "$BUILD" "$prefix" | xargs -r sed -i "s#$BUILD#/build#g"
if grep -rF "$BUILD" "$prefix"; then exit 1; fi

"$prefix/bin/python3.13" -c '
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, sys, zlib
print(sys.version, ssl.OPENSSL_VERSION, "SQLite", sqlite3.sqlite_version, "zlib", zlib.ZLIB_RUNTIME_VERSION)
hashlib.scrypt(b"a", salt=b"b", n=2, r=1, p=1)
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)(41) == 42'
cp -a "$prefix/." "$OUT"
