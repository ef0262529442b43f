"""The commands `ippd app ...` and `ippd worker`."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from logging import getLogger
from pathlib import Path

from ippd import logs
from ippd.cli.call import Call
from ippd.cli.show import as_json, table
from ippd.domain.apps import App, Folder
from ippd.errors import Forbidden, NotFound, SettingsError
from ippd.host.account import name as account_name
from ippd.stop import Stop
from ippd.worker import make_worker, run

log = getLogger("ippd.worker")


def _folder(call: Call) -> Folder:
    path = getattr(call.arguments, "folder", None) or call.settings["apps.directory"]
    if not path:
        raise SettingsError("apps.directory is not set: there are no definitions, and every app is accepted as it comes")
    found = Folder()
    found.read(path)
    return found


def show_list(call: Call) -> None:
    """List the apps."""
    apps = sorted(_folder(call).apps.items())
    if call.arguments.json:
        return as_json([{"key": key, "label": _label(app), "form": app.form is not None, "backend": app.backend is not None,
                         "files": app.files} for key, app in apps])  # fmt: skip
    table(("KEY", "LABEL", "FORM", "RUNS", "FILES"), (
        (key, _label(app), _yes(app.form), _yes(app.backend), ", ".join(app.files)) for key, app in apps
    ))  # fmt: skip


def _label(app: App) -> str:
    return str((app.form or {}).get("label", ""))


def _yes(half: object) -> str:
    return "no" if half is None else "yes"


def check(call: Call) -> int:
    """Say what is wrong in the folder of definitions; exit status 1 when anything is left out, 3 when there are warnings only."""
    found = _folder(call)
    for problem in found.problems:
        print(f"{problem.file}: {problem.reason}")
    warnings = [warning for _, app in sorted(found.apps.items()) if (warning := _warning(app))]
    for warning in warnings:
        print(warning)
    told = f", {len(warnings)} with a warning" if warnings else ""
    print(f"{len(found.apps)} apps, {len(found.categories)} categories, {len(found.problems)} left out{told}")
    return 1 if found.problems else 3 if warnings else 0


def _warning(app: App) -> str:
    """What is to be said of an app's program: no more than that, as another host may run it. That of a container is looked for inside."""
    if app.backend is None or app.backend.container:
        return ""
    path = app.backend.executable
    why = "is no file" if not os.path.isfile(path) else "may not be executed" if not os.access(path, os.X_OK) else ""
    return f"{', '.join(app.files)}: warning: {app.key}: {path} {why} on this host" if why else ""


def show(call: Call) -> None:
    """Print both halves of one app as they were understood."""
    app = _folder(call).apps.get(call.arguments.key)
    if app is None:
        raise NotFound(f"there is no app {call.arguments.key}: ippd app list shows those there are, ippd app check those left out")
    as_json({"form": app.form, "backend": vars(app.backend) if app.backend else None})


def worker(call: Call) -> None:
    """Run a worker until it is told to stop; its jobs run on, and it finds them again when it is started anew."""
    settings, stop = call.settings, Stop()
    _check_account(Path(settings["worker.folder"]), call.arguments.as_root)
    # Always on standard error. The files are the daemon's: made by the worker's account they would keep the daemon from its start.
    logs.start({**settings, "log.file": "", "log.access": "none"})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for number in (signal.SIGHUP, signal.SIGUSR1):  # a worker has no files to open anew; not SIG_IGN, which its jobs would inherit
        signal.signal(number, lambda *_: None)
    made = make_worker(settings, call.arguments.engine)
    log.info("the engine is %s, the folder %s, the daemon %s", call.arguments.engine, settings["worker.folder"], settings["worker.url"])
    if call.arguments.once:
        with made.heartbeats():
            made.step()
        made.close()
    else:
        run(made, settings["worker.interval"], stop)


def _check_account(folder: Path, as_root: bool) -> None:
    """Raises Forbidden for root, when it was not said that it shall be: jobs, which are programs for users, run as the worker's account.

    Raises SettingsError for a folder with something of another account: that one's worker could not use what this one makes, or this one
    cannot use what is there.
    """
    if os.geteuid() == 0 and not as_root:
        raise Forbidden(
            "the programs that users ask for would run as root: start the worker as an account of its own, which the daemon's "
            "local.workers names (docs/worker.md has the steps: runuser -u ippd-worker -- ippd worker ...), or say --as-root"
        )
    for path, owner in _owners(folder):
        if owner != os.geteuid():
            who = account_name()
            raise SettingsError(f"worker.folder: {path} belongs to {account_name(owner)}, and this is {who}: "
                                f"chown -R {who.rpartition(' ')[2]}: {folder}, or start the worker as the other account")


def _owners(folder: Path) -> Iterator[tuple[Path, int]]:
    """The folder, what is in it and the records of the journal, as far as they are there and can be seen, with their owners."""
    for path in (folder, folder / "lock", folder / "jobs", folder / "journal", *_inside(folder / "journal")):
        with suppress(OSError):
            yield path, path.stat().st_uid


def _inside(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []
