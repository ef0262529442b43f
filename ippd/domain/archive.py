"""The format of a backup: a plain tar file whose last member, SHA256SUMS, lists all others; read and written with flat memory."""

import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from typing import IO, Any, BinaryIO, Self

from ippd.errors import Invalid

Progress = Callable[[int], None]  # called with the number of bytes since the last call
Target = Callable[[str, int], BinaryIO]  # name and number of bytes of a member -> where they go
Facts = dict[str, Any]  # what backup.json says

FACTS, DATABASE, SUMS = "backup.json", "ippd.sqlite", "SHA256SUMS"
SECRETS = ("secret", "certificate.pem", "key.pem")
MEMBER = re.compile(r"uploads/[0-9]{1,19}/[0-9a-zA-Z]{1,64}")
FORMAT = 1
MOST_BYTES = 1 << 62
MOST_NAME = 64 << 10  # bytes of a header that gives a member a long name, or says more of it
LONGEST_LINE = 4096  # bytes; ours have less than 200
NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LAST_TIME = 253402300799  # the end of the year 9999: no later time can be shown
CHUNK = 1 << 20
STEADY = 32 << 20  # bytes after which what was written is flushed, so that others on the disk never wait for much


class _Header(tarfile.TarInfo):
    """What tarfile makes of a header. Names and what pax says of a member it reads as a whole, so nobody may say that they are large."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The next header. Raises Invalid."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in NAMES and not 0 <= info.size <= MOST_NAME:
            raise Invalid("this is no backup of ippd")
        return info


class _Hashing:
    """A file that is read through, hashing on the way."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self.sha256 = hashlib.sha256()
        self._file, self._progress = file, progress

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self.sha256.update(data)
        self._progress(len(data))
        return data


class Writer:
    """Writes a backup to a file that is open for writing: `add` the members in order, then `finish`."""

    def __init__(self, file: BinaryIO, now: float, progress: Progress) -> None:
        self._file, self._now, self._progress = file, now, progress
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.GNU_FORMAT)
        self._sums = tempfile.TemporaryFile()  # noqa: SIM115  # closed by finish()
        self._flushed = 0

    def add(self, name: str, source: IO[bytes]) -> str:
        """Add a member with all bytes of an open file; returns their SHA-256 in hexadecimal. Raises OSError when they become fewer."""
        hashing = _Hashing(source, self._added)
        self._member(name, os.fstat(source.fileno()).st_size, hashing)
        digest = hashing.sha256.hexdigest()
        self._sums.write(f"{digest}  {name}\n".encode())
        return digest

    def add_json(self, name: str, value: Any) -> None:
        """Add a member that is JSON."""
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(value, indent=2).encode())
            file.seek(0)
            self.add(name, file)

    def finish(self) -> None:
        """Write the list of what was added, and the end."""
        size = self._sums.tell()
        self._sums.seek(0)
        self._member(SUMS, size, self._sums)
        self._tar.close()
        self._sums.close()

    def _member(self, name: str, size: int, source: Any) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(self._now)
        self._tar.addfile(info, source)
        self._tar.members = []  # type: ignore[attr-defined]  # or it would remember all of them

    def _added(self, size: int) -> None:
        self._progress(size)
        self._flushed += size
        if self._flushed >= STEADY:
            self._flushed = 0
            self._file.flush()
            os.fdatasync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(file: BinaryIO, begin: Callable[[Facts], None], target: Target, progress: Progress, found: IO[bytes]) -> Facts:
    """Read a backup from its beginning, write each member to `target(name, bytes)`, compare all with the list at the end.

    `begin` gets the facts before the first member; they are returned as well. `found`, an empty file, is filled with lines
    `sha256  name`. Raises Invalid for a file that is no backup, that is not whole, or that differs from its list.
    """
    facts: Facts = {}
    order = _Order()
    try:
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as tar:
            while info := tar.next():
                tar.members = []  # type: ignore[attr-defined]
                # The holes of a sparse member would be written out: a small file that fills any disk.
                source = tar.extractfile(info) if info.isreg() and not info.issparse() and info.size >= 0 else None
                if source is None or not (info.name in (FACTS, DATABASE, SUMS, *SECRETS) or MEMBER.fullmatch(info.name)):
                    raise Invalid("this is no backup of ippd")
                order.check(info.name)
                if not facts:
                    facts, digest = _facts(info.name, source)
                    found.write(f"{digest}  {FACTS}\n".encode())
                    begin(facts)
                elif info.name == SUMS:
                    _compare(found, source)
                    return facts
                else:
                    found.write(f"{_copy(source, target(info.name, info.size), progress)}  {info.name}\n".encode())
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        # ValueError and OverflowError: numbers in a header that are none; RecursionError: headers of headers of headers
        raise Invalid(f"this is no backup of ippd, or it is not whole: {error}") from error
    raise Invalid("this backup is not whole: its end is missing")


class _Order:
    """The names of members as they come: files in the order of their paths, so that none is there twice and no list is held."""

    def __init__(self) -> None:
        self._others = set[str]()
        self._last = ""

    def check(self, name: str) -> None:
        """Raise Invalid for a name that was there already."""
        if name in self._others or (name.startswith("uploads/") and name <= self._last):
            raise Invalid(f"this is no backup of ippd: {name} is there twice, or not in its place")
        if name.startswith("uploads/"):
            self._last = name
        else:
            self._others.add(name)


def _facts(name: str, source: IO[bytes]) -> tuple[Facts, str]:
    data = source.read(CHUNK)
    try:
        facts = json.loads(data) if name == FACTS else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not _usable(facts):
        raise Invalid("this is no backup of ippd that this version can read")
    return facts, hashlib.sha256(data).hexdigest()


def _usable(facts: Facts) -> bool:
    """Whether the facts have the numbers that are counted on and shown later."""
    counts = all(type(facts.get(key)) is int and 0 <= facts[key] <= MOST_BYTES for key in ("bytes", "files"))
    return counts and type(facts.get("created_at")) in (int, float) and 0 <= facts["created_at"] <= LAST_TIME


def _copy(source: IO[bytes], target: BinaryIO, progress: Progress) -> str:
    hashing = _Hashing(source, progress)
    with target:
        while data := hashing.read(CHUNK):
            target.write(data)
    return hashing.sha256.hexdigest()


def _compare(found: IO[bytes], listed: IO[bytes]) -> None:
    """Raise Invalid with the first name whose bytes are not what the list says."""
    found.seek(0)
    for ours, theirs in zip_longest(found, iter(lambda: listed.readline(LONGEST_LINE), b"")):
        if ours != theirs:
            name = (theirs or ours).decode("utf-8", "replace").partition("  ")[2].strip()
            raise Invalid(f"this backup is damaged: {name} is not what was written")
    found.seek(0)
