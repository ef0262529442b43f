"""Workers: leases, fences, restarts, suspending, turns. Bad input: silent workers, old claims, moved clocks, greedy users."""

import json

import pytest

from conftest import join, silence
from ippd.domain.limits import counted
from ippd.domain.submission import Part
from ippd.errors import Conflict, Invalid, NotFound
from ippd.permissions import OPERATOR, SYSTEM, Actor

WORKER = Actor("local", name="worker")


@pytest.fixture
def core(make_core, tmp_path):
    apps = tmp_path / "apps"
    apps.mkdir()
    (apps / "echo.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}, "TimeLimit": "1h"}))
    (apps / "once.json").write_text(json.dumps({"Executable": "/bin/echo", "Restarts": 0}))
    return make_core(apps__directory=apps, apps__allow_unknown="yes", queue__restarts=1)


@pytest.fixture
def ada(core):
    return join(core)


def submit(core, who, app="echo", host="", files=(), params=None, **run):
    parts = [Part("fact", "app", app), Part("fact", "host", host)]
    parts += [Part("fact", name, str(value)) for name, value in run.items()]
    parts += [Part("param", name, value) for name, value in (params or {}).items()]
    return core.experiments.submit(who, parts + [Part("file", "scan", [data], name) for name, data in files])["id"]


def claim(core, most=100, seconds=60, worker="w1", **share):
    return core.leases.claim(WORKER, worker, seconds, most, **share)


def ids(items):
    return [item["id"] for item in items]


def status(core, id):
    return core.experiments.get(OPERATOR, id)["status"]


def results(claim, **usage):
    return [Part("param", "claim", claim), Part("param", "usage", json.dumps(usage)), Part("file", "file", [b"x"], "out.txt")]


def test_a_claim_tells_all_that_a_worker_needs(core, ada):
    id = submit(core, ada, files=[("a b.nii", b"scan")], params={"text": "3;id"}, time_limit=60)
    (item,) = claim(core)
    assert item["id"] == id and item["params"] == {"text": "3;id"} and item["files"] == {"scan": ["a_b.nii"]}
    assert item["inputs"][0]["bytes"] == 4 and len(item["inputs"][0]["sha256"]) == 64
    assert item["backend"]["executable"] == "/bin/echo" and item["time_limit"] == 60 and item["restarts"] == 0
    assert claim(core) == []


def test_a_worker_gets_only_what_can_be_run_and_what_it_asked_for(core, ada):
    unknown, one, two = submit(core, ada, app="script_only"), submit(core, ada, host="cubic"), submit(core, ada, app="once", host="other")
    assert ids(claim(core, hosts=["cubic"])) == [one]
    assert ids(claim(core, apps=["echo", "script_only"])) == []
    assert ids(claim(core, apps=["once"])) == [two]
    assert ids(core.queue.claim(WORKER)) == [unknown]


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"seconds": 1e9}, {"most": 0}, {"worker": ""}, {"worker": "x" * 200},
                                 {"hosts": ["h"] * 201}, {"apps": ["a"] * 201}])
def test_a_senseless_claim_is_refused(core, bad):
    with pytest.raises(Invalid):
        claim(core, **bad)


def test_a_heartbeat_keeps_a_lease_and_its_end_counts_as_a_beginning(core, ada, clock):
    id = submit(core, ada)
    (item,) = claim(core)
    for _ in range(5):
        clock.forward(seconds=50)
        assert core.leases.heartbeat(WORKER, {id: item["claim"]}) == {id: "go on"}
        assert core.leases.lapse(SYSTEM) == 0
    assert silence(core, 60) == 1 and status(core, id) == "submitted"
    assert core.leases.heartbeat(WORKER, {id: item["claim"]}) == {id: "lost"}
    (again,) = claim(core, worker="w2")
    assert again["restarts"] == 1 and again["claim"] != item["claim"]


def test_a_claim_whose_answer_got_lost_does_not_count_as_a_beginning(core, ada, clock):
    id = submit(core, ada, app="once")
    for _ in range(3):
        assert ids(claim(core)) == [id]
        silence(core, 61)
    assert status(core, id) == "submitted"


def test_an_experiment_is_begun_again_only_as_often_as_its_policy_says(core, ada, clock):
    own, app, site = submit(core, ada, restarts=2), submit(core, ada, app="once"), submit(core, ada)
    for _ in range(4):
        for item in claim(core):
            core.queue.running(WORKER, item["id"])
        silence(core, 61)
    told = {id: core.experiments.get(OPERATOR, id) for id in (own, app, site)}
    assert {id: e["status"] for id, e in told.items()} == {own: "failed", app: "failed", site: "failed"}
    assert [told[id]["restarts"] for id in (own, app, site)] == [2, 0, 1]
    assert "w1 was not heard of for 60 s" in told[own]["message"]


@pytest.mark.parametrize("jump", [-10 * 86400, 10 * 86400])
def test_a_lease_ends_also_when_the_clock_jumps(core, ada, clock, jump):
    id = submit(core, ada)
    claim(core)
    clock.forward(seconds=jump)
    assert silence(core, 60) == 1 and status(core, id) == "submitted"


@pytest.mark.parametrize("away", [3600, 10 * 86400, -10 * 86400])
def test_a_worker_that_could_not_be_heard_keeps_its_claims(core, ada, clock, away):
    """Bad input: a daemon that was off, or a clock that jumped, for longer than the lease; the worker is there again right after."""
    id = submit(core, ada, app="once")
    (item,) = claim(core)
    core.leases.heartbeat(WORKER, {id: item["claim"]})
    core.leases.lapse(SYSTEM)
    clock.forward(seconds=away)
    assert silence(core, 45) == 0
    assert core.leases.heartbeat(WORKER, {id: item["claim"]}) == {id: "go on"}
    assert silence(core, 45) == 0 and status(core, id) == "queued"
    assert silence(core, 30) == 1 and status(core, id) == "failed"


def test_who_lost_a_claim_can_change_nothing(core, ada, clock):
    id = submit(core, ada)
    (old,) = claim(core)
    silence(core, 61)
    (new,) = claim(core)
    refused = (
        lambda: core.files.add_results(WORKER, id, results(old["claim"])),
        lambda: core.experiments.fail(WORKER, id, 1, "late", old["claim"]),
        lambda: core.leases.give_back(WORKER, id, old["claim"]),
        lambda: core.runs.suspended(WORKER, id, old["claim"]),
        lambda: core.runs.unable(WORKER, id, old["claim"], "no"),
        lambda: core.leases.stopped(WORKER, id, old["claim"]),
        lambda: core.outputs.append(WORKER, id, "stdout", 0, [b"x"], old["claim"]),
        lambda: core.queue.running(WORKER, id, old["claim"]),
    )
    for call in refused:
        with pytest.raises(Conflict, match="other hands"):
            call()
    core.files.add_results(WORKER, id, results(new["claim"], job="7", node="n1", cpu_seconds=1.5, peak_bytes=4096))
    done = core.experiments.get(ada, id)
    assert done["status"] == "completed" and done["exit_code"] == 0 and done["outputs"] == ["out.txt"]
    assert done["usage"]["job"] == "7" and done["usage"]["cpu_seconds"] == 1.5 and done["usage"]["peak_bytes"] == 4096
    assert core.leases.heartbeat(WORKER, {id: new["claim"]}) == {id: "completed"}


def test_a_lost_job_is_begun_again_and_then_fails(core, ada):
    id = submit(core, ada)
    (item,) = claim(core)
    assert core.leases.give_back(WORKER, id, item["claim"], "node n1 failed") == "submitted"
    (item,) = claim(core)
    assert core.leases.give_back(WORKER, id, item["claim"], "node n1 failed") == "failed"
    assert core.experiments.get(ada, id)["message"] == "node n1 failed; it was begun 2 times"
    with pytest.raises(Conflict):
        core.leases.give_back(WORKER, id)


def test_a_cancel_says_what_it_stopped_and_when_it_is_gone(core, ada):
    waiting, held, scripted = submit(core, ada), submit(core, ada), submit(core, ada, app="script_only")
    assert core.experiments.cancel(ada, waiting) == {"status": "cancelled", "was": "submitted", "gone": True}
    (item,) = claim(core)
    core.queue.claim(WORKER)
    core.queue.running(WORKER, held)
    assert core.experiments.cancel(ada, held) == {"status": "cancelled", "was": "running", "gone": False}
    assert core.experiments.cancel(ada, scripted) == {"status": "cancelled", "was": "queued", "gone": None}
    assert not core.experiments.gone(ada, held)
    assert core.leases.heartbeat(WORKER, {held: item["claim"]}) == {held: "cancelled"}
    core.leases.stopped(WORKER, held, item["claim"])
    assert core.experiments.gone(ada, held)
    with pytest.raises(Conflict, match="is cancelled"):
        core.experiments.cancel(ada, held)


def test_a_cancel_of_what_was_held_while_it_waited_leaves_nothing_running(core, ada):
    """Bad input: a cancel of a suspended experiment that nobody ever had, and of one that a worker holds."""
    id = submit(core, ada)
    core.runs.suspend(ada, id)
    assert core.experiments.cancel(ada, id) == {"status": "cancelled", "was": "suspended", "gone": True}
    id = submit(core, ada)
    (item,) = claim(core)
    core.runs.suspend(ada, id)
    core.runs.suspended(WORKER, id, item["claim"])
    assert core.experiments.cancel(ada, id) == {"status": "cancelled", "was": "suspended", "gone": False}


def test_the_end_of_a_job_is_told_of_cancelled_experiments_only(core, ada):
    """Bad input: a worker that says so while the experiment is running: it gave its claim away, and nobody took the experiment back."""
    id = submit(core, ada)
    (item,) = claim(core)
    core.queue.running(WORKER, id)
    with pytest.raises(Conflict, match="is running"):
        core.leases.stopped(WORKER, id, item["claim"])
    assert silence(core, 61) == 1 and status(core, id) == "submitted"


def test_suspending_a_waiting_experiment_keeps_it_from_the_queue(core, ada):
    id = submit(core, ada)
    assert core.runs.suspend(ada, id) == "suspended" and claim(core) == []
    assert core.runs.resume(ada, id) == "submitted" and ids(claim(core)) == [id]


def test_a_worker_is_told_to_suspend_and_to_resume(core, ada, bob):
    id = submit(core, ada)
    (item,) = claim(core)
    held = {id: item["claim"]}
    core.queue.running(WORKER, id)
    with pytest.raises(NotFound):
        core.runs.suspend(bob, id)
    assert core.runs.suspend(ada, id) == "running" and core.leases.heartbeat(WORKER, held) == {id: "suspend"}
    core.runs.suspended(WORKER, id, item["claim"])
    core.runs.suspended(WORKER, id, item["claim"])
    assert status(core, id) == "suspended" and core.leases.heartbeat(WORKER, held) == {id: "go on"}
    core.runs.resume(ada, id)
    assert core.leases.heartbeat(WORKER, held) == {id: "resume"}
    core.queue.running(WORKER, id, item["claim"])
    assert status(core, id) == "running" and core.leases.heartbeat(WORKER, held) == {id: "go on"}


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_what_its_owner_holds_is_not_begun_again_when_its_worker_is_lost(core, ada, silent, held):
    """Bad input: a worker that falls silent, or a job that is lost, while the experiment is suspended or is to be."""
    id = submit(core, ada)
    (item,) = claim(core)
    core.queue.running(WORKER, id)
    core.runs.suspend(ada, id)
    if held:
        core.runs.suspended(WORKER, id, item["claim"])
    if silent:
        silence(core, 61)
    else:
        core.leases.give_back(WORKER, id, item["claim"])
    assert status(core, id) == "suspended" and claim(core) == []
    assert core.leases.heartbeat(WORKER, {id: item["claim"]}) == {id: "lost"}
    assert core.runs.resume(ada, id) == "submitted" and ids(claim(core)) == [id]


def test_what_its_owner_let_go_on_is_begun_again_when_its_worker_is_lost(core, ada):
    id = submit(core, ada)
    (item,) = claim(core)
    core.runs.suspend(ada, id)
    core.runs.suspended(WORKER, id, item["claim"])
    core.runs.resume(ada, id)
    silence(core, 61)
    assert status(core, id) == "submitted" and ids(claim(core)) == [id]


def test_an_engine_that_refuses_to_hold_a_job_is_told_and_not_asked_again(core, ada):
    id = submit(core, ada)
    (item,) = claim(core)
    core.queue.running(WORKER, id)
    core.runs.suspend(ada, id)
    core.runs.unable(WORKER, id, item["claim"], "it is\nforbidden")
    assert core.leases.heartbeat(WORKER, {id: item["claim"]}) == {id: "go on"}
    assert (status(core, id), core.experiments.get(ada, id)["message"]) == ("running", "it is forbidden")


def test_a_script_cannot_be_told_to_suspend(core, ada):
    id = submit(core, ada)
    core.queue.claim(WORKER)
    with pytest.raises(Conflict, match="script"):
        core.runs.suspend(ada, id)


def test_children_wait_for_the_end_of_all_their_parents(core, ada, bob):
    one, two = submit(core, ada), submit(core, ada)
    child = submit(core, ada, parents=f"{one},{two}")
    assert sorted(ids(core.queue.claim(WORKER))) == [one, two]
    core.experiments.fail(WORKER, one)
    assert core.queue.claim(WORKER) == [] and claim(core) == []
    core.experiments.cancel(ada, two)
    assert ids(claim(core)) == [child]
    with pytest.raises(Invalid):
        submit(core, bob, parents=str(one))


def test_users_take_turns_when_the_queue_is_long(core, ada, bob):
    many = [submit(core, ada) for _ in range(6)]
    few = [submit(core, bob) for _ in range(2)]
    assert ids(claim(core, most=4)) == [many[0], few[0], many[1], few[1]]
    later = submit(core, bob)
    assert ids(claim(core, most=2)) == [many[2], later] and ids(claim(core)) == many[3:]


def test_scripts_share_the_queue_fairly_and_may_ask_for_less(core, ada, bob):
    many = [submit(core, ada) for _ in range(3)]
    other = submit(core, bob)
    assert ids(core.queue.claim(WORKER, limit=2)) == [many[0], other]
    assert ids(core.queue.claim(WORKER)) == many[1:]


def test_priority_goes_before_turns_and_users_may_only_step_back(core, ada):
    late, first, urgent = submit(core, ada, priority=-5), submit(core, ada), submit(core, ada)
    core.runs.prioritize(OPERATOR, urgent, 10)
    with pytest.raises(Invalid):
        core.runs.prioritize(ada, first, 1)
    with pytest.raises(Invalid):
        submit(core, ada, priority=1)
    assert ids(claim(core)) == [urgent, first, late]


def test_no_more_run_than_a_user_and_a_group_may(make_core, tmp_path, core, ada, bob):
    group = core.groups.create(OPERATOR, "lab")
    core.groups.add(OPERATOR, group, ada.user)
    core.groups.add(OPERATOR, group, bob.user)
    core.groups.limit(OPERATOR, group, {"running_experiments": "2", "running_together": "3"})
    mine = [submit(core, ada) for _ in range(4)]
    his = [submit(core, bob) for _ in range(4)]
    assert ids(claim(core)) == [mine[0], his[0], mine[1]] and claim(core) == []
    core.experiments.cancel(ada, mine[0])
    assert ids(claim(core)) == [mine[2]]
    core.groups.limit(OPERATOR, group, {"running_together": None})
    assert ids(claim(core)) == [his[1]]


def test_relaunching_shares_the_bytes_and_changes_parameters(core, ada, bob):
    old = submit(core, ada, files=[("scan.nii", b"voxels")], params={"text": "a", "other": "b"})
    new = core.runs.relaunch(ada, old, {"text": "c"})["id"]
    assert core.experiments.get(ada, new)["params"] == {"text": "c", "other": "b", "scan": "scan.nii"}
    assert core.experiments.remove(WORKER, old) and core.files.open(ada, new, "scan.nii").path.read_bytes() == b"voxels"
    assert core.limits.used(ada.user) == counted(6)
    with pytest.raises(NotFound):
        core.runs.relaunch(bob, new, {})
    with pytest.raises(Invalid, match="is a file"):
        core.runs.relaunch(ada, new, {"scan": "/etc/passwd"})


def test_relaunching_takes_facts_for_facts(core, ada):
    """Bad input: facts that were kept as parameters, another app, a priority that users cannot give, a parent of somebody else."""
    old = submit(core, ada, params={"text": "a"}, priority=-3, time_limit=60)
    facts = {"name": "again", "host": "cubic", "app": "echo", "restarts": "2", "parents": str(old)}
    new = core.runs.relaunch(ada, old, {"text": "b"}, facts)["id"]
    found = core.experiments.get(ada, new)
    assert (found["params"], found["name"], found["host"], found["priority"]) == ({"text": "b"}, "again", "cubic", -3)
    assert ids(claim(core)) == [old]
    core.experiments.cancel(ada, old)
    (item,) = claim(core)
    row = core.store.one("SELECT * FROM experiments WHERE id = :id", id=new)
    assert (item["id"], item["time_limit"], core.leases.allowed(row)) == (new, 60, 2)
    for facts in ({"app": "once"}, {"priority": "1"}, {"parents": "999"}, {"host": "a b"}, {"time_limit": "soon"}):
        with pytest.raises(Invalid):
            core.runs.relaunch(ada, old, {}, facts)


def test_relaunching_what_has_expired_is_refused(core, ada):
    id = submit(core, ada, files=[("scan.nii", b"voxels")])
    core.files.delete(OPERATOR, core.store.value("SELECT path FROM files"))
    with pytest.raises(Conflict, match="are gone"):
        core.runs.relaunch(ada, id, {})


def test_output_is_appended_once_however_often_it_is_sent(core, ada, bob):
    id = submit(core, ada)
    (item,) = claim(core)
    assert core.outputs.open(ada, id).size == 0
    assert core.outputs.append(WORKER, id, "stdout", 0, [b"one ", b"two "], item["claim"]) == 8
    assert core.outputs.append(WORKER, id, "stdout", 4, [b"two ", b"three"]) == 13
    with pytest.raises(Conflict, match="missing"):
        core.outputs.append(WORKER, id, "stdout", 20, [b"x"])
    assert core.outputs.open(ada, id).path.read_bytes() == b"one two three"
    for bad in ("stdin", "../x", ""):
        with pytest.raises(Invalid):
            core.outputs.append(WORKER, id, bad, 0, [b"x"])
    with pytest.raises(NotFound):
        core.outputs.open(bob, id)
    core.leases.give_back(WORKER, id, item["claim"])
    assert core.outputs.open(ada, id).size == 0
    core.experiments.cancel(ada, id)
    assert core.experiments.remove(WORKER, id) and not list(core.outputs.folder.iterdir())


def test_output_past_its_limit_is_dropped(make_core, tmp_path):
    core = make_core(limits__log_bytes=10)
    id = submit(core, join(core))
    for offset in (0, 8, 16):
        core.outputs.append(WORKER, id, "stderr", offset, [b"x" * 8])
    assert core.outputs.open(OPERATOR, id, "stderr").size == 10


def test_output_of_what_is_gone_is_swept(core, ada):
    core.outputs.append(WORKER, submit(core, ada), "stdout", 0, [b"x"])
    core.store.execute("DELETE FROM users")
    assert core.housekeeping.sweep_orphans(SYSTEM) == 1


def test_the_sweep_leaves_logs_that_an_older_server_kept_in_the_upload_folder(core):
    core.outputs.folder.mkdir(parents=True)
    for name in ("apache.log", "2020-01-01-0.stdout", "x.stderr"):
        (core.outputs.folder / name).write_text("not ours")
    core.housekeeping.sweep_orphans(SYSTEM, age=0)
    assert len(list(core.outputs.folder.iterdir())) == 3
