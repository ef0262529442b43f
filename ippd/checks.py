"""What the settings name, and whether it can be used: files, folders, accounts."""

import grp
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ippd import certificate
from ippd.errors import SettingsError
from ippd.settings import Settings


def check(settings: Settings) -> None:
    """Look at the files and folders that the settings name. Raises SettingsError with everything that is wrong."""
    found = [*_certificate(settings), *_logs(settings)]
    frontend = settings["public.frontend"]
    if frontend and not os.path.isfile(os.path.join(frontend, "index.html")):
        found.append(("public.frontend", f"there is no {frontend}/index.html"))
    if settings.file and not os.access(settings.file, os.R_OK):
        raise SettingsError(f"{settings.file} cannot be read by the account that serves")
    if found:
        raise SettingsError([f"{settings.source(name)}: {name}: {sentence}" for name, sentence in found])


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


def doubts(settings: Settings) -> Iterator[str]:
    """What works, but hardly as it was meant. It keeps no daemon from starting: a name may come back with its directory service."""
    if settings["mail.host"] and not settings["mail.from"]:
        yield f"{settings.source('mail.host')}: mail.host: mail.from is empty, so mails come from ippd@ and the name of this host"
    for setting in ("local.allow", "local.workers"):
        for name in unknown_names(settings[setting]):
            yield f"{settings.source(setting)}: {setting}: this host knows no {'group' if name[0] == '@' else 'account'} {name}"


def unknown_names(allowed: Iterable[str]) -> list[str]:
    """Those of the names that are neither accounts nor @groups of this host."""
    return [name for name in allowed if not _known(name)]


def _known(name: str) -> bool:
    with suppress(KeyError):
        return bool(name == "*" or (grp.getgrnam(name[1:]) if name.startswith("@") else pwd.getpwnam(name)))
    return False
