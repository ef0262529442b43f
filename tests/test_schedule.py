"""The schedule: each job of the table runs, again and again, whatever a job or the clock does."""

import errno
import logging
import os
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from conftest import echo
from ippd import schedule
from ippd.errors import NotFound
from ippd.permissions import OPERATOR, SYSTEM, Actor
from ippd.stop import Stop

HELPERS = {"schedule-" + job.name for job in schedule.SCHEDULE}


def no_send(*words):
    raise AssertionError(f"nothing was to be sent: {words}")


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def log():
    logger, lines = logging.Logger("test"), Lines()
    logger.addHandler(lines)
    logger.lines = lines.lines
    return logger


@pytest.fixture
def running(log):
    """A function: the schedule over a core, on a thread; returns a function that stops it and tells how it ended."""
    stops = []

    def start(core, send=no_send, patience=10.0):
        stop, ended = Stop(), []
        thread = threading.Thread(target=lambda: ended.append(schedule.run(core, core.settings, send, stop, log, patience)))
        thread.start()

        def end():
            stop.set()
            thread.join(30)
            return ended[0]

        stops.append(end)
        return end

    yield start
    for end in stops:
        end()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def short_looks(monkeypatch):
    monkeypatch.setattr(schedule, "LOOK", 0.02)


def table(monkeypatch, *jobs):
    monkeypatch.setattr(schedule, "SCHEDULE", jobs)
    monkeypatch.setattr(schedule, "BY_NAME", {job.name: job for job in jobs})


def test_each_job_runs_twice_by_hand_and_does_nothing_more(core, ada, clock):
    core.experiments.submit(ada, echo(("scan.nii", b"bytes")))
    core.queue.claim(Actor("local", name="script"))
    clock.forward(days=200)
    first = {job.name: schedule.run_once(core, job.name, no_send) for job in schedule.SCHEDULE}
    assert first["requeue"] == 1
    assert first["sessions"] > 0
    again = {job.name: schedule.run_once(core, job.name, no_send) for job in schedule.SCHEDULE}
    assert {name: done for name, done in again.items() if done} == {"deliver": {"sent": 0, "later": 0, "failed": 0}}


@pytest.mark.parametrize("name", ["", "deliver ", "__class__", "users.list"])
def test_an_unknown_job_is_refused(core, name):
    with pytest.raises(NotFound, match="known are deliver, requeue"):
        schedule.run_once(core, name, no_send)


def test_every_method_of_the_table_exists_and_the_schedule_may_call_it(core):
    for job in schedule.SCHEDULE:
        noun, _, method = job.method.partition(".")
        assert SYSTEM.scope(getattr(getattr(core, noun), method).permission)
        assert job.every in core.settings if isinstance(job.every, str) else job.every >= 1


def test_what_is_due_is_sent_soon_after_the_start(make_core, running):
    core = make_core(mail__host="127.0.0.1", notify__interval="0.05s")
    sent = []
    running(core, lambda *words: sent.append(words))
    for number in (1, 2):
        core.notifications.add("message", to="ada@example.org", message="m")
        wait_for(lambda number=number: len(sent) == number)


def test_a_job_that_fails_is_logged_and_comes_again(core, running, log, monkeypatch, short_looks):
    calls = []

    class Broken:
        def job(self, actor):
            calls.append(actor)
            raise ValueError("no such luck")

    core.broken = Broken()
    table(monkeypatch, schedule.Job("broken", 0.05, "broken.job", "Fails.", True))
    running(core)
    wait_for(lambda: len(calls) >= 3)
    assert calls[0] == SYSTEM
    wait_for(lambda: "schedule: broken failed: no such luck" in log.lines[0])
    assert 'raise ValueError("no such luck")' in log.lines[0]


def test_a_folder_that_may_not_be_used_is_one_sentence_in_the_log(core, running, log, monkeypatch, short_looks):
    """Bad input: backup.directory in another account's folder; the log got a traceback every hour."""

    def refused(actor):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/backup")

    monkeypatch.setattr(schedule, "SCHEDULE", (schedule.Job("backup", 60, "backups.scheduled", "", True),))
    monkeypatch.setattr(core.backups, "scheduled", refused)
    stop = running(core)
    wait_for(lambda: log.lines)
    stop()
    assert log.lines == ["schedule: backup failed: /backup: Permission denied"]


def test_a_slow_job_neither_runs_twice_at_once_nor_delays_the_others(core, running, monkeypatch):
    quick, slow, release = [], [], threading.Event()

    class Jobs:
        def slow(self, actor):
            slow.append(1)
            release.wait(20)

        def quick(self, actor):
            quick.append(1)

    core.jobs = Jobs()
    table(
        monkeypatch,
        schedule.Job("slow", 0.02, "jobs.slow", "Hangs.", True),
        schedule.Job("quick", 0.02, "jobs.quick", "Runs.", True),
    )
    end = running(core)
    wait_for(lambda: len(quick) > 10)
    assert slow == [1]
    release.set()
    assert end() is True


def test_a_job_that_hangs_does_not_keep_the_schedule_from_stopping(core, running, monkeypatch):
    release = threading.Event()

    class Jobs:
        def hang(self, actor):
            release.wait(20)

    core.jobs = Jobs()
    table(monkeypatch, schedule.Job("hang", 5, "jobs.hang", "Hangs.", True))
    end = running(core, patience=0.1)
    wait_for(lambda: "schedule-hang" in {thread.name for thread in threading.enumerate()})
    begun = time.monotonic()
    assert end() is False
    assert time.monotonic() - begun < 5
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "schedule-hang")
    assert thread.daemon  # the process can end without it
    release.set()
    thread.join(5)


def test_a_stop_ends_a_long_delivery_after_the_message_at_hand(make_core, running):
    core = make_core(mail__host="127.0.0.1")
    for _ in range(50):
        core.notifications.add("message", to="ada@example.org", message="m")
    sent, release = [], threading.Event()

    def send(*words):
        sent.append(words)
        release.wait(20)

    end = running(core, send)
    wait_for(lambda: sent)
    threading.Timer(0.2, release.set).start()
    assert end() is True
    assert len(sent) == 1


def test_a_clock_that_jumps_ahead_by_half_a_century_makes_one_run(log):
    now = datetime(1970, 1, 1, tzinfo=UTC)
    trigger = schedule._Every(5)
    first = trigger.get_next_fire_time(None, now)
    assert first == now + timedelta(seconds=5)
    later = datetime(2026, 11, 22, tzinfo=UTC)
    assert trigger.get_next_fire_time(first, later) == later + timedelta(seconds=5)


def test_a_clock_that_was_set_back_does_not_put_the_jobs_to_sleep():
    ran = threading.Event()
    scheduler = BackgroundScheduler(timezone=UTC)
    # What the schedule looks like after the clock went back by ten days.
    ahead = datetime.now(UTC) + timedelta(days=10)
    scheduler.add_job(ran.set, schedule._Every(30), id="late", next_run_time=ahead)
    soon = datetime.now(UTC) + timedelta(seconds=29)
    scheduler.add_job(ran.wait, schedule._Every(30), id="well", next_run_time=soon)
    scheduler.start()
    try:
        schedule.mind_the_clock(scheduler)
        assert ran.wait(5)
        assert scheduler.get_job("well").next_run_time == soon
    finally:
        scheduler.shutdown(wait=False)


def test_no_thread_is_left_when_it_has_ended(core, running):
    end = running(core)
    wait_for(lambda: HELPERS & {thread.name for thread in threading.enumerate()} or True)
    assert end() is True
    assert not {"APScheduler", *HELPERS} & {thread.name for thread in threading.enumerate()}


def test_the_administrator_hears_of_a_certificate_that_ends_once(core, clock):
    from ippd import certificate

    certificate.make(["localhost"], str(core.certificate_path()), str(core.key_path()), clock, days=10)
    for _ in range(3):
        schedule.run_once(core, "certificate", no_send)
        clock.forward(days=1)
    (notice,) = core.notifications.list(OPERATOR)
    assert (notice["kind"], notice["recipient"]) == ("certificate_expiring", "admin@example.org")
