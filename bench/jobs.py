"""What the worker costs: experiments beside bare jobs of the same engine, and what a worker with a thousand open jobs asks for."""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from engine import Engine
from stage import Row, Stage

from ippd.runners import local, slurm
from ippd.settings import load
from ippd.worker import make_worker

FEW, MANY = 100, 1000
WATCHED = 30.0  # seconds
INTERVAL = 5.0  # seconds between two rounds, as it comes
TICK = os.sysconf("SC_CLK_TCK")
ENDED = ("completed", "failed", "cancelled")


def worker(stage):
    """In Slurm where it is installed and can be started, else in the local engine."""
    name = "slurm" if os.geteuid() == 0 and shutil.which("slurmctld", path="/usr/sbin:/sbin") else "local"
    apps = stage.folder / "apps"
    apps.mkdir()
    (apps / "noop.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}}))
    (apps / "long.json").write_text(json.dumps({"Executable": "/bin/sleep", "PARAMS": {"text": ""}}))
    folder = stage.folder / "jobs"
    folder.mkdir()
    engine = Engine(name, folder)
    os.environ |= engine.environment
    own = Stage(folder, stage.seconds, apps__directory=apps)
    try:
        return [few(own, name, folder), *many(own, name, folder)]
    finally:
        own.daemon.stop()
        engine.stop()


def made(stage, name, folder, slots):
    """A worker in this process."""
    given = {"url": stage.local, "folder": folder / "worker", "slots": slots, "lease": "10m"}
    return make_worker(load("", {}, [f"worker.{option}={value}" for option, value in given.items()]), name)


def submit(stage, app, count, text):
    """Submit so many experiments without files."""
    for _ in range(count):
        stage.portal.post("/experiments/new", token=stage.token, app=app, text=text)


def few(stage, name, folder):
    """The time of a hundred experiments that do nothing, and of as many bare jobs."""
    bare = bare_jobs(name, folder, FEW)
    submit(stage, "noop", FEW, "x")
    done, begin = made(stage, name, folder, FEW), time.monotonic()
    while done.step():
        time.sleep(0.1)
    took = time.monotonic() - begin
    done.close()
    listing = stage.portal.get("/experiments", token=stage.token).json()["experiments"]
    assert all(experiment["status"] == "completed" for experiment in listing), Counter(e["status"] for e in listing)
    each = 1000 * (took - bare) / FEW
    return Row(f"{FEW} jobs in {name} ({each:.0f} ms more per experiment)", f"{took:.1f} s", f"{bare:.1f} s", f"{took / bare:.2f}x")


def bare_jobs(name, folder, count):
    """Seconds for as many jobs of the engine, submitted one after the other, until the last has ended."""
    script, out = folder / "noop.sh", folder / "bare"
    script.write_text("#!/bin/sh\necho x\n")
    script.chmod(0o755)
    out.mkdir()
    begin = time.monotonic()
    if name == "slurm":
        for number in range(count):
            words = ["sbatch", "--parsable", f"--output={out}/{number}", script]
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout.strip():
            time.sleep(0.1)
    else:
        for process in [subprocess.Popen([script], stdout=subprocess.DEVNULL) for _ in range(count)]:
            process.wait()
    return time.monotonic() - begin


def many(stage, name, folder):
    """What rounds over a thousand open jobs cost the engine, the daemon and the worker."""
    count = MANY if name == "slurm" else FEW  # a thousand processes are no test of anything
    submit(stage, "long", count, "600")
    work = made(stage, name, folder, count)
    while work.step() < count or any(entry.step != "submitted" for entry in work._journal.entries()):
        pass
    calls = Counter()
    module, server = {"slurm": slurm, "local": local}[name], work._steps.server
    if name == "slurm":
        module.call = counted(calls, "engine", module.call)
    server._ask = counted(calls, "daemon", server._ask)
    rounds, before, begin = [], cpu(stage.daemon.pid), time.monotonic()
    while time.monotonic() - begin < WATCHED:
        start = time.monotonic()
        work.step()
        rounds.append(time.monotonic() - start)
        time.sleep(max(0.0, INTERVAL - rounds[-1]))
    minutes = (time.monotonic() - begin) / 60
    load_of_daemon = (cpu(stage.daemon.pid) - before) / (60 * minutes)
    stop(stage, name, work)
    asked = calls["engine"] / minutes
    return [
        Row(f"calls of {name} per minute, {count} open jobs", f"{asked:.0f}", aim="<= 15", met=asked <= 15),
        Row("requests to the daemon per minute, the same", f"{calls['daemon'] / minutes:.0f}"),
        Row("share of a core that they cost the daemon", f"{100 * load_of_daemon:.1f} %"),
        Row("one round of the worker", f"{1000 * sorted(rounds)[len(rounds) // 2]:.0f} ms"),
    ]


def counted(calls, what, function):
    """The function, counting."""

    def wrapped(*words, **more):
        calls[what] += 1
        return function(*words, **more)

    return wrapped


def cpu(pid):
    """Seconds of CPU of a process and its children."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def stop(stage, name, work):
    """End what was begun."""
    work.close()
    if name == "slurm":
        subprocess.run(["scancel", "--user=root"], check=False)
    else:
        for entry in work._journal.entries():
            local.clean(work._steps.job(entry))
