"""Checks of the host: settings, certificate, ports, limits, mail."""

import errno
import os
import re
import resource
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ippd import certificate, checks, probe
from ippd.daemon import SPARE_FILES
from ippd.doctor.patient import DAY, FAIL, OK, WARN, Finding, Patient
from ippd.errors import SettingsError
from ippd.host.handover import held
from ippd.mail import connect
from ippd.settings import warnings

UNPACKED = 64 << 20  # bytes that the program takes where it unpacks itself
# What starts the daemon, the stronger one last, and where it says in which folder that is unpacked.
STARTS = ("/etc/init.d/ippd", "/etc/sysconfig/ippd", "/usr/lib/systemd/system/ippd.service", "/etc/systemd/system/ippd.service")
NAMED = re.compile(r"""^(?:export +|Environment=)?["']?TMPDIR=["']?([^\s"']+)""", re.M)
CLEANED = (Path("/tmp"), Path("/var/tmp"))  # by programs that remove what is old there


def named(patient: Patient) -> Iterator[Finding]:
    """The settings themselves, and what they name."""
    try:
        checks.check(patient.settings)
    except SettingsError as error:
        for problem in error.problems:
            yield FAIL, problem, "the daemon does not start with it: correct it"
        return
    doubts = [*warnings(patient.settings), *checks.doubts(patient.settings)]
    for doubt in doubts:
        yield WARN, doubt, "correct it"
    if not doubts:
        yield OK, f"{patient.settings.file or 'no settings file'}: what the settings name is there", ""


def unpack(patient: Patient) -> Iterator[Finding]:
    """Where the one-file program unpacks itself: that of the daemon, if it runs, else of what starts it, else this one."""
    found = re.search(r" (/.*)/_MEI[^/]+/", patient.of_daemon("maps"))
    own = Path(sys._MEIPASS).parent if hasattr(sys, "_MEIPASS") else tempfile.gettempdir()
    where = Path(found[1] if found else _of_service() or own)
    disk = os.statvfs(where)
    if disk.f_flag & os.ST_NOEXEC:
        yield FAIL, f"{where} forbids programs (noexec)", "set TMPDIR to a folder on another file system, as /var/lib/ippd"
    elif disk.f_bavail * disk.f_frsize < UNPACKED:
        yield FAIL, f"{where} has less than {UNPACKED >> 20} MB free", "make room there, or set TMPDIR"
    elif found and where in CLEANED:
        yield WARN, f"the daemon has unpacked itself in {where}", "tmp cleaners remove files there: set TMPDIR to the data folder"
    else:
        yield OK, f"{where} can hold the unpacked program", ""


def _of_service() -> str:
    """The folder that is named by what starts the daemon; empty when nothing does."""
    named = ""
    for path in STARTS:
        with suppress(OSError):
            named = (NAMED.findall(Path(path).read_text(errors="replace")) or [named])[-1]
    return named


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
    elif not names:
        yield WARN, f"{cert} names no host (it has no subjectAltName): no browser accepts it", "get one with the names of this host"
    else:
        yield OK, f"{cert} for {', '.join(names)} matches its key and is good for {days} days", ""


def ports(patient: Patient) -> Iterator[Finding]:
    """The addresses: the daemon of this data folder answers on all of them, or they are free for it. Another program may answer, too."""
    runs = held(patient.folder)
    listeners = [(name, shown, place, _answers(name, place)) for name, shown, place in _listeners(patient.settings)]
    if runs and all(answers for *_, answers in listeners):
        problem = probe.wait(patient.settings, 0)
        yield (WARN, f"the daemon runs but is not ready: {problem}", "see its log") if problem else (OK, "the daemon is ready", "")
        return
    for name, shown, place, answers in listeners:
        problem = _unusable(place)
        if runs and answers:
            yield OK, f"{name}: {shown} answers", ""
        elif runs and not problem:
            yield WARN, f"{name}: the daemon runs, but not on {shown}", "restart it if the setting has changed since; else see its log"
        elif runs:
            advice = f"is another program there, or a hung daemon? (ss -ltxnp); else change {name}"
            yield FAIL, f"{name}: {shown} gives no answer and cannot be used: {problem}", advice
        elif problem:
            advice = f"end what is there (ss -ltxnp), or change {name}; or is it the daemon of another data.directory?"
            yield FAIL, f"{name}: {shown} cannot be used: {problem}; no daemon runs over {patient.folder}", advice
        else:
            yield WARN, f"{name}: {shown} is free: the daemon does not run", "start it"


Place = str | tuple[str, int]  # the path of a unix socket, or an address and a port


def _listeners(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Place]]:
    """Each listener: (its setting, what to call it, where it is)."""
    for name in ("public.listen", "local.listen"):
        for host, port in settings[name]:
            yield name, f"{host} port {port}", (host, port)
    if settings["local.socket"]:
        yield "local.socket", settings["local.socket"], settings["local.socket"]


def _answers(name: str, place: Place) -> bool:
    nothing = {"public.listen": (), "local.listen": (), "local.socket": ""}
    return probe.ask(nothing | {name: place if isinstance(place, str) else (place,)}, "/livez") is not None


def _unusable(place: Place) -> str:
    """Why a daemon that starts could not listen there; empty when it could."""
    try:
        if isinstance(place, str):
            return _unusable_path(place)
        with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _unusable_path(path: str) -> str:
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        return f"{os.path.dirname(path)} is not there, or may not be written to"
    if not os.path.lexists(path):
        return ""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return "it is there and no socket"
    with socket.socket(socket.AF_UNIX) as sock, suppress(ConnectionRefusedError):  # what a killed daemon left: the next one removes it
        sock.settimeout(probe.SECONDS)
        sock.connect(path)
        return os.strerror(errno.EADDRINUSE)
    return ""


def file_limits(patient: Patient) -> Iterator[Finding]:
    """Open files that a process may have."""
    found = re.search(r"^Max open files +\S+ +([0-9]+)", patient.of_daemon("limits"), re.M)
    hard = int(found[1]) if found else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = patient.settings["server.connections"] + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield WARN, f"a process may open {hard} files, server.connections needs {wanted}", "raise LimitNOFILE, OPEN_FILES or ulimit -Hn"
    else:
        yield OK, f"a process may open {'any number of' if hard == resource.RLIM_INFINITY else hard} files", ""


def local_access(patient: Patient) -> Iterator[Finding]:
    """Who may use the local listener, and who may only run experiments there."""
    allowed, workers = patient.settings["local.allow"], patient.settings["local.workers"]
    for name, names in (("local.allow", allowed), ("local.workers", workers)):
        if missing := checks.unknown_names(names):
            yield WARN, f"{name} names what is not on this host: {', '.join(missing)}", f"correct {name}"
    if "*" in allowed:
        yield WARN, "every account of this host may use the local listener", "name the accounts of the job scripts in local.allow"
    else:
        others = f", {', '.join(allowed)}" if allowed else "" if workers else ", and nobody else"
        yield OK, f"the local listener is for root and the daemon's account{others}", ""
    if "*" in workers:
        advice = "name the accounts in which programs for users run in local.workers"
        yield WARN, "every account of this host may take experiments at the local listener, and read what users have sent", advice
    elif workers:
        yield OK, f"to run experiments, and no more, the local listener is also for {', '.join(workers)}", ""


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
