"""Experiments, files and the queue. Bad input: vanished clients, quotas, other people's ids, two at once, dead scripts, moved clocks."""

import threading

import pytest

from conftest import echo, join
from ippd.domain.states import ENDED, MOVES, STATES
from ippd.domain.submission import Part
from ippd.errors import Conflict, Invalid, NoSpace, NotFound, TooLarge, TooMany
from ippd.permissions import OPERATOR, SYSTEM


def blobs_on_disk(core):
    return [path for path in core.blobs.folder.rglob("*") if path.is_file()]


def results(*files):
    return [Part("file", "file", [data], name) for name, data in files]


def notices(core, kind):
    return [row["recipient"] for row in core.notifications.list(OPERATOR) if row["kind"] == kind]


def test_a_submission_lists_with_its_parameters_and_safe_file_names(core, ada):
    core.experiments.submit(ada, echo(("scan 1.nii.gz", b"a"), ("scan 1.nii.gz", b"b"), ("-rf;id", b"c"), text="3;id"))
    (experiment,) = core.experiments.list(ada)
    assert experiment["inputs"] == ["scan_1.nii.gz", "scan_1-2.nii.gz", "rf_id"]
    assert experiment["params"] == {"text": "3;id", "scan": "scan_1.nii.gz,scan_1-2.nii.gz,rf_id"}
    assert (experiment["status"], experiment["outputs"]) == ("submitted", [])
    assert [file.path.read_bytes() for file in core.files.inputs(ada, experiment["id"])] == [b"a", b"b", b"c"]


def test_a_form_without_a_chosen_file_is_a_submission_without_files(core, ada):
    id = core.experiments.submit(ada, [*echo(), Part("file", "mask", [], "")])["id"]
    assert core.experiments.get(ada, id)["inputs"] == []


@pytest.mark.parametrize("app", ["", "a b", "../x", "-x", "x;id", "x\n", "x" * 129])
def test_a_bad_app_is_refused_and_leaves_nothing(core, ada, app):
    with pytest.raises(Invalid) as refused:
        core.experiments.submit(ada, echo(("scan.nii", b"bytes"), app=app))
    assert "app" in refused.value.fields and core.experiments.list(ada) == [] and blobs_on_disk(core) == []


def test_a_field_with_an_endless_name_is_refused_before_its_file_is_stored(core, ada):
    with pytest.raises(Invalid, match="name of a field"):
        core.experiments.submit(ada, [*echo(), Part("file", "f" * 201, [b"bytes"], "scan.nii")])
    assert core.experiments.list(ada) == [] and blobs_on_disk(core) == []


def test_a_client_that_vanishes_in_its_second_file_leaves_nothing(core, ada):
    def vanishing():
        yield from echo(("one.nii", b"whole"))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        core.experiments.submit(ada, vanishing())
    assert core.experiments.list(ada) == [] and blobs_on_disk(core) == [] and core.queue.claim(OPERATOR) == []


def test_a_quota_is_checked_before_the_first_byte(make_core):
    core = make_core(limits__user_bytes=10_000, limits__form_bytes=1)
    ada = join(core)

    def untouched():
        raise AssertionError("a byte was read")
        yield

    with pytest.raises(NoSpace, match="more than the 10000 bytes"):
        core.experiments.submit(ada, untouched(), announced=10_002)
    with pytest.raises(NoSpace):  # a false announcement does not help
        core.experiments.submit(ada, echo(("scan.nii", b"x" * 10_001)), announced=1)
    assert blobs_on_disk(core) == []


def test_a_quota_is_freed_by_removing(make_core, script):

    core = make_core(limits__user_bytes=10_000)
    ada = join(core)
    id = core.experiments.submit(ada, echo(("scan.nii", b"x" * 10_000)))["id"]
    with pytest.raises(NoSpace):
        core.experiments.submit(ada, echo(("scan.nii", b"x")))
    assert core.experiments.remove(script, id) is True
    assert core.experiments.remove(script, id) is False
    assert blobs_on_disk(core) == []
    assert core.experiments.submit(ada, echo(("scan.nii", b"x" * 10_000)))


def test_two_uploads_at_once_cannot_both_take_the_rest_of_the_quota(make_core):

    core = make_core(limits__user_bytes=15_000)
    ada, both, outcomes = join(core), threading.Barrier(2), []

    def slow():
        both.wait()
        yield b"x" * 10_000

    def upload():
        try:
            core.experiments.submit(ada, [*echo(), Part("file", "scan", slow(), "scan.nii")])
            outcomes.append("stored")
        except NoSpace:
            outcomes.append("refused")

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "stored"] and core.limits.used(ada.user) == 10_000


def test_limits_on_size_count_and_waiting_experiments(make_core):

    core = make_core(limits__file_bytes=5, limits__files_per_experiment=2, limits__waiting_experiments=1)
    ada = join(core)
    with pytest.raises(TooLarge, match="at most 5 bytes"):
        core.experiments.submit(ada, echo(("scan.nii", b"x" * 6)))
    with pytest.raises(TooLarge, match="at most 2 files"):
        core.experiments.submit(ada, echo(*[("scan.nii", b"x")] * 3))
    core.experiments.submit(ada, echo(*[("scan.nii", b"x" * 5)] * 2))
    with pytest.raises(TooMany, match="at most 1 experiments"):
        core.experiments.submit(ada, echo())


def test_somebody_elses_experiment_does_not_exist(core, ada, bob):
    id = core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    assert core.experiments.list(bob) == []
    for call in (core.experiments.get, core.experiments.cancel, core.files.inputs):
        with pytest.raises(NotFound):
            call(bob, id)
    with pytest.raises(NotFound):
        core.files.open(bob, id, "scan.nii")


def test_a_listing_can_be_paged_and_filtered(core, ada):
    ids = [core.experiments.submit(ada, echo())["id"] for _ in range(5)]
    core.experiments.cancel(ada, ids[2])
    assert [e["id"] for e in core.experiments.list(ada)] == ids
    assert [e["id"] for e in core.experiments.list(ada, limit=2, offset=1)] == ids[1:3]
    assert [e["id"] for e in core.experiments.list(ada, status="cancelled")] == [ids[2]]
    with pytest.raises(Invalid):
        core.experiments.list(ada, status="; DROP TABLE users")


def test_a_claim_hands_out_each_experiment_once_oldest_first(core, ada, script):
    ids = [core.experiments.submit(ada, echo(("scan.nii", b"x"), text="t"))["id"] for _ in range(3)]
    items = core.queue.claim(script)
    assert [item["id"] for item in items] == ids and core.queue.claim(script) == []
    assert items[0]["params"] == {"text": "t"} and items[0]["files"] == {"scan": ["scan.nii"]}
    assert {e["status"] for e in core.experiments.list(ada)} == {"queued"}


def test_pollers_at_once_never_get_the_same_experiment(make_core, script):
    core = make_core(queue__batch=7)
    ada = join(core)
    ids = {core.experiments.submit(ada, echo())["id"] for _ in range(60)}
    claimed = []

    def poll():
        while items := core.queue.claim(script):
            claimed.extend(item["id"] for item in items)

    threads = [threading.Thread(target=poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 60 and set(claimed) == ids


def test_a_script_that_dies_after_polling_loses_nothing(core, clock, script, ada):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.claim(script)
    clock.forward(minutes=9)
    assert core.queue.requeue_unacknowledged(SYSTEM) == 0
    clock.forward(minutes=2)
    assert core.queue.requeue_unacknowledged(SYSTEM) == 1
    assert [item["id"] for item in core.queue.claim(script)] == [id]


@pytest.mark.parametrize("call", ["inputs", "heartbeat", "running"])
def test_the_first_call_that_names_an_experiment_acknowledges_its_claim(core, clock, script, ada, call):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.claim(script)
    {"inputs": core.files.inputs, "heartbeat": core.queue.heartbeat, "running": core.queue.running}[call](script, id)
    clock.forward(days=1)
    assert core.queue.requeue_unacknowledged(SYSTEM) == 0


def test_the_owner_looking_at_inputs_does_not_acknowledge_a_scripts_claim(core, clock, script, ada):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.claim(script)
    core.files.inputs(ada, id)
    clock.forward(minutes=11)
    assert core.queue.requeue_unacknowledged(SYSTEM) == 1


def test_a_clock_that_jumps_back_does_not_strand_a_claim(core, clock, script, ada):
    core.experiments.submit(ada, echo())
    core.queue.claim(script)
    clock.forward(days=-365)
    assert core.queue.requeue_unacknowledged(SYSTEM) == 1


def test_results_complete_an_experiment_and_its_owner_is_told_once(core, ada, script):
    id = core.experiments.submit(ada, echo(("scan.nii", b"in")))["id"]
    core.queue.claim(script)
    core.files.add_results(script, id, results((f"{id}.zip", b"first"), ("scan.nii", b"out")))
    assert core.experiments.get(ada, id)["status"] == "completed"
    core.files.add_results(script, id, results((f"{id}.zip", b"second")))
    assert core.experiments.get(ada, id)["outputs"] == ["scan.nii", f"{id}.zip"]
    assert core.files.open(ada, id, f"{id}.zip").path.read_bytes() == b"second"
    assert core.files.open(ada, id, "scan.nii").path.read_bytes() == b"out", "outputs come before inputs"
    assert notices(core, "completed") == ["ada@example.org"] and len(blobs_on_disk(core)) == 3


def test_results_without_a_file_change_nothing(core, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    for nothing in ([], [Part("param", "file", "text")], [Part("file", "file", [b""], "")]):
        with pytest.raises(Invalid, match="no file"):
            core.files.add_results(script, id, nothing)
    assert core.experiments.get(ada, id)["status"] == "submitted" and notices(core, "completed") == []


def test_results_that_break_off_change_nothing(core, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    core.files.add_results(script, id, results(("a", b"first")))

    def vanishing():
        yield from results(("a", b"second"))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        core.files.add_results(script, id, vanishing())
    assert core.files.open(ada, id, "a").path.read_bytes() == b"first" and len(blobs_on_disk(core)) == 1


def test_results_are_not_lost_to_a_claim_that_timed_out(core, clock, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.claim(script)
    clock.forward(minutes=11)
    core.queue.requeue_unacknowledged(SYSTEM)
    core.files.add_results(script, id, results(("a", b"x")))
    assert core.experiments.get(ada, id)["status"] == "completed" and core.queue.claim(script) == []


def test_an_ended_experiment_takes_no_results(core, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    core.experiments.cancel(ada, id)
    with pytest.raises(Conflict, match="is cancelled"):
        core.files.add_results(script, id, results(("a", b"x")))
    with pytest.raises(NotFound):
        core.files.add_results(script, 99, results(("a", b"x")))
    assert blobs_on_disk(core) == []


def test_a_failed_experiment_lists_like_any_other(core, ada, script):
    id = core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    core.experiments.fail(script, id, exit_code="3", message="no licence")
    core.experiments.fail(script, id)
    (experiment,) = core.experiments.list(ada)
    assert (experiment["status"], experiment["exit_code"], experiment["message"]) == ("failed", 3, "no licence")
    assert experiment["inputs"] == ["scan.nii"] and notices(core, "failed") == ["ada@example.org"]
    with pytest.raises(Conflict):
        core.experiments.cancel(ada, id)


@pytest.mark.parametrize("exit_code", ["three", "1e3", "99999999999999"])
def test_a_bad_exit_code_changes_nothing(core, ada, script, exit_code):
    id = core.experiments.submit(ada, echo())["id"]
    with pytest.raises(Invalid):
        core.experiments.fail(script, id, exit_code=exit_code)
    assert core.experiments.get(ada, id)["status"] == "submitted"


def test_exit_code_zero_and_none_are_kept_apart(core, ada, script):
    for sent, kept in (("0", 0), (0, 0), ("", None), (None, None), ("-9", -9)):
        id = core.experiments.submit(ada, echo())["id"]
        core.experiments.fail(script, id, exit_code=sent)
        assert core.experiments.get(ada, id)["exit_code"] == kept


def test_a_heartbeat_of_a_cancelled_experiment_says_stop(core, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.claim(script)
    core.queue.running(script, id)
    core.queue.running(script, id)
    core.experiments.cancel(ada, id)
    with pytest.raises(Conflict, match="is cancelled"):
        core.queue.heartbeat(script, id)
    with pytest.raises(NotFound):
        core.queue.heartbeat(script, 99)


def test_a_running_experiment_is_not_removed_under_its_job(core, ada, script):
    id = core.experiments.submit(ada, echo())["id"]
    core.queue.running(script, id)
    with pytest.raises(Conflict, match="cancel it first"):
        core.experiments.remove(script, id)


@pytest.mark.parametrize("state", STATES)
def test_only_the_moves_of_the_table_are_possible(core, ada, state):
    from ippd.domain.states import move

    for to in STATES:
        id = core.experiments.submit(ada, echo())["id"]
        core.store.update("experiments", id, status=state)
        if to in MOVES[state]:
            assert move(core, id, to)["status"] == to
        else:
            with pytest.raises(Conflict, match=f"is {state} already" if to == state else f"is {state}: it cannot become {to}"):
                move(core, id, to)
    assert ENDED == ("completed", "failed", "cancelled")


def test_old_files_are_named_so_that_they_can_be_deleted(core, clock, ada, script):
    id = core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    waiting = core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    core.files.add_results(script, id, results(("a", b"x")))
    clock.forward(days=10)
    assert core.files.old(script, "11") == []
    old = core.files.old(script, "9")
    assert len(old) == 2 and not any(path.startswith("/") for path in old)
    for path in old:
        core.files.delete(script, path)
    assert core.files.old(script, 0) == [] and len(blobs_on_disk(core)) == 1
    assert core.experiments.get(ada, id)["outputs"] == [] and core.experiments.get(ada, waiting)["inputs"] == ["scan.nii"]
    with pytest.raises(NotFound):
        core.files.delete(script, old[0])


@pytest.mark.parametrize("days", ["", "-1", "1.5", "1 OR 1=1", "9'; DROP TABLE files; --", "١"])
def test_days_must_be_a_whole_number(core, script, days):
    with pytest.raises(Invalid, match="days"):
        core.files.old(script, days)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "1/../../secret", "", "ippd.sqlite", "reserve"])
def test_nothing_but_a_file_of_an_experiment_can_be_deleted(core, script, path):
    with pytest.raises(NotFound):
        core.files.delete(script, path)
    assert (core.blobs.folder.parent / "secret").exists()
