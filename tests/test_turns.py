"""Who is handed what, when there is more than may run. Bad input: users who hold what waits, or submit far more than they may run."""

import pytest

from conftest import echo, join
from ippd.errors import Conflict, TooMany
from ippd.permissions import OPERATOR, Actor

SCRIPT = Actor("local", name="script")


def submit(core, who, count=1):
    """Their ids."""
    return [core.experiments.submit(who, echo())["id"] for _ in range(count)]


def claimed(core, most=100):
    return [item["id"] for item in core.queue.claim(SCRIPT, limit=most)]


def lab(core, *users, **limits):
    """A group of these users with these limits."""
    group = core.groups.create(OPERATOR, "lab")
    for user in users:
        core.groups.add(OPERATOR, group, user.user)
    core.groups.limit(OPERATOR, group, {name: str(value) for name, value in limits.items()})


def test_who_holds_what_waits_takes_no_place_from_the_others_of_a_group(core, ada, bob):
    lab(core, ada, bob, running_together=2, running_experiments=2)
    held = submit(core, ada, 2)
    for id in held:
        assert core.runs.suspend(ada, id) == "suspended"
    his = submit(core, bob, 2)
    assert claimed(core) == his
    core.runs.resume(ada, held[0])
    core.experiments.cancel(bob, his[0])
    assert claimed(core) == [held[0]]


def test_a_job_that_a_worker_holds_keeps_its_place(make_core, tmp_path):
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "echo.json").write_text('{"Executable": "/bin/echo"}')
    core = make_core(apps__directory=tmp_path / "apps", limits__running_experiments=1)
    ada = join(core)
    first, second = submit(core, ada, 2)
    (item,) = core.leases.claim(SCRIPT, "w1", 60, 5)
    core.runs.suspended(SCRIPT, first, item["claim"])
    assert core.leases.claim(SCRIPT, "w1", 60, 5) == []
    # A claim that was given up is no place taken: its experiment waits like any other, also when it is held still.
    assert core.leases.give_back(SCRIPT, first, item["claim"]) == "suspended"
    assert [item["id"] for item in core.leases.claim(SCRIPT, "w1", 60, 5)] == [second]


def test_holding_what_waits_makes_no_room_for_more(make_core):
    core = make_core(limits__waiting_experiments=2)
    ada = join(core)
    for id in submit(core, ada, 2):
        core.runs.suspend(ada, id)
    with pytest.raises(TooMany, match="at most 2 experiments may wait"):
        submit(core, ada)


def test_what_is_handed_out_does_not_count_as_waiting(make_core):
    core = make_core(limits__waiting_experiments=1)
    ada = join(core)
    assert submit(core, ada) == claimed(core)
    submit(core, ada)
    with pytest.raises(TooMany):
        submit(core, ada)


def fill(core, *users, count=1):
    """Let each of these have so many waiting, in one transaction."""
    facts = {"app": "echo", "name": "", "description": "", "label": None, "host": ""}
    with core.store.write():
        for _ in range(count):
            for user in users:
                core.experiments.insert(user.user, facts, {"params": {}, "files": {}}, [], 0)


@pytest.mark.parametrize("limit", ["running_experiments", "running_together"])
def test_what_a_user_may_not_run_yet_hides_nobody_behind_it(core, ada, bob, limit):
    """Ada has far more waiting than may run, and Bob has stepped back behind all of it."""
    lab(core, ada, **{limit: 1})
    fill(core, ada, count=1500)
    his = submit(core, bob, 2)
    for id in his:
        core.runs.prioritize(bob, id, -5)
    assert claimed(core, most=2) == [1, his[0]]
    assert claimed(core, most=2) == [his[1]]


def test_a_group_with_little_room_and_many_members_hides_nobody_behind_it(core, bob):
    row = {"password": "", "status": "approved", "settings": "{}", "created_at": 0.0}
    with core.store.write() as store:
        members = [Actor("user", user=store.insert("users", uuid=f"{n}", email=f"{n}", **row)) for n in range(1100)]
        lab(core, *members, running_together=1)
    fill(core, *members)
    (his,) = submit(core, bob)
    assert claimed(core) == [1, his]


def test_resuming_what_waits_for_its_turn_does_not_blame_a_script(core, ada):
    """Bad input: resuming what was never suspended, or twice."""
    (id,) = submit(core, ada)
    core.runs.suspend(ada, id)
    core.runs.resume(ada, id)
    with pytest.raises(Conflict, match=f"experiment {id} is waiting for its turn: nothing holds it"):
        core.runs.resume(ada, id)
    assert claimed(core) == [id]
