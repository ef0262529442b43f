"""Grid Engine (SGE and its children): qsub without a shell, qstat, qacct, qdel, qmod, qhold."""

import math
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from xml.etree import ElementTree

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
)

NAME = "gridengine"
GRACE = 40.0  # qacct knows a job only some 15 s after its end
ACCOUNTING = 3.0  # seconds after which a job that is gone is looked up there, and then no more often than this

# qstat(1): the letters of a job's state, the first that is found counts.
LETTERS = (("E", REFUSED), ("s", SUSPENDED), ("S", SUSPENDED), ("T", SUSPENDED), ("r", RUNNING), ("t", RUNNING), ("d", RUNNING))
# accounting(5), `failed`: 25 rescheduled, 37 h_rt or another limit, 100 the program was killed; others: it never ran as it should.
FAILED = {0: ENDED, 25: LOST, 37: OVERTIME, 100: STOPPED}


def submit(job: Job) -> str:
    """Submit a job; returns its id. Raises EngineError."""
    words = ["qsub", "-terse", "-b", "y", "-shell", "n", "-r", "n", "-N", job.name, "-wd", str(job.folder)]
    words += ["-j", "y", "-o", str(job.folder / "engine.txt")]
    words += ["-l", f"h_rt={math.ceil(job.time_limit) + 60}"] if job.time_limit and not any("_rt=" in word for word in job.words) else []
    said = call([*words, *job.words, "/bin/sh", str(job.folder / "job.sh"), str(job.folder)])
    return said.strip().splitlines()[-1].partition(".")[0]


def look(jobs: Iterable[Job]) -> dict[str, Seen]:
    """What Grid Engine knows of the jobs of this account, by name; of two with one name the live one. Raises EngineError."""
    seen = parse(call(["qstat", "-xml"]))
    for job in jobs:
        if job.name not in seen and (job.folder / "begun").exists() and not (job.folder / "exit").exists():
            found = _accounted(job)
            if found:
                seen[job.name] = found
    return seen


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


def _accounted(job: Job) -> Seen | None:
    """What the accounting says of a job that qstat does not know; asked seldom, as it reads a long file."""
    asked = job.folder / "asked"
    if not asked.exists() or time.time() - asked.stat().st_mtime < ACCOUNTING:
        asked.touch() if not asked.exists() else None
        return None
    asked.touch()
    try:
        said = call(["qacct", "-j", job.name])
    except EngineError:
        return None
    return parse_accounting(said)


def parse_accounting(said: str) -> Seen | None:
    """The last record of qacct."""
    record = dict(re.findall(r"^(\w+) +(.*?) *$", said.rpartition("=====")[2], re.MULTILINE))
    number = re.match(r"\d+", record.get("failed", ""))
    if number is None:
        return None
    code = int(number[0])
    reason = f"{record['failed']}, status {record.get('exit_status', '')}"
    return Seen(FAILED.get(code, LOST), record.get("jobnumber", ""), reason)


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
