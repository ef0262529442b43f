# bzip2: only for reading archives that people bring.

unpack bzip2
make -j "$JOBS" libbz2.a CFLAGS="$CFLAGS -D_FILE_OFFSET_BITS=64"
install -D -m 644 libbz2.a "$OUT/lib/libbz2.a"
install -D -m 644 bzlib.h "$OUT/include/bzlib.h"
