"""Accounts of local.workers, in which programs of users run. Bad input: a job that calls the listener as its worker's account."""

import ctypes
import json
import os
import pwd
from contextlib import contextmanager

import pytest

from client import Client
from conftest import echo, join, silence
from ippd.domain.submission import Part
from ippd.errors import Conflict, NotFound
from ippd.permissions import OPERATOR, Actor
from workerkit import Rig, make_apps, running

NOBODY = pwd.getpwnam("nobody")
JOB = Actor("worker", name="jobs")  # what a job is there: it knows no claim but its own
RESULT = Part("file", "file", [b"forged"], "out.txt")


@pytest.fixture
def core(make_core, tmp_path):
    apps = tmp_path / "apps"
    apps.mkdir()
    (apps / "echo.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}, "FILES": ["scan"]}))
    return make_core(apps__directory=apps)


@pytest.fixture
def ada(core):
    return join(core)


def held_by_a_worker(core, id):
    return core.leases.claim(JOB, "w1", 60, 9)[0]["claim"]


def held_by_a_script_of_another_account(core, id):
    core.queue.claim(Actor("worker", name="others"))


def running_before(core, id):
    claim = held_by_a_worker(core, id)
    core.queue.running(JOB, id, claim)
    silence(core, 61)
    return claim


def ended(core, id):
    claim = held_by_a_worker(core, id)
    core.files.add_results(JOB, id, [Part("param", "claim", claim), Part("file", "file", [b"true"], "out.txt")])
    return claim


def ended_by_a_script(core, id):
    core.queue.claim(JOB)
    core.files.add_results(JOB, id, [Part("file", "file", [b"true"], "out.txt")])


def calls(core, id, claim):
    """All that an account of a worker may call, with a claim."""
    reader = Actor("worker", name="jobs", claim=claim)
    told = [Part("param", "claim", claim)] if claim is not None else []
    return {
        "get": lambda: core.experiments.get(reader, id),
        "file": lambda: core.files.open(reader, id, "scan.nii"),
        "files": lambda: core.files.inputs(reader, id),
        "log": lambda: core.outputs.open(reader, id),
        "gone": lambda: core.experiments.gone(reader, id),
        "heartbeat": lambda: core.queue.heartbeat(JOB, id, claim),
        "running": lambda: core.queue.running(JOB, id, claim),
        "suspended": lambda: core.runs.suspended(JOB, id, claim),
        "unable": lambda: core.runs.unable(JOB, id, claim, "no"),
        "append": lambda: core.outputs.append(JOB, id, "stdout", 0, [b"x"], claim),
        "stopped": lambda: core.leases.stopped(JOB, id, claim),
        "results": lambda: core.files.add_results(JOB, id, [*told, RESULT]),
        "failed": lambda: core.experiments.fail(JOB, id, 1, "forged", claim),
        "returned": lambda: core.leases.give_back(JOB, id, claim),
    }


def state(core, id):
    row = core.store.one("SELECT * FROM experiments WHERE id = :id", id=id)
    return row | {"files": core.store.all("SELECT * FROM files WHERE experiment_id = :id", id=id)}


@pytest.mark.parametrize(
    ("prepare", "guess"),
    [(lambda core, id: None, None), (lambda core, id: None, ""), (held_by_a_worker, None), (held_by_a_worker, "0" * 16),
     (held_by_a_script_of_another_account, None), (running_before, None), (running_before, True), (ended, None), (ended, True),
     (ended_by_a_script, None)],
)  # fmt: skip
def test_a_job_read_and_forged_what_was_not_its_own(core, ada, prepare, guess):
    """Bad input: experiments that wait, that others have, that were taken back and that have ended; no claim, a wrong one, an old one."""
    id = core.experiments.submit(ada, echo(("scan.nii", b"secret")))["id"]
    claim = prepare(core, id)
    before = state(core, id)
    for call in calls(core, id, claim if guess is True else guess).values():
        with pytest.raises((Conflict, NotFound)):
            call()
    assert state(core, id) == before and not core.outputs.folder.exists()


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("end", ["results", "failed", "returned"])
def test_what_is_in_hand_can_be_read_and_ended(core, ada, plain, end):
    """With the claim of a worker, and without one by the account that has it from the queue: a plain script."""
    id = core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    claim = core.queue.claim(JOB) and None if plain else held_by_a_worker(core, id)
    able = calls(core, id, claim)
    for name in ("get", "file", "files", "log", "heartbeat", "running", "append", *([] if plain else ["suspended", "unable"]), end):
        able[name]()
    told = {"results": "completed", "failed": "failed", "returned": "submitted"}
    assert core.experiments.get(OPERATOR, id)["status"] == (told[end] if plain or end != "returned" else "suspended")


def test_the_end_of_a_cancelled_job_can_be_told(core, ada):
    id = core.experiments.submit(ada, echo())["id"]
    claim = held_by_a_worker(core, id)
    core.experiments.cancel(ada, id)
    core.leases.stopped(JOB, id, claim)
    assert core.experiments.gone(ada, id)


@contextmanager
def account():
    """What this thread opens now belongs to nobody: so the kernel tells it of sockets (setfsuid(2))."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(NOBODY.pw_uid)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())


class Job(Client):
    """A program of the account nobody."""

    def connection(self, timeout=30):
        with account():
            made = super().connection(timeout)
            made.connect()
            return made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_a_worker_of_its_own_account_runs_an_experiment_that_others_of_it_cannot_touch(make_portal, tmp_path):
    """Bad input: a program of the worker's account that asks for the input and sends a result, without the claim and with a wrong one."""
    place = tmp_path / "rig"
    place.mkdir()
    with running("local") as engine:
        rig = Rig(make_portal(apps__directory=make_apps(tmp_path / "apps", place), local__workers="nobody"), engine, place)
        try:
            ada = rig.core.sessions.actor(rig.portal.user())
            job = Job(rig.portal.local.host, rig.portal.local.port)
            assert job.get("/users/list").status == 403
            id = rig.submit(ada, "wait", files=[("scan", b"secret")])
            worker = rig.worker()
            server = worker._steps.server
            connect = server._connect

            def connected():
                with account():
                    made = connect()
                    made.connect()
                    return made

            server._connect = connected
            rig.until(worker, rig.status(id, "running"))
            for query in ({}, {"claim": "0" * 16}):
                assert job.get(f"/experiments/{id}/file", path="scan", **query).status == 404
                assert job.get(f"/experiments/{id}/files", **query).status == 404
                assert job.post(f"/experiments/{id}/results", query, files=[("file", "a", b"forged")]).status == 409
                assert job.post(f"/experiments/{id}/failed", query).status == 409
            rig.go.touch()
            rig.until(worker, rig.status(id))
            assert rig.get(id)["status"] == "completed" and rig.read(id, "inputs") == b"secret"
        finally:
            rig.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_a_plain_script_of_such_an_account_needs_no_claim(make_portal):
    portal = make_portal(local__workers="nobody")
    token, script = portal.user(), Job(portal.local.host, portal.local.port)
    id = portal.public.post("/experiments/new", token=token, app="echo", files=[("scan", "a.nii", b"x")]).json["id"]
    assert script.get(f"/experiments/{id}/files").status == 404
    assert [item["id"] for item in script.get("/experiments/queue").json] == [id]
    assert script.get(f"/experiments/{id}/files").status == 200
    assert script.post(f"/experiments/{id}/running").body == script.post(f"/experiments/{id}/heartbeat").body == b"true"
    assert script.post(f"/experiments/{id}/results", files=[("file", "out", b"y")]).body == b"true"
    assert script.get(f"/experiments/{id}/file", path="out").status == 404
