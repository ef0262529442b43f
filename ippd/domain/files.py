"""Files of experiments: inputs, results, what is old, what is removed."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.blobs import Blob
from ippd.domain.states import ENDED, MOVES, move
from ippd.domain.submission import Part, safe_name, unique_name
from ippd.errors import Conflict, Invalid, NotFound
from ippd.permissions import Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

DAY = 86400.0


@dataclass(frozen=True)
class Stored:
    """A file that can be read: where it lies, its name, size in bytes, SHA-256 in hexadecimal and time of storage."""

    path: Path
    name: str
    size: int
    sha256: str
    created_at: float


class Files:
    """The files of experiments: rows and bytes come and go together."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    def insert(self, user: int, experiment: int, kind: str, field: str, name: str, blob: Blob) -> None:
        """Write the row of a blob (inside the transaction of its experiment); `kind` is "input" or "output"."""
        self._store.insert(
            "files",
            uuid=str(uuid.uuid4()),
            user_id=user,
            experiment_id=experiment,
            kind=kind,
            field=field,
            name=name,
            path=blob.path,
            bytes=blob.bytes,
            sha256=blob.sha256,
            created_at=self._core.clock(),
        )

    @permits("file.read")
    def open(self, actor: Actor, experiment: int, name: str) -> Stored:
        """An output of this name, else an input. Raises NotFound (also for somebody else's)."""
        self._core.experiments.get(actor, experiment)
        row = self._store.one(
            "SELECT * FROM files WHERE experiment_id = :experiment AND name = :name ORDER BY kind DESC LIMIT 1",
            experiment=experiment,
            name=name,
        )
        if row is None:
            raise NotFound(f"experiment {experiment} has no file of this name (any more)")
        return self._stored(row)

    @permits("file.read")
    def inputs(self, actor: Actor, experiment: int) -> list[Stored]:
        """The input files, in the order of the submission. For a script this acknowledges its claim. Raises NotFound."""
        self._core.experiments.get(actor, experiment)
        if actor.scope("experiment.run"):
            self._core.queue.acknowledge(experiment)
        sql = "SELECT * FROM files WHERE experiment_id = :experiment AND kind = 'input' ORDER BY id"
        return [self._stored(row) for row in self._store.all(sql, experiment=experiment)]

    def _stored(self, row: Row) -> Stored:
        return Stored(self._core.blobs.path(row["path"]), row["name"], row["bytes"], row["sha256"], row["created_at"])

    @permits("file.results")
    def add_results(self, actor: Actor, experiment: int, parts: Iterable[Part], announced: int | None = None) -> None:
        """Store result files, whole, then complete the experiment and tell its owner. A file of a known name is replaced.

        Results are not held against the owner's quota: they cost too much to lose. Raises Invalid without any file, Conflict for an
        experiment that failed or was cancelled, NotFound, NoSpace; then nothing has changed.
        """
        core = self._core
        owner = self._owner(experiment)
        core.blobs.check_room(announced or 0)
        with core.blobs.batch() as batch:
            names: set[str] = set()
            results = []
            told = {"claim": None, "exit_code": "0", "usage": None}
            for part in parts:
                if part.kind == "param" and part.name in told:
                    told[part.name] = str(part.value)
                elif part.kind == "file" and part.filename and not isinstance(part.value, str):
                    self._acknowledge(actor, experiment, told["claim"])  # before the bytes have come
                    blob = batch.write(owner, part.value)
                    results.append((part.name, unique_name(safe_name(part.filename), names), blob))
            self._acknowledge(actor, experiment, told["claim"])
            if not results:
                raise Invalid("there is no file in this form: nothing was stored")
            with self._store.write():
                core.leases.fence(actor, experiment, told["claim"])
                replaced = self._record(experiment, owner, results, told)
            batch.keep()
        for path in replaced:
            core.blobs.remove(path)

    def _acknowledge(self, actor: Actor, experiment: int, claim: str | None) -> None:
        self._core.leases.fence(actor, experiment, claim)
        self._core.queue.acknowledge(experiment)

    def _owner(self, experiment: int) -> int:
        row = self._store.one("SELECT user_id, status FROM experiments WHERE id = :id", id=experiment)
        if row is None:
            raise NotFound(f"there is no experiment {experiment}")
        if row["status"] != "completed" and "completed" not in MOVES[row["status"]]:
            raise Conflict(f"experiment {experiment} is {row['status']}: it takes no results")
        return int(row["user_id"])

    def _record(self, experiment: int, owner: int, results: list[tuple[str, str, Blob]], told: dict[str, Any]) -> list[str]:
        store, replaced = self._store, []
        for field, name, blob in results:
            old = "DELETE FROM files WHERE experiment_id = :experiment AND kind = 'output' AND name = :name RETURNING path"
            replaced += [row["path"] for row in store.all(old, experiment=experiment, name=name)]
            self.insert(owner, experiment, "output", field, name, blob)
        if store.value("SELECT status FROM experiments WHERE id = :id", id=experiment) != "completed":
            # Its message, if any, was about an earlier beginning.
            row = move(self._core, experiment, "completed", wanted=None, message=None, **_ending(told))
            self._core.notifications.add("completed", user=owner, id=experiment, name=row["name"] or row["app"])
        return replaced

    @permits("file.old")
    def old(self, actor: Actor, days: str | int) -> list[str]:
        """Paths (below the upload folder) of files of ended experiments that are older than `days`. Raises Invalid."""
        then = self._core.clock() - fields.whole_number(days, "days", most=100000) * DAY
        ended = ", ".join(f"'{state}'" for state in ENDED)
        sql = (
            "SELECT f.path FROM files f JOIN experiments e ON e.id = f.experiment_id "
            f"WHERE f.created_at < :then AND e.status IN ({ended}) ORDER BY f.id"
        )
        return [row["path"] for row in self._store.all(sql, then=then)]

    @permits("file.delete")
    def delete(self, actor: Actor, path: str) -> None:
        """Remove one file, row and bytes, by its path below the upload folder. Raises NotFound for anything else."""
        if not self._store.execute("DELETE FROM files WHERE path = :path", path=path):
            raise NotFound("no file of an experiment has this path")
        self._core.blobs.remove(path)


def _ending(told: dict[str, Any]) -> Row:
    """What a worker says of the end besides the files, as columns. Raises Invalid."""
    if told["claim"] is None:
        return {}
    try:
        usage = json.loads(told["usage"] or "{}")
    except (ValueError, RecursionError):
        raise Invalid(fields={"usage": ["this is not JSON"]}) from None
    used = fields.check(fields.Usage, usage if isinstance(usage, dict) else {})
    return {"exit_code": fields.integer(told["exit_code"], "exit_code", -1000, 1000), "usage": json.dumps(used)}
