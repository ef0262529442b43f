"""What the settings name, and whether it can be used: files, folders, accounts."""

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ippd import certificate
from ippd.errors import SettingsError
from ippd.host import account
from ippd.host.handover import held
from ippd.settings import Settings


def check(settings: Settings) -> None:
    """Look at the files and folders that the settings name. Raises SettingsError with everything that is wrong."""
    found = [*_certificate(settings), *_logs(settings)]
    frontend = settings["public.frontend"]
    if frontend and (problem := _frontend(os.path.join(frontend, "index.html"))):
        found.append(("public.frontend", problem))
    if settings.file and not os.access(settings.file, os.R_OK):
        who = account.name()
        raise SettingsError(
            f"{settings.file} cannot be read by the account that serves: chown {who.rpartition(' ')[2]}: {settings.file} && "
            f"chmod 600 {settings.file}"
        )
    if found:
        raise SettingsError([f"{settings.source(name)}: {name}: {sentence}" for name, sentence in found])


def _frontend(page: str) -> str:
    """What is wrong with the first page of a frontend; empty when nothing is."""
    hidden = f"{page} cannot be read by {account.name()}"
    try:
        there = stat.S_ISREG(os.stat(page).st_mode)
    except PermissionError:
        return hidden
    except OSError:
        there = False
    if not there:
        return f"there is no {page}"
    return "" if os.access(page, os.R_OK) else hidden


def _certificate(settings: Settings) -> Iterator[tuple[str, str]]:
    cert, key = settings["public.certificate"], settings["public.key"]
    if not cert or not settings["public.listen"]:
        return
    try:
        certificate.read(cert)
    except SettingsError as error:
        yield "public.certificate", str(error)
        return
    try:
        certificate.check_pair(cert, key)
    except SettingsError as error:
        yield "public.key", str(error)


def _logs(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("log.file", "log.access"):
        path = settings[name]
        folder = os.path.dirname(path)
        if path in ("", "none"):
            continue
        if os.path.isdir(path):
            yield name, f"{path} is a folder"
        elif os.path.exists(path) and not os.access(path, os.W_OK):
            yield name, f"{path} cannot be written"
        elif not os.path.isdir(folder):
            yield name, f"there is no folder {folder}"
        elif not os.path.exists(path) and not os.access(folder, os.W_OK | os.X_OK):
            yield name, f"{folder} cannot be written"


def check_places(settings: Settings, ports: bool = True) -> None:
    """Whether this account could start a daemon: make its folders, and listen on addresses that the running one does not hold already.

    `ports`: also those that not every account may use. Raises SettingsError with everything that is wrong. Before a restart it must be
    known: later the daemon that ran is gone. An address that is taken is no matter here while no daemon runs: the start itself tells.
    """
    found = [*_folders(settings), *_addresses(settings, ports)]
    if found:
        raise SettingsError([f"{settings.source(name)}: {name}: {sentence}" for name, sentence in found])


def _folders(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("data.directory", "data.uploads"):
        folder = Path(settings[name])
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not there.is_dir():
            yield name, f"{there} is no folder"
            return
        if there != folder and not os.access(there, os.W_OK | os.X_OK):
            who = account.name()
            yield name, f"there is no {folder}, and {who} cannot make it: install -d -m 700 -o {who.rpartition(' ')[2]} {folder}"
            return


def _addresses(settings: Settings, ports: bool) -> Iterator[tuple[str, str]]:
    runs = False
    with suppress(PermissionError):  # who asks need not be the account that serves
        runs = held(Path(settings["data.directory"]))
    ours = set(_listening()) if runs else set()
    for name in ("public.listen", "local.listen"):
        for host, port in settings[name]:
            number = 0 if port in ours else _bind(host, port)
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            if number == errno.EADDRINUSE and runs:
                yield name, f"{shown} is in use by another program"
            elif number == errno.EADDRNOTAVAIL and host != "::1":  # without IPv6 the daemon does without that one
                yield name, f"{shown} is no address of this machine"
            elif number == errno.EACCES and ports:
                yield name, f"{shown} may not be used by {account.name()} (ports below 1024 are root's: README.md, Troubleshooting)"


def _bind(host: str, port: int) -> int:
    """Use an address for a moment; returns why that is not possible (errno), else 0."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
    except OSError as error:
        return error.errno or 0
    return 0


def _listening() -> Iterator[int]:
    """The ports on which programs of this account listen (proc(5))."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, uid, *_ = line.split()
                if state == "0A" and int(uid) == os.geteuid():
                    yield int(local.rpartition(":")[2], 16)


def doubts(settings: Settings) -> Iterator[str]:
    """What works, but hardly as it was meant. It keeps no daemon from starting: a name may come back with its directory service."""
    if settings["mail.host"] and not settings["mail.from"]:
        yield f"{settings.source('mail.host')}: mail.host: mail.from is empty, so mails come from ippd@ and the name of this host"
    for setting in ("local.allow", "local.workers"):
        for name in unknown_names(settings[setting]):
            yield f"{settings.source(setting)}: {setting}: this host knows no {'group' if name[0] == '@' else 'account'} {name}"


def backup_trouble(settings: Settings) -> tuple[str, str]:
    """Why this account could make no backup in backup.directory, and the command that mends it; twice nothing when it could."""
    folder = settings["backup.directory"]
    there = next((path for path in (Path(folder), *Path(folder).parents) if os.path.exists(path)), Path("/"))
    if not folder or os.access(there, os.R_OK | os.W_OK | os.X_OK):
        return "", ""
    who = account.name()
    short = who.rpartition(" ")[2]
    if there == Path(folder):
        return f"{who} cannot write to {folder}, so no backups are made", f"chown {short}: {folder}"
    return f"{who} cannot make {folder}, so no backups are made", f"install -d -m 700 -o {short} {folder}"


def unknown_names(allowed: Iterable[str]) -> list[str]:
    """Those of the names that are neither accounts nor @groups of this host."""
    return [name for name in allowed if not _known(name)]


def _known(name: str) -> bool:
    with suppress(KeyError):
        return bool(name == "*" or (grp.getgrnam(name[1:]) if name.startswith("@") else pwd.getpwnam(name)))
    return False
