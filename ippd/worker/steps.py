"""The way of one experiment through the worker: each function takes it from one state of the journal to the next, or leaves it there."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from logging import getLogger
from types import MappingProxyType
from typing import Any, NamedTuple

from ippd.calls import Refused, Server
from ippd.runners import files
from ippd.runners.tools import ENDED as JOB_ENDED
from ippd.runners.tools import LIVE, MEMORY, OVERTIME, REFUSED, RUNNING, STOPPED, WAITING, EngineError, Seen
from ippd.worker import delivery, inputs, outputs
from ippd.worker.journal import CLAIMED, ENDED, STAGED, STOPPING, SUBMITTED, SUBMITTING, Entry

TRIES = 3  # times that a living engine may refuse a job
NOT_FOUND = 404  # the daemon's answer for a file that is gone
SETTLED = 5.0  # seconds after which a submission that was cut off has reached the engine, or never will
REASONS = {
    OVERTIME: "the job ran longer than its time limit",
    MEMORY: "the job used more memory than it may",
    STOPPED: "the job was ended in the batch engine",
    REFUSED: "the batch engine holds the job in an error state",
}
log = getLogger("ippd.worker")


class Site(NamedTuple):
    """What the site says of its engine: words for every job, words for what apps ask for, words before a program in a container."""

    words: tuple[str, ...] = ()
    requests: Mapping[str, str] = MappingProxyType({})
    container: str = ""


class Steps:
    """What can be done with an entry; `server` is the daemon, `engine` a module of ippd.runners, `clock` one that nobody sets."""

    def __init__(self, server: Server, engine: Any, site: Site, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self.server, self.engine, self._site, self._clock, self._wall = server, engine, site, clock, wall

    def job(self, entry: Entry) -> Any:
        """The entry as the engine knows it."""
        return entry.job(self.engine.NAME, self._site.words, self._site.requests)

    def advance(self, entry: Entry, order: str, seen: Seen | None) -> bool:
        """Take an entry on, as the daemon's `order` and what the engine has `seen` say; returns whether it goes on at once."""
        if order not in ("go on", "suspend", "resume") and entry.step != STOPPING:
            return self._stop(entry, order)
        if entry.step == SUBMITTED:
            return self._watch(entry, order, seen)
        if entry.step == SUBMITTING:
            return self._find(entry, seen)
        return {CLAIMED: self._stage, STAGED: self._submit, ENDED: self._deliver}[entry.step](entry)

    def _go(self, entry: Entry, step: str, **facts: Any) -> bool:
        entry.step, entry.since, entry.tries = step, self._clock(), 0
        for name, value in facts.items():
            setattr(entry, name, value)
        # The way to a job is written down before it is gone; to end one, and to tell of it, needs no room on the disk.
        entry.save() if step in (STAGED, SUBMITTING, SUBMITTED) else entry.keep()
        return True

    def _end(self, entry: Entry, kind: str, **facts: Any) -> bool:
        """The job is over: what is said to the daemon is written down before it is said, if there is room."""
        return self._go(entry, ENDED, outcome={"kind": kind, "usage": outputs.usage(entry, self.engine.NAME), **facts})

    def _stage(self, entry: Entry) -> bool:
        try:
            if not inputs.bring(self.server, entry):
                return False
            inputs.prepare(entry, self._site.container)
        except ValueError as error:
            return self._end(entry, "failed", exit_code=None, message=str(error))
        except Refused as refused:
            if refused.status != NOT_FOUND:
                raise
            return self._end(entry, "failed", exit_code=None, message="an input was removed before the job began")
        return self._go(entry, STAGED)

    def _submit(self, entry: Entry) -> bool:
        self._go(entry, SUBMITTING)
        return self._try(entry)

    def _try(self, entry: Entry) -> bool:
        try:
            id = self.engine.submit(self.job(entry))
        except EngineError as error:
            try:
                self.engine.look([])
            except EngineError:  # it is down: that is nobody's fault, and is not counted
                raise error from None
            entry.tries += 1
            entry.keep()
            if entry.tries < TRIES:
                raise
            return self._end(entry, "failed", exit_code=None, message=f"the batch engine refuses the job: {error}")
        log.info("experiment %d: job %s", entry.id, id)
        self._go(entry, SUBMITTED, engine_id=id, since=entry.since)
        return False

    def _find(self, entry: Entry, seen: Seen | None) -> bool:
        """The worker ended between a submission and its record, or the submission failed: is the job there?"""
        # What is known and never began is a submission that the engine refused (Slurm keeps a record of it).
        if (seen is not None and seen.state in (*LIVE, REFUSED)) or entry.has("begun"):
            log.info("experiment %d: found its job %s again", entry.id, seen.id if seen else "")
            return self._go(entry, SUBMITTED, engine_id=seen.id if seen else "", since=entry.since)
        # Should the engine take both, only the first to start gets past its folder `begun`.
        return self._try(entry) if self._clock() - entry.since >= SETTLED or entry.tries else False

    def _watch(self, entry: Entry, order: str, seen: Seen | None) -> bool:
        status = entry.status()
        if status is not None:
            return self._measured(entry, seen) and self._ended(entry, status)
        if seen is not None and seen.state in LIVE:
            entry.gone_at = 0.0
            if self._too_long(entry, seen.state):  # before all that can fail
                return True
            self._running(entry, order) if seen.state == RUNNING else self._hold(entry, order, seen.state)
            delivery.send_output(self.server, entry)
            return False
        return self._gone(entry, seen)

    def _gone(self, entry: Entry, seen: Seen | None) -> bool:
        """The engine runs it no more, and it has not said how it ended: why?"""
        if (seen is None or seen.state == JOB_ENDED) and not self._waited(entry, self.engine.GRACE):
            return False  # its folder may be behind, or the engine's books
        entry.books |= seen.facts if seen is not None else {}
        code = entry.books.get("exit_code")
        if seen is not None and seen.state == REFUSED:  # it would stay there for ever
            return self._go(entry, STOPPING, outcome={"kind": "failed", "exit_code": code, "message": f"{REASONS[REFUSED]} ({seen.note})"})
        if seen is not None and seen.state in REASONS:
            return self._end(entry, "failed", exit_code=code, message=f"{REASONS[seen.state]} ({seen.note})")
        if seen is not None and seen.state == JOB_ENDED and code and entry.has("begun"):
            return self._end(entry, "failed", exit_code=code, message=f"{outputs.end(code)} ({seen.note})")  # before it could say so
        if not entry.has(".") and files.there(entry.folder.parent):  # else the file system is away
            return self._end(entry, "failed", exit_code=code, message="the folder of the job was removed while it ran")
        if entry.text("exit"):
            return self._end(entry, "failed", exit_code=code, message="what the job left of its exit status is no number")
        note = seen.note if seen is not None else "the batch engine knows nothing of it any more"
        return self._end(entry, "lost", message=f"the job was lost: {note}")

    def _waited(self, entry: Entry, seconds: float) -> bool:
        """Whether it is so long since this was asked for the first time: since the job was over."""
        if not entry.gone_at:
            entry.gone_at = self._clock()
            entry.keep()
        return self._clock() - entry.gone_at >= seconds

    def _measured(self, entry: Entry, seen: Seen | None) -> bool:
        """Whether all is known of an ended job's run that can be: what its folder does not tell is asked of the engine's books."""
        if None not in outputs.usage(entry, self.engine.NAME).values():
            return True
        try:
            told = seen if seen is not None and seen.facts else self.engine.books([self.job(entry)]).get(entry.name)
        except EngineError:  # there are none
            return True
        if told is None or told.state in LIVE:
            return self._waited(entry, self.engine.LATE)
        entry.books |= told.facts
        return True

    def _ended(self, entry: Entry, status: int) -> bool:
        if status == 0:
            return self._end(entry, "completed")
        return self._end(entry, "failed", exit_code=status, message=outputs.reason(entry, status))

    def _running(self, entry: Entry, order: str) -> None:
        if order == "suspend":
            if entry.said != "suspended" and self._can(entry, self.engine.suspend, "hold the job"):
                self._say(entry, "suspended")
        elif order == "resume":
            # Stopped by a signal: the engine still calls it running.
            if self._can(entry, self.engine.resume, "let the job go on"):
                self._say(entry, "running")
        elif entry.said == "":
            self._say(entry, "running")

    def _hold(self, entry: Entry, order: str, state: str) -> None:
        if order == "suspend":
            if state != WAITING or self._can(entry, self.engine.suspend, "hold the job"):
                self._say(entry, "suspended")
        elif order == "resume" and self._can(entry, self.engine.resume, "let the job go on"):
            self._say(entry, "running")

    def _can(self, entry: Entry, act: Callable[[Any], None], what: str) -> bool:
        """Do it, or tell the daemon that the engine refuses it; an engine that is down is asked again later."""
        try:
            act(self.job(entry))
        except EngineError as error:
            self.engine.look([])
            self.server.post(f"/experiments/{entry.id}/unable", claim=entry.claim, message=f"the batch engine does not {what}: {error}")
            return False
        return True

    def _say(self, entry: Entry, word: str) -> None:
        if entry.said == "suspended" and word == "running" and entry.started_at:
            entry.stopped_seconds += self._clock() - entry.outcome.pop("suspended_at", self._clock())
        if word == "suspended":
            entry.outcome["suspended_at"] = self._clock()
        self.server.post(f"/experiments/{entry.id}/{word}", claim=entry.claim)
        entry.said = word
        entry.keep()

    def _too_long(self, entry: Entry, state: str) -> bool:
        limit = entry.item["time_limit"]
        if not entry.started_at and (state == RUNNING or entry.has("begun")):
            # Kept from now on: the job can change what it has in its folder.
            # The script wrote the time of day; what is counted is at most what went by since the job was handed over.
            ran = self._wall() - (files.number(entry.text("start")) or self._wall())
            entry.started_at = self._clock() - max(0.0, min(ran, self._clock() - entry.since))
            entry.keep()
        if not limit or not entry.started_at or entry.said == "suspended":
            return False
        if self._clock() - entry.started_at - entry.stopped_seconds <= limit:
            return False
        log.info("experiment %d: its time limit of %.0f s is over", entry.id, limit)
        self.engine.cancel(self.job(entry))
        return self._go(entry, STOPPING, outcome={"kind": "failed", "exit_code": None, "message": f"{REASONS[OVERTIME]} of {limit:.0f} s"})

    def _stop(self, entry: Entry, order: str) -> bool:
        """Somebody else decided: cancelled, or not ours any more. The job has to go."""
        log.info("experiment %d: %s, stopping its job", entry.id, order)
        return self._go(entry, STOPPING, outcome={"kind": "ordered", "order": order})

    def stop(self, entry: Entry, order: str, seen: Seen | None) -> bool:
        """Go on ending a job until the engine has none of this name; then say so. Returns whether it goes on at once."""
        there = seen is not None and seen.state in (*LIVE, REFUSED)
        # A job that was handed over just before may not be visible yet: it is asked for again until the engine's time is over.
        maybe = seen is None and entry.has("job.sh") and not entry.has("begun") and self._clock() - entry.since < 2
        if there or maybe:
            self.engine.cancel(self.job(entry))
            return False
        self.engine.clean(self.job(entry))
        if "message" in entry.outcome:  # ours to tell: no order
            return self._measured(entry, seen) and self._end(entry, **entry.outcome)
        if "cancelled" in (entry.outcome.get("order"), order):  # it may have been cancelled only after it was ended for another reason
            with suppress(Refused):
                self.server.post(f"/experiments/{entry.id}/stopped", claim=entry.claim)
        entry.forget()
        return False

    def _deliver(self, entry: Entry) -> bool:
        self.engine.clean(self.job(entry))
        return delivery.deliver(self.server, entry)
