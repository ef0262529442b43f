"""What can be wrong on a host, as numbered checks: each answers OK, WARN or FAIL, with what to do about it."""

import grp
import os
import pwd
import resource
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ippd import certificate, probe
from ippd.domain.backup import stamped
from ippd.errors import IppdError
from ippd.mail import connect
from ippd.schema import MIGRATIONS
from ippd.store import refuse_network

OK, WARN, FAIL = "OK", "WARN", "FAIL"
DAY = 86400.0
ROOM = 1 << 30  # bytes below which a disk is nearly full
UNPACKED = 64 << 20  # bytes that the program takes where it unpacks itself
SPARE_FILES = 500  # see daemon.py
OLDEST = 1_767_225_600  # 2026-01-01: no clock that is right says less
STUCK = 7 * DAY
AFFECTED = ((3, 7, 0), (3, 51, 3))  # from, to below: SQLite's WAL-reset bug

Finding = tuple[str, str, str]  # level, what was found, what to do


@dataclass
class Patient:
    """What the checks look at."""

    settings: Mapping[str, Any]
    now: float

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.settings["data.directory"])

    def database(self) -> sqlite3.Connection:
        """The database, for reading. Raises sqlite3.Error."""
        return sqlite3.connect(f"{(self.folder / 'ippd.sqlite').as_uri()}?mode=ro", uri=True, timeout=10)


def examine(settings: Mapping[str, Any], now: float) -> Iterator[dict[str, Any]]:
    """All checks, one by one: {number, name, level, found, advice}. A check that breaks has failed."""
    patient = Patient(settings, now)
    number = 0
    for name, check in CHECKS:
        try:
            findings = list(check(patient))
        except (IppdError, OSError, sqlite3.Error) as error:
            findings = [(FAIL, str(error), "mend this first; other checks may depend on it")]
        for level, found, advice in findings:
            number += 1
            yield {"number": number, "name": name, "level": level, "found": found, "advice": advice}


def unpack(patient: Patient) -> Iterator[Finding]:
    """Where the one-file program unpacks itself."""
    folder = Path(getattr(sys, "_MEIPASS", tempfile.gettempdir()))
    where = folder.parent if hasattr(sys, "_MEIPASS") else folder
    disk = os.statvfs(where)
    if disk.f_flag & os.ST_NOEXEC:
        yield FAIL, f"{where} forbids programs (noexec)", "set TMPDIR to a folder on another file system, as /var/lib/ippd"
    elif disk.f_bavail * disk.f_frsize < UNPACKED:
        yield FAIL, f"{where} has less than {UNPACKED >> 20} MB free", "make room there, or set TMPDIR"
    elif hasattr(sys, "_MEIPASS") and where in (Path("/tmp"), Path("/var/tmp")):
        yield WARN, f"the program unpacks itself in {where}", "tmp cleaners remove files there: set TMPDIR to the data folder"
    else:
        yield OK, f"{where} can hold the unpacked program", ""


def data_folder(patient: Patient) -> Iterator[Finding]:
    """The data folder and the upload folder."""
    places = dict.fromkeys((patient.folder, Path(patient.settings["data.uploads"])))
    for folder in places:
        if not folder.is_dir():
            yield FAIL, f"{folder} is not there", "start the daemon once, or run ippd install"
            continue
        refuse_network(folder)
        found = folder.stat()
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if found.st_mode & 0o077:
            yield WARN, f"{folder} is open to other accounts (mode {found.st_mode & 0o777:o})", f"chmod 700 {folder}"
        if found.st_uid != os.geteuid() and os.geteuid():
            yield FAIL, f"{folder} belongs to another account", f"chown -R {os.geteuid()} {folder}"
        if free < ROOM:
            level = WARN if free > patient.settings["data.reserve"] else FAIL
            yield level, f"{folder} has {free >> 20} MB free", "make room on this disk"
        elif disk.f_files and disk.f_favail < disk.f_files // 50:
            yield WARN, f"{folder}: only {disk.f_favail} inodes are free", "remove small files from this disk"
        else:
            yield OK, f"{folder}: local disk, {free >> 30} GB free", ""


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
        version = int(connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0])
        dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if answer != "ok" or dangling:
        what = answer if answer != "ok" else f"a row of {dangling[0]} refers to nothing"
        yield FAIL, f"the database is damaged: {what}", "restore a backup"
    elif version > len(MIGRATIONS):
        yield FAIL, f"schema version {version}, this program knows {len(MIGRATIONS)}", "use the newer program, or restore a backup"
    else:
        behind = f"; version {len(MIGRATIONS)} comes with the next start" if version < len(MIGRATIONS) else ""
        yield OK, f"the database is whole, schema version {version}{behind}", ""


def pair(patient: Patient) -> Iterator[Finding]:
    """Certificate and key of the public listener."""
    settings = patient.settings
    if not settings["public.listen"]:
        yield OK, "there is no public listener", ""
        return
    cert, key = certificate.pair(settings)
    certificate.check_pair(cert, key)
    names, end = certificate.read(cert)
    days = int((end - patient.now) // DAY)
    if days < 0:
        yield FAIL, f"{cert} ended {-days} days ago", "get a new certificate, then reload the daemon"
    elif days <= settings["certificate.warn_days"]:
        yield WARN, f"{cert} ends in {days} days", "get a new certificate, then reload the daemon"
    else:
        yield OK, f"{cert} for {', '.join(names)} matches its key and is good for {days} days", ""


def ports(patient: Patient) -> Iterator[Finding]:
    """The addresses: the daemon answers on them, or they are free for it."""
    quiet = probe.silent(patient.settings)
    if not quiet and probe.ask(patient.settings, "/livez"):
        problem = probe.wait(patient.settings, 0)
        yield (WARN, f"the daemon answers but is not ready: {problem}", "see its log") if problem else (OK, "the daemon is ready", "")
        return
    for name in ("public.listen", "local.listen"):
        for host, port in patient.settings[name]:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((host, port))
                except OSError as error:
                    advice = f"is another program there, or a hung daemon? (ss -ltnp); else change {name}"
                    yield FAIL, f"{name}: {host} port {port} gives no answer and cannot be used: {error.strerror}", advice
                else:
                    yield WARN, f"{name}: {host} port {port} is free: the daemon does not run", "start it"


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


def file_limits(patient: Patient) -> Iterator[Finding]:
    """Open files that a process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = patient.settings["server.connections"] + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield WARN, f"a process may open {hard} files, server.connections needs {wanted}", "raise LimitNOFILE, OPEN_FILES or ulimit -Hn"
    else:
        yield OK, f"a process may open {'any number of' if hard == resource.RLIM_INFINITY else hard} files", ""


def local_access(patient: Patient) -> Iterator[Finding]:
    """Who may use the local listener."""
    allowed = patient.settings["local.allow"]
    if missing := [name for name in allowed if not _known(name)]:
        yield WARN, f"local.allow names what is not on this host: {', '.join(missing)}", "correct local.allow"
    if "*" in allowed:
        yield WARN, "every account of this host may use the local listener", "name the accounts of the job scripts in local.allow"
    else:
        yield OK, f"the local listener is for root, the daemon's account and: {' '.join(allowed) or 'nobody else'}", ""


def _known(name: str) -> bool:
    with suppress(KeyError):
        return bool(name == "*" or (grp.getgrnam(name[1:]) if name.startswith("@") else pwd.getpwnam(name)))
    return False


def mail(patient: Patient) -> Iterator[Finding]:
    """The way to the mail server."""
    if not patient.settings["mail.host"]:
        yield WARN, "mail.host is empty: mail stays in the outbox", "set mail.host and mail.from"
        return
    try:
        connect(patient.settings).close()
    except OSError as error:  # what smtplib raises is one
        yield FAIL, f"the mail server cannot be used: {error}", "look at mail.host, mail.port and mail.security"
    else:
        yield OK, f"{patient.settings['mail.host']} answers (ippd doctor --mail you@example.org sends a message)", ""


def orphans(patient: Patient) -> Iterator[Finding]:
    """Files without rows and rows without files."""
    uploads = Path(patient.settings["data.uploads"])
    if not (patient.folder / "ippd.sqlite").exists() or not uploads.is_dir():
        return
    with closing(patient.database()) as connection:
        lost = sum(_differs(uploads / path, size) for path, size in connection.execute("SELECT path, bytes FROM files"))
        loose = 0
        for folder in (entry for entry in os.scandir(uploads) if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False)):
            for entry in os.scandir(folder.path):
                row = connection.execute("SELECT 1 FROM files WHERE path = ?", (f"{folder.name}/{entry.name}",)).fetchone()
                loose += row is None and entry.stat(follow_symlinks=False).st_mtime < patient.now - STUCK
    if lost:
        yield FAIL, f"{lost} files are missing or have another size than they should", "restore them from a backup"
    if loose:
        yield WARN, f"{loose} files belong to no experiment", "the daemon removes them; or: ippd housekeeping orphans"
    if not lost and not loose:
        yield OK, "every file belongs to an experiment, and none is missing", ""


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
    made = stamped(Path(folder), "ippd")
    late = patient.now - 2 * patient.settings["backup.interval"]
    if not made or made[-1][0] < late:
        yield WARN, f"there is no recent backup in {folder}", "look into the log for why; is the daemon running?"
    else:
        yield OK, f"the last backup is {made[-1][1]}", ""


CHECKS: tuple[tuple[str, Callable[[Patient], Iterator[Finding]]], ...] = (
    ("unpack folder", unpack), ("data folder", data_folder), ("database", database), ("certificate", pair), ("ports", ports),
    ("clock", clock), ("file limits", file_limits), ("local listener", local_access), ("mail", mail), ("orphans", orphans),
    ("stuck", stuck), ("backups", backups),
)
