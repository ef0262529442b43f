"""Threads: few for short requests, and one more for each request that waits, up to a limit."""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from ippd.errors import Unavailable

SPARE_TIME = 10.0  # seconds that a thread nobody needs is kept for the next slow request
RETRY_AFTER = 5.0  # seconds

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What a thread waits for, whom it serves (empty: one without a limit of its own), and how many places that one may have (None: as
    many as any address)."""

    kind: str = "transfers"
    client: str = ""
    most: int | None = None


class Pool:
    """`threads` threads take jobs; whoever says that it waits is replaced meanwhile, at most `slow_threads` times, and at most
    `most_of_one` times for one client: nobody keeps the others from theirs. Each kind of waiting is counted for itself: transfers take no
    place from log-ins.

    A thread more than needed costs (they fight for the interpreter), so surplus ones take no jobs: they wait aside to
    be used again, and end after a while.
    """

    def __init__(self, handle: Callable[[Any], None], threads: int, slow_threads: int, most_of_one: int) -> None:
        self._handle, self._threads, self._most_slow, self._most_of_one = handle, threads, slow_threads, most_of_one
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()  # one entry for each thread that is called back
        self._lock = threading.Lock()
        self._working = self._aside = 0
        self._slow: Counter[str] = Counter()  # by kind
        self._slow_of: Counter[tuple[str, str]] = Counter()  # by kind and client
        self._stopped = False

    def start(self) -> None:
        """Start the threads for short requests."""
        for _ in range(self._threads):
            self._working += 1
            self._start_thread()

    def submit(self, job: Any) -> None:
        """Let a thread handle the job as soon as one is free."""
        self._jobs.put(job)

    def begin_slow(self, place: Place) -> None:
        """The calling thread will wait: put another in its place. Raises Unavailable when too many wait already."""
        kind, client, most = place
        with self._lock:
            if self._slow[kind] >= self._most_slow:
                raise Unavailable(f"Too many {kind} are under way. Please try again soon.", RETRY_AFTER)
            if client and self._slow_of[kind, client] >= (self._most_of_one if most is None else most):
                whose = "your address" if most is None else "yours"
                raise Unavailable(f"Too many {kind} of {whose} are under way. Please try again soon.", RETRY_AFTER)
            self._slow[kind] += 1
            self._slow_of[kind, client] += 1
            if self._working > self._threads:  # this one was a surplus thread
                self._working -= 1
                return
            if self._aside:
                self._aside -= 1
                self._calls.put(None)
                return
        try:
            self._start_thread()
        except RuntimeError:
            with self._lock:
                self._forget_slow(place)
            raise Unavailable("The service has no thread left. Please try again soon.", RETRY_AFTER) from None

    def end_slow(self, place: Place) -> None:
        """The calling thread waits no longer."""
        with self._lock:
            self._forget_slow(place)
            self._working += 1

    def _forget_slow(self, place: Place) -> None:
        self._slow[place.kind] -= 1
        self._slow_of[place[:2]] -= 1
        if not self._slow_of[place[:2]]:
            del self._slow_of[place[:2]]

    def stop(self) -> None:
        """Let the threads end, each after what it is doing."""
        with self._lock:
            self._stopped = True
            working, aside = self._working + self._slow.total(), self._aside
        for _ in range(working):
            self._jobs.put(None)
        for _ in range(aside):
            self._calls.put(None)

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name="request", daemon=True).start()

    def _run(self) -> None:
        while not self._working > self._threads or self._stay_aside():
            job = self._jobs.get()
            if job is None:
                return
            try:
                self._handle(job)
            except Exception:
                log.exception("a request ended in an error of the server")

    def _stay_aside(self) -> bool:
        """Wait until a thread is needed. Returns False when this one should end."""
        with self._lock:
            if self._working <= self._threads or self._stopped:
                return True
            self._working -= 1
            self._aside += 1
        try:
            self._calls.get(timeout=SPARE_TIME)
        except queue.Empty:
            with self._lock:
                if self._aside:
                    self._aside -= 1
                    return False
            self._calls.get()  # called at the last moment
        return not self._stopped


class Slow:
    """A request that waits, as a context manager; inside another one of the same request it does nothing more."""

    def __init__(self, pool: Pool, client: str = "") -> None:
        self._pool, self._depth = pool, 0
        self._usual = self._place = Place(client=client)

    def of(self, kind: str | None = None, client: str | None = None, most: int | None = None) -> "Slow":
        """The same, counted as another kind of waiting, or for another client, when it is entered for the first time."""
        if not self._depth:
            self._place = Place(kind or self._usual.kind, self._usual.client if client is None else client, most)
        return self

    def __enter__(self) -> "Slow":
        """Raises Unavailable when too many requests wait already."""
        if not self._depth:
            self._pool.begin_slow(self._place)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._pool.end_slow(self._place)
            self._place = self._usual
