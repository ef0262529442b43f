"""The worker's own memory: a small JSON file per job that is replaced whole. What is not in it did not happen.

It lies beside the jobs' folders, in which jobs may write what they like.
"""

import fcntl
import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

from ippd.errors import Conflict
from ippd.runners import files
from ippd.runners.tools import Job
from ippd.wholefile import whole_file

NAME = re.compile(r"ippd-([0-9]+)-([0-9a-f]+)")
MOST = 64 << 20  # bytes of one entry
LATER = 3600.0  # seconds after which it is tried again to remove a folder
ROOM = 1 << 20  # bytes that must be free where entries are kept before another one is claimed
CLAIMED, STAGED, SUBMITTING, SUBMITTED, ENDED, STOPPING = STEPS = (
    "claimed", "staged", "submitting", "submitted", "ended", "stopping",
)  # fmt: skip
log = getLogger("ippd.worker")


@dataclass
class Entry:
    """One experiment in the worker's hands: what was claimed, how far it is, and what became of its job."""

    name: str
    folder: Path
    record: Path
    item: dict[str, Any]
    step: str = CLAIMED
    engine_id: str = ""
    tries: int = 0
    since: float = 0.0
    gone_at: float = 0.0
    said: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    started_at: float = 0.0
    stopped_seconds: float = 0.0
    outcome: dict[str, Any] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)
    unwritten: dict[str, "Entry"] = field(default_factory=dict, repr=False)  # of the journal: see keep

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
        return files.text(self.path(name))

    def has(self, name: str) -> bool:
        """Whether there is something of this name in the job's folder."""
        return files.there(self.path(name))

    def status(self) -> int | None:
        """The exit status that the job's script wrote down, None when there is none."""
        said = self.text("exit")
        return int(said) if re.fullmatch("[0-9]{1,3}", said) else None

    @property
    def held(self) -> bool:
        """Whether it is in the worker's hands still."""
        return self.record.exists()

    def save(self) -> None:
        """Write what is known, so that it survives a crash."""
        self.unwritten.pop(self.name, None)
        kept = {made.name: getattr(self, made.name) for made in fields(self) if made.name not in ASIDE}
        with whole_file(self.record) as file:
            file.write(json.dumps(kept).encode())

    def keep(self) -> None:
        """Write it if that can be. A job may have filled the disk, and has to be ended all the same: then this worker goes on with what
        it knows, and only one that begins anew has to find out again what was not written.
        """
        told = self.name in self.unwritten
        try:
            self.save()
        except OSError as error:
            self.unwritten[self.name] = self
            if not told:
                log.warning("experiment %d: its record cannot be written: %s", self.id, error.strerror)

    def forget(self) -> None:
        """Remove all of it; the entry goes first, so that half a folder is never taken for a job."""
        self.unwritten.pop(self.name, None)
        self.record.unlink(missing_ok=True)
        remove(self.folder)

    def job(self, engine: str, words: tuple[str, ...], site: Mapping[str, str]) -> Job:
        """The job as the engine has to know it; `words` and `site` are the site's: for every job, and for what an app asks for."""
        backend = self.item["backend"]
        more = (*words, *backend["resources"].get(engine, ()))
        return Job(self.name, self.folder, self.item["time_limit"], backend["memory"], backend["cpus"], backend["gpus"], more, site)


ASIDE = ("name", "folder", "record", "unwritten")  # what is not in the record
SIMPLE: dict[Any, Any] = {str: str, int: int, float: (int, float)}
KINDS = {made.name: SIMPLE.get(made.type, dict) for made in fields(Entry) if made.name not in ASIDE}


class Journal:
    """All entries; the folder belongs to one worker at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises Conflict when another worker uses the folder, OSError when it cannot be made."""
        self._jobs = folder / "jobs"
        self._records = folder / "journal"
        self.clock_path = self._records / "clock"
        self._again: dict[str, float] = {}  # when to try again to remove a folder
        self._unwritten: dict[str, Entry] = {}
        for place in (self._jobs, self._records):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "w")  # noqa: SIM115  # held as long as the worker lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Conflict(f"another worker uses {folder}") from None
        for left in self._records.glob(".*.partial"):  # of a worker that was killed while it wrote
            left.unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """All that is in our hands, by name; folders that a crash left without an entry are removed.

        An entry that cannot be read is set aside, and one in its place that stops the job and fails the experiment.
        """
        self._sweep()
        found = []
        for record in sorted(self._records.glob("*.json")):
            if not NAME.fullmatch(record.stem):
                continue
            if left := self._unwritten.get(record.stem):
                left.keep()
                found.append(left)
                continue
            try:
                found.append(self._load(record))
            except ValueError as error:
                found.append(self._broken(record, str(error)))
            except OSError as error:  # for now: it is tried again in the next round
                log.warning("%s: %s", record, error.strerror)
        return found

    def _sweep(self) -> None:
        for folder in self._jobs.iterdir():
            left = NAME.fullmatch(folder.name) and not (self._records / f"{folder.name}.json").exists()
            if not left or monotonic() < self._again.get(folder.name, 0.0) or remove(folder):
                continue
            if folder.name not in self._again:
                log.error("%s cannot be removed; it is tried again each hour", folder)
            self._again[folder.name] = monotonic() + LATER

    def claims(self) -> list[tuple[int, str]]:
        """(id, claim) of all that is in our hands, from the names of the records: what another thread may look at at any time."""
        found = [NAME.fullmatch(record.stem) for record in self._records.glob("*.json")]
        return [(int(match[1]), match[2]) for match in found if match]

    def _load(self, record: Path) -> Entry:
        """Raises ValueError for what is no entry of that name, OSError."""
        if files.size(record) != record.lstat().st_size:
            raise ValueError("it is no file")
        with files.opened(record) as file:
            data = file.read(MOST)
        try:
            kept = json.loads(data, parse_constant=_no_number)
            entry = Entry(record.stem, self._jobs / record.stem, record, unwritten=self._unwritten, **kept)
            entry.job("", (), {})
            right = all(isinstance(getattr(entry, name), kind) for name, kind in KINDS.items())
            if not right or entry.step not in STEPS or entry.name != f"ippd-{entry.id}-{entry.claim}":
                raise ValueError("its values are not those of an entry")
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is no entry ({type(error).__name__}: {error})") from None
        return entry

    def _broken(self, record: Path, why: str) -> Entry:
        log.error("%s cannot be used, and is set aside as %s.bad: %s", record, record.stem, why)
        os.replace(record, record.with_suffix(".bad"))
        id, claim = NAME.fullmatch(record.stem).groups()  # type: ignore[union-attr]
        backend: dict[str, Any] = {"resources": {}, "memory": None, "cpus": 1, "gpus": 0, "outputs": [], "executable": record.stem}
        item: dict[str, Any] = {"id": int(id), "claim": claim, "time_limit": None, "inputs": [], "backend": backend}
        outcome = {"kind": "failed", "exit_code": None, "message": "the worker's record of this experiment cannot be read"}
        entry = Entry(record.stem, self._jobs / record.stem, record, item, STOPPING, outcome=outcome, unwritten=self._unwritten)
        entry.save()
        return entry

    def check(self) -> None:
        """Raises OSError when there is no room for a new entry: what was claimed then could not be kept."""
        with tempfile.TemporaryFile(dir=self._records) as file:
            file.write(bytes(ROOM))

    def add(self, item: dict[str, Any], now: float) -> Entry:
        """A new entry for what was just claimed."""
        name = f"ippd-{int(item['id'])}-{item['claim']}"
        if not NAME.fullmatch(name):
            raise ValueError(f"the daemon's claim {item['claim']!r} is none")
        folder = self._jobs / name
        folder.mkdir(mode=0o700)
        for part in ("work/inputs", "work/results", "words"):
            (folder / part).mkdir(mode=0o700, parents=True)
        entry = Entry(name, folder, self._records / f"{name}.json", item, since=now, unwritten=self._unwritten)
        entry.save()
        return entry

    def close(self) -> None:
        """Let another worker use the folder."""
        self._lock.close()


def remove(folder: Path) -> bool:
    """Remove a folder with all that a job has left in it, closed folders as well; returns whether it is gone.

    Folders are moved up before they are emptied: a job can nest them deeper than a stack, or a path, is long.
    """
    stuck: set[str] = set()
    with suppress(OSError):
        _empty(str(folder), str(folder))
        while inner := [entry.path for entry in os.scandir(folder) if entry.path not in stuck]:
            for path in inner:
                try:
                    _empty(path, str(folder))
                    os.rmdir(path)
                except OSError:
                    stuck.add(path)
        os.rmdir(folder)
    return not os.path.lexists(folder)


def _empty(place: str, top: str) -> None:
    """Unlink the files of a folder, and move its folders to `top`, as far as that goes. Raises OSError when it cannot be read."""
    os.chmod(place, 0o700)
    with os.scandir(place) as found:
        entries = list(found)
    for entry in entries:
        with suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif place != top:
                os.chmod(entry.path, 0o700)  # a folder that is closed cannot be moved
                os.rename(entry.path, os.path.join(top, secrets.token_hex(12)))


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
