"""Certificates: makes a self-signed one in pure Python (RFC 5280), reads names and end, tries certificate and key, knows whom to trust."""

import _ssl  # the public part of ssl reads certificates of authorities and peers only, not a file
import hashlib
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ecdsa import NIST256p, SigningKey
from ecdsa.der import (
    encode_bitstring,
    encode_constructed,
    encode_implicit,
    encode_integer,
    encode_octet_string,
    encode_oid,
    encode_sequence,
)
from ecdsa.util import sigencode_der

from ippd.errors import SettingsError
from ippd.wholefile import whole_file

DAYS = 825  # the longest that Apple's clients accept
COMMON_NAME = 64  # characters, RFC 5280 appendix A (ub-common-name)
DAY = 86400
# Where distributions keep the authorities: Debian, SUSE, Red Hat. The one-file program's OpenSSL looks at Red Hat's place only.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cert.pem")
LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"  # of a host name; browsers take the underscore as well


def trusting(authority: str | None = None) -> ssl.SSLContext:
    """For a client: trusts the authorities in this file, else the host's (or those that SSL_CERT_FILE and SSL_CERT_DIR name).

    Raises OSError or ssl.SSLError for a file that cannot be used.
    """
    known = ssl.get_default_verify_paths()
    if authority is None and not known.cafile and not known.capath:
        authority = next((path for path in AUTHORITIES if Path(path).is_file()), None)
    return ssl.create_default_context(cafile=authority)


def _sequence(*parts: bytes) -> bytes:
    made: bytes = encode_sequence(*parts)
    return made


ECDSA_SHA256 = _sequence(encode_oid(1, 2, 840, 10045, 4, 3, 2))
SUBJECT_KEY, KEY_USAGE, ALT_NAME, BASIC = ((2, 5, 29, last) for last in (14, 15, 17, 19))
EXTENDED_USAGE = (2, 5, 29, 37)
SERVER_AUTH = encode_oid(1, 3, 6, 1, 5, 5, 7, 3, 1)


def make(
    names: Iterable[str], cert_path: str, key_path: str, clock: Callable[[], float] = time.time, days: int = DAYS
) -> None:
    """Write a new P-256 key (mode 0600) and a self-signed certificate for host names and IP addresses.

    Each file is there whole or not at all; the key comes first. Raises SettingsError for a name that is none, OSError.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        raise SettingsError("a certificate needs at least one host name or IP address")
    key = SigningKey.generate(NIST256p)
    content = _certificate(wanted, key, int(clock()) - 3600, int(clock()) + days * DAY)
    with whole_file(Path(key_path), 0o600) as file:
        file.write(key.to_pem(format="pkcs8"))
    with whole_file(Path(cert_path), 0o644) as file:
        file.write(ssl.DER_cert_to_PEM_cert(content).encode("ascii"))


def possible(name: str) -> bool:
    """Whether a certificate can be made for this name."""
    try:
        return bool(_general_name(name))
    except SettingsError:
        return False


def read(cert_path: str) -> tuple[list[str], float]:
    """The names in the (first) certificate of a PEM file and its end in seconds since 1970. Raises SettingsError."""
    _try_open(cert_path)
    try:
        found: Any = _ssl._test_decode_cert(cert_path)  # type: ignore[attr-defined]
    except OSError:  # ssl.SSLError is one
        raise SettingsError(f"{cert_path} is no certificate in PEM form") from None
    pairs = found.get("subjectAltName", ())
    names = [value for kind, value in pairs if kind == "DNS"]
    names += [str(ip_address(value.strip())) for kind, value in pairs if kind == "IP Address"]
    return names, float(ssl.cert_time_to_seconds(found["notAfter"]))


def pair(settings: Mapping[str, Any]) -> tuple[str, str]:
    """The paths of the public listener's certificate and key: those of the settings, else the self-made ones."""
    folder = Path(settings["data.directory"])
    return (settings["public.certificate"] or str(folder / "certificate.pem"), settings["public.key"] or str(folder / "key.pem"))


def check_pair(cert_path: str, key_path: str) -> None:
    """Try the pair as a server would. Raises SettingsError with a sentence when it cannot be used."""

    def no_password() -> str:
        raise SettingsError(f"{key_path} is protected by a password, which nobody can type in when the daemon starts")

    read(cert_path)
    _try_open(key_path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, no_password)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise SettingsError(f"{key_path} is not the key of {cert_path}") from None
        if error.reason == "EE_KEY_TOO_SMALL":
            raise SettingsError(f"{cert_path}: the key is too short to be safe") from None
        raise SettingsError(f"{key_path} is no private key in PEM form") from None


def _try_open(path: str) -> None:
    """The ssl module does not say which file it could not open, nor why."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def _certificate(names: list[str], key: SigningKey, begin: int, end: int) -> bytes:
    """The DER form (RFC 5280, 4.1): what is signed, the algorithm, the signature. Times in seconds since 1970."""
    public = key.verifying_key
    alternatives = _sequence(*map(_general_name, names))
    common = next((name for name in names if len(name) <= COMMON_NAME), "ippd")
    attribute = _sequence(encode_oid(2, 5, 4, 3), _tagged(0x0C, common.encode("ascii")))  # a UTF8String
    name = _sequence(_tagged(0x31, attribute))  # a SET with one element
    extensions = _sequence(
        _extension(ALT_NAME, alternatives),
        _extension(BASIC, _sequence(), critical=True),  # not an authority: it can vouch for nothing but itself
        _extension(KEY_USAGE, encode_bitstring(b"\x80", 7), critical=True),  # digitalSignature
        _extension(EXTENDED_USAGE, _sequence(SERVER_AUTH)),
        _extension(SUBJECT_KEY, encode_octet_string(hashlib.sha1(public.to_string("uncompressed")).digest())),
    )
    signed = _sequence(
        encode_constructed(0, encode_integer(2)),  # version 3
        encode_integer(secrets.randbits(159) | 1 << 158),  # serial number: positive, at most 20 bytes
        ECDSA_SHA256,
        name,  # issuer
        _sequence(_time(begin), _time(end)),
        name,  # subject
        public.to_der(),
        encode_constructed(3, extensions),
    )
    signature = key.sign_deterministic(signed, hashfunc=hashlib.sha256, sigencode=sigencode_der)
    return _sequence(signed, ECDSA_SHA256, encode_bitstring(signature, 0))


def _extension(oid: tuple[int, ...], value: bytes, critical: bool = False) -> bytes:
    return _sequence(encode_oid(*oid), _tagged(0x01, b"\xff") if critical else b"", encode_octet_string(value))


def _general_name(name: str) -> bytes:
    """An IP address or a host name, as in RFC 5280, 4.2.1.6."""
    made: bytes
    with suppress(ValueError):
        made = encode_implicit(7, ip_address(name).packed)
        return made
    if len(name) > 253 or not re.fullmatch(rf"(\*\.)?{LABEL}(\.{LABEL})*", name):
        raise SettingsError(f"{name!r} is neither a host name nor an IP address; no certificate can be made for it")
    made = encode_implicit(2, name.encode("ascii"))
    return made


def _time(when: int) -> bytes:
    """UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5)."""
    moment = time.gmtime(when)
    short = moment.tm_year < 2050
    text = time.strftime("%y%m%d%H%M%SZ" if short else "%Y%m%d%H%M%SZ", moment).encode("ascii")
    return _tagged(0x17 if short else 0x18, text)


def _tagged(tag: int, content: bytes) -> bytes:
    """A DER value (X.690, 8.1) of a tag for which ecdsa has no function; at most 127 bytes: the length is one byte."""
    return bytes((tag, len(content))) + content
