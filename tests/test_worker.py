"""The worker over each engine. Bad input: words that a shell would take for syntax, kill -9 at every point, an engine that goes away."""

import json
import os
import time

import pytest

from conftest import silence
from ippd.calls import Server
from ippd.errors import Conflict
from ippd.permissions import OPERATOR
from workerkit import rig_over, running

HOSTILE = ["3;id", "$(id)", "`id`", "it's \"quoted\"", "two\nlines\n", "-rf", "--", "Grüße 脳 🧠", " a ", "*", "\\", "a\tb", "$HOME"]
POINTS = ["before-submit", "after-submit", "running", "before-results", "amid-results", "after-results"]


@pytest.fixture(scope="module", params=["local", "slurm", "gridengine"])
def engine(request):
    with running(request.param) as made:
        yield made


@pytest.fixture
def rig(make_portal, engine, tmp_path):
    with rig_over(make_portal, engine, tmp_path) as made:
        yield made


def test_hostile_words_arrive_exactly_as_typed(rig):
    id = rig.submit(rig.ada, *HOSTILE)
    rig.until(rig.worker(), rig.status(id))
    assert rig.get(id)["status"] == "completed", rig.get(id)
    assert rig.read(id, "words").split(b"\0")[:-1] == [word.encode() for word in HOSTILE]


def test_inputs_go_in_and_results_usage_and_output_come_out(rig):
    id = rig.submit(rig.ada, "print", files=[("scan 1.nii", b"voxels"), ("Gehirn 脳.nii", b" more")])
    rig.until(rig.worker(), rig.status(id))
    done = rig.get(id)
    assert (done["status"], done["exit_code"], done["outputs"]) == ("completed", 0, ["inputs", "words", "log.txt", "errors.txt"])
    assert sorted([rig.read(id, "inputs")]) == [b" morevoxels"] and rig.read(id, "log.txt") == b"one\n"
    used = done["usage"]
    assert used["engine"] == rig.engine.name and used["job"].isdecimal() and used["node"] == os.uname().nodename
    assert used["started_at"] <= used["ended_at"] and used["cpu_seconds"] >= 0 and used["peak_bytes"] > 100_000
    assert rig.core.outputs.open(rig.ada, id, "stderr").path.read_bytes() == b"two\n"
    assert rig.ran(id) == 1 and rig.jobs() == []


def test_failures_keep_their_exit_code_and_reason(rig):
    ids = [rig.submit(rig.ada, *words) for words in (("fail", "7"), ("die",), ("fail", "255"))]
    ids.append(rig.submit(rig.ada, app="absent"))
    ids.append(rig.submit(rig.ada, "nothing"))
    worker = rig.worker(worker__slots=5)
    rig.until(worker, lambda: all(rig.status(id)() for id in ids))
    told = [(rig.get(id)["status"], rig.get(id)["exit_code"]) for id in ids]
    assert told == [("failed", 7), ("failed", 137), ("failed", 255), ("failed", 127), ("failed", 0)]
    assert rig.get(ids[0])["message"] == "it went wrong" and rig.get(ids[4])["message"] == "the app made no results"
    assert rig.get(ids[3])["message"] == "the program program cannot be run: there is no such file"
    assert rig.core.outputs.open(rig.ada, ids[3], "stderr").path.read_text() == rig.get(ids[3])["message"] + "\n"
    assert [rig.ran(id) for id in ids] == [1, 1, 1, 0, 1]


@pytest.mark.parametrize("engine", ["local"], indirect=True)
def test_where_a_program_lies_is_not_told_when_it_cannot_be_run(rig, tmp_path):
    """Bad input: a file that is not executable, one whose interpreter is not there, a folder."""
    (tmp_path / "apps" / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "apps" / "astray").write_text("#!/no/such/shell\n")
    (tmp_path / "apps" / "astray").chmod(0o755)
    (tmp_path / "apps" / "nest").mkdir()
    for name in ("plain", "astray", "nest"):
        (tmp_path / "apps" / f"{name}.json").write_text(json.dumps({"Executable": name}))
    ids = {name: rig.submit(rig.ada, app=name) for name in ("plain", "astray", "nest")}
    rig.until(rig.worker(worker__slots=3), lambda: all(rig.status(id)() for id in ids.values()))
    for name, id in ids.items():
        found = rig.get(id)
        assert found["status"] == "failed" and found["exit_code"] in (126, 127)
        assert name in found["message"] and str(tmp_path) not in found["message"], found["message"]
    assert rig.get(ids["plain"])["message"] == "the program plain cannot be run: it may not be executed"


def test_a_container_gets_the_program_as_words(rig):
    box = rig.folder / "box"
    box.write_text('#!/bin/sh\necho "$1" >"$2/results/image"\nshift 2\nexec "$@"\n')
    box.chmod(0o755)
    id = rig.submit(rig.ada, "3;id", app="boxed")
    rig.until(rig.worker(worker__container=f"{box} {{image}} {{folder}}"), rig.status(id))
    assert rig.read(id, "image") == b"an image;id\n" and rig.read(id, "words") == b"3;id\0"


def test_cancelling_ends_the_job_and_says_when_it_is_gone(rig):
    running, waiting = rig.submit(rig.ada, "wait"), rig.submit(rig.ada, "wait")
    worker = rig.worker(worker__slots=1)
    rig.until(worker, rig.status(running, "running"))
    assert rig.core.experiments.cancel(rig.ada, waiting)["gone"] is True
    assert rig.core.experiments.cancel(rig.ada, running) == {"status": "cancelled", "was": "running", "gone": False}
    rig.wait(lambda: rig.processes(running))
    rig.until(worker, lambda: rig.core.experiments.gone(rig.ada, running))
    time.sleep(0.3)
    rig.go.touch()  # would let it go on, were it there
    assert rig.processes(running) == []
    assert worker.step() == 0 and rig.ran(waiting) == 0


def test_a_job_past_its_time_limit_is_ended_and_fails(rig):
    id = rig.submit(rig.ada, "wait", time_limit=1)
    rig.until(rig.worker(), rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "the job ran longer than its time limit of 1 s")


def test_output_can_be_read_while_the_job_runs(rig):
    id = rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, lambda: rig.core.outputs.open(rig.ada, id).size > 0)
    assert rig.core.outputs.open(rig.ada, id).path.read_bytes() == b"waiting\n" and rig.get(id)["status"] == "running"
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert rig.core.outputs.open(rig.ada, id).path.read_bytes() == b"waiting\nover\n"


def test_a_running_job_is_suspended_and_goes_on(rig):
    id = rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    rig.core.runs.suspend(rig.ada, id)
    rig.until(worker, rig.status(id, "suspended"))
    rig.go.touch()
    for _ in range(8):
        worker.step()
        time.sleep(0.1)
    assert rig.get(id)["status"] == "suspended"
    rig.core.runs.resume(rig.ada, id)
    rig.until(worker, rig.status(id))
    assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_runs_nothing_twice_and_forgets_nothing(rig, point):
    if point != "running":
        rig.go.touch()
    id = rig.submit(rig.ada, "wait", files=[("a.nii", b"1")])
    rig.killed(point)
    rig.go.touch()
    rig.until(rig.worker(), lambda: rig.status(id)() and not rig.jobs(), 60)
    assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1
    told = [row for row in rig.core.notifications.list(OPERATOR) if row["kind"] == "completed"]
    assert len(told) == 1 and rig.get(id)["outputs"] == ["inputs", "words", "log.txt"]


@pytest.mark.parametrize("engine", ["local"], indirect=True)
@pytest.mark.parametrize("count", range(1, 7))
def test_a_worker_that_is_killed_before_it_writes_its_journal(rig, count):
    rig.go.touch()
    id = rig.submit(rig.ada, "wait")
    rig.killed(f"save={count}")
    worker = rig.worker()
    if count == 1:  # claimed, and nobody knows it: the lease ends, and it counts for nothing
        assert silence(rig.core, 61) == 1
    rig.until(worker, rig.status(id), 60)
    assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1


def test_a_job_that_somebody_else_got_meanwhile_is_ended(rig):
    id = rig.submit(rig.ada, "wait", restarts=3)
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    silence(rig.core, 61)
    rig.core.queue.claim(OPERATOR)
    rig.until(worker, lambda: not rig.jobs())
    assert rig.get(id)["status"] == "queued" and rig.ran(id) == 1
    assert rig.processes(id) == []


@pytest.mark.parametrize("engine", ["slurm", "gridengine"], indirect=True)
def test_a_job_that_the_engine_refuses_fails_with_its_words(rig):
    id = rig.submit(rig.ada, app="greedy")
    rig.until(rig.worker(), rig.status(id))
    assert rig.get(id)["status"] == "failed" and rig.get(id)["restarts"] == 0
    assert "the batch engine refuses the job: " in rig.get(id)["message"]


@pytest.mark.parametrize("engine", ["slurm", "gridengine"], indirect=True)
def test_an_engine_that_is_down_fails_nothing(rig, engine):
    running = rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, rig.status(running, "running"))
    engine.master("down")
    try:
        later = rig.submit(rig.ada, "print")
        rig.go.touch()
        for _ in range(3):
            worker.step()
        assert (rig.get(running)["status"], rig.get(later)["status"]) in (("running", "submitted"), ("running", "queued"))
    finally:
        engine.master("up")
    rig.until(worker, lambda: rig.status(running)() and rig.status(later)(), 90)
    assert [rig.get(id)["status"] for id in (running, later)] == ["completed", "completed"]
    assert [rig.ran(id) for id in (running, later)] == [1, 1]


def test_fifty_experiments_with_two_slots(rig):
    ids = [rig.submit(rig.ada, "print", str(number)) for number in range(50)]
    worker, most = rig.worker(), []

    def over():
        most.append(len(rig.core.experiments.list(rig.ada, status="running")) + len(rig.core.experiments.list(rig.ada, status="queued")))
        return not rig.core.experiments.list(rig.ada, status="submitted") and most[-1] == 0

    rig.until(worker, over, 110)
    assert max(most) == 2 and [rig.get(id)["status"] for id in ids] == ["completed"] * 50
    assert [rig.ran(id) for id in ids] == [1] * 50


@pytest.mark.parametrize("engine", ["local"], indirect=True)
def test_a_folder_belongs_to_one_worker(rig):
    rig.worker()
    with pytest.raises(Conflict, match="another worker uses"):
        rig.worker()


@pytest.mark.parametrize("engine", ["local"], indirect=True)
def test_a_daemon_that_is_away_is_waited_for(rig):
    id = rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    url, worker._steps.server = worker._steps.server, Server("http://127.0.0.1:9")
    rig.go.touch()
    assert worker.step() == 1 and rig.get(id)["status"] == "running"
    worker._steps.server = url
    rig.until(worker, rig.status(id))
    assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1
