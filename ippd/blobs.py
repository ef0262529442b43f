"""Bytes on disk, whole or not at all: streamed to incoming/, hashed on the way, flushed, then renamed to their place."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO
from pathlib import Path

from ippd.errors import NoSpace, NotFound, TooLarge

CHECK_EVERY = 4 << 20  # bytes between two looks at the free space; each file is preceded by one
LEAST = 1 << 20  # bytes that must be free for writes to the database
LEAST_FILES = 100  # inodes that are left for the daemon's own files
NAME = re.compile(r"[0-9a-f]{32}")  # of a piece, inside its folder


@dataclass(frozen=True)
class Blob:
    """One stored piece: its path below the upload folder, its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


class Blobs:
    """The upload folder. Names of users and of their files never reach the file system: a blob is `<user id>/<random name>`.

    `reserve` bytes of the disk are never filled by uploads, so that the database can still be written when they are refused; a file of
    that size (`reserve_file`) is given up when somebody else fills the disk.
    """

    def __init__(self, folder: Path, reserve: int, reserve_file: Path) -> None:
        self.folder = Path(folder)
        self.incoming = self.folder / "incoming"
        self.reserve = reserve
        self.reserve_file = reserve_file
        self._flushed: set[int] = set()  # users whose folders are on the disk

    def prepare(self) -> None:
        """Make the folders (mode 0700) and the reserve."""
        for folder in (self.folder, self.incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keep_reserve()
        self.make_room()  # a start on a full disk writes to the database as well

    def free(self) -> int:
        """Bytes that uploads may still take; 0 as well when the disk has no number left for a file."""
        disk = os.statvfs(self.incoming)
        if disk.f_files and disk.f_favail <= LEAST_FILES:  # some file systems count none, and say 0 of 0
            return 0
        return max(0, disk.f_bavail * disk.f_frsize - self.reserve)

    def check_room(self, wanted: int) -> None:
        """Raise NoSpace when `wanted` more bytes do not fit beside the reserve."""
        if wanted > self.free():
            raise NoSpace("there is not enough room on the disk for this upload")

    def check_rows(self, log: int) -> None:
        """Raise NoSpace when users may add nothing, not even a row: one without files would spend the reserve as well.

        The database lies beside the reserve; the `log` bytes of its write-ahead log need their place in it once more.
        """
        disk = os.statvfs(self.reserve_file.parent)
        if not self.free() or disk.f_bavail * disk.f_frsize - log <= self.reserve:
            raise NoSpace("there is no room on the disk: nothing can be added now")

    def write(self, owner: int, chunks: Iterable[bytes], limit: int | None = None) -> Blob:
        """Store the chunks of a file of the user `owner`; returns when the bytes are on the disk.

        Raises TooLarge past `limit` bytes, NoSpace when the disk is full; whatever `chunks` raises goes through. Then nothing is left.
        """
        self.check_room(1)  # an empty file takes a place as well
        name = secrets.token_hex(16)
        partial = self.incoming / name
        try:
            with full_disk_told(), open(partial, "xb", buffering=0, opener=private) as file:
                with contextlib.suppress(OSError):  # a file system without locks: then the sweep goes by the time alone
                    flock(file, LOCK_EX)  # until it has its name: the sweep sees by it that the writer lives
                size, digest = self._stream(file, chunks, limit)
                target = self._folder_of(owner)
                partial.rename(target / name)
            flush_folder(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return Blob(f"{owner}/{name}", size, digest)

    def link(self, owner: int, name: str, size: int, sha256: str) -> Blob:
        """A second name for the bytes of the blob `name`, of the user `owner`. Raises NotFound when it is gone."""
        new = secrets.token_hex(16)
        target = self._folder_of(owner)
        try:
            os.link(self.path(name), target / new)
        except FileNotFoundError:
            raise NotFound("this file has been removed") from None
        # Both names have one time: renewed, so that the sweep leaves this one alone until its row is written.
        os.utime(target / new)
        flush_folder(target)
        return Blob(f"{owner}/{new}", size, sha256)

    def _folder_of(self, owner: int) -> Path:
        """The folder of a user, which is on the disk: what is flushed in a folder is lost with it."""
        folder = self.folder / str(owner)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if owner in self._flushed:
                return folder
        flush_folder(self.folder)  # also when another process has just made it, and may not have come so far
        self._flushed.add(owner)
        return folder

    def _stream(self, file: FileIO, chunks: Iterable[bytes], limit: int | None) -> tuple[int, str]:
        digest, size, checked = hashlib.sha256(), 0, 0
        for chunk in chunks:
            size += len(chunk)
            if limit is not None and size > limit:
                raise TooLarge(f"a file may have at most {limit} bytes")
            if size - checked >= CHECK_EVERY:
                self.check_room(1)
                checked = size
            digest.update(chunk)
            write_all(file, chunk)
        os.fsync(file.fileno())
        return size, digest.hexdigest()

    @contextlib.contextmanager
    def batch(self) -> Iterator["Batch"]:
        """Several blobs that belong together: all that were written are removed at the end unless `keep` was called."""
        batch = Batch(self)
        try:
            yield batch
        finally:
            if not batch.kept:
                for blob in batch.blobs:
                    self.remove(blob.path)

    def path(self, name: str) -> Path:
        """Where a blob lies. Raises ValueError for a name that no blob can have."""
        owner, _, rest = name.partition("/")
        if not (owner.isdecimal() and owner.isascii() and rest.isalnum() and rest.isascii()):
            raise ValueError(f"{name!r} does not name a blob")
        return self.folder / owner / rest

    def remove(self, name: str) -> None:
        """Remove a blob; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()

    def sweep(self, known: Callable[[list[str]], set[str]], older_than: float, abandoned: float = 0.0) -> int:
        """Remove bytes that nothing refers to; returns how many pieces. `known` tells which of a list of names are referred to.

        Pieces changed after `older_than` (seconds since 1970) are left: an upload may be under way, or its rows not yet written. So is
        whatever has no name of ours: the folder may have been another server's, whose files lie in folders of user ids as well. What lies
        in incoming/ goes when its writer has died (nobody holds its lock) and it was not changed after `abandoned`, else as the others.
        """
        removed = 0
        for folder in [entry for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]:
            if folder.name != "incoming" and not folder.name.isdecimal():
                continue
            ours = [entry for entry in os.scandir(folder.path) if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]
            partial = folder.name == "incoming"
            since = max(abandoned, older_than) if partial else older_than
            old = [entry for entry in ours if entry.stat(follow_symlinks=False).st_mtime < since]
            names = [f"{folder.name}/{entry.name}" for entry in old if not partial or _is_abandoned(entry.path)]
            used = set() if partial else known(names)
            for name in set(names) - used:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.folder / name)
                    removed += 1
        return removed

    def keep_reserve(self) -> bool:
        """Make the reserve file when there is room for it; returns whether it is there."""
        with contextlib.suppress(FileNotFoundError):
            if self.reserve_file.stat().st_size >= self.reserve:
                return True
        disk = os.statvfs(self.reserve_file.parent)
        if disk.f_bavail * disk.f_frsize < 2 * self.reserve:
            return False
        try:
            with open(self.reserve_file, "wb", opener=private) as file:
                os.posix_fallocate(file.fileno(), 0, self.reserve) if self.reserve else None
        except OSError:
            self.release_reserve()
            return False
        return True

    def make_room(self) -> bool:
        """Give the reserve up before the database meets a full disk; returns whether that was done."""
        disk = os.statvfs(self.reserve_file.parent)
        return disk.f_bavail * disk.f_frsize < LEAST and self.release_reserve()

    def release_reserve(self) -> bool:
        """Give the reserve up, so that the database can be written on a full disk; returns whether there was one."""
        try:
            self.reserve_file.unlink()
        except FileNotFoundError:
            return False
        return True


class Batch:
    """The blobs of one upload (see Blobs.batch)."""

    def __init__(self, blobs: Blobs) -> None:
        self._store = blobs
        self.blobs: list[Blob] = []
        self.kept = False

    def write(self, owner: int, chunks: Iterable[bytes], limit: int | None = None) -> Blob:
        """Store one more (see Blobs.write)."""
        blob = self._store.write(owner, chunks, limit)
        self.blobs.append(blob)
        return blob

    def link(self, owner: int, name: str, size: int, sha256: str) -> Blob:
        """One more that shares the bytes of the stored one called `name` (they are never changed). Raises NotFound when it is gone."""
        self.blobs.append(self._store.link(owner, name, size, sha256))
        return self.blobs[-1]

    def keep(self) -> None:
        """The rows that refer to these blobs are committed."""
        self.kept = True


def _is_abandoned(path: str) -> bool:
    """Whether nobody writes this piece any more."""
    try:
        with open(path, "rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True  # it has just got its name, or was given up; removing it again does no harm


def private(path: str, flags: int) -> int:
    """An opener for open(): new files are their owner's alone, and no link is followed."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_all(file: FileIO, data: bytes) -> None:
    """Write to a file without a buffer, which takes what it likes of each piece (a disk that fills up takes a part)."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextlib.contextmanager
def full_disk_told() -> Iterator[None]:
    """Raises NoSpace where the disk is full, or the quota that it has for this account."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the disk is full: this was not stored") from error
        raise


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is on the disk only after that (fsync(2))."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_text(path: Path, make: Callable[[], str]) -> str:
    """The text of a secret file of mode 0600, made by `make` when it is missing; two processes at once get the same text."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        with open(temporary, "x", encoding="utf-8", opener=private) as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # a link, not a rename: the first one wins
        temporary.unlink()
        flush_folder(path.parent)  # or tokens are given out whose secret is another one after a power cut
    return path.read_text(encoding="utf-8")
