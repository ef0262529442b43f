"""Password hashes: bcrypt, on one patient thread per process, so that a storm of log-ins cannot starve other requests."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import bcrypt

from ippd.errors import Unavailable

Answer = TypeVar("Answer")
PATIENCE = 10  # what is added to the thread's nice value


class Passwords:
    """Makes and checks hashes. At most `waiting` callers wait for their turn; further ones get Unavailable at once."""

    def __init__(self, cost: int, waiting: int) -> None:
        self._cost = cost
        self._places = threading.BoundedSemaphore(waiting)
        self._thread = ThreadPoolExecutor(1, "hash", _be_patient)
        # Checked for unknown names, so that they take as long as known ones.
        self._nobody = bcrypt.hashpw(os.urandom(12).hex().encode(), bcrypt.gensalt(4)).replace(b"$04$", b"$%02d$" % cost)

    def hash(self, password: str) -> str:
        """The bcrypt hash of a password of at most 72 bytes."""
        return self._turn(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode())

    def matches(self, password: str, digest: str | None) -> bool:
        """Whether the password has this hash; None (no such user) takes as long and is never right."""
        secret = password.encode("utf-8", "replace").replace(b"\0", b"\xff")[:73]
        if len(secret) > 72:
            secret, digest = secret[:72], None

        def compare() -> bool:
            try:
                return bcrypt.checkpw(secret, digest.encode() if digest else self._nobody) and digest is not None
            except ValueError:  # not a bcrypt hash
                return False

        return self._turn(compare)

    def _turn(self, work: Callable[[], Answer]) -> Answer:
        if not self._places.acquire(blocking=False):
            raise Unavailable("too many people are logging in at once: please try again", retry_after=2)
        try:
            return self._thread.submit(work).result()
        finally:
            self._places.release()


def _be_patient() -> None:
    # nice(2) is about the calling thread on Linux. It adds: everybody may do that, also in a daemon that is patient already. Nobody's
    # log-in fails for a thread that is not.
    with suppress(OSError):
        os.nice(PATIENCE)
