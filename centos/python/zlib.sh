# zlib: compressed responses, zip and gzip files, PyInstaller's archive.

unpack zlib
./configure --static --prefix="$OUT"
make -j "$JOBS" libz.a
make install
