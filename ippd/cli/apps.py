"""The commands `ippd app ...` and `ippd worker`."""

import signal
import threading

from ippd import logs
from ippd.cli.call import Call
from ippd.cli.show import as_json, table
from ippd.domain.apps import App, Folder
from ippd.errors import NotFound, SettingsError
from ippd.worker import make_worker, run


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
    """Say what is wrong in the folder of definitions; exit status 1 when anything is."""
    found = _folder(call)
    for problem in found.problems:
        print(f"{problem.file}: {problem.reason}")
    print(f"{len(found.apps)} apps, {len(found.categories)} categories, {len(found.problems)} left out")
    return int(bool(found.problems))


def show(call: Call) -> None:
    """Print both halves of one app as they were understood."""
    app = _folder(call).apps.get(call.arguments.key)
    if app is None:
        raise NotFound(f"there is no app {call.arguments.key}: ippd app list shows those there are, ippd app check those left out")
    as_json({"form": app.form, "backend": vars(app.backend) if app.backend else None})


def worker(call: Call) -> None:
    """Run a worker until it is told to stop; its jobs run on, and it finds them again when it is started anew."""
    settings, stop = call.settings, threading.Event()
    logs.start(settings)
    made = make_worker(settings, call.arguments.engine)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if call.arguments.once:
        made.step()
        made.close()
    else:
        run(made, settings["worker.interval"], stop)
