"""Slurm: sbatch, squeue, scancel, scontrol, and sacct where accounting is switched on."""

import math
from collections.abc import Iterable
from contextlib import suppress

from ippd.runners.tools import (
    ENDED,
    LIVE,
    LOST,
    MEMORY,
    OVERTIME,
    RUNNING,
    STOPPED,
    SUSPENDED,
    WAITING,
    EngineError,
    Job,
    Seen,
    call,
)

NAME = "slurm"
GRACE = 15.0

# squeue(1), JOB STATE CODES
STATES = {
    "PENDING": WAITING, "CONFIGURING": WAITING, "REQUEUED": WAITING, "REQUEUE_HOLD": WAITING, "REQUEUE_FED": WAITING,
    "RESV_DEL_HOLD": WAITING, "RUNNING": RUNNING, "COMPLETING": RUNNING, "SIGNALING": RUNNING, "STAGE_OUT": RUNNING, "RESIZING": RUNNING,
    "SUSPENDED": SUSPENDED, "STOPPED": SUSPENDED, "COMPLETED": ENDED, "FAILED": ENDED, "SPECIAL_EXIT": ENDED, "CANCELLED": STOPPED,
    "REVOKED": STOPPED, "TIMEOUT": OVERTIME, "DEADLINE": OVERTIME, "OUT_OF_MEMORY": MEMORY, "NODE_FAIL": LOST, "BOOT_FAIL": LOST,
    "PREEMPTED": LOST,
}  # fmt: skip


def submit(job: Job) -> str:
    """Submit a job; returns its id. Raises EngineError."""
    words = ["sbatch", "--parsable", "--no-requeue", f"--job-name={job.name}", f"--chdir={job.folder}", "--output=engine.txt"]
    words += [f"--cpus-per-task={job.cpus}"]
    words += [f"--time={math.ceil(job.time_limit / 60) + 1}"] if job.time_limit else []  # the worker is the exact clock
    words += [f"--mem={math.ceil(job.memory / 2**20)}"] if job.memory else []
    words += [f"--gpus={job.gpus}"] if job.gpus else []
    return call([*words, *job.words, str(job.folder / "job.sh"), str(job.folder)]).strip().partition(";")[0]


def look(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What Slurm knows of the jobs of this account, by name; of two with one name the live one. Raises EngineError."""
    lines = call(["squeue", "--noheader", "--me", "--states=all", "--format=%i|%j|%T|%r"]).splitlines()
    seen = parse(lines)
    missing = [job for job in jobs if job.name not in seen and (job.folder / "begun").exists() and not (job.folder / "exit").exists()]
    if missing:  # ended longer ago than MinJobAge
        names = ",".join(job.name for job in missing)
        with suppress(EngineError):  # accounting is switched off
            options = ["--noheader", "--parsable2", "--allocations", "--starttime=now-7days", f"--name={names}"]
            seen |= parse(call(["sacct", *options, "--format=JobID,JobName,State,Reason"]).splitlines())
    return seen


def parse(lines: Iterable[str]) -> dict[str, Seen]:
    """Lines of id|name|state|reason; a state that nobody knows counts as running, so that nothing is lost by it."""
    seen: dict[str, Seen] = {}
    for line in lines:
        id, name, state, reason = (line.split("|") + [""] * 3)[:4]
        new = Seen(STATES.get(state.split()[0].rstrip("+") if state else "", RUNNING), id, f"{state} ({reason})")
        if name not in seen or new.state in LIVE:
            seen[name] = new
    return seen


def cancel(job: Job) -> None:
    """End all jobs of this name; a second call kills. Raises EngineError."""
    call(["scancel", "--me", f"--name={job.name}"])


def suspend(job: Job) -> None:
    """Hold a waiting job, stop the processes of a running one. Raises EngineError."""
    seen = look([job]).get(job.name)
    if seen is None or seen.state == WAITING:
        call(["scontrol", "hold", seen.id if seen else f"jobname={job.name}"])
        return
    try:
        call(["scontrol", "suspend", seen.id])
    except EngineError:  # only administrators may; signals are the owner's
        call(["scancel", "--signal=STOP", "--full", seen.id])


def resume(job: Job) -> None:
    """Undo `suspend`. Raises EngineError."""
    seen = look([job]).get(job.name)
    if seen is None:
        raise EngineError(f"there is no job {job.name}")
    if seen.state == WAITING:
        call(["scontrol", "release", seen.id])
    elif seen.state == SUSPENDED:
        call(["scontrol", "resume", seen.id])
    else:
        call(["scancel", "--signal=CONT", "--full", seen.id])


def clean(job: Job) -> None:
    """Nothing to do: slurmd ends what a job leaves behind."""
