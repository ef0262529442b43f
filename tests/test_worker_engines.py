"""What the engines' books tell, nodes that fail, what apps ask for. Bad input: killed job scripts, dead nodes, a controller that forgot."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from ippd.runners import ENGINES, slurm
from ippd.runners.launcher import LAUNCHER
from ippd.runners.tools import LIVE, RUNNING, STOPPED, SUSPENDED, Job, Seen
from ippd.settings import load
from ippd.worker import make_worker
from workerkit import rig_over, running

UP = {"slurm": "up-accounting"}
NOBODY = 65534
BATCH = pytest.mark.parametrize("engine", ["slurm", "gridengine"], indirect=True)


@pytest.fixture(scope="module", params=["local", "slurm", "gridengine"])
def engine(request):
    with running(request.param, UP.get(request.param, "up")) as made:
        yield made


@pytest.fixture
def rig(make_portal, engine, tmp_path):
    with rig_over(make_portal, engine, tmp_path) as made:
        yield made


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.2)


def jobs_of(engine):
    """What the engine's own command lists."""
    words = {"slurm": ["squeue", "--noheader", "--states=all"], "gridengine": ["qstat"]}[engine.name]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@BATCH
def test_what_a_killed_job_was_is_in_the_books_when_the_engine_has_forgotten_it(rig, engine, monkeypatch):
    monkeypatch.setattr(slurm, "GRACE", 1.0)
    id = rig.submit(rig.ada, "use")
    worker = rig.worker()
    rig.until(worker, lambda: rig.core.outputs.open(rig.ada, id).size > 0)
    time.sleep(3)  # the engines look each second at what a job uses
    os.kill(int((rig.jobs()[0] / "pid").read_text().split()[0]), signal.SIGKILL)
    until(lambda: not jobs_of(engine))
    rig.until(worker, rig.status(id))
    done = rig.get(id)
    assert (done["status"], done["exit_code"], done["restarts"], rig.ran(id)) == ("failed", 137, 0, 1), done
    used = done["usage"]
    assert used["node"] == os.uname().nodename and used["started_at"] < used["ended_at"]
    if engine.name == "slurm":  # which books more or less of what the killed script had started: it looks at processes that are going
        words = ["sacct", "--noheader", "--format=TotalCPU", f"--jobs={used['job']}"]
        parts = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0].split(":")
        assert used["cpu_seconds"] == sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    else:
        assert used["cpu_seconds"] > 0.5
    assert used["peak_bytes"] > (60_000_000 if engine.name == "slurm" else 0)


@BATCH
def test_what_a_node_cannot_measure_is_taken_from_the_books(rig, monkeypatch):
    monkeypatch.setattr("ippd.worker.inputs.LAUNCHER", LAUNCHER.replace("/usr/bin/time", "/no/such/program"))
    id = rig.submit(rig.ada, "use")
    worker = rig.worker()
    rig.until(worker, lambda: rig.core.outputs.open(rig.ada, id).size > 0)
    time.sleep(1.5)
    rig.go.touch()
    rig.until(worker, rig.status(id))
    done = rig.get(id)
    assert done["status"] == "completed" and done["usage"]["peak_bytes"] > 60_000_000 and rig.ran(id) == 1


@pytest.mark.parametrize("policy", [0, 1])
def test_a_node_that_fails_begins_a_job_again_as_often_as_the_policy_says(rig, engine, policy):
    id = rig.submit(rig.ada, "wait", restarts=policy)
    worker = rig.worker()
    for begun in range(1, policy + 2):
        rig.until(worker, lambda begun=begun: rig.ran(id) == begun and rig.get(id)["status"] == "running")
        engine.node("down", worker._steps.job(worker._journal.entries()[0]))
        worker.step()
        engine.node("up")
    rig.until(worker, rig.status(id), 90)
    done = rig.get(id)
    assert (done["status"], done["restarts"], rig.ran(id)) == ("failed", policy, policy + 1), done
    assert done["message"].endswith(f"it was begun {policy + 1} times") and rig.jobs() == []


def asked(engine, name):
    """What the engine's own command says that a job has asked for."""
    if engine.name == "slurm":
        said = subprocess.run(["scontrol", "show", "job", "--oneliner"], check=True, capture_output=True, text=True).stdout
        return {word for line in said.splitlines() if f"JobName={name} " in line for word in line.split()}
    said = subprocess.run(["qstat", "-j", name], check=True, capture_output=True, text=True).stdout
    return {" ".join(line.split()) for line in said.splitlines()}


@BATCH
def test_what_an_app_asks_for_is_asked_of_the_engine(rig, engine):
    id = rig.submit(rig.ada, "wait", app="big")
    words = {"worker__cpus": "-pe smp {cpus}", "worker__gpus": "-l gpu={gpus}"} if engine.name == "gridengine" else {}
    worker = rig.worker(**words)
    rig.until(worker, rig.status(id, "running"))
    found = asked(engine, rig.jobs()[0].name)
    expected = {
        "slurm": {"NumCPUs=2", "MinMemoryNode=300M", "TresPerNode=gres:gpu:1", "Requeue=0"},
        "gridengine": {"parallel environment: smp range: 2", "hard resource_list: h_vmem=150M,gpu=1"},
    }
    assert expected[engine.name] <= found, found
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert rig.get(id)["status"] == "completed"


@pytest.mark.parametrize("engine", ["gridengine"], indirect=True)
def test_what_the_site_has_no_words_for_is_told(rig):
    id = rig.submit(rig.ada, "print", app="big")
    rig.until(rig.worker(worker__cpus="-pe smp {cpus}"), rig.status(id))
    assert rig.get(id)["message"] == (
        "the batch engine refuses the job: the app has Gpus, and worker.gpus does not say with which words to ask for that"
    )


@BATCH
def test_an_engine_that_refuses_to_hold_a_job_is_told(rig, tmp_path, monkeypatch):
    places = os.environ["PATH"]
    for name in ("scontrol", "scancel", "qmod"):  # as where a site keeps these for its administrators
        (tmp_path / name).write_text("#!/bin/sh\necho Access denied >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    id = rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{places}")
    assert rig.core.runs.suspend(rig.ada, id) == "running"
    rig.until(worker, lambda: rig.get(id)["message"])
    assert rig.get(id)["message"].startswith("the batch engine does not hold the job: ") and "Access denied" in rig.get(id)["message"]
    assert (rig.get(id)["status"], rig.get(id)["wanted"]) == ("running", None)
    monkeypatch.setenv("PATH", places)
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1


@BATCH
def test_a_job_that_waits_in_the_engine_is_held_there(rig):
    first = [rig.submit(rig.ada, "wait") for _ in range(os.cpu_count())]
    last = rig.submit(rig.ada, "wait")
    worker = rig.worker(worker__slots=len(first) + 1)
    rig.until(worker, lambda: all(rig.status(id, "running")() for id in first) and len(rig.jobs()) == len(first) + 1)
    rig.core.runs.suspend(rig.ada, last)
    rig.until(worker, rig.status(last, "suspended"))
    rig.go.touch()
    rig.until(worker, lambda: all(rig.status(id)() for id in first))
    for _ in range(5):
        worker.step()
        time.sleep(0.2)
    assert rig.get(last)["status"] == "suspended" and rig.ran(last) == 0
    rig.core.runs.resume(rig.ada, last)
    rig.until(worker, rig.status(last))
    assert rig.get(last)["status"] == "completed" and rig.ran(last) == 1


@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_workers_of_two_engines_share_the_queue_by_host_and_app(rig, engine):
    ids = {host: rig.submit(rig.ada, "print", host=host) for host in ("cluster", "here", "nowhere")}
    other = rig.submit(rig.ada, "print", host="here", app="boxed")
    cluster = rig.worker(worker__hosts="cluster")
    here = make_worker(load("", {}, rig.settings(worker__hosts="here", worker__apps="act", worker__folder=rig.folder / "here")), "local")
    rig.workers.append(here)
    for _ in range(100):
        cluster.step(), here.step()
        time.sleep(0.1)
        if all(rig.status(ids[host])() for host in ("cluster", "here")):
            break
    assert {host: rig.get(id)["usage"].get("engine") for host, id in ids.items()} == {"cluster": "slurm", "here": "local", "nowhere": None}
    assert [rig.get(id)["status"] for id in (ids["nowhere"], other)] == ["submitted", "submitted"]


@pytest.fixture
def open_folder():
    """A folder that everybody may enter, as pytest's is not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_nobody(function):
    """Run a function in a process of the account nobody; fails with what it says when it fails."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@BATCH
def test_a_worker_that_is_not_root_holds_a_job_and_lets_it_go_on(engine, open_folder):
    job = Job(f"ippd-1-{os.getpid():x}", open_folder / "job")
    (job.folder / "work").mkdir(parents=True)
    (job.folder / "words").mkdir()
    counting = "while sleep 0.1; do echo x; done"
    for number, word in enumerate(("/bin/sh", "-c", counting)):
        (job.folder / "words" / str(number)).write_text(word)
    (job.folder / "job.sh").write_text(LAUNCHER)
    for path in (job.folder, *job.folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    module, counted = ENGINES[engine.name], job.folder / "stdout.txt"

    def state():
        return module.look([job])[job.name].state

    def moves():
        before = counted.stat().st_size
        time.sleep(1)
        return counted.stat().st_size > before

    def hold_and_go_on():
        module.submit(job)
        until(lambda: counted.exists() and moves())
        module.suspend(job)
        until(lambda: not moves())
        assert state() in (RUNNING, SUSPENDED) and not moves()
        module.resume(job)
        until(moves)
        module.cancel(job)
        until(lambda: module.look([job]).get(job.name, Seen(STOPPED)).state not in LIVE)

    as_nobody(hold_and_go_on)


@pytest.mark.parametrize("engine", ["gridengine"], indirect=True)
def test_a_job_in_an_error_state_does_not_stay_in_the_engine(rig, engine):
    """Bad input: a job whose folder is gone when it is to begin, with which Grid Engine can do nothing but keep it (Eqw)."""
    first = [rig.submit(rig.ada, "wait") for _ in range(os.cpu_count())]
    worker = rig.worker(worker__slots=len(first) + 1)
    rig.until(worker, lambda: all(rig.status(id, "running")() for id in first))
    last = rig.submit(rig.ada, "print", restarts=0)
    rig.until(worker, lambda: any(entry.id == last and entry.engine_id for entry in worker._journal.entries()))
    (folder,) = [folder for folder in rig.jobs() if folder.name.startswith(f"ippd-{last}-")]
    shutil.rmtree(folder)
    rig.go.touch()
    rig.until(worker, lambda: all(rig.status(id)() for id in [*first, last]), 90)
    assert (rig.get(last)["status"], rig.get(last)["message"]) == ("failed", "the batch engine holds the job in an error state (Eqw)")
    until(lambda: not jobs_of(engine), 20)
    assert rig.jobs() == []
