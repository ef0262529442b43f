"""Tells the running daemon to let the program that now lies in its place take over, and waits for what becomes of it."""

import contextlib
import errno
import os
import signal
import time
from fcntl import LOCK_NB, LOCK_SH, flock
from pathlib import Path

REFUSED = "successor-failed"  # a file that the daemon makes when its successor did not become ready
PATIENCE = 75.0  # seconds; the daemon itself gives its successor a minute


def running(folder: Path) -> int:
    """The parent of the processes that serve from a data folder: the successor if there was one; 0 when no daemon runs."""
    return (_processes(folder) or [0])[-1]


def held(folder: Path) -> bool:
    """Whether a daemon runs over a data folder, also one whose number says nothing here: in a container it is 1. Raises OSError."""
    try:
        descriptor = _open(folder)
    except FileNotFoundError:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open(folder: Path) -> int:
    return os.open(folder / "ippd.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _processes(folder: Path) -> list[int]:
    """What the lock of a data folder names: the first parent, which starts successors, and the one that has taken over."""
    try:
        descriptor = _open(folder)
    except OSError:
        return []
    with open(descriptor, "rb") as file:
        try:
            flock(file, LOCK_SH | LOCK_NB)  # shared: of two that look at once, neither takes the other for a daemon
        except BlockingIOError:
            numbers = [int(number) for number in file.read(100).split() if number.isdigit()]
            return [number for number in numbers if number > 1]  # 0 and less are groups for kill(2), 1 is nobody's daemon
    return []


def _send(folder: Path, process: int, number: int) -> None:
    """Send a signal as the owner of the data folder, who could have written any number into the lock. Raises OSError."""
    owner = os.stat(folder).st_uid
    if os.geteuid() != 0 or owner == 0:
        os.kill(process, number)
        return
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setuid(owner)
            os.kill(process, number)
            os._exit(0)
        os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise PermissionError(errno.EPERM, "is not a process of the data folder's account", str(process))


def hand_over(folder: Path, patience: float = PATIENCE) -> bool:
    """Let the daemon's successor start; True when it has taken over, or when no daemon runs, False when the old one goes on."""
    processes = _processes(folder)
    if not processes:
        return True
    first, before = processes[0], processes[-1]
    (folder / REFUSED).unlink(missing_ok=True)
    _send(folder, first, signal.SIGUSR2)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if running(folder) not in (0, before):
            return True
        if (folder / REFUSED).exists():
            return False
    return False


def reload(folder: Path) -> None:
    """Let the daemon read its settings and files again, if it runs."""
    daemon = running(folder)
    if daemon:
        _send(folder, daemon, signal.SIGHUP)
