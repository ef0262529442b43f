"""Checks of the data: folders, database, files, experiments, backups."""

import os
import pwd
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ippd.blobs import NAME
from ippd.checks import backup_trouble
from ippd.disk import refuse_network
from ippd.doctor.patient import DAY, FAIL, OK, WARN, Finding, Patient
from ippd.domain.backup import stamped
from ippd.schema import MIGRATIONS

ROOM = 1 << 30  # bytes below which a disk is nearly full
OLDEST = 1_767_225_600  # 2026-01-01: no clock that is right says less
STUCK = 7 * DAY
AFFECTED = ((3, 7, 0), (3, 51, 3))  # from, to below: SQLite's WAL-reset bug
PRIVATE = ("secret", "ippd.sqlite", "key.pem")


def data_folder(patient: Patient) -> Iterator[Finding]:
    """The data folder and the upload folder."""
    places = dict.fromkeys((patient.folder, Path(patient.settings["data.uploads"])))
    for folder in places:
        if not folder.is_dir():
            yield FAIL, f"{folder} is not there", "start the daemon once, or run ippd install"
            continue
        refuse_network(folder)
        found = folder.stat()
        if found.st_mode & 0o077:
            yield WARN, f"{folder} is open to other accounts (mode {found.st_mode & 0o777:o})", f"chmod 700 {folder}"
        if found.st_uid != os.geteuid() and os.geteuid():
            yield FAIL, f"{folder} belongs to another account", f"chown -R {os.geteuid()} {folder}"
        yield from _inside(folder, found.st_uid)
        yield _room(folder, patient.settings["data.reserve"])


def _room(folder: Path, reserve: int) -> Finding:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_flag & os.ST_RDONLY:
        return FAIL, f"{folder} is on a disk that is mounted read-only", "dmesg may say why; then: mount -o remount,rw"
    if free <= reserve:
        return FAIL, f"{folder} has {free >> 20} MB free", "make room on this disk"
    if disk.f_files and not disk.f_favail:  # file systems that make inodes as they need them say that they have none at all
        return FAIL, f"{folder}: no inodes are free, so no file can be made", "remove small files from this disk"
    if free < ROOM:
        return WARN, f"{folder} has {free >> 20} MB free", "make room on this disk"
    if disk.f_favail < disk.f_files // 50:
        return WARN, f"{folder}: only {disk.f_favail} inodes are free", "remove small files from this disk"
    return OK, f"{folder}: local disk, {free >> 30} GB free", ""


def _inside(folder: Path, owner: int) -> Iterator[Finding]:
    for entry in os.scandir(folder):
        found = entry.stat(follow_symlinks=False)
        if found.st_uid != owner:
            yield FAIL, f"{entry.path} belongs to another account than its folder", f"chown -R {_name(owner)}: {folder}"
        if entry.name in PRIVATE and found.st_mode & 0o077:
            yield WARN, f"{entry.path} is open to other accounts (mode {found.st_mode & 0o777:o})", f"chmod 600 {entry.path}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def database(patient: Patient) -> Iterator[Finding]:
    """The database in itself, and the library that reads it."""
    if AFFECTED[0] <= sqlite3.sqlite_version_info < AFFECTED[1]:
        advice = "use the ippd binary, which has 3.51.3 or newer"
        yield WARN, f"SQLite {sqlite3.sqlite_version} can damage a database in write-ahead mode", advice
    if not (patient.folder / "ippd.sqlite").exists():
        yield WARN, "there is no database yet", "start the daemon once"
        return
    with closing(patient.database()) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if answer != "ok" or dangling:
        what = answer if answer != "ok" else f"a row of {dangling[0]} refers to nothing"
        yield FAIL, f"the database is damaged: {what}", "restore a backup"
    elif not row or not re.fullmatch("[0-9]{1,9}", str(row[0])):
        yield FAIL, f"the database is damaged: {repr(row[0]) if row else 'nothing'} stands for its schema version", "restore a backup"
    elif (version := int(row[0])) > len(MIGRATIONS):
        yield FAIL, f"schema version {version}, this program knows {len(MIGRATIONS)}", "use the newer program, or restore a backup"
    else:
        behind = f"; version {len(MIGRATIONS)} comes with the next start" if version < len(MIGRATIONS) else ""
        yield OK, f"the database is whole, schema version {version}{behind}", ""


def clock(patient: Patient) -> Iterator[Finding]:
    """The clock, against the year and against what is in the database."""
    newest = 0.0
    if (patient.folder / "ippd.sqlite").exists():
        with closing(patient.database()) as connection:
            newest = connection.execute("SELECT MAX(created_at) FROM experiments").fetchone()[0] or 0.0
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(patient.now))
    if patient.now < OLDEST:
        yield FAIL, f"it is {now} here", "set the clock (ntpd, chronyd): tokens and certificates depend on it"
    elif newest > patient.now + 300:
        yield FAIL, f"it is {now} here, and there is an experiment from the future", "set the clock (ntpd, chronyd)"
    else:
        yield OK, f"it is {now}", ""


def orphans(patient: Patient) -> Iterator[Finding]:
    """Files without rows and rows without files."""
    uploads = Path(patient.settings["data.uploads"])
    if not (patient.folder / "ippd.sqlite").exists() or not uploads.is_dir():
        return
    with closing(patient.database()) as connection:
        lost = sum(_differs(uploads / path, size) for path, size in connection.execute("SELECT path, bytes FROM files"))
        loose = 0
        for folder in (entry for entry in os.scandir(uploads) if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False)):
            for entry in filter(_is_ours, os.scandir(folder.path)):
                row = connection.execute("SELECT 1 FROM files WHERE path = ?", (f"{folder.name}/{entry.name}",)).fetchone()
                loose += row is None and entry.stat(follow_symlinks=False).st_mtime < patient.now - STUCK
    if lost:
        yield FAIL, f"{lost} files are missing or have another size than they should", "restore them from a backup"
    if loose:
        yield WARN, f"{loose} files belong to no experiment", "the daemon removes them; or: ippd housekeeping orphans"
    if not lost and not loose:
        yield OK, "every file belongs to an experiment, and none is missing", ""


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether this is a file as the daemon makes and removes them: another server may have left its own in the same folders."""
    return bool(NAME.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)


def _differs(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size != size
    except OSError:
        return True


def stuck(patient: Patient) -> Iterator[Finding]:
    """Experiments and notifications that do not get on."""
    if not (patient.folder / "ippd.sqlite").exists():
        return
    with closing(patient.database()) as connection:
        waiting = connection.execute(
            "SELECT COUNT(*), MIN(id) FROM experiments WHERE status IN ('submitted', 'queued', 'running') "
            "AND MAX(submitted_at, COALESCE(queued_at, 0), COALESCE(running_at, 0), COALESCE(heartbeat_at, 0)) < ?",
            (patient.now - STUCK,)).fetchone()
        (failed,) = connection.execute("SELECT COUNT(*) FROM outbox WHERE status = 'failed'").fetchone()
    if waiting[0]:
        yield WARN, f"{waiting[0]} experiments have not moved for a week, the first is {waiting[1]}", "do the job scripts run?"
    if failed:
        yield WARN, f"{failed} notifications could not be sent", "ippd notifications list --status failed; ippd notifications retry"
    if not waiting[0] and not failed:
        yield OK, "experiments and notifications get on", ""


def backups(patient: Patient) -> Iterator[Finding]:
    """Backups that are made by the clock."""
    folder = patient.settings["backup.directory"]
    if not folder:
        yield WARN, "no backups are made by the clock", "set backup.directory, best on another disk; or run ippd backup from cron"
        return
    sentence, command = backup_trouble(patient.settings)
    if sentence:
        yield FAIL, sentence, command
        return
    made = stamped(Path(folder), "ippd", until=patient.now)
    if ahead := stamped(Path(folder), "ippd")[len(made) :]:
        what = f"{len(ahead)} backups are from the future, the first is {ahead[0][1]}"
        yield WARN, what, "is the clock right? if it was ahead for a moment, remove them or give them the names of when they were made"
    late = patient.now - 2 * patient.settings["backup.interval"]
    if not made or made[-1][0] < late:
        yield WARN, f"there is no recent backup in {folder}", "look into the log for why; is the daemon running?"
    else:
        yield OK, f"the last backup is {made[-1][1]}", ""
