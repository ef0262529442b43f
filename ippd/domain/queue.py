"""The queue: handing experiments to scripts, each to one, and taking back what nobody acknowledged."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ippd.domain.states import move
from ippd.domain.turns import next_ones
from ippd.errors import Conflict, NotFound
from ippd.permissions import Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

MOST = 1000  # one claim looks no further than this


class Queue:
    """Claims. A claim is acknowledged by the first call that names the experiment, so that plain scripts need to know nothing of it."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("queue.claim")
    def claim(self, actor: Actor, limit: int | None = None, hosts: Sequence[str] = (), apps: Sequence[str] = ()) -> list[Row]:
        """Hand out what waits, by priority and then age, at most `queue.batch` (or `limit`, if that is less), of these hosts and apps (all,
        without). When more waits than is handed out, users take turns. Dicts of id, user, host, app, name, description,
        params (texts) and files ({field: [name]}). Each becomes queued in the same statement, so two callers never get the same one.
        """
        # An idle poll takes no write lock.
        if self._store.one("SELECT 1 AS found FROM experiments WHERE status = 'submitted' LIMIT 1") is None:
            return []
        with self._store.write() as store:
            batch = min(limit or MOST, self._core.settings["queue.batch"])
            rows = store.all(
                "UPDATE experiments SET status = 'queued', queued_at = :now, claimed_by = :by, acknowledged_at = NULL, "
                "heartbeat_at = NULL, claim = NULL, lease = NULL WHERE id IN (SELECT value FROM json_each(:ids)) "
                "RETURNING id, user_id, host, app, name, description, priority, spec",
                now=self._core.clock(),
                by=actor.name,
                ids=json.dumps(next_ones(self._core, batch, hosts, apps or None)),
            )
        rows.sort(key=lambda row: (-row["priority"], row["id"]))
        return [_item(row) for row in rows]

    def acknowledge(self, id: int) -> None:
        """A claim was heard of: it stays with its holder. Nothing happens for an experiment that is not queued."""
        sql = "SELECT 1 AS found FROM experiments WHERE id = :id AND status = 'queued' AND acknowledged_at IS NULL"
        if self._store.one(sql, id=id):
            self._store.execute(
                "UPDATE experiments SET acknowledged_at = :now WHERE id = :id AND status = 'queued' AND acknowledged_at IS NULL",
                now=self._core.clock(),
                id=id,
            )

    @permits("experiment.run")
    def heartbeat(self, actor: Actor, id: int, claim: str | None = None) -> None:
        """The holder of a claim is alive. Raises Conflict when the experiment has ended (so: stop) or the `claim` is over, NotFound."""
        with self._store.write() as store:
            self._core.leases.fence(actor, id, claim)
            status = store.value("SELECT status FROM experiments WHERE id = :id", id=id)
            if status is None:
                raise NotFound(f"there is no experiment {id}")
            if status not in ("queued", "running", "suspended"):
                raise Conflict(f"experiment {id} is {status}")
            self.acknowledge(id)
            store.update("experiments", id, heartbeat_at=self._core.clock())

    @permits("experiment.run")
    def running(self, actor: Actor, id: int, claim: str | None = None) -> None:
        """The holder of a claim has started it. Saying it again changes nothing. Raises Conflict when it has ended or the `claim` of a
        worker is over, NotFound.
        """
        with self._store.write() as store:
            self._core.leases.fence(actor, id, claim)
            if store.value("SELECT status FROM experiments WHERE id = :id", id=id) == "running":
                return
            self.acknowledge(id)
            move(self._core, id, "running")

    @permits("queue.requeue")
    def requeue_unacknowledged(self, actor: Actor) -> int:
        """Claims older than `queue.claim_timeout` that nobody acknowledged go back to submitted; returns how many."""
        now, timeout = self._core.clock(), self._core.settings["queue.claim_timeout"]
        # A claim from far in the future was made before the clock jumped back: it would never become old.
        return self._store.execute(
            "UPDATE experiments SET status = 'submitted', queued_at = NULL, claimed_by = NULL "
            "WHERE status = 'queued' AND acknowledged_at IS NULL AND (queued_at <= :then OR queued_at > :later)",
            then=now - timeout,
            later=now + timeout,
        )


def _item(row: Row) -> Row:
    spec = json.loads(row["spec"])
    names = ("id", "host", "app", "name", "description")
    return {name: row[name] for name in names} | {"user": row["user_id"], "params": spec["params"], "files": spec["files"]}
