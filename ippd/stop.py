"""An order to stop that threads can wait for, for a time that nobody can stretch by setting the clock."""

import os
import select


class Stop:
    """Like threading.Event, whose waits on old systems end by the wall clock: set back an hour, they last an hour longer.

    (glibc before 2.30 has no sem_clockwait.) It can be set in a signal handler.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._is_set = False

    def set(self) -> None:
        """Give the order. A second time changes nothing."""
        if not self._is_set:
            self._is_set = True
            os.close(self._write)  # which everybody hears who waits at the other end, now or later

    def is_set(self) -> bool:
        """Whether the order was given."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait for the order, so long at most; returns whether it was given."""
        poll = select.poll()
        poll.register(self._read, 0)  # the end of the pipe is told in any case
        return bool(poll.poll(max(0, round(seconds * 1000)))) or self._is_set
