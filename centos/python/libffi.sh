# libffi: what ctypes stands on. The source comes without a configure script, and making one takes four more tools: for one processor
# and one system its answers are these few lines.

unpack libffi
version=$(sed -n 's/^AC_INIT(\[libffi\], *\[\([0-9.]*\)\].*/\1/p' configure.ac)
sed -e "s/@VERSION@/$version/" -e 's/@TARGET@/X86_64/' -e 's/@HAVE_LONG_DOUBLE@/1/' -e 's/@FFI_EXEC_TRAMPOLINE_TABLE@/0/' \
    include/ffi.h.in >include/ffi.h
cat >include/fficonfig.h <<'H'
#define HAVE_ALLOCA_H 1
#define HAVE_AS_X86_64_UNWIND_SECTION_TYPE 1
#define HAVE_AS_X86_PCREL 1
#define HAVE_LONG_DOUBLE 1
#define HAVE_RO_EH_FRAME 1
#define EH_FRAME_FLAGS "a"
#define SIZEOF_DOUBLE 8
#define SIZEOF_LONG_DOUBLE 16
#define SIZEOF_SIZE_T 8
#define STDC_HEADERS 1
#ifdef LIBFFI_ASM
#define FFI_HIDDEN(name) .hidden name
#else
#define FFI_HIDDEN __attribute__((visibility("hidden")))
#endif
H
for source in src/{prep_cif,types,raw_api,java_raw_api,closures,tramp}.c src/x86/{ffi64,ffiw64}.c src/x86/{unix64,win64}.S; do
    gcc $CFLAGS -Iinclude -Isrc/x86 -c "$source"
done
mkdir -p "$OUT/lib" "$OUT/include"
ar rcsD "$OUT/lib/libffi.a" ./*.o
cp include/ffi.h src/x86/ffitarget.h "$OUT/include"
