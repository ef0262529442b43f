# The libraries that ippd uses, as requirements.lock has them, in wheels for glibc 2.17 at most (there are none for 2.12 any more);
# lower.py brings their few newer symbol versions down, or says which cannot be.

platforms=
for platform in manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 manylinux_2_5 manylinux1; do
    platforms="$platforms --platform ${platform}_x86_64"
done
"$PYTHON_PREFIX/bin/python3.13" -m pip --quiet --disable-pip-version-check install --target "$OUT" --no-deps --no-compile \
    --only-binary :all: $platforms --require-hashes --requirement "$CENTOS/../packaging/requirements.lock"
# Commands of the libraries: they name this machine's Python, and the lists of files name them.
rm -r "$OUT/bin"
rm "$OUT"/*.dist-info/RECORD
# --no-merge-notes: newer compilers write notes that this strip does not understand.
find "$OUT" -name '*.so' -exec strip --strip-unneeded --no-merge-notes {} +
"${PYTHON:-python3}" "$CENTOS/python/lower.py" "$OUT"
