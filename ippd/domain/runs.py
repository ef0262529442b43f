"""What an owner can do with an experiment after its submission, besides cancelling it: hold it, go on, run it again."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ippd import fields
from ippd.domain.limits import counted
from ippd.domain.states import ENDED, move
from ippd.errors import Conflict, Invalid
from ippd.permissions import ANY, Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core


class Runs:
    """Suspending, resuming, priorities and relaunching."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("experiment.suspend")
    def suspend(self, actor: Actor, id: int) -> str:
        """Hold an experiment: a waiting one at once, one that a worker has as soon as that has held its job. Returns its state.

        Raises Conflict when it has ended, or when a script has it (which cannot be told), NotFound, NoSpace.
        """
        return self._want(actor, id, "suspended")

    @permits("experiment.suspend")
    def resume(self, actor: Actor, id: int) -> str:
        """Let a suspended experiment go on; returns its state. Raises Conflict (also for one that waits its turn), NotFound, NoSpace."""
        return self._want(actor, id, "running")

    def _want(self, actor: Actor, id: int, wanted: str) -> str:
        self._check_disk(actor)
        with self._store.write() as store:
            self._core.experiments.get(actor, id)
            row = store.one("SELECT status, claim FROM experiments WHERE id = :id", id=id)
            assert row is not None
            status, held = row["status"], row["claim"] is not None
            if status in ENDED:
                raise Conflict(f"experiment {id} is {status}")
            if wanted == "suspended" and status == "submitted":
                move(self._core, id, "suspended")
                return "suspended"
            if wanted == "running" and status == "suspended" and not held:
                move(self._core, id, "submitted")
                return "submitted"
            if wanted == "running" and status == "submitted":
                raise Conflict(f"experiment {id} is waiting for its turn: nothing holds it")
            if not held and status != wanted:
                raise Conflict(f"experiment {id} is in the hands of a script, which cannot be told to hold it")
            store.execute("UPDATE experiments SET wanted = :wanted WHERE id = :id", wanted=wanted, id=id)
            return str(status)

    def _check_disk(self, actor: Actor) -> None:
        """Refuse a user on a full disk what can be done again and again: each time the whole row goes into the write-ahead log."""
        if actor.user is not None:
            self._core.limits.check_disk()

    @permits("experiment.run")
    def suspended(self, actor: Actor, id: int, claim: str) -> None:
        """The worker has held the job. Saying it again changes nothing. Raises Conflict, NotFound."""
        with self._store.write() as store:
            self._core.leases.fence(actor, id, claim)
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) != "suspended":
                move(self._core, id, "suspended")

    @permits("experiment.run")
    def unable(self, actor: Actor, id: int, claim: str, message: str) -> None:
        """The engine refuses what the owner wants: the experiment stays as it is, and its message says why. Raises Conflict, NotFound."""
        with self._store.write() as store:
            self._core.leases.fence(actor, id, claim)
            sentence = fields.one_line(message)
            store.execute("UPDATE experiments SET wanted = NULL, message = :message WHERE id = :id", message=sentence, id=id)

    @permits("experiment.prioritize")
    def prioritize(self, actor: Actor, id: int, priority: int) -> None:
        """Set the priority: users may only step back behind others (0 and below). Raises Invalid, NotFound, NoSpace."""
        self._core.experiments.get(actor, id)
        check_priority(actor, priority)
        self._check_disk(actor)
        self._store.execute("UPDATE experiments SET priority = :priority WHERE id = :id", priority=priority, id=id)

    @permits("experiment.submit")
    def relaunch(self, actor: Actor, id: int, params: Mapping[str, str], facts: Mapping[str, str] = MappingProxyType({})) -> Row:
        """A new experiment with the inputs of an old one of one's own; `params` replace or add to the old ones, `facts` (but for the app)
        replace the old ones. Returns id and status.

        The bytes are shared with the old one but count for the quota, as either may be removed. Raises Conflict when the inputs are gone,
        and what `submit` raises.
        """
        core = self._core
        core.limits.check_disk()
        old = core.experiments.get(actor, id)
        assert actor.user is not None
        row = self._store.one("SELECT spec, priority FROM experiments WHERE id = :id AND user_id = :user", id=id, user=actor.user)
        files = self._store.all("SELECT * FROM files WHERE experiment_id = :id AND kind = 'input' ORDER BY id", id=id)
        if row is None or len(files) < sum(len(names) for names in json.loads(row["spec"])["files"].values()):
            raise Conflict(f"the inputs of experiment {id} are gone: please submit them again")
        spec = json.loads(row["spec"])
        if wrong := set(params) & set(spec["files"]):
            raise Invalid(fields={name: ["this is a file: it stays as it was"] for name in wrong})
        spec["params"] |= params
        asked, run = self._facts(actor, old, facts)
        spec |= {name: run[name] for name in ("time_limit", "restarts") if run[name] is not None}
        priority = run["priority"] if "priority" in facts else min(0, row["priority"])
        core.limits.check_params(spec["params"])
        limits = core.limits.of(actor.user)
        core.apps.check(asked, spec["params"], {name: len(names) for name, names in spec["files"].items()}, whole=True)
        with core.blobs.batch() as batch:
            blobs = [batch.link(actor.user, file["path"], file["bytes"], file["sha256"]) for file in files]
            with self._store.write():
                core.limits.check(actor.user, limits, sum(counted(file["bytes"]) for file in files))
                inputs = [(file["field"], file["name"], blob) for file, blob in zip(files, blobs, strict=True)]
                parents = core.experiments.parents(actor, run["parents"])
                new = core.experiments.insert(actor.user, asked, spec, inputs, priority, parents)
            batch.keep()
        return {"id": new, "status": "submitted"}

    def _facts(self, actor: Actor, old: Row, facts: Mapping[str, str]) -> tuple[Row, Row]:
        """The facts of an experiment with some that shall be others, and how it is to be run. Raises Invalid."""
        kept = {name: old[name] for name in ("app", "name", "description", "label", "host")}
        if facts.get("app", old["app"]) != old["app"]:
            raise Invalid(fields={"app": ["this stays as it was: for another app, submit a new experiment"]})
        run = fields.check(fields.Run, facts)
        check_priority(actor, run["priority"])
        return (fields.check(fields.Experiment, kept | dict(facts)) if facts else kept), run


def check_priority(actor: Actor, priority: int) -> int:
    """The priority, if this actor may give it. Raises Invalid."""
    most = 1000 if actor.scope("experiment.prioritize") == ANY else 0
    return fields.integer(priority, "priority", -1000, most)
