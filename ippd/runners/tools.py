"""What all engines share: what a job is, what can be seen of it, and how their commands are called."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# How an engine sees a job. `gone` is what it does not know (any more); what happened then is in the job's own folder, or nowhere.
WAITING, RUNNING, SUSPENDED, ENDED, STOPPED, OVERTIME, MEMORY, LOST, REFUSED = LIVE_AND_DEAD = (
    "waiting", "running", "suspended", "ended", "stopped", "overtime", "memory", "lost", "refused",
)  # fmt: skip
LIVE = (WAITING, RUNNING, SUSPENDED)
TIMEOUT = 60  # seconds for one command of an engine
PR_SET_PDEATHSIG = 1  # prctl(2)
# What a job gets of the worker's environment: no secrets of the daemon's settings.
PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "LANG", "LANGUAGE", "SLURM_CONF", "MODULEPATH")
PASSED_BEGINNINGS = ("LC_", "SGE_")


class EngineError(Exception):
    """A command of the engine failed: it is down, or it refuses what was asked. The text is what it said."""


@dataclass(frozen=True)
class Job:
    """What an engine has to know: a name of its own, its folder (job.sh is there), limits in seconds, bytes and numbers, more words."""

    name: str
    folder: Path
    time_limit: float | None = None
    memory: int | None = None
    cpus: int = 1
    gpus: int = 0
    words: tuple[str, ...] = ()


class Seen(NamedTuple):
    """What an engine tells of a job: one of the states above, its id there, and a reason for people."""

    state: str
    id: str = ""
    note: str = ""


def environment() -> dict[str, str]:
    """The environment of engines' commands and of jobs."""
    passed = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PASSED_BEGINNINGS)}
    library_path = os.environ.get("LD_LIBRARY_PATH" if not getattr(sys, "frozen", False) else "LD_LIBRARY_PATH_ORIG")
    return passed | ({"LD_LIBRARY_PATH": library_path} if library_path else {})


def call(words: Sequence[str], timeout: float = TIMEOUT) -> str:
    """Run a command of an engine; returns what it printed. Raises EngineError with what it complained about."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=environment(), preexec_fn=_die_with_parent
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{words[0]} did not answer within {timeout:.0f} s") from None
    except OSError as error:
        raise EngineError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace").strip()
        raise EngineError(f"{words[0]}: {' '.join(said.split())[:500] or f'ended with status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def _die_with_parent() -> None:
    """A submit command must not do its work later, when a worker that began anew has looked for the job already."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_LIBC = ctypes.CDLL(None)
