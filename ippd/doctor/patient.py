"""What the checks look at, and what they find."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ippd.host.handover import running
from ippd.settings import Settings

OK, WARN, FAIL = "OK", "WARN", "FAIL"
DAY = 86400.0

Finding = tuple[str, str, str]  # level, what was found, what to do


@dataclass
class Patient:
    """What the checks look at."""

    settings: Settings
    now: float

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.settings["data.directory"])

    def database(self) -> sqlite3.Connection:
        """The database, for reading. Raises sqlite3.Error."""
        return sqlite3.connect(f"{(self.folder / 'ippd.sqlite').as_uri()}?mode=ro", uri=True, timeout=10)

    def of_daemon(self, file: str) -> str:
        """What the kernel tells of the running daemon (proc(5)); empty when none runs."""
        try:
            process = running(self.folder)
            return Path(f"/proc/{process}/{file}").read_text(errors="replace") if process else ""
        except OSError:
            return ""


Check = tuple[str, Callable[[Patient], Iterator[Finding]]]
