"""A portal with apps and a worker for it, over a real batch engine; also the program of a worker that kills itself at a given point."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ippd.domain.submission import Part
from ippd.permissions import OPERATOR
from ippd.runners import local
from ippd.settings import load
from ippd.worker import make_worker

HERE = Path(__file__).resolve().parent
TOOLS = {"slurm": ("slurmctld", "sbatch", "munged"), "gridengine": ("sge_qmaster", "qsub"), "local": ()}
MORE_TOOLS = {"up-accounting": ("slurmdbd", "mariadbd")}
APP = """#!/bin/sh
# Notes that it ran, gives its words back, and does what its first word says.
echo "$IPPD_JOB" >>"$RUNS"
printf '%s\\0' "$@" >results/words
[ -z "$(ls inputs)" ] || cat inputs/* >results/inputs
case $1 in
    fail) echo "it went wrong" >&2; exit "$2" ;;
    use) text=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#text}; while [ ! -e "$GO" ]; do :; done ;;
    wait) echo waiting; while [ ! -e "$GO" ]; do sleep 0.1; done; echo over ;;
    print) echo one; echo two >&2 ;;
    die) kill -9 $$ ;;
    nothing) rm -r results; mkdir results ;;
esac
"""


def missing(engine, up="up"):
    """Why an engine cannot be started here (in this way), or None."""
    if engine == "local":
        return None
    if os.geteuid() != 0:
        return "an engine is started as root"
    wanted, places = (*TOOLS[engine], *MORE_TOOLS.get(up, ())), f"{os.environ['PATH']}:/usr/sbin:/sbin"
    tools = [tool for tool in wanted if not shutil.which(tool, path=places)]
    return f"not installed: {', '.join(tools)}" if tools else None


class Engine:
    """A real engine of one node; its commands find it through the environment."""

    def __init__(self, name, up="up"):
        self.name, self.folder, self.environment = name, "", {}
        if name == "slurm":
            # Not in pytest's folder, which only its owner may enter: jobs of other accounts begin in this one.
            self.folder = tempfile.mkdtemp(prefix="ippd-tests-")
            os.chmod(self.folder, 0o755)
            self.environment = {"SLURM_CONF": f"{self.folder}/slurm.conf"}
        elif name == "gridengine":
            self.folder = f"tests{os.getpid()}"  # a cell and ports of its own: two runs at once must not meet
            port = 22000 + 2 * (os.getpid() % 5000)
            ports = {"SGE_QMASTER_PORT": str(port), "SGE_EXECD_PORT": str(port + 1)}
            self.environment = {"SGE_ROOT": "/var/lib/gridengine", "SGE_CELL": self.folder} | ports
        os.environ |= self.environment
        self.control(up)

    def control(self, action):
        if self.name != "local":
            script = str(HERE / "engines" / f"{self.name}.sh")
            path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
            done = subprocess.run(
                [script, action, self.folder], env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90
            )
            assert done.returncode == 0, done.stdout.decode()

    def master(self, action):
        """Take the master (slurmctld, sge_qmaster) down or up, while jobs run on."""
        self.control(f"{action}-{'controller' if self.name == 'slurm' else 'master'}")

    def node(self, action, job=None):
        """Let the node die as without power, and come back; for the local engine: all processes of the job."""
        if self.name != "local":
            self.control(f"{action}-node")
        elif action == "down":
            local.clean(job)

    def stop(self):
        self.control("down")
        if self.name == "slurm":
            shutil.rmtree(self.folder, ignore_errors=True)
        for name in self.environment:
            os.environ.pop(name, None)


@contextmanager
def running(name, up="up"):
    """A real engine, for the time of a block; a test that cannot have it is skipped."""
    why = missing(name, up)
    if why:
        pytest.skip(why)
    made = Engine(name, up)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def rig_over(make_portal, engine, folder):
    """A rig in a folder of its own, with ada's account as `ada`."""
    place = folder / "rig"
    place.mkdir()
    made = Rig(make_portal(apps__directory=make_apps(folder / "apps", place)), engine, place)
    made.ada = made.core.sessions.actor(made.portal.user())
    try:
        yield made
    finally:
        made.stop()


class Rig:
    """A portal, a user's hands on it, and workers."""

    def __init__(self, portal, engine, folder):
        self.portal, self.core, self.engine, self.folder = portal, portal.core, engine, folder
        self.runs, self.go = folder / "runs", folder / "go"
        self.workers = []

    def settings(self, **more):
        host, port = self.portal.local.host, self.portal.local.port
        given = {
            "worker.url": f"http://{host}:{port}", "worker.folder": self.folder / "worker", "worker.slots": 2, "worker.lease": "60s",
        }  # fmt: skip
        return [f"{name}={value}" for name, value in (given | {n.replace("__", "."): v for n, v in more.items()}).items()]

    def worker(self, **more):
        self.workers.append(make_worker(load("", {}, self.settings(**more)), self.engine.name))
        return self.workers[-1]

    def submit(self, ada, *words, files=(), app="act", **run):
        parts = [Part("fact", "app", app)] + [Part("fact", name, str(value)) for name, value in run.items()]
        parts += [Part("param", f"word{number}", word) for number, word in enumerate(words)]
        parts += [Part("file", "scan", [data], name) for name, data in files]
        return self.core.experiments.submit(ada, parts)["id"]

    def get(self, id):
        return self.core.experiments.get(OPERATOR, id)

    def until(self, worker, condition, seconds=45):
        """Let the worker work until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "this took too long"
            worker.step()
            time.sleep(0.1)

    def wait(self, condition, seconds=45):
        """Wait while another process works."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "this took too long"
            time.sleep(0.1)

    def status(self, id, *states):
        return lambda: self.get(id)["status"] in (states or ("completed", "failed", "cancelled"))

    def read(self, id, name):
        return self.core.files.open(OPERATOR, id, name).path.read_bytes()

    def ran(self, id):
        """How often the program of an experiment was begun."""
        lines = self.runs.read_text().split() if self.runs.exists() else []
        return sum(line.startswith(f"ippd-{id}-") for line in lines)

    def processes(self, id):
        """The processes of an experiment's jobs, by the name that the job's script gives to all of them."""
        lines = self.runs.read_text().split() if self.runs.exists() else []
        names = {line for line in lines if line.startswith(f"ippd-{id}-")}
        marks, found = {f"IPPD_JOB={name}".encode() for name in names}, []
        for place in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if marks & set(place.read_bytes().split(b"\0")):
                    found.append(int(place.parent.name))
        return found

    def killed(self, point):
        """Run a worker in a process of its own that kills itself at `point`; returns when it is dead."""
        words = [sys.executable, __file__, point, self.engine.name, *self.settings()]
        done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(HERE.parent)}, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    def jobs(self):
        """What is in the workers' hands: the journal's folders."""
        return list((self.folder / "worker" / "jobs").iterdir())

    def stop(self):
        self.go.touch()
        for worker in self.workers:
            worker.close()


def make_apps(folder, rig_folder):
    """The definitions of the test's apps."""
    folder.mkdir()
    program = folder / "act.sh"
    program.write_text(APP.replace("$RUNS", str(rig_folder / "runs")).replace("$GO", str(rig_folder / "go")))
    program.chmod(0o755)
    params = {f"word{number}": "" for number in range(20)}
    definition = {"Executable": "act.sh", "PARAMS": params, "FILES": ["scan"]}
    (folder / "act.json").write_text(json.dumps(definition))
    (folder / "boxed.json").write_text(json.dumps(definition | {"Container": "an image;id"}))
    resources = {"SlurmJobResources": "--mem=900T", "SGEJobResources": "-l nosuch=1"}
    (folder / "greedy.json").write_text(json.dumps(definition | resources))
    (folder / "big.json").write_text(json.dumps(definition | {"Cpus": 2, "Memory": "300MB", "Gpus": 1}))
    (folder / "absent.json").write_text(json.dumps(definition | {"Executable": "/no/such/program"}))
    return folder


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def after(function):
    """The function, and then death."""

    def wrapped(*arguments, **named):
        function(*arguments, **named)
        die()

    return wrapped


def main(point, engine, *overrides):
    """A worker that dies: at the n-th time its journal is written, or before or after it submits or uploads."""
    from ippd.runners import ENGINES
    from ippd.worker.journal import Entry

    worker = make_worker(load("", {}, list(overrides)), engine)
    module, server = ENGINES[engine], worker._steps.server
    kind, _, number = point.partition("=")
    if kind == "save":
        save, left = Entry.save, [int(number)]

        def counted(entry):
            left[0] -= 1
            if not left[0]:
                die()
            save(entry)

        Entry.save = counted
    elif kind == "before-submit":
        module.submit = die
    elif kind == "after-submit":
        module.submit = after(module.submit)
    elif kind in ("before-results", "after-results", "amid-results"):
        post_form = server.post_form

        def results(path, *arguments):
            if not path.endswith("/results"):
                return post_form(path, *arguments)
            if kind == "amid-results":
                return post_form(path, *arguments, die)
            return after(post_form)(path, *arguments) if kind == "after-results" else die()

        server.post_form = results
    elif kind == "running":
        say = server.post
        server.post = lambda path, **fields: after(say)(path, **fields) if path.endswith("/running") else say(path, **fields)
    while True:
        worker.step()
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
