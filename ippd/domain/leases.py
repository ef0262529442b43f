"""Leases: experiments handed to workers for a time, kept by heartbeats, and what happens when a worker is not heard of again."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ippd import fields
from ippd.domain.apps import as_json
from ippd.domain.states import move
from ippd.domain.turns import next_ones
from ippd.errors import Conflict, Invalid, NotFound
from ippd.permissions import ANY, Actor, permits
from ippd.store import Row, Rows

if TYPE_CHECKING:
    from ippd.core import Core

HELD = ("queued", "running", "suspended")
# What an actor whose scope is TAKEN has in hand. Who claims without a claim's token (a script) is known by its account.
IN_HAND = (
    f"e.status IN {HELD} "
    "AND CASE WHEN e.claim IS NULL THEN :claim IS NULL AND e.claimed_by = :name ELSE e.claim = :claim END"
)
SOME = 500  # ids of one statement
DEAF = 120.0  # seconds between two looks for silent workers after which nobody has listened: the daemon was off, or the clock jumped
WORDS = 200  # hosts or apps that a worker may name


class Leases:
    """A claim of a worker has a token of its own (a fencing token): whoever lost the claim can change the experiment no more."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("queue.claim")
    def claim(
        self, actor: Actor, worker: str, seconds: float, most: int, hosts: Sequence[str] = (), apps: Sequence[str] = ()
    ) -> Rows:
        """Hand out what waits and can be run from its definition, at most `most`, for `seconds` after each heartbeat.

        `hosts` and `apps` (at most WORDS each) limit it to these. Items are dicts of id, uuid, user, host, app, name, claim, params,
        files, inputs (name, bytes, sha256), backend, time_limit (seconds or None) and restarts (how often it was begun before).
        Raises Invalid.
        """
        wanted = fields.check(fields.Lease, {"worker": worker, "seconds": seconds, "limit": most})
        too_many = {name: [f"at most {WORDS} may be named"] for name, words in (("hosts", hosts), ("apps", apps)) if len(words) > WORDS}
        if too_many:
            raise Invalid(fields=too_many)
        known = self._core.apps.runnable()
        runnable = [key for key in known if not apps or key in apps]
        if self._store.one("SELECT 1 AS found FROM experiments WHERE status = 'submitted' LIMIT 1") is None:
            return []
        with self._store.write() as store:
            rows = []
            for id in next_ones(self._core, wanted["limit"], hosts, runnable):
                rows += store.all(
                    "UPDATE experiments SET status = 'queued', queued_at = :now, claimed_by = :worker, acknowledged_at = :now, "
                    "heartbeat_at = NULL, claim = :claim, lease = :lease, wanted = NULL WHERE id = :id RETURNING *",
                    now=self._core.clock(),
                    worker=wanted["worker"],
                    claim=secrets.token_hex(8),
                    lease=wanted["seconds"],
                    id=id,
                )
            return [self._item(row, as_json(known[row["app"]])) for row in rows]

    def _item(self, row: Row, backend: Row) -> Row:
        spec = json.loads(row["spec"])
        names = ("id", "uuid", "host", "app", "name", "claim", "restarts")
        inputs = "SELECT name, bytes, sha256 FROM files WHERE experiment_id = :id AND kind = 'input' ORDER BY id"
        return {name: row[name] for name in names} | {
            "user": row["user_id"],
            "params": spec["params"],
            "files": spec["files"],
            "inputs": self._store.all(inputs, id=row["id"]),
            "backend": backend,
            "time_limit": min((t for t in (spec.get("time_limit"), backend["time_limit"]) if t), default=None),
        }

    @permits("experiment.run")
    def fence(self, actor: Actor, id: int, claim: str | None, states: Sequence[str] = HELD) -> None:
        """Refuse a caller whose claim is over. Who names none (a script, an operator) is not asked, unless it may touch only what it has
        taken: that must be in one of `states`, and what was claimed without a token must have been so by its account.

        Raises Conflict, NotFound.
        """
        trusted = actor.scope("experiment.run") == ANY
        if claim is None and trusted:
            return
        row = self._store.one("SELECT status, claim, claimed_by FROM experiments WHERE id = :id", id=id)
        if row is None:
            raise NotFound(f"there is no experiment {id}")
        if row["claim"] != claim or (claim is None and row["claimed_by"] != actor.name):
            raise Conflict(f"experiment {id} is in other hands now")
        if not trusted and row["status"] not in states:
            raise Conflict(f"experiment {id} is {row['status']}")

    @permits("experiment.run")
    def heartbeat(self, actor: Actor, claims: Mapping[int, str]) -> dict[int, str]:
        """A worker is alive and holds these: {id: claim}. Returns what to do with each: "go on", "suspend", "resume", "lost" (stop it and
        forget it), or the state in which it ended ("cancelled": stop it, then say so).
        """
        now = self._core.clock()
        answers: dict[int, str] = dict.fromkeys(claims, "lost")
        with self._store.read() as store:
            rows = [row for some in _pieces(list(claims)) for row in store.all(_among("SELECT * FROM experiments", some), **_names(some))]
        late = []
        for row in rows:
            if row["claim"] != claims[row["id"]]:
                continue
            answers[row["id"]] = _answer(row)
            beat = row["heartbeat_at"]
            # Not every beat is written: a tenth of the lease is precise enough, and a thousand jobs cost one read.
            if row["status"] in HELD and (beat is None or not 0 <= now - beat < row["lease"] / 10):
                late.append(row["id"])
        if late:
            with self._store.write() as store:
                for some in _pieces(late):
                    store.execute(_among("UPDATE experiments SET heartbeat_at = :now", some), now=now, **_names(some))
        return answers

    @permits("experiment.run")
    def stopped(self, actor: Actor, id: int, claim: str) -> None:
        """The job of an experiment that was cancelled is gone. Raises Conflict (also when it was not), NotFound."""
        with self._store.write() as store:
            self.fence(actor, id, claim, ("cancelled",))
            status = store.value("SELECT status FROM experiments WHERE id = :id", id=id)
            if status != "cancelled":  # without its claim it would be nobody's, and never be taken back
                raise Conflict(f"experiment {id} is {status}")
            store.execute("UPDATE experiments SET stopped_at = :now, claim = NULL WHERE id = :id", now=self._core.clock(), id=id)

    @permits("experiment.run")
    def give_back(self, actor: Actor, id: int, claim: str | None = None, message: str = "") -> str:
        """The job was lost through no fault of its own (its node failed): begin again, or fail when that was often enough. What its owner
        holds is held still.

        Returns the new state. Raises Conflict, NotFound.
        """
        with self._store.write() as store:
            self.fence(actor, id, claim)
            row = store.one("SELECT * FROM experiments WHERE id = :id", id=id)
            if row is None:
                raise NotFound(f"there is no experiment {id}")
            if row["status"] not in HELD:
                raise Conflict(f"experiment {id} is {row['status']}")
            return self._again(row, message or "its job was lost", count=True)

    @permits("queue.requeue")
    def lapse(self, actor: Actor) -> int:
        """Take back what is held by workers that were not heard of for the time of their lease; returns how many.

        Only silence that the daemon has listened to counts: when this was not called for DEAF seconds, it begins anew. What was never heard
        of after its claim goes back as it was; what had been begun counts as begun once more, and fails when that was often enough.
        """
        held = ", ".join(f"'{state}'" for state in HELD)
        if self._store.one(f"SELECT 1 AS found FROM experiments WHERE status IN ({held}) AND claim IS NOT NULL LIMIT 1") is None:
            return 0
        now = self._core.clock()
        with self._store.write() as store:
            rows = store.all(
                f"SELECT * FROM experiments WHERE status IN ({held}) AND claim IS NOT NULL AND lease <= :listened AND "
                "(COALESCE(heartbeat_at, queued_at) <= :now - lease OR COALESCE(heartbeat_at, queued_at) > :now + lease)",
                now=now,
                listened=self._listened(now),
            )
            for row in rows:
                sentence = f"the worker {row['claimed_by']} was not heard of for {row['lease']:.0f} s"
                self._again(row, sentence, count=row["heartbeat_at"] is not None or row["status"] != "queued")
            return len(rows)

    def _listened(self, now: float) -> float:
        """The seconds for which workers could be heard without a break, up to now (inside a transaction)."""
        known = self._store.value("SELECT value FROM meta WHERE name = 'listening'")
        since, last = json.loads(known) if known else (now, now)
        if not 0 <= now - last <= DEAF:
            since = now
        sql = "INSERT INTO meta (name, value) VALUES ('listening', :value) ON CONFLICT (name) DO UPDATE SET value = :value"
        self._store.execute(sql, value=json.dumps([since, now]))
        return float(now - since)

    def _again(self, row: Row, message: str, count: bool) -> str:
        if count and row["restarts"] >= self.allowed(row):
            message = fields.one_line(f"{message}; it was begun {row['restarts'] + 1} times")
            self._core.experiments.end_as_failed(row["id"], None, message)
            return "failed"
        restarts = row["restarts"] + int(count)
        move(self._core, row["id"], "submitted", claim=None, lease=None, claimed_by=None, wanted=None, restarts=restarts, message=message)
        if (row["wanted"] or row["status"]) != "suspended":
            return "submitted"
        move(self._core, row["id"], "suspended")  # its owner holds it: it waits until it may go on
        return "suspended"

    def allowed(self, row: Row) -> int:
        """How often an experiment may be begun again: its own policy, else that of its app, else the setting `queue.restarts`."""
        own = json.loads(row["spec"]).get("restarts")
        app = self._core.apps.runnable().get(row["app"])
        policies = (own, app.restarts if app else None, self._core.settings["queue.restarts"])
        return int(next(policy for policy in policies if policy is not None))


def _answer(row: Row) -> str:
    if row["status"] not in HELD:
        return str(row["status"]) if row["status"] != "submitted" else "lost"
    if row["wanted"] == "suspended" and row["status"] != "suspended":
        return "suspend"
    return "resume" if row["wanted"] == "running" and row["status"] == "suspended" else "go on"


def _pieces(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + SOME] for start in range(0, len(ids), SOME)]


def _names(ids: list[int]) -> dict[str, int]:
    return {f"id{number}": id for number, id in enumerate(ids)}


def _among(statement: str, ids: list[int]) -> str:
    return f"{statement} WHERE id IN ({', '.join(f':{name}' for name in _names(ids))})"
