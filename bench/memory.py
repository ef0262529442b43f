"""How much memory a program and its children use."""

import os
import threading
from pathlib import Path


def family(pid):
    """The process and all below it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def used(pid):
    """Bytes that the process and its children use, shared pages counted once (the kernel's Pss)."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


class Growth:
    """Watches a program while the block runs; `bytes` is by how much it was larger at its largest than at the beginning."""

    def __init__(self, pid):
        self._pid, self._end = pid, threading.Event()

    def __enter__(self):
        self._before = self._most = used(self._pid)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _watch(self):
        while not self._end.wait(0.1):
            self._most = max(self._most, used(self._pid))

    @property
    def bytes(self):
        return self._most - self._before
