"""What is done by the clock: each job twice, because the second time must do nothing. Bad input: moved clocks, crashes in between."""

import os

import pytest

from conftest import echo, join
from ippd import certificate
from ippd.domain.submission import Part
from ippd.errors import IppdError
from ippd.permissions import OPERATOR, SYSTEM


@pytest.fixture
def completed(core, ada, script):
    """The id of a completed experiment with an input and an output."""
    id = core.experiments.submit(ada, echo(("scan.nii", b"in"), text="t"))["id"]
    core.files.add_results(script, id, [Part("file", "file", [b"out"], "out.nii")])
    return id


def notices(core, kind):
    return core.store.all("SELECT recipient, body FROM outbox WHERE kind = :kind", kind=kind)


def test_files_expire_after_a_notice_and_the_experiment_still_lists(core, clock, ada, completed):
    clock.forward(days=82)
    assert core.housekeeping.notice_expiry(SYSTEM) == 0
    clock.forward(days=2)
    assert (core.housekeeping.notice_expiry(SYSTEM), core.housekeeping.notice_expiry(SYSTEM)) == (1, 0)
    (notice,) = notices(core, "expiring")
    assert notice["recipient"] == "ada@example.org" and "7 days" in notice["body"]
    clock.forward(days=6)
    assert core.housekeeping.expire_files(SYSTEM) == 0
    clock.forward(days=2)
    assert (core.housekeeping.expire_files(SYSTEM), core.housekeeping.expire_files(SYSTEM)) == (2, 0)
    (experiment,) = core.experiments.list(ada)
    assert (experiment["status"], experiment["inputs"], experiment["outputs"]) == ("completed", [], [])
    assert experiment["params"] == {"text": "t", "scan": "scan.nii"} and experiment["expired_at"] == clock()
    assert [path for path in core.blobs.folder.rglob("*") if path.is_file()] == []


def test_nobodys_files_go_without_notice_even_if_the_daemon_was_off(core, clock, completed):
    clock.forward(days=300)
    assert core.housekeeping.expire_files(SYSTEM) == 0
    core.housekeeping.notice_expiry(SYSTEM)
    clock.forward(days=6.9)
    assert core.housekeeping.expire_files(SYSTEM) == 0
    clock.forward(days=0.2)
    assert core.housekeeping.expire_files(SYSTEM) == 2


def test_files_of_experiments_that_have_not_ended_stay(core, clock, ada):
    core.experiments.submit(ada, echo(("scan.nii", b"in")))
    clock.forward(days=1000)
    assert (core.housekeeping.notice_expiry(SYSTEM), core.housekeeping.expire_files(SYSTEM)) == (0, 0)


@pytest.mark.parametrize(("retention", "notice", "removed"), [(0, 7, 0), (10, 0, 2)])
def test_retention_can_be_for_ever_and_notices_can_be_off(make_core, clock, script, retention, notice, removed):

    core = make_core(files__retention_days=retention, files__notice_days=notice)
    id = core.experiments.submit(join(core), echo(("scan.nii", b"in")))["id"]
    core.files.add_results(script, id, [Part("file", "file", [b"out"], "out.nii")])
    clock.forward(days=1000)
    assert core.housekeeping.notice_expiry(SYSTEM) == 0
    assert core.housekeeping.expire_files(SYSTEM) == removed


def test_what_a_crash_left_in_the_middle_of_an_upload_is_swept(core, clock, ada, completed):
    partial = core.blobs.incoming / ("0f" * 16)
    partial.write_bytes(b"half an upload")
    orphan = core.blobs.write(ada.user, [b"renamed, but the row was never written"])
    for path in core.blobs.folder.rglob("*"):
        if path.is_file():
            os.utime(path, (clock() - 60, clock() - 60))
    assert core.housekeeping.sweep_orphans(SYSTEM) == 0, "an upload of days may still be under way"
    assert (core.housekeeping.sweep_orphans(SYSTEM, age=0), core.housekeeping.sweep_orphans(SYSTEM, age=0)) == (2, 0)
    assert not partial.exists() and not core.blobs.path(orphan.path).exists()
    assert core.files.open(ada, completed, "out.nii").path.read_bytes() == b"out"


def test_sent_notifications_go_after_a_month_and_failed_ones_stay(core, clock, completed):
    def deliver(channel, to, subject, body):
        raise AssertionError("no mail host is set")

    core.notifications.deliver(SYSTEM, deliver)
    core.store.execute("UPDATE outbox SET status = 'sent', sent_at = :now WHERE kind = 'completed'", now=clock())
    core.notifications.notify(OPERATOR, "x@example.org", "text")
    core.store.execute("UPDATE outbox SET status = 'failed' WHERE kind = 'message'")
    clock.forward(days=31)
    assert (core.housekeeping.clean_outbox(SYSTEM), core.housekeeping.clean_outbox(SYSTEM)) == (1, 0)
    assert [row["kind"] for row in core.notifications.list(OPERATOR)] == ["message"]


def test_the_administrator_is_warned_once_of_a_certificate_that_ends(core, clock):
    assert core.housekeeping.warn_certificate(SYSTEM) == 0
    certificate.make(["localhost"], str(core.certificate_path()), str(core.key_path()), clock, days=30)
    assert core.housekeeping.warn_certificate(SYSTEM) == 0
    clock.forward(days=10)
    assert (core.housekeeping.warn_certificate(SYSTEM), core.housekeeping.warn_certificate(SYSTEM)) == (1, 0)
    (notice,) = notices(core, "certificate_expiring")
    assert notice["recipient"] == "admin@example.org"


def test_a_checkpoint_puts_the_reserve_back(core):
    core.blobs.release_reserve()
    assert core.housekeeping.checkpoint(SYSTEM) == 1 and core.blobs.reserve_file.exists()


def test_a_core_that_cannot_work_is_not_ready(core):
    assert core.ready() == []
    core.blobs.reserve = 1 << 60
    assert core.ready() == ["there is no room for uploads on the disk"]
    core.check_alive()


def test_only_what_a_new_start_could_mend_is_a_reason_for_one(core):
    """Bad input: a damaged database, which would be met again; then one that cannot be opened any more."""
    core.store.checkpoint()
    core.close()
    with open(core.store.path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (core.store.path.stat().st_size - 4096))
    core.check_alive()
    assert "is damaged" in core.ready()[0]
    core.close()
    core.store.path.unlink()
    core.store.path.mkdir()
    with pytest.raises(IppdError, match="cannot be opened"):
        core.check_alive()
    core.store.path.rmdir()


def test_the_half_of_an_upload_whose_process_has_died_goes_after_an_hour(core, clock):
    partial = core.blobs.incoming / ("0f" * 16)
    partial.write_bytes(b"half an upload")
    for minutes, swept in ((59, 0), (61, 1)):
        os.utime(partial, (clock() - 60 * minutes,) * 2)
        assert core.housekeeping.sweep_orphans(SYSTEM) == swept, minutes
