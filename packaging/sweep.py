"""Runs first in the frozen program: removes the unpacked files of programs that were killed before they could do it themselves."""

import os
import re
import shutil
import sys
from contextlib import suppress

UNPACKED = re.compile(r"_MEI([0-9a-f]{8})\w{6}")  # the hexadecimal number is the process that unpacked and would remove it


def _is_dead(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's, or no process has such a number
        pass
    return False


def _is_ours(entry: os.DirEntry) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _sweep(folder: str) -> None:
    for entry in os.scandir(folder):
        found = UNPACKED.fullmatch(entry.name)
        if found and _is_ours(entry) and _is_dead(int(found[1], 16)):
            shutil.rmtree(entry.path, ignore_errors=True)


# No folder that cannot be read, or that another start is sweeping too, is a reason not to start.
with suppress(OSError):
    _sweep(os.path.dirname(sys._MEIPASS))
