"""Experiments: submitted by users, listed, cancelled, failed, removed."""

import functools
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.blobs import Batch
from ippd.domain.leases import IN_HAND
from ippd.domain.limits import Meter, counted
from ippd.domain.runs import check_priority
from ippd.domain.states import STATES, move
from ippd.domain.submission import Part, safe_name, unique_name
from ippd.errors import Conflict, Invalid, NotFound, TooLarge
from ippd.permissions import ANY, TAKEN, Actor, permits
from ippd.store import Names, Row

if TYPE_CHECKING:
    from ippd.core import Core

# What a listing reads: one name per fact, in the order of the query. `spec` holds what was asked for: {"params": {}, "files": {}}.
FACTS = (
    "id", "uuid", "user_id", "app", "name", "description", "label", "host", "status", "priority", "spec", "exit_code", "message",
    "usage", "restarts", "claimed_by", "wanted",
    "created_at", "submitted_at", "queued_at", "running_at", "suspended_at", "ended_at", "expired_at",
)  # fmt: skip
# A page comes as one text, a line of JSON per experiment: the driver gives up the interpreter's lock and takes it back for each row,
# which under load costs more than the query. Names of files have no slash.
_NAMES = "(SELECT group_concat(name, '/') FROM (SELECT name FROM files f WHERE f.experiment_id = e.id AND f.kind = '{}' ORDER BY f.id))"
_LINE = f"json_array({', '.join('e.' + fact for fact in FACTS)}, {_NAMES.format('input')}, {_NAMES.format('output')})"
_PAGE = "SELECT group_concat(line, char(10)) FROM (SELECT {} AS line FROM experiments e WHERE {} ORDER BY e.id LIMIT :limit OFFSET :offset)"
PIECE = 128  # experiments that are read at once
KEPT = 4096  # characters of an experiment that is kept in memory
LONGEST_FIELD = 200  # characters: it is kept for each file
Anything = list[Any]


class Draft:
    """A submission while it comes in: facts, parameters, and files that are on the disk already."""

    def __init__(
        self, limits: dict[str, int], batch: Batch, owner: int, check: Callable[["Draft", bool], None], meter: Meter
    ) -> None:
        self.facts: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.files: list[tuple[str, str, Any]] = []
        self._limits, self._batch, self._owner, self._check, self._meter = limits, batch, owner, check, meter
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, part: Part) -> None:
        """Take the next part; the bytes of a file are stored before this returns. Raises TooLarge, NoSpace."""
        if part.kind != "file":
            texts = self.facts if part.kind == "fact" else self.params
            # A field that comes twice keeps both values: nothing that was sent is dropped.
            texts[part.name] = f"{texts[part.name]},{part.value}" if part.name in texts and part.kind == "param" else str(part.value)
            return
        if not part.filename:  # "no file chosen", as browsers say it
            return
        if len(part.name) > LONGEST_FIELD:
            raise Invalid(f"the name of a field may have at most {LONGEST_FIELD} characters")
        if len(self.files) >= self._limits["files_per_experiment"]:
            raise TooLarge(f"an experiment may have at most {self._limits['files_per_experiment']} files")
        assert not isinstance(part.value, str)
        self._counts[part.name] = self._counts.get(part.name, 0) + 1
        self._check(self, False)  # what is wrong already is told before the bytes have come
        blob = self._batch.write(self._owner, self._meter.file(part.value), self._limits["file_bytes"])
        self.files.append((part.name, unique_name(safe_name(part.filename), self._names), blob))

    def check(self) -> None:
        """Hold the whole against the definition of its app. Raises Invalid with a sentence per field."""
        self._check(self, True)

    @property
    def counts(self) -> dict[str, int]:
        """How many files came in each field."""
        return self._counts

    def spec(self) -> Row:
        """What is kept beside the columns."""
        files: dict[str, Names] = {}
        for field, name, _ in self.files:
            files.setdefault(field, []).append(name)
        return {"params": self.params, "files": files}


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
        room = core.limits.check_announced(actor.user, limits, announced or 0)
        with core.blobs.batch() as batch:
            draft = Draft(
                limits,
                batch,
                actor.user,
                lambda draft, whole: core.apps.check(draft.facts, draft.params, draft.counts, whole),
                Meter(limits, room),
            )
            for part in parts:
                draft.take(part)
            facts = fields.check(fields.Experiment, draft.facts)
            run = fields.check(fields.Run, draft.facts)
            draft.check()
            core.limits.check_params(draft.params)
            with self._store.write():
                core.limits.check(actor.user, limits, sum(counted(blob.bytes) for _, _, blob in draft.files))
                parents = self.parents(actor, run["parents"])
                spec = draft.spec() | {name: run[name] for name in ("time_limit", "restarts") if run[name] is not None}
                id = self.insert(actor.user, facts, spec, draft.files, check_priority(actor, run["priority"]), parents)
            batch.keep()
        return {"id": id, "status": "submitted"}

    @permits("experiment.submit")
    def parents(self, actor: Actor, words: str) -> Sequence[int]:
        """The ids of one's own experiments that must have ended first. Raises Invalid."""
        ids = sorted({fields.whole_number(word, "parents") for word in words.replace(",", " ").split()})
        for id in ids:
            if self._store.one("SELECT id FROM experiments WHERE id = :id AND user_id = :user", id=id, user=actor.user) is None:
                raise Invalid(fields={"parents": [f"there is no experiment {id}"]})
        return ids

    def insert(
        self, user: int, facts: Row, spec: Row, files: Iterable[tuple[str, str, Any]], priority: int = 0, parents: Sequence[int] = ()
    ) -> int:
        """Write the rows of a new experiment (inside a transaction); `files` are (field, name, blob). Returns its id."""
        now = self._core.clock()
        id = self._store.insert(
            "experiments",
            uuid=str(uuid.uuid4()),
            user_id=user,
            status="submitted",
            priority=priority,
            restarts=0,
            spec=json.dumps(spec, ensure_ascii=False),
            created_at=now,
            submitted_at=now,
            **facts,
        )
        for field, name, blob in files:
            self._core.files.insert(user, id, "input", field, name, blob)
        for parent in parents:
            self._store.insert("parents", experiment_id=id, parent_id=parent)
        return id

    @permits("experiment.list")
    def list(self, actor: Actor, limit: int | None = None, offset: int = 0, status: str | None = None) -> Anything:
        """The own experiments (all, for an operator) by ascending id; at most `limit`, after `offset`, of one `status`.

        Raises Invalid for an unknown status.
        """
        return [_experiment(line) for line in self._each(actor, limit, offset, status)]

    @permits("experiment.list")
    def shaped(
        self, actor: Actor, shape: Callable[[Row], Any], limit: int | None = None, offset: int = 0, status: str | None = None
    ) -> Iterator[Any]:
        """The same as what `shape` makes of each one: something that never changes (a text), as it is kept and given out again for as
        long as the experiment is the same. They are read piece by piece: a long list is never in memory as a whole.
        """
        return (_made(shape, line) for line in self._each(actor, limit, offset, status))

    def _each(self, actor: Actor, limit: int | None, offset: int, status: str | None) -> Iterator[str]:
        if status is not None and status not in STATES:
            raise Invalid(fields={"status": [f"this must be one of {', '.join(STATES)}"]})
        where, values = self._visible(actor, "experiment.list")
        if status:
            where, values = f"{where} AND e.status = :status", values | {"status": status}
        return self._pieces(f"{where} AND e.id > :after", sys.maxsize if limit is None else limit, offset, values)

    def _pieces(self, where: str, left: int, offset: int, values: Row) -> Iterator[str]:
        after = 0
        while left > 0:
            lines = self._lines(where, limit=min(left, PIECE), offset=offset, after=after, **values)
            yield from lines
            if len(lines) < PIECE:
                return
            left, offset, after = left - PIECE, 0, json.loads(lines[-1])[0]

    @permits("experiment.read")
    def get(self, actor: Actor, id: int) -> Row:
        """One experiment. Raises NotFound (also for somebody else's)."""
        where, values = self._visible(actor, "experiment.read")
        lines = self._lines(f"{where} AND e.id = :id", limit=1, offset=0, id=id, **values)
        if not lines:
            raise NotFound(f"there is no experiment {id}")
        return _experiment(lines[0])

    def _visible(self, actor: Actor, permission: str) -> tuple[str, Row]:
        scope = actor.scope(permission)
        if scope == TAKEN:
            return IN_HAND, {"claim": actor.claim, "name": actor.name}
        return ("1 = 1", {}) if scope == ANY else ("e.user_id = :user", {"user": actor.user})

    def _lines(self, where: str, **values: Any) -> Names:
        text: str | None = self._store.value(_PAGE.format(_LINE, where), **values)
        return text.split("\n") if text else []

    @permits("experiment.cancel")
    def cancel(self, actor: Actor, id: int) -> Row:
        """Stop an experiment. Raises Conflict if it has ended already, NotFound.

        Returns its `status`, in which state it `was`, and `gone`: whether nothing of it runs any more, as far as is known. That comes
        later (see `gone`) when a worker has it, and is None when a script has it, which finds out by itself.
        """
        with self._store.write():
            before = self.get(actor, id)
            row = move(self._core, id, "cancelled", wanted=None)
        # No script has what is suspended: one that has no claim was held while it waited.
        waited = before["status"] == "submitted" or (before["status"] == "suspended" and not row["claim"])
        return {"status": "cancelled", "was": before["status"], "gone": waited or (False if row["claim"] else None)}

    @permits("experiment.read")
    def gone(self, actor: Actor, id: int) -> bool:
        """Whether the worker that had a cancelled experiment has said that its job is gone. Raises NotFound."""
        self.get(actor, id)
        return self._store.value("SELECT claim FROM experiments WHERE id = :id", id=id) is None

    @permits("experiment.fail")
    def fail(
        self, actor: Actor, id: int, exit_code: str | int | None = None, message: str | None = None,
        claim: str | None = None, usage: Row | None = None,
    ) -> None:  # fmt: skip
        """A script or worker says that an experiment failed; its owner is told. Saying it again changes nothing.

        Raises Invalid, Conflict when it has ended otherwise or the `claim` is over, NotFound.
        """
        failure = fields.check(fields.Failure, {"exit_code": None if exit_code == "" else exit_code, "message": message})
        used = {"usage": json.dumps(fields.check(fields.Usage, usage))} if usage else {}
        with self._store.write() as store:
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) == "failed":
                return
            self._core.leases.fence(actor, id, claim)
            self.end_as_failed(id, failure["exit_code"], failure["message"], **used)

    def end_as_failed(self, id: int, exit_code: int | None, message: str | None, **columns: Any) -> None:
        """Move an experiment to failed and tell its owner (inside a transaction)."""
        failure: dict[str, Any] = {"exit_code": exit_code, "message": message}
        row = move(self._core, id, "failed", wanted=None, **failure, **columns)
        self._core.notifications.add("failed", user=row["user_id"], id=id, name=row["name"] or row["app"], **failure)

    @permits("experiment.remove")
    def remove(self, actor: Actor, id: int) -> bool:
        """Remove an experiment with its files; returns whether there was one. Raises Conflict while it is running."""
        with self._store.write() as store:
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) in ("running", "suspended"):
                raise Conflict(f"experiment {id} is running: cancel it first")
            paths = [row["path"] for row in store.all("SELECT path FROM files WHERE experiment_id = :id", id=id)]
            uuid = store.value("SELECT uuid FROM experiments WHERE id = :id", id=id)
            removed = store.execute("DELETE FROM experiments WHERE id = :id", id=id) > 0
        if removed:
            self._core.outputs.remove(uuid)
        for path in paths:
            self._core.blobs.remove(path)
        return removed


def _experiment(line: str) -> Row:
    *facts, inputs, outputs = json.loads(line)
    experiment: Row = dict(zip(FACTS, facts, strict=True))
    spec = json.loads(experiment["spec"])
    experiment["params"] = spec["params"] | {field: ",".join(files) for field, files in spec["files"].items()}
    experiment["usage"] = json.loads(experiment["usage"]) if experiment["usage"] else {}
    experiment["user"] = experiment["user_id"]
    experiment["inputs"], experiment["outputs"] = (names.split("/") if names else [] for names in (inputs, outputs))
    return experiment


def _made(shape: Callable[[Row], Any], line: str) -> Any:
    return _shaped(shape, line) if len(line) <= KEPT else shape(_experiment(line))


@functools.lru_cache(2048)
def _shaped(shape: Callable[[Row], Any], line: str) -> Any:
    """What `shape` makes of an experiment. All that it depends on is in the key, and most of what a listing shows ended long ago."""
    return shape(_experiment(line))
