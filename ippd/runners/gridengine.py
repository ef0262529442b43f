"""Grid Engine (SGE and its children): qsub without a shell, qstat, qacct, qdel, qmod, qhold."""

import math
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from xml.etree import ElementTree

from ippd.runners import files
from ippd.runners.tools import (
    ENDED,
    LIVE,
    LOST,
    OVERTIME,
    REFUSED,
    RUNNING,
    STOPPED,
    SUSPENDED,
    WAITING,
    EngineError,
    Job,
    Seen,
    call,
    requests,
)

NAME = "gridengine"
PROGRAMS = ("qsub", "qstat", "qdel", "qmod", "qhold", "qrls")
GRACE = 40.0  # qacct knows a job only some 15 s after its end
LATE = 25.0  # seconds after its end at which the accounting knows of a job at the latest
ACCOUNTING = 3.0  # seconds between two looks for one job there

# complex(5): each cell has h_vmem, and counts it for each slot. Parallel environments and GPUs have the names that the site gave them.
REQUESTS = {"memory": "-l h_vmem={memory_per_cpu}M"}
SAID = {"cpus": "^-pe$", "memory": "(mem|virtual_free|h_rss|h_data)[a-z_]*=", "gpus": "gpu"}

# qstat(1): the letters of a job's state, the first that is found counts.
LETTERS = (("E", REFUSED), ("s", SUSPENDED), ("S", SUSPENDED), ("T", SUSPENDED), ("r", RUNNING), ("t", RUNNING), ("d", RUNNING))
# accounting(5), `failed`: 25 rescheduled, 37 h_rt or another limit, 100 the program was killed; others: it never ran as it should.
FAILED = {0: ENDED, 25: LOST, 37: OVERTIME, 100: STOPPED}


def submit(job: Job) -> str:
    """Submit a job; returns its id. Raises EngineError."""
    words = ["qsub", "-terse", "-b", "y", "-shell", "n", "-r", "n", "-N", job.name, "-wd", str(job.folder)]
    words += ["-j", "y", "-o", str(job.folder / "engine.txt")]
    words += ["-l", f"h_rt={math.ceil(job.time_limit) + 60}"] if job.time_limit and not any("_rt=" in word for word in job.words) else []
    words += requests(job, REQUESTS, SAID)
    said = call([*words, *job.words, "/bin/sh", str(job.folder / "job.sh"), str(job.folder)])
    return said.strip().splitlines()[-1].partition(".")[0]


def look(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What Grid Engine knows of the jobs of this account, by name; of two with one name the live one. Raises EngineError."""
    seen = parse(call(["qstat", "-xml"]))
    dark = [job for job in jobs if job.name not in seen and files.there(job.folder / "begun") and not files.there(job.folder / "exit")]
    return seen | books(dark)


def parse(xml: str) -> dict[str, Seen]:
    """The jobs in the XML of qstat. Raises EngineError for anything else."""
    try:
        entries = ElementTree.fromstring(xml).iter("job_list")
    except ElementTree.ParseError as error:
        raise EngineError(f"qstat: {error}") from None
    seen: dict[str, Seen] = {}
    for entry in entries:
        letters = entry.findtext("state", "")
        state = next((state for letter, state in LETTERS if letter in letters), WAITING)
        name = entry.findtext("JB_name", "")
        if name not in seen or state in LIVE:
            seen[name] = Seen(state, entry.findtext("JB_job_number", ""), letters)
    return seen


def books(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What the accounting has of jobs that qstat does not know; asked seldom, as qacct reads a long file."""
    seen: dict[str, Seen] = {}
    for job in jobs:
        asked = job.folder / "looked-up"
        age = files.age(asked)
        if age is None or not 0 <= age < ACCOUNTING:
            with suppress(OSError):  # the folder may be gone, or its disk full: then it is asked more often
                asked.touch()
            with suppress(EngineError):  # it knows nothing of it yet
                if told := parse_books(call(["qacct", "-j", job.name])):
                    seen[job.name] = told
    return seen


def parse_books(said: str) -> Seen | None:
    """The last record of qacct."""
    record = dict(re.findall(r"^(\w+) +(.*?) *$", said.rpartition("=====")[2], re.MULTILINE))
    number, status = (re.match(r"\d+", record.get(name, "")) for name in ("failed", "exit_status"))
    if number is None:
        return None
    state = FAILED.get(int(number[0]), LOST)
    facts = {
        "exit_code": int(status[0]) if status and state != LOST else None,
        "node": record.get("hostname"),
        "cpu_seconds": _amount(record.get("cpu", ""), "s"),
        "peak_bytes": _peak(record.get("ru_maxrss", "")),
        "started_at": _moment(record.get("start_time", "")),
        "ended_at": _moment(record.get("end_time", "")),
    }
    reason = f"{record['failed']}, status {record.get('exit_status', '')}"
    return Seen(state, record.get("jobnumber", ""), reason, {name: value for name, value in facts.items() if value is not None})


def _amount(text: str, unit: str) -> float | None:
    """A number, with or without its unit, and thousands of it as letters."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)([KMGT]?){unit}?", text)
    return float(found[1]) * 1000 ** " KMGT".index(found[2] or " ") if found else None


def _peak(text: str) -> int | None:
    """getrusage(2) counts kilobytes; some versions write them as if they were bytes (87.836KB are 87836 of them)."""
    kilobytes = _amount(text, "B")
    return round(kilobytes * 1024) if kilobytes else None


def _moment(text: str) -> float | None:
    for pattern in ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S"):
        with suppress(ValueError):
            return time.mktime(time.strptime(text, pattern))
    return None


def cancel(job: Job) -> None:
    """End all jobs of this name. Raises EngineError."""
    with suppress(EngineError):
        call(["qdel", job.name])
    if job.name in parse(call(["qstat", "-xml"])):
        call(["qdel", job.name])


def suspend(job: Job) -> None:
    """Hold a waiting job, stop the processes of a running one. Raises EngineError."""
    seen = look([]).get(job.name)
    call(["qmod", "-sj", job.name] if seen and seen.state != WAITING else ["qhold", job.name])


def resume(job: Job) -> None:
    """Undo `suspend`. Raises EngineError."""
    seen = look([]).get(job.name)
    call(["qmod", "-usj", job.name] if seen and seen.state != WAITING else ["qrls", job.name])


def clean(job: Job) -> None:
    """Nothing to do: the execution daemon ends what a job leaves behind."""
