"""The file that this program is, and the package it belongs to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ippd.host.steps import clean


def program_path() -> Path:
    """The file that was started: the one-file program, or the script of an installation from source."""
    return Path(sys.executable if getattr(sys, "frozen", False) else os.path.abspath(sys.argv[0]))


def owning_package(path: str | os.PathLike[str]) -> str:
    """The RPM package that a file belongs to; empty when it belongs to none."""
    if not os.path.exists(path) or not shutil.which("rpm"):
        return ""
    # Where packages are not kept by rpm, asking for one would make a database first.
    if not os.path.isdir(_rpm("--eval", "%{_dbpath}")):
        return ""
    return _rpm("-qf", "--", os.fspath(path))


def _rpm(*words: str) -> str:
    done = subprocess.run(["rpm", *words], capture_output=True, text=True, env=clean(), check=False)
    return "" if done.returncode else done.stdout.strip()
