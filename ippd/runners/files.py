"""Reading what a job can have put into its folder: never waits, follows no link, and takes no more than was asked for."""

import math
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO

SMALL = 4096  # bytes of a file that holds one fact


def opened(path: Path) -> BinaryIO:
    """A regular file, for reading. Raises OSError for anything else: a link, a pipe that nobody writes into, a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(handle, "rb")


def text(path: Path, most: int = SMALL) -> str:
    """The beginning of a file, without blanks around it; empty when there is none that can be read."""
    try:
        with opened(path) as file:
            return file.read(most).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def size(path: Path) -> int:
    """The bytes of a regular file; 0 for anything else."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def there(path: Path) -> bool:
    """Whether there is something that can be seen: a job may have closed its folder, or removed it."""
    return os.path.exists(path)


def age(path: Path) -> float | None:
    """The seconds since something was changed, by the wall clock; None when it cannot be seen."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return None


def number(words: str, most: float = 1e11) -> float | None:
    """A number from 0 to `most`; None for any other text (nan and inf are none)."""
    try:
        found = float(words)
    except ValueError:
        return None
    return found if math.isfinite(found) and 0 <= found <= most else None
