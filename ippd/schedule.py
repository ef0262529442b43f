"""What runs when: one table, and the thread that keeps to it."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from logging import Logger, getLogger
from operator import attrgetter
from typing import Any, NamedTuple

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from ippd.core import Core
from ippd.domain.notifications import Send
from ippd.errors import NotFound
from ippd.permissions import SYSTEM
from ippd.stop import Stop

MINUTE, HOUR, DAY = 60, 3600, 86400
LOOK = 1.0  # seconds between two looks at the clock


class Job(NamedTuple):
    """One line of the schedule: every so many seconds (or as a setting says), this method of the core."""

    name: str
    every: float | str
    method: str
    help: str
    at_start: bool = False
    sends: bool = False


SCHEDULE: tuple[Job, ...] = (
    Job("deliver", "notify.interval", "notifications.deliver", "Send the notifications that are due.", True, True),
    Job("requeue", 30, "queue.requeue_unacknowledged", "Put back claims that nobody acknowledged.", True),
    Job("leases", 15, "leases.lapse", "Take back what silent workers hold.", True),
    Job("notice", HOUR, "housekeeping.notice_expiry", "Tell owners whose files will expire soon.", True),
    Job("expire", HOUR, "housekeeping.expire_files", "Remove files past their retention.", True),
    Job("sessions", HOUR, "housekeeping.expire_sessions", "Remove sessions, reset codes and counters that are over."),
    Job("outbox", DAY, "housekeeping.clean_outbox", "Remove notifications sent more than 30 days ago.", True),
    Job("orphans", HOUR, "housekeeping.sweep_orphans", "Remove bytes that belong to no experiment.", True),
    Job("certificate", DAY, "housekeeping.warn_certificate", "Warn before the certificate expires.", True),
    Job("backup", HOUR, "backups.scheduled", "Make a backup when it is time for one (backup.directory).", True),
    Job("checkpoint", MINUTE, "housekeeping.checkpoint", "Move the write-ahead log into the database."),
)
BY_NAME = {job.name: job for job in SCHEDULE}


def run_once(core: Core, name: str, send: Send, stopped: Callable[[], bool] = lambda: False) -> Any:
    """Do one job of the schedule now; returns what it dealt with. Raises NotFound for a name that is not in the table."""
    if name not in BY_NAME:
        raise NotFound(f"there is no job {name}: known are {', '.join(BY_NAME)}")
    job = BY_NAME[name]
    method = attrgetter(job.method)(core)
    return method(SYSTEM, send, stopped) if job.sends else method(SYSTEM)


def run(core: Core, settings: Mapping[str, Any], send: Send, stop: Stop, log: Logger, patience: float = 10.0) -> bool:
    """Keep to the schedule until `stop` is set; then wait `patience` seconds at most for jobs that are running.

    Returns whether all of them ended. A job that fails is logged and comes again at its next time.
    """
    getLogger("apscheduler").setLevel("CRITICAL")  # what it has to say comes as events
    threads = _Threads()
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": threads})
    scheduler.add_listener(_reporter(log), EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    for job in SCHEDULE:
        every = float(settings[job.every] if isinstance(job.every, str) else job.every)
        scheduler.add_job(
            run_once,
            _Every(every),
            (core, job.name, send, stop.is_set),
            id=job.name,
            # However late, a job is still worth doing: it works from what the store says.
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
            next_run_time=_now() + timedelta(seconds=0 if job.at_start else every),
        )
    scheduler.start()
    while not stop.wait(LOOK):
        mind_the_clock(scheduler)
    scheduler.shutdown(wait=False)
    return threads.join(patience)


def mind_the_clock(scheduler: BackgroundScheduler) -> None:
    """Run what lies further ahead than its interval: the clock was set back, and the job would wait for the old time."""
    for job in scheduler.get_jobs():
        if job.next_run_time and job.next_run_time - _now() > job.trigger.interval + timedelta(seconds=2 * LOOK):
            # A job may run and be gone, or be moved on, between the look and this.
            with contextlib.suppress(LookupError):
                job.modify(next_run_time=_now())


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _reporter(log: Logger) -> Callable[[Any], None]:
    def report(event: Any) -> None:
        if event.code == EVENT_JOB_ERROR and isinstance(event.exception, OSError) and event.exception.filename:
            # A folder or a file of the host: the sentence says all, and where in the program it was met says nothing.
            log.error("schedule: %s failed: %s: %s", event.job_id, event.exception.filename, event.exception.strerror)
        elif event.code == EVENT_JOB_ERROR:
            log.error("schedule: %s failed: %s\n%s", event.job_id, event.exception, event.traceback)
        elif event.code == EVENT_JOB_EXECUTED:
            done = event.retval
            if any(done.values()) if isinstance(done, dict) else done:
                log.info("schedule: %s: %s", event.job_id, done)
        elif event.code == EVENT_JOB_MISSED:
            log.warning("schedule: %s was missed", event.job_id)
        else:
            log.debug("schedule: %s is still running", event.job_id)

    return report


class _Every(BaseTrigger):
    """Every so many seconds, counted from the last look.

    The library's own trigger makes a list of all times that were missed: after a clock that jumped from 1970 to now, hundreds of
    millions.
    """

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        return now + self.interval


class _Threads(BaseExecutor):
    """One daemon thread per run: unlike those of the library's pool, a hanging one does not keep the process from ending."""

    def __init__(self) -> None:
        super().__init__()
        self._running: set[threading.Thread] = set()

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        thread = threading.Thread(target=self._run, args=(job, run_times), name=f"schedule-{job.id}", daemon=True)
        thread.start()
        self._running = {other for other in self._running if other.is_alive()} | {thread}

    def _run(self, job: Any, run_times: list[datetime]) -> None:
        # run_job turns every exception of the job into an event.
        self._run_job_success(job.id, run_job(job, job._jobstore_alias, run_times, self._logger.name))

    def join(self, seconds: float) -> bool:
        """Wait for the running threads, at most so long altogether; returns whether all have ended."""
        deadline = time.monotonic() + seconds
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._running)
