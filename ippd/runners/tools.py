"""What all engines share: what a job is, what can be seen of it, and how their commands are called."""

import ctypes
import math
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

# How an engine sees a job. `gone` is what it does not know (any more); what happened then is in the job's own folder, or nowhere.
WAITING, RUNNING, SUSPENDED, ENDED, STOPPED, OVERTIME, MEMORY, LOST, REFUSED = LIVE_AND_DEAD = (
    "waiting", "running", "suspended", "ended", "stopped", "overtime", "memory", "lost", "refused",
)  # fmt: skip
LIVE = (WAITING, RUNNING, SUSPENDED)
TIMEOUT = 60  # seconds for one command of an engine
PR_SET_PDEATHSIG = 1  # prctl(2)
# What a job gets of the worker's environment: no secrets of the daemon's settings, and not the folder (TMPDIR) that the program unpacks to.
PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "SLURM_CONF", "MODULEPATH")
PASSED_BEGINNINGS = ("LC_", "SGE_")


class EngineError(Exception):
    """A command of the engine failed: it is down, or it refuses what was asked. The text is what it said."""


@dataclass(frozen=True)
class Job:
    """What an engine has to know: a name of its own, its folder (job.sh is there), limits in seconds, bytes and numbers, more words, and
    the site's words for what is asked for (cpus, memory, gpus), where it has some.
    """

    name: str
    folder: Path
    time_limit: float | None = None
    memory: int | None = None
    cpus: int = 1
    gpus: int = 0
    words: tuple[str, ...] = ()
    site: Mapping[str, str] = field(default_factory=dict)


class Seen(NamedTuple):
    """What an engine tells of a job: one of the states above, its id there, a reason for people, and what its books have of the run:
    exit_code, node, cpu_seconds, peak_bytes, started_at, ended_at, each only if they have it.
    """

    state: str
    id: str = ""
    note: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})


def environment() -> dict[str, str]:
    """The environment of engines' commands and of jobs."""
    passed = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PASSED_BEGINNINGS)}
    library_path = os.environ.get("LD_LIBRARY_PATH" if not getattr(sys, "frozen", False) else "LD_LIBRARY_PATH_ORIG")
    return passed | ({"LD_LIBRARY_PATH": library_path} if library_path else {})


def call(words: Sequence[str], timeout: float = TIMEOUT, **more: str) -> str:
    """Run a command of an engine, with `more` in its environment; returns what it printed. Raises EngineError with its complaint."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=environment() | more, preexec_fn=_die_with_parent
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{words[0]} did not answer within {timeout:.0f} s") from None
    except OSError as error:
        raise EngineError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace").strip()
        raise EngineError(f"{words[0]}: {' '.join(said.split())[:500] or f'ended with status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def absent(engine: Any) -> str:
    """A sentence about the programs of an engine that are not in PATH; empty when all are."""
    names = [name for name in engine.PROGRAMS if not shutil.which(name, path=environment().get("PATH", os.defpath))]
    return f"the engine {engine.NAME} needs programs that are not in PATH: {', '.join(names)}" if names else ""


def requests(job: Job, own: Mapping[str, str], said: Mapping[str, str]) -> list[str]:
    """The words that ask for what a job needs: the site's, else the engine's `own` ({cpus}, {gpus}, {memory} and {memory_per_cpu} in MB).

    What the job's own words ask for already (`said`: a pattern for each) is left to them. Raises EngineError where nobody knows the words.
    """
    megabytes = (job.memory or 0) / 2**20
    numbers = {"cpus": job.cpus, "gpus": job.gpus, "memory": math.ceil(megabytes), "memory_per_cpu": math.ceil(megabytes / job.cpus)}
    found: list[str] = []
    for name, needed in (("cpus", job.cpus > 1), ("memory", megabytes > 0), ("gpus", job.gpus > 0)):
        if not needed or any(re.search(said[name], word) for word in job.words):
            continue
        template = job.site.get(name) or own.get(name)
        if not template:
            raise EngineError(f"the app has {name.capitalize()}, and worker.{name} does not say with which words to ask for that")
        found += [re.sub(r"\{(\w+)\}", lambda place: str(numbers.get(place[1], place[0])), word) for word in shlex.split(template)]
    return found


def account() -> str:
    """The name of the account that this program runs as, else its number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def exit_code(status: int, signal: int) -> int:
    """The exit code of a shell for a program that ended with `status`, or by a signal."""
    return 128 + signal if signal else status


def _die_with_parent() -> None:
    """A submit command must not do its work later, when a worker that began anew has looked for the job already."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_LIBC = ctypes.CDLL(None)
