"""Backups: made while the daemon serves, kept for a number of times, checked and put back."""

import calendar
import hashlib
import logging
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ippd import VERSION
from ippd.blobs import flush_folder, full_disk_told
from ippd.domain.archive import DATABASE, FACTS, FORMAT, SECRETS, Progress, Writer
from ippd.errors import NoSpace
from ippd.permissions import Actor, permits
from ippd.store import Store
from ippd.wholefile import whole_file

if TYPE_CHECKING:
    from ippd.core import Core

STAMP = "%Y%m%dT%H%M%SZ"
LEFT = 86400.0  # seconds after which what a killed backup left is removed
MOST_TOLD = 20  # sentences about damage in a message; the log has all of them

log = logging.getLogger(__name__)


@dataclass
class Made:
    """What is in a backup: how many files, their bytes, and sentences about files that are not as the database says."""

    files: int = 0
    bytes: int = 0
    damage: list[str] = field(default_factory=list)


def no_progress(size: int) -> None:
    """For callers that do not want to hear of it."""


class Backups:
    """Makes backups of one store with its files and secrets."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._folder = Path(core.settings["data.directory"])

    @permits("backup.make")
    def size(self, actor: Actor) -> int:
        """The bytes that a backup made now would take, about."""
        files = self._core.store.value("SELECT COALESCE(SUM(bytes), 0) + 1024 * COUNT(*) FROM files")
        return int(files) + self._core.store.path.stat().st_size

    @permits("backup.make")
    def make(self, actor: Actor, file: BinaryIO, progress: Progress = no_progress) -> Made:
        """Write a backup to a file that is open for writing.

        Files that are removed meanwhile are left out of both. A file that is missing or damaged does not stop it: it is named in what
        is returned, and again whenever the backup is verified. Raises OSError.
        """
        made = Made()
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=self._folder) as folder:
            copy = Path(folder) / DATABASE
            self._core.store.copy_to(copy)
            writer = Writer(file, self._core.clock(), progress)
            with closing(sqlite3.connect(copy, isolation_level=None)) as database:
                writer.add_json(FACTS, self._facts(database))
                self._add_files(writer, database, made)
            with open(copy, "rb") as source:
                writer.add(DATABASE, source)
            for name in SECRETS:
                with suppress(FileNotFoundError), open(self._folder / name, "rb") as source:
                    writer.add(name, source)
            writer.finish()
        return made

    def _facts(self, database: sqlite3.Connection) -> dict[str, object]:
        count, size = database.execute("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM files").fetchone()
        facts = {"format": FORMAT, "ippd": VERSION, "schema": self._core.store.version(), "created_at": self._core.clock()}
        return facts | {"files": count, "bytes": size}

    def _add_files(self, writer: Writer, database: sqlite3.Connection, made: Made) -> None:
        gone = []
        for path, sha256 in database.execute("SELECT path, sha256 FROM files ORDER BY path"):
            try:
                with open(self._core.blobs.path(path), "rb") as source:
                    digest = writer.add(f"uploads/{path}", source)
                    made.bytes += source.tell()
            except FileNotFoundError:
                if self._core.store.one("SELECT id FROM files WHERE path = :path", path=path):
                    made.damage.append(f"{path} is missing")
                else:
                    gone.append((path,))
                continue
            made.files += 1
            if digest != sha256:
                made.damage.append(f"{path} is not what was stored: its SHA-256 differs")
        with database:
            database.executemany("DELETE FROM files WHERE path = ?", gone)

    @permits("backup.make")
    def scheduled(self, actor: Actor) -> int:
        """Make a backup in `backup.directory` when the last one there is older than `backup.interval`; keep `backup.keep`.

        Damaged files are logged, the administrator hears of them, and no older backup is removed: one of them may be the last that
        has these files. Returns how many were made. Raises NoSpace when there is no room for one beside the reserve.
        """
        settings, now = self._core.settings, self._core.clock()
        if not settings["backup.directory"]:
            return 0
        folder = Path(settings["backup.directory"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clean(folder)
        kept = stamped(folder, "ippd", until=now)
        if kept and now - kept[-1][0] < settings["backup.interval"]:
            return 0
        check_room(folder, self.size(actor) + settings["data.reserve"])
        path = folder / name("ippd", now)
        with whole_file(path) as file:
            made = self.make(actor, file)
        if made.damage:
            self._tell(path, made.damage)
        else:
            prune(folder, "ippd", settings["backup.keep"], now)
        return 1

    def _tell(self, path: Path, damage: list[str]) -> None:
        """Log damage and tell the administrator: once, and again when it is another."""
        for sentence in damage:
            log.error("%s: damaged before the backup was made: %s", path, sentence)
        told = damage[:MOST_TOLD] + ([f"and {len(damage) - MOST_TOLD} more"] if len(damage) > MOST_TOLD else [])
        key = f"damage:{hashlib.sha256(repr(damage).encode()).hexdigest()}"
        with self._core.store.write():
            self._core.notifications.add("backup_damaged", unique=key, path=str(path), count=len(damage), damage="\n".join(told))

    def _clean(self, folder: Path) -> None:
        """Remove what backups left that were killed in the middle."""
        for left in (*self._folder.glob(f".backup-*/{DATABASE}*"), *self._folder.glob(".backup-*"), *folder.glob(".ippd-*.partial")):
            with suppress(OSError):
                if left.stat().st_mtime < self._core.clock() - LEFT:
                    left.rmdir() if left.is_dir() else left.unlink()


def before_migration(store: Store, folder: Path, keep: int, clock: Callable[[], float]) -> Path:
    """Copy a database that is about to be migrated to `folder`, under a name with its schema version; `keep` of these stay."""
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        flush_folder(folder.parent)
    kind = f"before-schema-{store.version() + 1}"
    path = folder / name(kind, clock(), "sqlite")
    with _room_told(store, folder), tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as work:
        copy = Path(work) / DATABASE
        copy.touch(0o600)
        store.copy_to(copy)
        copy.rename(path)
    flush_folder(folder)
    prune(folder, kind, keep, clock(), "sqlite")
    return path


def name(kind: str, now: float, ending: str = "tar") -> str:
    """The file name of a backup: ippd-20270115T080000Z.tar."""
    return f"{kind}-{time.strftime(STAMP, time.gmtime(now))}.{ending}"


def stamped(folder: Path, kind: str, ending: str = "tar", until: float = math.inf) -> list[tuple[float, Path]]:
    """The backups of a kind in a folder with their times in seconds since 1970, oldest first.

    Those later than `until` are left out: a clock that was ahead for a moment has made them, and they are older than they say.
    """
    found = []
    for path in folder.glob(f"{kind}-????????T??????Z.{ending}"):
        with suppress(ValueError):
            found.append((float(_seconds(path.name[len(kind) + 1 : -len(ending) - 1])), path))
    return sorted(one for one in found if one[0] <= until)


def _seconds(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, STAMP))


def prune(folder: Path, kind: str, keep: int, now: float, ending: str = "tar") -> None:
    """Remove all backups of a kind but the newest `keep`; those that say they are from the future stay and do not count."""
    for _, path in stamped(folder, kind, ending, now)[:-keep]:
        path.unlink(missing_ok=True)


@contextmanager
def _room_told(store: Store, folder: Path) -> Iterator[None]:
    """Raise NoSpace in words for whoever starts a newer program, who has not asked for a copy."""
    try:
        check_room(folder, sum(path.stat().st_size for path in store.path.parent.glob(f"{DATABASE}*") if not path.name.endswith("-shm")))
        with full_disk_told():
            yield
    except NoSpace as error:
        raise NoSpace(
            f"the copy that is made before a migration of the database finds no room: make some, or set backup.directory ({error})"
        ) from error


def check_room(folder: Path, wanted: int) -> None:
    """Raise NoSpace when `wanted` bytes do not fit on the disk of `folder`."""
    disk = os.statvfs(folder)
    if wanted > disk.f_bavail * disk.f_frsize:
        raise NoSpace(f"{folder}: a backup of {wanted} bytes does not fit on this disk")
