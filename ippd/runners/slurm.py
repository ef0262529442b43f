"""Slurm: sbatch, squeue, scancel, scontrol, and sacct where accounting is switched on."""

import math
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ippd.runners import files
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
    account,
    call,
    exit_code,
    requests,
)

NAME = "slurm"
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
GRACE = 15.0
LATE = 6.0  # seconds after its end at which the accounting knows of a job at the latest
LONG_AGO = 7 * 86400.0  # seconds that sacct looks back
BOOKS = ("JobID", "JobName", "State", "ExitCode", "NodeList", "TotalCPU", "MaxRSS", "Start", "End")

REQUESTS = {"cpus": "--cpus-per-task={cpus}", "memory": "--mem={memory}", "gpus": "--gres=gpu:{gpus}"}
SAID = {"cpus": "^(-c|--cpus-per-task|-n|--ntasks)", "memory": "^--mem", "gpus": "gpu"}

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
    words += [f"--time={math.ceil(job.time_limit / 60) + 1}"] if job.time_limit else []  # the worker is the exact clock
    words += requests(job, REQUESTS, SAID)
    return call([*words, *job.words, str(job.folder / "job.sh"), str(job.folder)]).strip().partition(";")[0]


def look(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What Slurm knows of the jobs of this account, by name; of two with one name the live one. Raises EngineError."""
    seen = parse(call(["squeue", "--noheader", f"--user={account()}", "--states=all", "--format=%i|%j|%T|%r"]).splitlines())
    # What ended without a word in its folder, or longer ago than MinJobAge.
    silent = [job for job in jobs if files.there(job.folder / "begun") and not files.there(job.folder / "exit")]
    dark = [job for job in silent if job.name not in seen or seen[job.name].state not in LIVE]
    if dark:
        with suppress(EngineError):  # accounting is switched off
            for name, told in books(dark).items():
                if told.state not in LIVE:  # else the books are behind
                    seen[name] = told
    return seen


def parse(lines: Iterable[str]) -> dict[str, Seen]:
    """Lines of id|name|state|reason; a state that nobody knows counts as running, so that nothing is lost by it."""
    seen: dict[str, Seen] = {}
    for line in lines:
        id, name, state, reason = (line.split("|") + [""] * 3)[:4]
        new = Seen(_state(state), id, f"{state} ({reason})")
        if name not in seen or new.state in LIVE:
            seen[name] = new
    return seen


def _state(word: str) -> str:
    return STATES.get(word.split()[0].rstrip("+") if word else "", RUNNING)


def books(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What the accounting has of jobs, in one call. Raises EngineError when it is switched off, or does not answer."""
    since = time.strftime("%Y-%m-%d", time.localtime(time.time() - LONG_AGO))
    options = ["--noheader", "--parsable2", f"--starttime={since}", f"--name={','.join(job.name for job in jobs)}"]
    return parse_books(call(["sacct", *options, f"--format={','.join(BOOKS)}"], SLURM_TIME_FORMAT="%s").splitlines())


def parse_books(lines: Iterable[str]) -> dict[str, Seen]:
    """Lines of sacct with the fields of BOOKS: a line for each job, and after it lines of its steps (12.batch), which know the memory."""
    seen: dict[str, Seen] = {}
    name = ""
    for line in lines:
        id, said, state, code, node, cpu, peak, start, end = (line.split("|") + [""] * 8)[:9]
        if "." not in id:
            name = said
            facts: dict[str, Any] = {"node": node, "cpu_seconds": _seconds(cpu), "started_at": _number(start), "ended_at": _number(end)}
            if _state(state) not in LIVE and re.fullmatch(r"\d+:\d+", code):
                facts["exit_code"] = exit_code(*map(int, code.split(":")))
            told = Seen(_state(state), id, state, {fact: value for fact, value in facts.items() if value not in (None, "")})
            if name not in seen or told.state in LIVE or seen[name].state not in LIVE:
                seen[name] = told
        elif name in seen and id.partition(".")[0] == seen[name].id and (used := _bytes(peak)):
            facts = dict(seen[name].facts)
            seen[name] = seen[name]._replace(facts=facts | {"peak_bytes": max(used, facts.get("peak_bytes", 0))})
    return seen


def _seconds(text: str) -> float | None:
    """sacct(1), TotalCPU: [days-][hours:]minutes:seconds[.microseconds]."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    return 86400.0 * int(found[1] or 0) + 3600 * int(found[2] or 0) + 60 * int(found[3]) + float(found[4]) if found else None


def _bytes(text: str) -> int | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2] or " ")) if found else None


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def cancel(job: Job) -> None:
    """End all jobs of this name. Raises EngineError."""
    call(["scancel", f"--user={account()}", f"--name={job.name}"])


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
        return
    try:
        call(["scontrol", "resume", seen.id])
    except EngineError:  # held by a signal, or nothing that we may
        call(["scancel", "--signal=CONT", "--full", seen.id])


def clean(job: Job) -> None:
    """Nothing to do: slurmd ends what a job leaves behind."""
