"""Transfers that take longer than a lease, and what changes meanwhile. Bad input is what each test says."""

import threading

import pytest

from conftest import silence
from ippd.permissions import SYSTEM
from ippd.stop import Stop
from ippd.worker import delivery, heartbeats, inputs, run
from workerkit import rig_over, running


@pytest.fixture(scope="module")
def engine():
    with running("local") as made:
        yield made


@pytest.fixture
def rig(make_portal, engine, tmp_path):
    with rig_over(make_portal, engine, tmp_path) as made:
        yield made


def beats(rig, *ids):
    """When experiments were heard of for the last time."""
    return {rig.core.store.value("SELECT heartbeat_at FROM experiments WHERE id = :id", id=id) for id in ids}


@pytest.mark.parametrize("slow", ["bring", "post_form"])
def test_a_transfer_longer_than_the_lease_takes_no_experiment_away(rig, slow, monkeypatch):
    """Bad input: an input, and results, that are under way for three times the lease, with another job that runs."""
    goes_on, under_way = threading.Event(), threading.Event()

    def held(function):
        def waits(server, *arguments):
            if slow == "bring" or arguments[0].endswith("/results"):
                under_way.set()
                assert goes_on.wait(60)
            return function(server, *arguments)

        return waits

    other = rig.submit(rig.ada, "wait", restarts=0)
    worker = rig.worker(worker__lease="5s")
    rig.until(worker, rig.status(other, "running"))
    owner = inputs if slow == "bring" else delivery.Server
    monkeypatch.setattr(owner, slow, held(getattr(owner, slow)))
    id = rig.submit(rig.ada, "print", restarts=0)
    stop = Stop()
    rounds = threading.Thread(target=run, args=(worker, 0.1, stop))
    rounds.start()
    try:
        assert under_way.wait(30)
        for _ in range(3):
            rig.core.clock.forward(seconds=4.5)
            rig.wait(lambda: beats(rig, id, other) == {rig.core.clock()}, 20)
            assert rig.core.leases.lapse(SYSTEM) == 0
        goes_on.set()
        rig.wait(rig.status(id), 20)
        rig.go.touch()
        rig.wait(rig.status(other), 20)
    finally:
        goes_on.set()
        stop.set()
        rounds.join(30)
    assert [rig.get(one)["status"] for one in (id, other)] == ["completed"] * 2 and [rig.ran(one) for one in (id, other)] == [1, 1]


@pytest.mark.parametrize("what", ["cancelled", "lost"])
def test_what_changed_while_inputs_were_staged_in_is_heard_before_the_job_is_submitted(rig, what, monkeypatch):
    """Bad input: an experiment that is cancelled, and one that is taken back, while its input is under way."""
    id = rig.submit(rig.ada, "wait", files=[("scan", b"voxels")], restarts=0)
    late, bring = [0.0], inputs.bring
    monotonic = heartbeats.monotonic

    def slowly(server, entry):
        late[0] += 600
        rig.core.experiments.cancel(rig.ada, id) if what == "cancelled" else silence(rig.core, 61)
        return bring(server, entry)

    monkeypatch.setattr(heartbeats, "monotonic", lambda: monotonic() + late[0])
    monkeypatch.setattr(inputs, "bring", slowly)
    worker = rig.worker(worker__slots=1)
    worker.step()
    (entry,) = worker._journal.entries()
    assert (entry.step, entry.engine_id, rig.ran(id)) == ("stopping", "", 0)
    if what == "cancelled":
        rig.until(worker, lambda: not rig.jobs())
        assert rig.core.experiments.gone(rig.ada, id) and rig.ran(id) == 0


@pytest.mark.parametrize("words", [("print",), ("fail", "3")])
def test_a_cancel_between_the_orders_and_the_delivery_is_told_to_be_gone(rig, words, monkeypatch, caplog):
    """Bad input: a cancel that comes when the job has ended, and nothing was delivered yet."""
    id = rig.submit(rig.ada, *words)
    worker = rig.worker()
    worker.step()
    rig.wait(lambda: (rig.jobs()[0] / "exit").exists())
    ask = heartbeats.ask

    def too_early(server, claims):
        answers = ask(server, claims)
        if rig.get(id)["status"] in ("queued", "running"):
            assert rig.core.experiments.cancel(rig.ada, id)["gone"] is False
        return answers

    monkeypatch.setattr(heartbeats, "ask", too_early)
    caplog.set_level("INFO", "ippd.worker")
    rig.until(worker, lambda: not rig.jobs())
    assert rig.get(id)["status"] == "cancelled" and rig.core.experiments.gone(rig.ada, id)
    assert f"experiment {id}: completed" not in caplog.messages and worker.step() == 0


def test_what_was_told_stands_in_the_log(rig, caplog):
    """Bad input: a program that ends well and leaves no results."""
    caplog.set_level("INFO", "ippd.worker")
    ids = [rig.submit(rig.ada, "nothing"), rig.submit(rig.ada, "print")]
    rig.until(rig.worker(), lambda: all(rig.status(id)() for id in ids))
    assert [f"experiment {id}: {word}" in caplog.messages for id in ids for word in ("the app made no results", "completed")] == [
        True, False, False, True,
    ]  # fmt: skip
