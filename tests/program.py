"""How the tests start ippd: from the source, or as the binary that `pytest --binary PATH` names."""

import os
import subprocess
import sys
import time
from pathlib import Path

BINARY = ""  # the path of the binary; conftest.py sets it before it loads the tests


def words(*more):
    """The command line of ippd with these words after it."""
    start = [BINARY] if BINARY else [sys.executable, "-m", "ippd"]
    return [*start, *map(str, more)]


def path():
    """One file that is the program."""
    return BINARY or str(Path(sys.executable).with_name("ippd"))


def run(*more, given=b""):
    """Run a command of ippd with `given` on its standard input (None: it has none); gives (status, output, errors)."""
    done = subprocess.run(words(*more), input=given, capture_output=True, timeout=120, preexec_fn=_close_input if given is None else None)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _close_input():
    os.close(0)


def pid_of(process):
    """The number of the process that does the work: what the binary starts first only unpacks, starts that one and waits for it."""
    while BINARY and process.poll() is None:
        children = children_of(process.pid)
        if children:
            return next(iter(children))
        time.sleep(0.01)
    return process.pid


def children_of(pid):
    """The child processes that have not ended: {number: name}."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        name, _, rest = rest.rpartition(") ")
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found[int(number)] = name
    return found
