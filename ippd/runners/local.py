"""Jobs as processes of this machine: each in a session of its own, with limits, found again by what it wrote into its folder."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ippd.runners.tools import LOST, RUNNING, SUSPENDED, WAITING, EngineError, Job, Seen, environment

NAME = "local"
GRACE = 3.0  # seconds that a process has between its start and its first line
LATE = 0.0
PATIENCE = 5.0  # seconds between a request to end and the kill

_children: list[subprocess.Popen[bytes]] = []


def submit(job: Job) -> str:
    """Start a job; returns its process id. Raises EngineError."""

    def limit() -> None:
        if job.memory:
            resource.setrlimit(resource.RLIMIT_AS, (job.memory, job.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    try:
        with open(job.folder / "engine.txt", "ab") as said:
            child = subprocess.Popen(
                ["/bin/sh", str(job.folder / "job.sh"), str(job.folder)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment(), start_new_session=True, preexec_fn=limit,
            )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"the job cannot be started: {error}") from None
    _children.append(child)
    return str(child.pid)


def look(jobs: Iterable[Job]) -> dict[str, Seen]:
    """The state of each job: of its first process, or of the folder when there is none yet."""
    _children[:] = [child for child in _children if child.poll() is None]
    return {job.name: seen for job in jobs if (seen := _look(job)) is not None}


def _look(job: Job) -> Seen | None:
    pid = _process(job.folder)
    if pid is None:
        if (job.folder / "pid").exists():
            return Seen(LOST, "", "its processes are gone")
        return Seen(WAITING) if (job.folder / "begun").exists() and time.time() - (job.folder / "begun").stat().st_mtime < GRACE else None
    state = _stat(pid)[0] if _stat(pid) else ""
    return Seen(SUSPENDED if state == "T" else RUNNING, str(pid))


def books(jobs: Iterable[Job]) -> dict[str, Seen]:
    """Nothing: nobody else has seen these jobs."""
    return {}


def _process(folder: Path) -> int | None:
    """The first process of a job, if it is that one still (ids are given out again, start times are not)."""
    try:
        pid, started = (folder / "pid").read_text().split()
    except (OSError, ValueError):
        return None
    stat = _stat(int(pid))
    return int(pid) if stat and stat[19] == started and stat[0] not in ("Z", "X") else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (the state) on; empty when there is no such process (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _all(job: Job) -> list[int]:
    """Each process of a job: those that carry its name, wherever they have gone to (another session, another parent)."""
    mark, found = f"IPPD_JOB={job.name}".encode(), []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    first = _process(job.folder)
    return [*([first] if first and first not in found else []), *found]


def _signal(job: Job, *signals: signal.Signals) -> None:
    for pid in _all(job):
        for number in signals:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def cancel(job: Job) -> None:
    """Ask all processes of a job to end; kill those that are there later."""
    asked = job.folder / "asked"
    if asked.exists() and time.time() - asked.stat().st_mtime > PATIENCE:
        _signal(job, signal.SIGKILL)
    else:
        asked.touch() if not asked.exists() else None
        _signal(job, signal.SIGTERM, signal.SIGCONT)


def suspend(job: Job) -> None:
    """Stop all processes of a job."""
    _signal(job, signal.SIGSTOP)


def resume(job: Job) -> None:
    """Let them go on."""
    _signal(job, signal.SIGCONT)


def clean(job: Job) -> None:
    """Kill what an ended job has left behind."""
    _signal(job, signal.SIGKILL)
