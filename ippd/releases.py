"""Releases and their signatures: Ed25519 (RFC 8032) over a few lines that name kind, version, size and SHA-256 of a file."""

import base64
import binascii
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ecdsa import BadSignatureError, Ed25519, SigningKey, VerifyingKey
from ecdsa.errors import MalformedPointError

from ippd.errors import Forbidden, Invalid

KINDS = ("program", "frontend")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
LONGEST = 4096  # bytes of a signature file
CHUNK = 1 << 20
LINES = "ippd-release 1\nkind {}\nversion {}\nsize {}\nsha256 {}\n"
SIGNED = re.compile(
    rf"(ippd-release 1\nkind ({'|'.join(KINDS)})\nversion ({VERSION.pattern})\nsize ([0-9]{{1,15}})\nsha256 ([0-9a-f]{{64}})\n)"
    r"signature ([A-Za-z0-9+/]{86}==)\n"
)


@dataclass(frozen=True)
class Release:
    """What was signed: the kind, the version, the size in bytes and the SHA-256 in hexadecimal of a file."""

    kind: str
    version: str
    size: int
    sha256: str


def new_key() -> tuple[str, str]:
    """A new pair of keys as text: (the secret one, the public one for update.key)."""
    key = SigningKey.generate(Ed25519)
    return _text(key.to_string()), _text(key.verifying_key.to_string())


def public_half(secret: str) -> str:
    """The public key of a pair, for update.key. Raises Invalid when the secret one is none."""
    return _text(_key(secret).verifying_key.to_string())


def sign(path: Path, kind: str, version: str, secret: str) -> str:
    """The text of the signature file for a file. Raises Invalid for a kind, a version or a key that is none, OSError."""
    if kind not in KINDS or not VERSION.fullmatch(version):
        raise Invalid(f"{kind} {version} is no name of a release")
    key = _key(secret)
    with open(path, "rb") as file:
        size, sha256 = digest(file)
    lines = LINES.format(kind, version, size, sha256)
    return f"{lines}signature {_text(key.sign(lines.encode()))}\n"


def _key(secret: str) -> SigningKey:
    try:
        return SigningKey.from_string(base64.b64decode(secret.strip(), validate=True), Ed25519)
    except (binascii.Error, ValueError, MalformedPointError) as error:
        raise Invalid("this is no secret key of ippd release key") from error


def check(signature: str, kind: str, public: str) -> Release:
    """What a signature file says of a release, when it was signed with the secret key that belongs to `public`.

    Raises Forbidden for everything else: no key, no signature, another key, another kind.
    """
    if not public:
        raise Forbidden("update.key is not set: no release can be checked, so none is taken")
    found = SIGNED.fullmatch(signature)
    if not found:
        raise Forbidden("this is no signature of a release")
    try:
        key = VerifyingKey.from_string(base64.b64decode(public, validate=True), Ed25519)
        key.verify(base64.b64decode(found[6]), found[1].encode())
    except (BadSignatureError, MalformedPointError, binascii.Error, ValueError, AssertionError) as error:
        raise Forbidden("the signature of this release was not made with the key of update.key") from error
    if found[2] != kind:
        raise Forbidden(f"this is a release of the {found[2]}, not of the {kind}")
    return Release(found[2], found[3], int(found[4]), found[5])


def older(version: str, other: str) -> bool:
    """Whether a version is older than another: the dotted numbers that they begin with count, and nothing when one has none."""
    one, two = _numbers(version), _numbers(other)
    return bool(one and two) and one < two


def _numbers(version: str) -> list[int]:
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while len(numbers) > 1 and not numbers[-1]:  # 1.0 is 1
        numbers.pop()
    return numbers


def opened(path: Path) -> IO[bytes]:
    """A file of a release, open for reading. Raises Forbidden for what is no file: opening a pipe would wait for who writes to it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Forbidden(f"{path} is no file")
    return open(descriptor, "rb")


def read_signature(path: Path) -> str:
    """The signature file that lies beside a release (FILE.sig). Raises Forbidden when there is none."""
    try:
        with opened(path.with_name(f"{path.name}.sig")) as file:
            return file.read(LONGEST).decode("ascii")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise Forbidden(f"{path}.sig is missing or no signature: the release is not taken") from error


def copy(release: Release, source: IO[bytes], target: IO[bytes]) -> None:
    """Copy the file of a release, and compare what was copied with what was signed. Raises Forbidden when it is not that."""
    sha256, size = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        size += len(data)
        sha256.update(data)
        target.write(data)
    compare(release, (size, sha256.hexdigest()))


def compare(release: Release, found: tuple[int, str]) -> None:
    """Compare size and SHA-256 of a file with what was signed. Raises Forbidden when it is not that."""
    if found != (release.size, release.sha256):
        raise Forbidden("this file is not the one that was signed")


def digest(file: IO[bytes]) -> tuple[int, str]:
    """Size in bytes and SHA-256 in hexadecimal of an open file."""
    sha256, size = hashlib.sha256(), 0
    while data := file.read(CHUNK):
        size += len(data)
        sha256.update(data)
    return size, sha256.hexdigest()


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")
