"""The worker's clock: it shows the time of day as it was first, and goes on evenly when somebody sets that."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ippd.runners import files
from ippd.wholefile import whole_file

BOOT = Path("/proc/sys/kernel/random/boot_id")


def ticks() -> float:
    """Seconds since the host was started, those in which it slept included."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except OSError:  # before Linux 2.6.39
        return time.monotonic()


class SteadyClock:
    """Seconds since 1970, by which times of jobs are counted: a clock that is set must not end them.

    What was added to `ticks` is kept in a file, so that a worker that begins anew counts on. After the host was started anew it is `wall`
    that counts, the time of day.
    """

    def __init__(self, kept: Path, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = ticks) -> None:
        """Never raises: without a file the next worker begins with the time of day."""
        self._ticks = ticks
        boot = files.text(BOOT)
        with suppress(ValueError, TypeError):
            known, self._offset = json.loads(files.text(kept))
            if boot and known == boot and files.number(str(self._offset)) is not None:
                return
        self._offset = wall() - ticks()
        with suppress(OSError), whole_file(kept) as file:
            file.write(json.dumps([boot, self._offset]).encode())

    def __call__(self) -> float:
        """The time."""
        return self._ticks() + self._offset
