# OpenSSL with what a server and a client of TLS 1.2 and 1.3 need and no more: what is not there needs no fix and no room.
# no-dso, no-module, no-engine: it never loads a library. The prefix is only a name that it remembers; /etc/pki/tls is where CentOS
# keeps the certificates of authorities.

unpack openssl
./Configure linux-x86_64 --prefix=/opt/ippd-python --libdir=lib --openssldir=/etc/pki/tls \
    no-shared no-apps no-docs no-tests no-dso no-module no-engine no-legacy no-afalgeng no-ktls no-quic no-async \
    no-cms no-cmp no-ct no-dtls no-srp no-srtp no-ts no-ssl3 no-weak-ssl-ciphers no-gost no-comp \
    no-aria no-bf no-camellia no-cast no-dsa no-ec2m no-idea no-md4 no-mdc2 no-ml-dsa no-rc2 no-rc4 no-rfc3779 no-rmd160 no-seed \
    no-siphash no-slh-dsa no-sm2 no-sm3 no-sm4 no-whirlpool
make -j "$JOBS" build_libs
make install_dev DESTDIR="$PWD/root"
mv root/opt/ippd-python/* "$OUT"
