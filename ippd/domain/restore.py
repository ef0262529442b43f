"""Backups looked at and put back: into a folder of their own first, and only when all of it is right, to their place."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from ippd.domain.archive import DATABASE, SECRETS, Facts, Progress, read
from ippd.domain.backup import check_room, no_progress
from ippd.errors import Conflict, Invalid
from ippd.schema import MIGRATIONS

UNDER_WAY = "restore-under-way"  # while this file is in the data folder, it holds a part of the old and a part of the new
STAGE, OLD = "restoring", "replaced"
MOST_TOLD = 1000  # sentences about damage


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

        def target(name: str) -> BinaryIO:
            return open(database if name == DATABASE else os.devnull, "wb")

        facts = read(file, lambda facts: None, target, progress, found)
        return Verified(facts, _check(database, found))


def restore(file: BinaryIO, folder: Path, uploads: Path, overwrite: bool = False, progress: Progress = no_progress) -> Verified:
    """Put a backup in the place of the data folder's database, secrets and certificate, and of the upload folder's files.

    The daemon must not run. Nothing is touched before all of the backup has been unpacked and verified; killed after that, it has to be
    run again, and nothing starts before. Raises Conflict when there is data and `overwrite` was not said, Invalid, NoSpace.
    """
    if (folder / DATABASE).exists() and not overwrite and not (folder / UNDER_WAY).exists():
        raise Conflict(f"{folder} holds a database already: it is replaced only with --overwrite")
    for place in (folder, uploads):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in (place / STAGE, place / OLD):
            if left.exists():
                shutil.rmtree(left)
        (place / STAGE).mkdir(mode=0o700)
    with tempfile.TemporaryFile(dir=folder) as found:
        facts = read(file, lambda facts: check_room(uploads, facts["bytes"]), _target(folder / STAGE, uploads / STAGE), progress, found)
        verified = Verified(facts, _check(folder / STAGE / DATABASE, found))
    os.sync()  # one for all: a flush per file would take hours
    (folder / UNDER_WAY).touch(0o600)
    _swap(folder, [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *SECRETS])
    _swap(uploads, [place.name for place in uploads.iterdir() if place.name.isdecimal()])
    os.sync()
    (folder / UNDER_WAY).unlink()
    for place in (folder, uploads):
        shutil.rmtree(place / OLD)
        shutil.rmtree(place / STAGE)
    return verified


def _target(folder: Path, uploads: Path):  # type: ignore[no-untyped-def]  # a Target
    def target(name: str) -> BinaryIO:
        path = uploads / name.removeprefix("uploads/") if name.startswith("uploads/") else folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    return target


def _swap(place: Path, names: list[str]) -> None:
    """Move what is there aside, and what was unpacked in."""
    (place / OLD).mkdir(mode=0o700)
    for name in names:
        if (place / name).exists():
            (place / name).rename(place / OLD / name)
    for new in (place / STAGE).iterdir():
        new.rename(place / new.name)


def _check(database: Path, found: IO[bytes]) -> list[str]:
    """Sentences about files that are not as the database says. Raises Invalid for a database that cannot be used."""
    if not database.exists():
        raise Invalid("this backup has no database")
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            version = int(connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0])
        except (sqlite3.Error, TypeError) as error:
            raise Invalid(f"the database in this backup cannot be read: {error}") from error
        if answer != "ok":
            raise Invalid(f"the database in this backup is damaged: {answer}")
        if version > len(MIGRATIONS):
            raise Invalid(f"this backup has schema version {version}, this ippd knows {len(MIGRATIONS)}: a newer ippd made it")
        rows = connection.execute("SELECT path, sha256 FROM files ORDER BY path")
        return list(islice(_differences(rows, _uploads(found)), MOST_TOLD))


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
