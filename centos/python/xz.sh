# xz: only the library, for reading and writing archives.

unpack xz
./configure --prefix="$OUT" --disable-shared --disable-nls --disable-doc --disable-scripts \
    --disable-xz --disable-xzdec --disable-lzmadec --disable-lzmainfo
make -j "$JOBS"
make install
