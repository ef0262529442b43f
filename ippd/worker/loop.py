"""The worker's round: tell the daemon what is held, look at the engine once, take each job on, claim more."""

import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from logging import getLogger
from pathlib import Path
from typing import Any

from ippd.calls import Refused, Server
from ippd.errors import Invalid, Unavailable
from ippd.runners import ENGINES
from ippd.runners.tools import EngineError, Seen, absent
from ippd.stop import Stop
from ippd.worker.heartbeats import Orders, beating
from ippd.worker.journal import STOPPING, SUBMITTED, SUBMITTING, Entry, Journal
from ippd.worker.steadyclock import SteadyClock, ticks
from ippd.worker.steps import Site, Steps

MOST_AT_ONCE = 8  # steps of one entry in a round: more come with the next one
REQUESTS = ("cpus", "memory", "gpus")
QUIET = 60.0  # seconds between two lines of the log about the same trouble
log = getLogger("ippd.worker")


class Worker:
    """One worker. `step()` is one round; nothing is remembered but in the journal."""

    def __init__(self, steps: Steps, journal: Journal, name: str, settings: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self._steps, self._journal, self._name, self._settings, self._clock = steps, journal, name, settings, clock
        self._told: dict[str, float] = {}

    def step(self) -> int:
        """One round; returns how many experiments are held after it. Raises nothing that a later round could mend."""
        entries: list[Entry] = []
        try:
            entries = self._journal.entries()
            orders = Orders(self._steps.server, entries)
            seen = self._look(entries)
            for entry in entries:
                self._safely(entry, orders, seen)
            held = sum(entry.held for entry in entries)
            if why := absent(self._steps.engine):  # claimed now, experiments would only be kept from workers that can run them
                raise EngineError(why)
            fresh = self._claim(held)
            orders.add(fresh)
            for entry in fresh:
                self._safely(entry, orders, seen)
            return held + len(fresh)
        except (Unavailable, EngineError, Refused, OSError) as error:
            self._tell(str(error))
            return len(entries)

    def _look(self, entries: list[Entry]) -> dict[str, Seen]:
        """What the engine says of all jobs at once; it is not asked when nothing is there to be asked about."""
        jobs = [self._steps.job(entry) for entry in entries if entry.step in (SUBMITTING, SUBMITTED, STOPPING)]
        return self._steps.engine.look(jobs) if jobs else {}

    def _safely(self, entry: Entry, orders: Orders, seen: dict[str, Seen]) -> None:
        """Take one entry on; its trouble is not that of the others."""
        try:
            for _ in range(MOST_AT_ONCE):
                mine, order = seen.get(entry.name), orders.of(entry)
                again = self._steps.stop(entry, order, mine) if entry.step == STOPPING else self._steps.advance(entry, order, mine)
                if not again:
                    break
        except Refused as error:
            if error.status not in (404, 409):
                self._tell(f"experiment {entry.id}: {error}")
        except (Unavailable, EngineError, OSError) as error:
            self._tell(f"experiment {entry.id}: {error}")
        except Exception:  # a fault in here must not stop the others' experiments
            log.exception("experiment %d", entry.id)

    def _claim(self, held: int) -> list[Entry]:
        free = self._settings["worker.slots"] - held
        if free <= 0:
            return []
        self._journal.check()
        wanted = {
            "worker": self._name,
            "seconds": self._settings["worker.lease"],
            "limit": free,
            "hosts": list(self._settings["worker.hosts"]),
            "apps": list(self._settings["worker.apps"]),
        }
        items = self._steps.server.post_json("/experiments/claim", wanted)["experiments"]
        for item in items:
            log.info("experiment %d: claimed (%s)", item["id"], item["app"])
        return [self._journal.add(item, self._clock()) for item in items]

    def _tell(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._told.get(sentence, -QUIET) >= QUIET:
            self._told = {said: when for said, when in self._told.items() if now - when < QUIET} | {sentence: now}
            log.warning("%s", sentence)

    def heartbeats(self) -> AbstractContextManager[None]:
        """The heartbeats: claims are renewed as long as the block lasts, whatever the rounds wait for."""
        lease = self._settings["worker.lease"]
        return beating(_server(self._settings, min(60.0, lease)), self._journal.claims, lease)

    def close(self) -> None:
        """Give the journal up; jobs that run go on, and are found again."""
        self._journal.close()


def make_worker(
    settings: Mapping[str, Any], engine: str, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = ticks
) -> Worker:
    """The worker of the settings for an engine; `wall` is the time of day, `ticks` runs evenly.

    Raises Conflict when its folder is in use, Invalid for bad words in the settings, Unavailable when programs of the engine are missing.
    """
    module = ENGINES[engine]
    if why := absent(module):
        raise Unavailable(why)
    split = {name: _words(settings, name) for name in ("resources", "container", *REQUESTS)}
    site = Site(tuple(split["resources"]), {name: settings[f"worker.{name}"] for name in REQUESTS}, settings["worker.container"])
    journal = Journal(Path(settings["worker.folder"]))
    clock = SteadyClock(journal.clock_path, wall, ticks)
    name = settings["worker.name"] or f"{os.uname().nodename}-{engine}"
    return Worker(Steps(_server(settings), module, site, clock, wall), journal, name, settings, clock)


def _server(settings: Mapping[str, Any], timeout: float = 60.0) -> Server:
    return Server(settings["worker.url"], timeout=timeout, accounts=settings["worker.server_account"])


def _words(settings: Mapping[str, Any], name: str) -> list[str]:
    try:
        return shlex.split(settings[f"worker.{name}"])
    except ValueError as error:
        raise Invalid(f"worker.{name}: {error}") from None


def run(worker: Worker, interval: float, stop: Stop) -> None:
    """Round after round until `stop` is set; `interval` is in seconds. What is held stays held, and is found again."""
    with worker.heartbeats():
        while not stop.is_set():
            worker.step()
            stop.wait(interval)
    worker.close()
