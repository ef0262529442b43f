"""The commands `ippd install` and `ippd uninstall`, for an operator who has only the program."""

import _strptime  # noqa: F401  # like the next, imported late by the library: then as an account that may not be able to read it
import encodings.idna  # noqa: F401
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ippd import host
from ippd.certificate import pair
from ippd.cli.call import Call, as_owner
from ippd.cli.service import prepare
from ippd.core import open_core
from ippd.errors import Conflict, Forbidden, IppdError, SettingsError
from ippd.host import steps
from ippd.host.handover import running
from ippd.host.program import owning_package, program_path
from ippd.host.steps import ACCOUNT, Step
from ippd.settings import DEFAULT_FILE, Settings, load, sample

PROGRAM = Path("/usr/local/bin/ippd")
PREVIOUS = Path("/usr/local/bin/ippd.previous")
DATA, LOGS, CONFIG = Path("/var/lib/ippd"), Path("/var/log/ippd"), Path(DEFAULT_FILE)
UNIT, INIT = Path("/etc/systemd/system/ippd.service"), Path("/etc/init.d/ippd")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/ippd.service")
MANUAL = Path("/usr/local/share/man/man8/ippd.8"), Path("/usr/local/share/man/man5/ippd.conf.5")
COMPLETION = Path("/etc/bash_completion.d/ippd")
SYSCONFIG, LOGROTATE = Path("/etc/sysconfig/ippd"), Path("/etc/logrotate.d/ippd")
RELOAD = ("systemctl", "daemon-reload")
NOBODY = 65534
NOT_RUNNING = 3  # what an init script answers to `status` (Linux Standard Base)


def install(call: Call, page: Callable[[str], str]) -> None:
    """Put everything in its place that is not there yet; `page` makes one of the manual, or the completion."""
    dry = call.arguments.dry_run
    _refuse(dry)
    os.umask(0o022)  # folders that are made on the way to a manual page are for everybody
    changed = _take(_steps(page), dry)
    if dry:
        return
    start = "systemctl {} ippd" if _systemd() else f"{INIT} {{}}"
    if not running(Path(_settings()["data.directory"])):
        print(f"Now: {start.format('start')}; settings: {CONFIG}; then: ippd user add you@example.org")
    elif changed:
        print(f"The daemon runs as it was started: {start.format('restart')}")


def uninstall(call: Call) -> None:
    """Take the program and what starts it away; data, settings and the account stay."""
    _refuse(call.arguments.dry_run)
    found: list[Step] = []
    if _systemd():
        words = ("systemctl", "disable", "--now", "ippd.service")
        disable = steps.command("the daemon, and its start at boot", lambda: not UNIT.exists(), *words)
        found += [replace(disable, verb="stopped", already="is not there")]
    elif INIT.exists():
        found += [Step("the daemon", _init_says_no, lambda: steps.run(str(INIT), "stop"), "stopped", "does not run")]
        if _unlink():
            found += [replace(steps.command("start at boot", lambda: not _has_links(), *_unlink()), verb="removed", already="is not there")]
    found += [steps.removed(path) for path in (WANTED, UNIT, INIT, LOGROTATE, *MANUAL, COMPLETION, PREVIOUS) if os.path.lexists(path)]
    found.append(steps.removed(PROGRAM))
    if _lives():
        found = [steps.followed(step, *RELOAD) if step.what.endswith(str(UNIT)) else step for step in found]
    _take(found, call.arguments.dry_run)
    kept = [str(path) for path in (DATA, LOGS, CONFIG.parent, SYSCONFIG) if path.exists()]
    kept += [f"the account {ACCOUNT}"] if steps.account().done() else []
    print(f"{'Would be kept' if call.arguments.dry_run else 'Kept'}: {', '.join(kept) or 'nothing is there'}")


def _take(found: list[Step], dry: bool) -> bool:
    """Take each step and print what it did. Returns whether there was something to do."""
    changed = False
    for step in found:
        try:
            did, sentence = step.take(dry)
        except (PermissionError, SettingsError):
            if not dry or not os.geteuid():
                raise
            did, sentence = False, f"{step.what}: only root can see"  # all else can be told to everybody
        print(sentence)
        changed = changed or did
    return changed


def _refuse(dry: bool) -> None:
    package = owning_package("/usr/bin/ippd")
    if package:
        raise Conflict(f"the package {package} is installed here: use rpm or yum")
    if os.geteuid() and not dry:
        raise Forbidden("only root can do this (--dry-run shows to everybody what would be done)")


def _steps(page: Callable[[str], str]) -> list[Step]:
    _check_program()
    settings = sample().replace("#file =", f"file = {LOGS}/ippd.log").replace("#access =", f"access = {LOGS}/access.log")
    found = [
        steps.account(),
        steps.folder(DATA, 0o700, ACCOUNT),
        steps.folder(LOGS, 0o750, ACCOUNT),
        steps.folder(CONFIG.parent, 0o755, "root", ACCOUNT),  # a worker of another account has its settings there, too
        steps.file(PROGRAM, program_path().read_bytes(), 0o755),
        steps.file(CONFIG, settings.encode(), 0o600, ACCOUNT, keep=True),
        Step("database and secrets", lambda: _are_there("ippd.sqlite", "secret"), lambda: _first_start(certificate=False)),
        Step("certificate", _certified, lambda: _first_start(certificate=True)),
    ]
    if os.path.isdir(DATA):
        found.insert(2, steps.inside(DATA))  # behind the folder itself
    found += [steps.file(path, page(path.name).encode(), 0o644) for path in MANUAL]
    if COMPLETION.parent.is_dir():
        found.append(steps.file(COMPLETION, page("completion").encode(), 0o644))
    if LOGROTATE.parent.is_dir():
        found.append(steps.file(LOGROTATE, host.text("ippd.logrotate").encode(), 0o644))
    if _systemd():
        unit = steps.file(UNIT, host.text("ippd.service").replace("/usr/bin/ippd", str(PROGRAM)).encode(), 0o644)
        if _lives():
            enable = steps.command("start at boot", WANTED.exists, "systemctl", "enable", "ippd.service")
            return [*found, steps.followed(unit, *RELOAD), enable]
        return [*found, unit]
    script = host.text("ippd.init").replace("PROGRAM=/usr/bin/ippd", f"PROGRAM={PROGRAM}")
    found += [steps.file(INIT, script.encode(), 0o755), steps.file(SYSCONFIG, host.text("ippd.sysconfig").encode(), 0o644, keep=True)]
    if steps.which("chkconfig"):
        found.append(steps.command("start at boot", _has_links, "chkconfig", "--add", "ippd"))
    elif steps.which("update-rc.d"):
        found.append(steps.command("start at boot", _has_links, "update-rc.d", "ippd", "defaults"))
    return found


def _check_program() -> None:
    """An installation from source is more than the file that is copied: the account must be able to read all of it."""
    program = program_path()
    if getattr(sys, "frozen", False) or os.geteuid():
        return
    try:
        steps.run(str(program), "version", user=NOBODY)
    except IppdError as error:
        raise Conflict(
            f"{program} cannot be run by other accounts than root, so not by the daemon's ({error}). An installation from source must lie "
            "where every account can read it, with its Python: in /opt, not in /root. Or install the one-file program"
        ) from error


def _settings() -> Settings:
    return load(str(CONFIG) if CONFIG.exists() else "")


def _are_there(*names: str) -> bool:
    return all(os.path.exists(os.path.join(_settings()["data.directory"], name)) for name in names)


def _certified() -> bool:
    """Whether the public listener has a certificate, or needs none of ours."""
    settings = _settings()
    return not settings["public.listen"] or bool(settings["public.certificate"]) or all(map(os.path.exists, pair(settings)))


def _first_start(certificate: bool) -> None:
    """What the daemon would make when it starts for the first time, as its account."""
    settings = _settings()
    with as_owner(settings):
        core = open_core(settings)
        try:
            if certificate:
                prepare(core, settings)
        finally:
            core.close()


def _systemd() -> bool:
    return _lives() or (steps.which("systemctl") and not os.path.isdir("/etc/init.d"))


def _lives() -> bool:
    """Whether systemd runs this host (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def _init_says_no() -> bool:
    return subprocess.run([INIT, "status"], stdout=subprocess.DEVNULL, env=steps.clean(), check=False).returncode == NOT_RUNNING


def _has_links() -> bool:
    return any(True for _ in Path("/etc").glob("rc?.d/S??ippd"))


def _unlink() -> tuple[str, ...]:
    if steps.which("chkconfig"):
        return ("chkconfig", "--del", "ippd")
    return ("update-rc.d", "-f", "ippd", "remove") if steps.which("update-rc.d") else ()
