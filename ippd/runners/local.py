"""Jobs as processes of this machine: each in a session of its own, with limits, found again by what it wrote into its folder."""

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ippd.runners import files
from ippd.runners.tools import LOST, RUNNING, SUSPENDED, WAITING, EngineError, Job, Seen, environment

NAME = "local"
PROGRAMS = ()
GRACE = 3.0  # seconds that a process has between its start and its first line
LATE = 0.0
PATIENCE = 5.0  # seconds between a request to end and the kill

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # prctl(2), since Linux 3.4
_LIBC = ctypes.CDLL(None)
# Whether a job's first process gets all that escaped from its parents, and so nothing of a job is out of sight.
REAPS = _LIBC.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()), 0, 0, 0) == 0

# When a job was first asked to end, and which of its processes were; a worker that begins anew asks again.
_asked: dict[str, tuple[float, set[int]]] = {}
_children: list[subprocess.Popen[bytes]] = []


def submit(job: Job) -> str:
    """Start a job; returns its process id. Raises EngineError."""

    def limit() -> None:
        if job.memory:
            resource.setrlimit(resource.RLIMIT_AS, (job.memory, job.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if REAPS:  # survives the exec, and is not inherited
            _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    given = environment() | {"IPPD_JOB": job.name} | ({"IPPD_REAPS": "1"} if REAPS else {})

    try:
        with open(job.folder / "engine.txt", "ab") as said:
            child = subprocess.Popen(
                ["/bin/sh", str(job.folder / "job.sh"), str(job.folder)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=given, start_new_session=True, preexec_fn=limit,
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
        if files.there(job.folder / "pid"):
            return Seen(LOST, "", "its processes are gone")
        age = files.age(job.folder / "begun")
        return Seen(WAITING) if age is not None and age < GRACE else None
    state = _stat(pid)[0] if _stat(pid) else ""
    return Seen(SUSPENDED if state == "T" else RUNNING, str(pid))


def books(jobs: Iterable[Job]) -> dict[str, Seen]:
    """Nothing: nobody else has seen these jobs."""
    return {}


def _process(folder: Path) -> int | None:
    """The first process of a job, if it is that one still (ids are given out again, start times are not).

    The job can have written anything there: a process that was not started for it is never taken for its first.
    """
    words = files.text(folder / "pid").split()
    if len(words) != 2 or not words[0].isdecimal():
        return None
    pid, stat = int(words[0]), _stat(int(words[0]))
    if not stat or stat[19] != words[1] or stat[0] in ("Z", "X") or _is_ours(pid, stat):
        return None
    return pid if _mark(folder.name) in _parts(pid, "environ") else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (the state) on; empty when there is no such process (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _parts(pid: int, name: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")
    except OSError:
        return []


def _mark(name: str) -> bytes:
    return f"IPPD_JOB={name}".encode()


def _is_ours(pid: int, stat: list[str]) -> bool:
    """Whether it is the worker itself, or one of its process group."""
    return pid == os.getpid() or int(stat[2]) == os.getpgrp()


def _all(job: Job) -> list[int]:
    """Each process of a job: those that carry its name, wherever they have gone to (another session, another parent), and all below."""
    stats = {pid: stat for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if (stat := _stat(pid))}
    first, mark = _process(job.folder), _mark(job.name)
    below: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        below.setdefault(int(stat[1]), []).append(pid)
    ahead = [pid for pid in stats if pid == first or mark in _parts(pid, "environ")]
    found: dict[int, None] = {}
    while ahead:
        pid = ahead.pop()
        if pid not in found and not _is_ours(pid, stats[pid]):
            found[pid] = None
            ahead += below.get(pid, [])
    return [pid for pid in found if stats[pid][0] not in ("Z", "X")]


def _signal(pids: Iterable[int], *signals: signal.Signals) -> None:
    for pid in pids:
        for number in signals:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def cancel(job: Job) -> None:
    """Ask all processes of a job to end, each once; kill those that are there later.

    The first is left to the end: it ends what is below it without the job's name (see the launcher), as helpers of containers, which
    have to put things in order when their container is gone.
    """
    pids, first, mark = _all(job), _process(job.folder), _mark(job.name)
    since, asked = _asked.setdefault(job.name, (time.monotonic(), set()))
    waited = time.monotonic() - since
    others = [pid for pid in pids if pid != first]
    named = [pid for pid in others if mark in _parts(pid, "environ")]
    if waited > 3 * PATIENCE:
        _signal(others or pids, signal.SIGKILL)
    elif waited > PATIENCE:
        _signal(named, signal.SIGKILL)
    else:
        _signal([pid for pid in named if pid not in asked], signal.SIGTERM)
    _signal([pid for pid in pids if pid not in asked], signal.SIGCONT)
    asked.update(pids)


def suspend(job: Job) -> None:
    """Stop all processes of a job."""
    _signal(_all(job), signal.SIGSTOP)


def resume(job: Job) -> None:
    """Let them go on."""
    _signal(_all(job), signal.SIGCONT)


def clean(job: Job) -> None:
    """Kill what an ended job has left behind."""
    _asked.pop(job.name, None)
    pids, first = _all(job), _process(job.folder)
    _signal([pid for pid in pids if pid != first], signal.SIGKILL)
    _signal([first] if first else [], signal.SIGKILL)
