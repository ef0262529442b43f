"""Backups looked at and put back: into a folder of their own first, and only when all of it is right, to their place."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from ippd.blobs import flush_folder
from ippd.domain.archive import DATABASE, SECRETS, Facts, Progress, read
from ippd.domain.backup import check_room, no_progress
from ippd.errors import Conflict, Invalid
from ippd.schema import MIGRATIONS

UNDER_WAY = "restore-under-way"  # while this file is in the data folder, it holds a part of the old and a part of the new
CERTIFICATE = "certificate.pem"
STAGE, OLD = "restoring", "replaced"
MOST_TOLD = 1000  # sentences about damage
LONGEST_CHECK, SLOWEST_CHECK = 60.0, 1 << 20  # seconds to check a database, and a further one for so many of its bytes
LONGEST_VALUE = 64 << 20  # bytes of a value in a row
STEPS = 1000  # of SQLite's machine between two looks at the time


@dataclass
class Verified:
    """What a backup holds (its facts), and sentences about files that were damaged when it was made."""

    facts: Facts
    damage: list[str]


def verify(file: BinaryIO, progress: Progress = no_progress) -> Verified:
    """Read a backup through and compare all of it: bytes with its list, files with its database, the database with itself.

    Raises Invalid when it could not be restored.
    """
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryFile() as found:
        database = Path(work) / DATABASE

        def target(name: str, size: int) -> BinaryIO:
            return open(database if name == DATABASE else os.devnull, "wb")

        facts = read(file, lambda facts: None, target, progress, found)
        return Verified(facts, _check(database, found))


def restore(file: BinaryIO, folder: Path, uploads: Path, overwrite: bool = False, progress: Progress = no_progress) -> Verified:
    """Put a backup in the place of the data folder's database, secrets and certificate, and of the upload folder's files.

    The daemon must not run. Nothing is touched before all of the backup has been unpacked and verified; killed after that, it has to be
    run again, and nothing starts before; what was there before stays in `replaced` until one has succeeded. Raises
    Conflict when there is data (a part of it is enough) and `overwrite` was not said, Invalid, NoSpace.
    """
    if not overwrite and not (folder / UNDER_WAY).exists() and (there := _there(folder, uploads)):
        names = ", ".join(map(str, there))
        raise Conflict(f"there is data already ({names}): ippd restore --overwrite FILE replaces it, and all else")
    # What an interrupted restore moved aside may be the only copy of the old data.
    leftovers = (STAGE,) if (folder / UNDER_WAY).exists() else (STAGE, OLD)
    try:
        for place in (folder, uploads):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in leftovers:
                if (place / left).exists():
                    shutil.rmtree(place / left)
            (place / STAGE).mkdir(mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as found:
            room = _Room(folder, uploads)
            verified = Verified(read(file, room.begin, room.target, progress, found), _check(folder / STAGE / DATABASE, found))
        os.sync()  # one for all: a flush per file would take hours
        (folder / UNDER_WAY).touch(0o600)
        flush_folder(folder)  # before a rename is: the uploads may be on another disk, which keeps no order with this one
        _swap(folder, [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *SECRETS])
        _swap(uploads, [place.name for place in uploads.iterdir() if place.name.isdecimal()])
        os.sync()
        (folder / UNDER_WAY).unlink()
        flush_folder(folder)
    finally:
        for place in (folder, uploads):
            shutil.rmtree(place / STAGE, ignore_errors=True)  # it has secrets
    for place in (folder, uploads):
        shutil.rmtree(place / OLD)
    return verified


def _there(folder: Path, uploads: Path) -> list[Path]:
    """What a restore would take away: uploads may be all that is left, and in no backup. Of their folders one stands for all."""
    there = [folder / name for name in (DATABASE, f"{DATABASE}-wal", *SECRETS) if os.path.lexists(folder / name)]
    with suppress(FileNotFoundError):
        folders = (place for place in uploads.iterdir() if place.name.isdecimal())
        there += islice((place for place in folders if not place.is_dir() or any(place.iterdir())), 1)
    return there


class _Room:
    """Where members are unpacked while there is room: asked again for more than was announced, be it a file that had grown or a lie."""

    def __init__(self, folder: Path, uploads: Path) -> None:
        self._folder, self._uploads = folder, uploads
        self._announced = 0

    def begin(self, facts: Facts) -> None:
        """Raise NoSpace when what is announced does not fit."""
        self._announced = facts["bytes"]
        check_room(self._uploads, self._announced)

    def target(self, name: str, size: int) -> BinaryIO:
        """The file for a member of `size` bytes. Raises NoSpace."""
        path = self._folder / STAGE / name
        if name.startswith("uploads/"):
            path = self._uploads / STAGE / name.removeprefix("uploads/")
            self._announced -= size
        if self._announced < 0 or not name.startswith("uploads/"):
            check_room(self._uploads if name.startswith("uploads/") else self._folder, size)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if name == CERTIFICATE:
            os.fchmod(descriptor, 0o644)  # as it was made: it is what clients are given
        return open(descriptor, "wb")


def _swap(place: Path, names: list[str]) -> None:
    """Move what is there aside, and what was unpacked in. What an interrupted restore moved aside is older, and stays there."""
    (place / OLD).mkdir(mode=0o700, exist_ok=True)
    for name in names:
        here = place / name
        if not (place / OLD / name).exists():
            if here.exists():
                here.rename(place / OLD / name)
        elif here.is_dir():
            shutil.rmtree(here)
        else:
            here.unlink(missing_ok=True)
    for new in (place / STAGE).iterdir():
        new.rename(place / new.name)


def _check(database: Path, found: IO[bytes]) -> list[str]:
    """Sentences about files that are not as the database says. Raises Invalid for a database that cannot be used."""
    if not database.exists():
        raise Invalid("this backup has no database")
    end = time.monotonic() + LONGEST_CHECK + database.stat().st_size / SLOWEST_CHECK
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            _limit(connection, end)
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            version = int(connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0])
            if answer != "ok":
                raise Invalid(f"the database in this backup is damaged: {answer}")
            if version < 1:
                raise Invalid(f"the database in this backup has schema version {version}: there is none such")
            if version > len(MIGRATIONS):
                raise Invalid(f"this backup has schema version {version}, this ippd knows {len(MIGRATIONS)}: a newer ippd made it")
            rows = connection.execute("SELECT path, sha256 FROM files ORDER BY path")
            return list(islice(_differences(rows, _uploads(found)), MOST_TOLD))
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
                raise Invalid(f"the database in this backup cannot be read: {error}") from error
            if time.monotonic() < end:
                raise KeyboardInterrupt from None  # which sqlite3 has swallowed
            raise Invalid("the database in this backup takes too long to be read: it is none of ippd's") from error
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:  # the last three: values of another type than ours
            raise Invalid(f"the database in this backup cannot be read: {error}") from error


def _limit(connection: sqlite3.Connection, end: float) -> None:
    """Who made the database may also have made what is read from it endless, or huge. Raises Invalid for what is no table."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)  # Ctrl-C is heard there as well
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name in ("meta", "files"):
        if name not in tables:
            raise Invalid(f"the database in this backup cannot be read: it has no table {name}")


def _uploads(found: IO[bytes]) -> Iterator[tuple[str, str]]:
    for line in found:
        sha256, _, name = line.decode().rstrip("\n").partition("  ")
        if name.startswith("uploads/"):
            yield name.removeprefix("uploads/"), sha256


def _differences(rows: Iterator[tuple[str, str]], files: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Both in the order of their paths: so no list of all files is held."""
    have = next(files, None)
    for path, sha256 in rows:
        while have and have[0] < path:
            have = next(files, None)  # of no row: removed while the backup was made
        if have is None or have[0] != path:
            yield f"{path} is missing"
        elif have[1] != sha256:
            yield f"{path} is not what was stored: its SHA-256 differs"
