"""Tells the running daemon to let the program that now lies in its place take over, and waits for what becomes of it."""

import os
import signal
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

REFUSED = "successor-failed"  # a file that the daemon makes when its successor did not become ready
PATIENCE = 75.0  # seconds; the daemon itself gives its successor a minute


def running(folder: Path) -> int:
    """The parent of the processes that serve from a data folder: the successor if there was one; 0 when no daemon runs."""
    return (_processes(folder) or [0])[-1]


def _processes(folder: Path) -> list[int]:
    """What the lock of a data folder names: the first parent, which starts successors, and the one that has taken over."""
    try:
        with open(folder / "ippd.lock", "rb") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                return [int(number) for number in file.read(100).split()]
    except (FileNotFoundError, ValueError):
        pass
    return []


def hand_over(folder: Path, patience: float = PATIENCE) -> bool:
    """Let the daemon's successor start; True when it has taken over, or when no daemon runs, False when the old one goes on."""
    processes = _processes(folder)
    if not processes:
        return True
    first, before = processes[0], processes[-1]
    (folder / REFUSED).unlink(missing_ok=True)
    os.kill(first, signal.SIGUSR2)
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
        os.kill(daemon, signal.SIGHUP)
