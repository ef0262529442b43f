"""The worker's own memory: one folder per job, with a small JSON file that is replaced whole. What is not in it did not happen."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ippd.errors import Conflict
from ippd.runners.tools import Job

NAME = re.compile(r"ippd-[0-9]+-[0-9a-f]+")
CLAIMED, STAGED, SUBMITTING, SUBMITTED, ENDED, STOPPING = (
    "claimed", "staged", "submitting", "submitted", "ended", "stopping",
)  # fmt: skip


@dataclass
class Entry:
    """One experiment in the worker's hands: what was claimed, how far it is, and what became of its job."""

    name: str
    folder: Path
    item: dict[str, Any]
    step: str = CLAIMED
    engine_id: str = ""
    tries: int = 0
    since: float = 0.0
    gone_at: float = 0.0
    said: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    stopped_seconds: float = 0.0
    outcome: dict[str, Any] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """The experiment's id."""
        return int(self.item["id"])

    @property
    def claim(self) -> str:
        """The word that shows that the experiment is ours."""
        return str(self.item["claim"])

    def path(self, name: str) -> Path:
        """A file of the job's folder."""
        return self.folder / name

    def text(self, name: str) -> str:
        """The text of a small file of the job's folder, without blanks around it; empty when there is none."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def save(self) -> None:
        """Write what is known, so that it survives a crash."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("name", "folder")}
        new = self.path("entry.new")
        with open(new, "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path("entry.json"))

    def forget(self) -> None:
        """Remove all of it; the entry goes first, so that half a folder is never taken for a job."""
        self.path("entry.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def job(self, engine: str, words: tuple[str, ...], site: Mapping[str, str]) -> Job:
        """The job as the engine has to know it; `words` and `site` are the site's: for every job, and for what an app asks for."""
        backend = self.item["backend"]
        more = (*words, *backend["resources"].get(engine, ()))
        return Job(self.name, self.folder, self.item["time_limit"], backend["memory"], backend["cpus"], backend["gpus"], more, site)


class Journal:
    """All entries; the folder belongs to one worker at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises Conflict when another worker uses the folder, OSError when it cannot be made."""
        self._jobs = folder / "jobs"
        self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "w")  # noqa: SIM115  # held as long as the worker lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Conflict(f"another worker uses {folder}") from None

    def entries(self) -> list[Entry]:
        """All that is in our hands, by name; folders that a crash left without an entry are removed."""
        found = []
        for folder in sorted(self._jobs.iterdir()):
            if not NAME.fullmatch(folder.name):
                continue
            try:
                found.append(Entry(folder.name, folder, **json.loads((folder / "entry.json").read_text())))
            except FileNotFoundError:
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def add(self, item: dict[str, Any], now: float) -> Entry:
        """A new entry for what was just claimed."""
        name = f"ippd-{int(item['id'])}-{item['claim']}"
        if not NAME.fullmatch(name):
            raise ValueError(f"the daemon's claim {item['claim']!r} is none")
        folder = self._jobs / name
        folder.mkdir(mode=0o700)
        for part in ("work/inputs", "work/results", "words"):
            (folder / part).mkdir(mode=0o700, parents=True)
        entry = Entry(name, folder, item, since=now)
        entry.save()
        return entry

    def close(self) -> None:
        """Let another worker use the folder."""
        self._lock.close()
