"""What the program of an experiment prints, while it runs: kept beside the uploads, appended by the worker, read by the owner."""

import fcntl
import os
import re
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ippd import fields
from ippd.blobs import full_disk_told, private, write_all
from ippd.domain.states import ENDED
from ippd.errors import Conflict, Invalid, NotFound
from ippd.permissions import Actor, permits

if TYPE_CHECKING:
    from ippd.core import Core

STREAMS = ("stdout", "stderr")
OURS = re.compile(rf"[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}-[0-9]+\.({'|'.join(STREAMS)})")
SOME = 500


class Output(NamedTuple):
    """Where the text lies, its size in bytes now, whether no more will come, and how often its experiment was begun before."""

    path: Path
    size: int
    ended: bool
    restarts: int


class Outputs:
    """One file per experiment, beginning and stream: one that is begun again starts with an empty one."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._core.blobs.folder / "logs"

    def _path(self, id: int, stream: str) -> tuple[Path, str, int]:
        if stream not in STREAMS:
            raise Invalid(fields={"stream": [f"this must be one of {', '.join(STREAMS)}"]})
        row = self._store.one("SELECT uuid, restarts, status FROM experiments WHERE id = :id", id=id)
        if row is None:
            raise NotFound(f"there is no experiment {id}")
        return self.folder / f"{row['uuid']}-{row['restarts']}.{stream}", row["status"], row["restarts"]

    @permits("experiment.run")
    def append(self, actor: Actor, id: int, stream: str, offset: int, chunks: Iterable[bytes], claim: str | None = None) -> int:
        """Add what was printed from byte `offset` on; returns the size in bytes after it. What is there already is not added again, so
        sending twice does no harm. Past `limits.log_bytes` the rest is dropped. Raises Conflict when bytes before `offset` are missing,
        NoSpace when the disk is full.
        """
        path, _, _ = self._path(id, stream)
        self._core.leases.fence(actor, id, claim)
        fields.integer(offset, "offset", 0, 2**53)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with full_disk_told(), open(path, "ab", buffering=0, opener=private) as file:
            size = self._add(file, offset, b"")
            for chunk in chunks:
                size, offset = self._add(file, offset, chunk), offset + len(chunk)
            return max(size, offset)

    def _add(self, file: FileIO, offset: int, chunk: bytes) -> int:
        """Write what is new of a chunk; returns the size of the file in bytes after it.

        Locked for this one write only: what comes next may be long in coming, and others who write here must not wait for that.
        """
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            size = os.fstat(file.fileno()).st_size
            most = self._core.settings["limits.log_bytes"]
            if offset > size and size < most:
                raise Conflict(f"the bytes from {size} to {offset} are missing")
            new = chunk[max(0, size - offset) : max(0, most - offset)]
            if new:
                self._core.blobs.check_room(len(new))
                write_all(file, new)
            return size + len(new)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    @permits("experiment.read")
    def open(self, actor: Actor, id: int, stream: str = "stdout") -> Output:
        """Where the text of an experiment lies. Raises NotFound (also for somebody else's, and when there is none), Invalid."""
        self._core.experiments.get(actor, id)
        path, status, restarts = self._path(id, stream)
        try:
            return Output(path, path.stat().st_size, status in ENDED, restarts)
        except FileNotFoundError:
            if status in ENDED:
                raise NotFound(f"experiment {id} has printed nothing that was kept") from None
            return Output(path, 0, False, restarts)

    def remove(self, uuid: str) -> None:
        """Remove all that an experiment has printed."""
        for path in self.folder.glob(f"{uuid}-*"):
            path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what belongs to no experiment, or to one whose files have expired; returns how many files."""
        if not self.folder.is_dir():
            return 0
        # Only names that this module gives: the upload folder may be that of an older server, with logs of its own.
        removed, names = 0, sorted(name for name in os.listdir(self.folder) if OURS.fullmatch(name))
        for start in range(0, len(names), SOME):
            some = {f"n{i}": name[:36] for i, name in enumerate(names[start : start + SOME])}
            places = ", ".join(f":{name}" for name in some)
            sql = f"SELECT uuid FROM experiments WHERE expired_at IS NULL AND uuid IN ({places})"
            known = {row["uuid"] for row in self._store.all(sql, **some)}
            for name in names[start : start + SOME]:
                if name[:36] not in known:
                    (self.folder / name).unlink(missing_ok=True)
                    removed += 1
        return removed
