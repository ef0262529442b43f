"""The commands `ippd install` and `ippd uninstall`, for an operator who has only the program."""

import _strptime  # noqa: F401  # like the next, imported late by the library: then as an account that may not be able to read it
import encodings.idna  # noqa: F401
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ippd import host
from ippd.cli.call import Call, as_owner
from ippd.cli.service import prepare
from ippd.core import open_core
from ippd.errors import Conflict, Forbidden
from ippd.host import steps
from ippd.host.program import owning_package, program_path
from ippd.host.steps import ACCOUNT, Step
from ippd.settings import DEFAULT_FILE, load, sample

PROGRAM = Path("/usr/local/bin/ippd")
DATA, LOGS, CONFIG = Path("/var/lib/ippd"), Path("/var/log/ippd"), Path(DEFAULT_FILE)
UNIT, INIT = Path("/etc/systemd/system/ippd.service"), Path("/etc/init.d/ippd")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/ippd.service")
SYSCONFIG, LOGROTATE = Path("/etc/sysconfig/ippd"), Path("/etc/logrotate.d/ippd")


def install(call: Call) -> None:
    """Put everything in its place that is not there yet."""
    _refuse(call.arguments.dry_run)
    _take(_steps(), call.arguments.dry_run, "is as it should be", "made", "would be made")
    if not call.arguments.dry_run:
        print(f"Now: {'systemctl start ippd' if _systemd() else f'{INIT} start'}; settings: {CONFIG}; then: ippd user add you@example.org")


def uninstall(call: Call) -> None:
    """Take the program and what starts it away; data, settings and the account stay."""
    _refuse(call.arguments.dry_run)
    found: list[Step] = []
    if _systemd():
        disable = ("systemctl", "disable", "--now", "ippd.service")
        found += [steps.command("the running daemon", lambda: not UNIT.exists(), *disable)]
    elif INIT.exists():
        found += [Step("the running daemon", lambda: False, lambda: steps.run(str(INIT), "stop"))]
        found += [steps.command("the links to the init script", lambda: False, *_unlink())] if _unlink() else []
    found += [steps.removed(WANTED), steps.removed(UNIT), steps.removed(INIT), steps.removed(LOGROTATE), steps.removed(PROGRAM)]
    _take(found, call.arguments.dry_run, "is not there", "removed", "would be removed")
    kept = [path for path in (DATA, LOGS, CONFIG.parent) if path.exists()]
    print(f"Kept: {', '.join(map(str, kept))} and the account {ACCOUNT}")


def _refuse(dry: bool) -> None:
    package = owning_package("/usr/bin/ippd")
    if package:
        raise Conflict(f"the package {package} is installed here: use rpm or yum")
    if os.geteuid() and not dry:
        raise Forbidden("only root can do this (--dry-run shows to everybody what would be done)")


def _steps() -> list[Step]:
    settings = sample().replace("#file =", f"file = {LOGS}/ippd.log").replace("#access =", f"access = {LOGS}/access.log")
    found = [
        steps.account(),
        steps.folder(DATA, 0o700, ACCOUNT),
        steps.folder(LOGS, 0o750, ACCOUNT),
        steps.folder(CONFIG.parent, 0o750, "root", ACCOUNT),
        steps.file(PROGRAM, program_path().read_bytes(), 0o755),
        steps.file(CONFIG, settings.encode(), 0o600, ACCOUNT, keep=True),
        Step("database, secrets and certificate", lambda: (DATA / "ippd.sqlite").exists(), _first_start),
    ]
    if LOGROTATE.parent.is_dir():
        found.append(steps.file(LOGROTATE, host.text("ippd.logrotate").encode(), 0o644))
    if _systemd():
        unit = host.text("ippd.service").replace("/usr/bin/ippd", str(PROGRAM))
        found.append(steps.file(UNIT, unit.encode(), 0o644))
        if os.path.isdir("/run/systemd/system"):
            found.append(steps.command("start at boot", WANTED.exists, "systemctl", "enable", "ippd.service"))
        return found
    script = host.text("ippd.init").replace("PROGRAM=/usr/bin/ippd", f"PROGRAM={PROGRAM}")
    found += [steps.file(INIT, script.encode(), 0o755), steps.file(SYSCONFIG, host.text("ippd.sysconfig").encode(), 0o644, keep=True)]
    if shutil.which("chkconfig"):
        found.append(steps.command("start at boot", _has_links, "chkconfig", "--add", "ippd"))
    elif shutil.which("update-rc.d"):
        found.append(steps.command("start at boot", _has_links, "update-rc.d", "ippd", "defaults"))
    return found


def _first_start() -> None:
    """What the daemon would make when it starts for the first time, as its account."""
    settings = load(str(CONFIG))
    with as_owner(settings["data.directory"]):
        core = open_core(settings)
        try:
            prepare(core, settings)
        finally:
            core.close()


def _systemd() -> bool:
    return os.path.isdir("/run/systemd/system") or (shutil.which("systemctl") is not None and not os.path.isdir("/etc/init.d"))


def _has_links() -> bool:
    return any(True for _ in Path("/etc").glob("rc?.d/S??ippd"))


def _unlink() -> tuple[str, ...]:
    if shutil.which("chkconfig"):
        return ("chkconfig", "--del", "ippd")
    return ("update-rc.d", "-f", "ippd", "remove") if shutil.which("update-rc.d") else ()


def _take(found: Iterable[Step], dry: bool, already: str, done: str, wanted: str) -> None:
    for step in found:
        if step.done():
            print(f"{step.what}: {already}")
        elif dry:
            print(f"{step.what}: {wanted}")
        else:
            step.do()
            print(f"{step.what}: {done}")
