"""Certificates: what is made is accepted by Python, openssl and curl; what is no use is refused with a sentence."""

import calendar
import os
import socket
import ssl
import subprocess
import threading

import pytest

from ippd import certificate
from ippd.certificate import check_pair, make, read
from ippd.errors import SettingsError

NAMES = ["localhost", "127.0.0.1", "::1", "portal.example.org", "*.example.org", "my_host"]


@pytest.fixture
def pair(tmp_path):
    cert, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    make(NAMES, cert, key)
    return cert, key


@pytest.fixture
def server(pair):
    """A TLS server on a free loopback port that answers one line to each connection; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # closed: the test has ended
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1000)
                    secure.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
            except OSError:
                continue  # a client that refuses the certificate is one of the cases

    thread = threading.Thread(target=answer)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def connect(port, cert, name, flags=0):
    context = ssl.create_default_context(cafile=cert)
    context.verify_flags |= flags
    plain = socket.create_connection(("127.0.0.1", port))
    with plain, context.wrap_socket(plain, server_hostname=name) as secure:
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return secure.recv(1000)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "portal.example.org", "any.example.org"])
@pytest.mark.parametrize("flags", [0, ssl.VERIFY_X509_STRICT | getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)])
def test_python_accepts_it_for_its_names(server, pair, name, flags):
    assert connect(server, pair[0], name, flags).endswith(b"hello")


@pytest.mark.parametrize("name", ["other.org", "127.0.0.2", "a.b.example.org"])
def test_python_refuses_it_for_other_names(server, pair, name):
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, pair[0], name)


def test_openssl_accepts_it(pair):
    cert, key = pair
    done = subprocess.run(["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", cert, cert],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{cert}: OK\n"), done.stderr
    text = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-text"], capture_output=True, text=True).stdout
    for line in ("Version: 3 (0x2)", "Public-Key: (256 bit)", "CA:FALSE", "Digital Signature", "DNS:portal.example.org",
                 "TLS Web Server Authentication", "IP Address:0:0:0:0:0:0:0:1", "ecdsa-with-SHA256"):
        assert line in text
    assert subprocess.run(["openssl", "pkey", "-in", key, "-check", "-noout"], capture_output=True).returncode == 0


def test_curl_accepts_it(server, pair):
    url = [f"https://localhost:{server}/", f"https://127.0.0.1:{server}/"]
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", "-4", "--cacert", pair[0], *url], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"hellohello"), done.stderr
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", url[0]], capture_output=True)
    assert done.returncode == 60  # not known to the system: refused


def test_authorities_are_found_wherever_the_distribution_keeps_them(server, pair, monkeypatch):
    """The library's own places do not exist; then neither does any of the known ones."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setattr(certificate, "AUTHORITIES", ("/nowhere/either", pair[0]))
    context = certificate.trusting()
    with socket.create_connection(("127.0.0.1", server)) as sock, context.wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.version() == "TLSv1.3"
    monkeypatch.setattr(certificate, "AUTHORITIES", ("/nowhere/either",))
    with socket.create_connection(("127.0.0.1", server)) as sock, pytest.raises(ssl.SSLCertVerificationError):
        certificate.trusting().wrap_socket(sock, server_hostname="localhost")


def test_names_and_end_are_read_back(tmp_path):
    cert, key = str(tmp_path / "c"), str(tmp_path / "k")
    make([*NAMES, "localhost"], cert, key, clock=lambda: 1_800_000_000.7, days=10)
    names, end = read(cert)
    assert sorted(names) == sorted(NAMES)
    assert end == 1_800_000_000 + 10 * 86400
    check_pair(cert, key)


def test_an_end_after_2049_is_written_in_the_long_form(tmp_path):
    cert = str(tmp_path / "c")
    moment = calendar.timegm((2049, 12, 31, 12, 0, 0))
    make(["localhost"], cert, str(tmp_path / "k"), clock=lambda: moment, days=1)
    assert read(cert)[1] == moment + 86400
    dates = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-dates"], capture_output=True, text=True).stdout
    assert dates == "notBefore=Dec 31 11:00:00 2049 GMT\nnotAfter=Jan  1 12:00:00 2050 GMT\n"


def test_each_certificate_has_its_own_key_and_serial_number(tmp_path, pair):
    make(["localhost"], str(tmp_path / "c2"), str(tmp_path / "k2"))
    serials = [subprocess.run(["openssl", "x509", "-in", path, "-noout", "-serial"], capture_output=True).stdout
               for path in (pair[0], str(tmp_path / "c2"))]
    assert serials[0] != serials[1]
    with pytest.raises(SettingsError, match="k2 is not the key of .*certificate.pem"):
        check_pair(pair[0], str(tmp_path / "k2"))


def test_the_key_is_for_its_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        make(["localhost"], str(tmp_path / "c"), str(tmp_path / "k"))
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "k").st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["c", "k"]  # no temporary file stays


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "full").touch()
    with pytest.raises(OSError):
        make(["localhost"], str(tmp_path / "c"), str(tmp_path / "k"))
    assert os.listdir(tmp_path) == ["k"]


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "-a", "a-", "a..b", "é.org", "x" * 64, "a." * 127 + "bc", "a\n", "1.2.3.4:5"]
)
def test_a_bad_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(SettingsError, match="neither a host name nor an IP address"):
        make(["localhost", name], str(tmp_path / "c"), str(tmp_path / "k"))
    assert os.listdir(tmp_path) == []


def test_no_name_at_all_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="at least one"):
        make([], str(tmp_path / "c"), str(tmp_path / "k"))


def test_a_long_first_name_does_not_go_into_the_subject(tmp_path):
    long = "a" * 40 + "." + "b" * 40
    make([long], str(tmp_path / "c"), str(tmp_path / "k"))
    assert read(str(tmp_path / "c"))[0] == [long]


def test_what_is_wrong_with_a_pair_is_said(tmp_path, pair):
    cert, key = pair
    junk, missing, empty = (str(tmp_path / name) for name in ("junk", "missing", "empty"))
    (tmp_path / "junk").write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff\n")
    (tmp_path / "empty").touch()
    locked, weak, weak_key = (str(tmp_path / name) for name in ("locked", "weak", "weak_key"))
    subprocess.run(["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:x", "-out", locked], check=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=x", "-keyout", weak_key,
                    "-out", weak], check=True, capture_output=True)
    for one, other, sentence in (
        (missing, key, f"{missing} cannot be read: No such file or directory"),
        (cert, missing, f"{missing} cannot be read: No such file or directory"),
        (str(tmp_path), key, f"{tmp_path} cannot be read: Is a directory"),
        (junk, key, f"{junk} is no certificate in PEM form"),
        (empty, key, f"{empty} is no certificate in PEM form"),
        (key, key, f"{key} is no certificate in PEM form"),
        (cert, cert, f"{cert} is no private key in PEM form"),
        (cert, empty, f"{empty} is no private key in PEM form"),
        (cert, locked, f"{locked} is protected by a password, which nobody can type in when the daemon starts"),
        (weak, weak_key, f"{weak}: the key is too short to be safe"),
    ):
        with pytest.raises(SettingsError) as caught:
            check_pair(one, other)
        assert str(caught.value) == sentence
    check_pair(cert, key)
