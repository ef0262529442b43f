"""Threads: few for short requests, and one more for each request that waits, up to a limit."""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from ippd.errors import Unavailable

SPARE_TIME = 10.0  # seconds that a thread nobody needs is kept for the next slow request
RETRY_AFTER = 5.0  # seconds

log = logging.getLogger(__name__)


class Pool:
    """`threads` threads take jobs; whoever says that it waits is replaced meanwhile, at most `slow_threads` times, and at most
    `most_of_one` times for one client: nobody keeps the others from theirs.

    A thread more than needed costs (they fight for the interpreter), so surplus ones take no jobs: they wait aside to
    be used again, and end after a while.
    """

    def __init__(self, handle: Callable[[Any], None], threads: int, slow_threads: int, most_of_one: int) -> None:
        self._handle, self._threads, self._most_slow, self._most_of_one = handle, threads, slow_threads, most_of_one
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()  # one entry for each thread that is called back
        self._lock = threading.Lock()
        self._working = self._slow = self._aside = 0
        self._slow_of: Counter[str] = Counter()
        self._stopped = False

    def start(self) -> None:
        """Start the threads for short requests."""
        for _ in range(self._threads):
            self._working += 1
            self._start_thread()

    def submit(self, job: Any) -> None:
        """Let a thread handle the job as soon as one is free."""
        self._jobs.put(job)

    def begin_slow(self, client: str = "") -> None:
        """The calling thread will wait: put another in its place. `client` is whom it serves, empty for one without a limit of its own.

        Raises Unavailable when too many wait already.
        """
        with self._lock:
            if self._slow >= self._most_slow:
                raise Unavailable("Too many transfers are under way. Please try again soon.", RETRY_AFTER)
            if client and self._slow_of[client] >= self._most_of_one:
                raise Unavailable("Too many transfers of your address are under way. Please try again soon.", RETRY_AFTER)
            self._slow += 1
            self._slow_of[client] += 1
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
                self._forget_slow(client)
            raise Unavailable("The service has no thread left. Please try again soon.", RETRY_AFTER) from None

    def end_slow(self, client: str = "") -> None:
        """The calling thread waits no longer."""
        with self._lock:
            self._forget_slow(client)
            self._working += 1

    def _forget_slow(self, client: str) -> None:
        self._slow -= 1
        self._slow_of[client] -= 1
        if not self._slow_of[client]:
            del self._slow_of[client]

    def stop(self) -> None:
        """Let the threads end, each after what it is doing."""
        with self._lock:
            self._stopped = True
            working, aside = self._working + self._slow, self._aside
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
        self._pool, self._client, self._depth = pool, client, 0

    def __enter__(self) -> "Slow":
        """Raises Unavailable when too many requests wait already."""
        if not self._depth:
            self._pool.begin_slow(self._client)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._pool.end_slow(self._client)
