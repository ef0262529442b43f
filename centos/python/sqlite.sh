# SQLite, as one object. No loading of extensions: nothing in the database may name a library to load.

unpack sqlite
./configure --disable-tcl --disable-shared --disable-readline
make sqlite3.c
# sqlite_cfg.h: what configure found (fdatasync, pread, usleep, ...), which the one big file does not ask for by itself.
gcc $CFLAGS -I. -D_HAVE_SQLITE_CONFIG_H -DSQLITE_THREADSAFE=1 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_ENABLE_MATH_FUNCTIONS \
    -c sqlite3.c
mkdir -p "$OUT/lib" "$OUT/include"
ar rcsD "$OUT/lib/libsqlite3.a" sqlite3.o
cp sqlite3.h "$OUT/include"
