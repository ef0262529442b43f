"""Experiments: submitted by users, listed, cancelled, failed, removed."""

import json
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.blobs import Batch
from ippd.domain.states import STATES, move
from ippd.domain.submission import Part, safe_name, unique_name
from ippd.errors import Conflict, Invalid, NotFound, TooLarge
from ippd.permissions import ANY, Actor, permits
from ippd.store import Names, Row, Rows

if TYPE_CHECKING:
    from ippd.core import Core

# What a listing reads: one name per fact, in the order of the query. `spec` holds what was asked for: {"params": {}, "files": {}}.
FACTS = (
    "id", "uuid", "user_id", "app", "name", "description", "label", "host", "status", "priority", "spec", "exit_code", "message",
    "created_at", "submitted_at", "queued_at", "running_at", "suspended_at", "ended_at", "expired_at",
)  # fmt: skip
_SELECT = f"SELECT {', '.join('e.' + fact for fact in FACTS)} FROM experiments e"


class Draft:
    """A submission while it comes in: facts, parameters, and files that are on the disk already."""

    def __init__(self, limits: dict[str, int], batch: Batch, owner: int) -> None:
        self.facts: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.files: list[tuple[str, str, Any]] = []
        self._limits, self._batch, self._owner = limits, batch, owner
        self._names: set[str] = set()

    def take(self, part: Part) -> None:
        """Take the next part; the bytes of a file are stored before this returns. Raises TooLarge, NoSpace."""
        if part.kind != "file":
            texts = self.facts if part.kind == "fact" else self.params
            # A field that comes twice keeps both values: nothing that was sent is dropped.
            texts[part.name] = f"{texts[part.name]},{part.value}" if part.name in texts and part.kind == "param" else str(part.value)
            return
        if not part.filename:  # "no file chosen", as browsers say it
            return
        if len(self.files) >= self._limits["files_per_experiment"]:
            raise TooLarge(f"an experiment may have at most {self._limits['files_per_experiment']} files")
        assert not isinstance(part.value, str)
        blob = self._batch.write(self._owner, part.value, self._limits["file_bytes"])
        self.files.append((part.name, unique_name(safe_name(part.filename), self._names), blob))

    def spec(self) -> str:
        """The JSON that is kept beside the columns."""
        files: dict[str, list[str]] = {}
        for field, name, _ in self.files:
            files.setdefault(field, []).append(name)
        return json.dumps({"params": self.params, "files": files}, ensure_ascii=False)


class Experiments:
    """The experiments. One is a dict of FACTS (spec excepted) with user, params, inputs and outputs."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("experiment.submit")
    def submit(self, actor: Actor, parts: Iterable[Part], announced: int | None = None) -> Row:
        """Store an experiment with its files, all or nothing; it can be claimed once this returns. Returns its id and status.

        `announced` is the length in bytes of what is coming. Raises Invalid, TooLarge, TooMany, NoSpace; whatever `parts` raises
        goes through, and then nothing is left.
        """
        assert actor.user is not None
        core = self._core
        limits = core.limits.of(actor.user)
        core.limits.check_announced(actor.user, limits, announced or 0)
        with core.blobs.batch() as batch:
            draft = Draft(limits, batch, actor.user)
            for part in parts:
                draft.take(part)
            facts = fields.check(fields.Experiment, draft.facts)
            with self._store.write():
                core.limits.check(actor.user, limits, sum(blob.bytes for _, _, blob in draft.files))
                id = self._insert(actor.user, facts, draft)
            batch.keep()
        return {"id": id, "status": "submitted"}

    def _insert(self, user: int, facts: Row, draft: Draft) -> int:
        now = self._core.clock()
        id = self._store.insert(
            "experiments",
            uuid=str(uuid.uuid4()),
            user_id=user,
            status="submitted",
            priority=0,
            spec=draft.spec(),
            created_at=now,
            submitted_at=now,
            **facts,
        )
        for field, name, blob in draft.files:
            self._core.files.insert(user, id, "input", field, name, blob)
        return id

    @permits("experiment.list")
    def list(self, actor: Actor, limit: int | None = None, offset: int = 0, status: str | None = None) -> Rows:
        """The own experiments (all, for an operator) by ascending id; at most `limit`, after `offset`, of one `status`.

        Raises Invalid for an unknown status.
        """
        if status is not None and status not in STATES:
            raise Invalid(fields={"status": [f"this must be one of {', '.join(STATES)}"]})
        where, values = self._visible(actor, "experiment.list")
        if status:
            where, values = f"{where} AND e.status = :status", values | {"status": status}
        page = f"{_SELECT} WHERE {where} ORDER BY e.id LIMIT :limit OFFSET :offset"
        return self._load(page, values | {"limit": -1 if limit is None else limit, "offset": offset})

    @permits("experiment.read")
    def get(self, actor: Actor, id: int) -> Row:
        """One experiment. Raises NotFound (also for somebody else's)."""
        where, values = self._visible(actor, "experiment.read")
        found = self._load(f"{_SELECT} WHERE {where} AND e.id = :id", values | {"id": id})
        if not found:
            raise NotFound(f"there is no experiment {id}")
        return found[0]

    def _visible(self, actor: Actor, permission: str) -> tuple[str, Row]:
        if actor.scope(permission) == ANY:
            return "1 = 1", {}
        return "e.user_id = :user", {"user": actor.user}

    def _load(self, sql: str, values: Row) -> Rows:
        with self._store.read() as store:
            rows = store.tuples(sql, **values)
            names: dict[int, dict[str, Names]] = {row[0]: {"input": [], "output": []} for row in rows}
            if rows:
                # The ids of a page are a range of one user's: the index finds both ends, so the cost is that of the page.
                files = store.tuples(
                    "SELECT f.experiment_id, f.kind, f.name FROM experiments e JOIN files f ON f.experiment_id = e.id "
                    "WHERE e.id BETWEEN :first AND :last AND (:user IS NULL OR e.user_id = :user) ORDER BY f.id",
                    first=rows[0][0],
                    last=rows[-1][0],
                    user=values.get("user"),
                )
                for experiment, kind, name in files:
                    if experiment in names:
                        names[experiment][kind].append(name)
        return [_experiment(row, names[row[0]]) for row in rows]

    @permits("experiment.cancel")
    def cancel(self, actor: Actor, id: int) -> None:
        """Stop an experiment. Raises Conflict if it has ended already, NotFound."""
        self.get(actor, id)
        move(self._core, id, "cancelled")

    @permits("experiment.fail")
    def fail(self, actor: Actor, id: int, exit_code: str | int | None = None, message: str | None = None) -> None:
        """A script says that an experiment failed; its owner is told. Saying it again changes nothing.

        Raises Invalid, Conflict when it has ended otherwise, NotFound.
        """
        failure = fields.check(fields.Failure, {"exit_code": None if exit_code == "" else exit_code, "message": message})
        with self._store.write() as store:
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) == "failed":
                return
            row = move(self._core, id, "failed", **failure)
            self._core.notifications.add("failed", user=row["user_id"], id=id, name=row["name"] or row["app"], **failure)

    @permits("experiment.remove")
    def remove(self, actor: Actor, id: int) -> bool:
        """Remove an experiment with its files; returns whether there was one. Raises Conflict while it is running."""
        with self._store.write() as store:
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) in ("running", "suspended"):
                raise Conflict(f"experiment {id} is running: cancel it first")
            paths = [row["path"] for row in store.all("SELECT path FROM files WHERE experiment_id = :id", id=id)]
            removed = store.execute("DELETE FROM experiments WHERE id = :id", id=id) > 0
        for path in paths:
            self._core.blobs.remove(path)
        return removed


def _experiment(row: tuple[Any, ...], names: dict[str, list[str]]) -> Row:
    experiment = dict(zip(FACTS, row, strict=True))
    spec = json.loads(experiment.pop("spec"))
    experiment["user"] = experiment.pop("user_id")
    experiment["params"] = spec["params"] | {field: ",".join(files) for field, files in spec["files"].items()}
    experiment["inputs"], experiment["outputs"] = names["input"], names["output"]
    return experiment
