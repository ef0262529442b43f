"""A disk that users fill with what counts for nobody's quota. Bad input: text, empty files, a start when nothing is left."""

import pytest

from conftest import PASSWORD, echo, join
from ippd.domain.limits import LEAST_FILE
from ippd.domain.submission import Part
from ippd.errors import NoSpace
from ippd.permissions import ANONYMOUS, OPERATOR, SYSTEM
from ippd.store import LARGEST_LOG
from test_daemon import Daemon
from test_worker_hostile import fill

MB = 1 << 20
RESERVE = 4 * MB


@pytest.fixture
def place(make_disk):
    """The data folder, on a disk of 24 MB."""
    return make_disk(24) / "data"


@pytest.fixture
def core(make_core, place):
    return make_core(data__directory=place, data__reserve=RESERVE)


def fill_with_text(core, actor):
    """Submit 60 KB of parameters and cancel that, until nothing more is taken, also not after a checkpoint; returns the ids."""
    taken, before = [], -1
    while before < len(taken):
        before = len(taken)
        with pytest.raises(NoSpace):
            while len(taken) < 1000:
                taken.append(core.experiments.submit(actor, echo(text="x" * 60_000))["id"])
                core.experiments.cancel(actor, taken[-1])
        core.housekeeping.checkpoint(SYSTEM)
    return taken


def log_in(core):
    return core.sessions.actor(core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD))


def test_text_alone_does_not_fill_the_disk(core, clock, script, place, tmp_path):
    """Bad input: submissions of 60 KB of text, each cancelled at once, for as long as they are taken; then a start of the daemon."""
    ada = join(core)
    old = core.experiments.submit(ada, echo(("scan.nii", b"voxels")))["id"]
    core.experiments.cancel(ada, old)
    taken = fill_with_text(core, ada)
    assert len(taken) > 20 and core.blobs.reserve_file.stat().st_size == RESERVE, "the reserve is not for users' text"
    assert (place / "ippd.sqlite-wal").stat().st_size <= LARGEST_LOG
    ada = log_in(core)
    assert core.experiments.remove(script, taken.pop()) is True
    clock.forward(days=84)
    assert core.housekeeping.notice_expiry(SYSTEM) == 1
    clock.forward(days=7)
    assert core.housekeeping.expire_files(SYSTEM) == 1 and core.blobs.reserve_file.exists()
    daemon = Daemon(tmp_path, f"data.directory={place}", f"data.reserve={RESERVE}")
    try:
        assert daemon.ready().version()
    finally:
        daemon.end()
    for id in taken:
        assert core.experiments.remove(script, id) is True


def test_what_adds_to_the_database_is_refused_on_a_full_disk(core):
    """Bad input: whatever users can do as often as they like, on a disk with no more than its reserve left."""
    ada = join(core)
    id = core.experiments.submit(ada, echo())["id"]
    assert core.ready() == []
    core.blobs.reserve = 1 << 60
    for attempt in (
        lambda: core.experiments.submit(ada, echo()),
        lambda: core.experiments.submit(ada, echo(), announced=0),
        lambda: core.runs.relaunch(ada, id, {}),
        lambda: core.runs.prioritize(ada, id, -1),
        lambda: core.runs.suspend(ada, id),
        lambda: core.runs.resume(ada, id),
        lambda: core.users.sign_up(ANONYMOUS, "bob@example.org", PASSWORD),
        lambda: core.users.set_setting(ada, "institute", "x"),
    ):
        with pytest.raises(NoSpace, match="no room on the disk"):
            attempt()
    assert core.ready() == ["there is no room for uploads on the disk"]
    assert log_in(core) and core.experiments.cancel(ada, id)["status"] == "cancelled"


def test_a_start_on_a_full_disk_gives_the_reserve_up(make_core, core, place, script):
    """Bad input: a disk on which nothing at all is left, before the database has been opened."""
    id = core.experiments.submit(join(core), echo())["id"]
    core.close()
    fill(place.parent / "junk")
    again = make_core(data__directory=place, data__reserve=RESERVE)
    assert not again.blobs.reserve_file.exists()
    assert log_in(again) and again.experiments.remove(script, id) is True


def test_experiments_that_ended_are_not_kept_without_end(make_core):
    """Bad input: submissions without files, each cancelled at once."""
    core = make_core(limits__kept_experiments=2)
    ada = join(core)
    for _ in range(2):
        core.experiments.cancel(ada, core.experiments.submit(ada, echo())["id"])
    for attempt in (lambda: core.experiments.submit(ada, echo()), lambda: core.runs.relaunch(ada, 1, {})):
        with pytest.raises(NoSpace, match="at most 2 experiments are kept"):
            attempt()
    core.experiments.remove(OPERATOR, 1)
    assert core.experiments.submit(ada, echo())


def test_empty_files_do_not_take_all_inodes(make_core):
    """Bad input: 300 empty files in one form, and again one by one."""
    core = make_core(limits__user_bytes=256 * LEAST_FILE)
    ada, several = join(core), [(f"{number}.txt", b"") for number in range(300)]
    with pytest.raises(NoSpace, match="more than the 1048576 bytes"):
        core.experiments.submit(ada, echo(*several))
    assert not list(core.blobs.folder.glob("[0-9]*/*")) and core.limits.used(ada.user) == 0
    core.experiments.submit(ada, echo(*several[:200]))
    assert core.limits.used(ada.user) == 200 * LEAST_FILE
    for name, _ in several[:56]:
        core.experiments.submit(ada, echo((name, b"")))
    with pytest.raises(NoSpace):
        core.experiments.submit(ada, echo(("one.txt", b"")))
    with pytest.raises(NoSpace):
        core.runs.relaunch(ada, 2, {})


def test_a_disk_without_inodes_is_full(make_core, make_disk, script):
    """Bad input: a disk of 300 files, and empty files that are submitted as long as they are taken; then results."""
    core = make_core(data__directory=make_disk(64, "nr_inodes=300") / "data")
    ada = join(core)
    id = core.experiments.submit(ada, echo())["id"]
    assert core.ready() == []
    with pytest.raises(NoSpace, match="not enough room"):
        core.experiments.submit(ada, echo(*((f"{number}.txt", b"") for number in range(300))))
    assert core.ready() == [], "nothing is left of that"
    with pytest.raises(NoSpace, match="room on the disk"):
        for number in range(300):
            core.experiments.submit(ada, echo((f"{number}.txt", b"")))
    assert core.ready() == ["there is no room for uploads on the disk"] and core.blobs.free() == 0
    with pytest.raises(NoSpace, match="not enough room"):
        core.files.add_results(script, id, [Part("file", "file", [], "log.txt")])
    assert log_in(core) and core.experiments.remove(script, id + 1) is True
