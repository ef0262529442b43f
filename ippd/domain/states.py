"""The states of an experiment and the moves between them: one table, and one statement that makes a move."""

from typing import TYPE_CHECKING, Any

from ippd.errors import Conflict, NotFound
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

# From each state to the states that may follow. A move back to submitted is a claim that was given up.
MOVES: dict[str, tuple[str, ...]] = {
    "submitted": ("queued", "running", "suspended", "completed", "failed", "cancelled"),
    "queued": ("submitted", "running", "suspended", "completed", "failed", "cancelled"),
    "running": ("submitted", "suspended", "completed", "failed", "cancelled"),
    "suspended": ("submitted", "running", "completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}
STATES = tuple(MOVES)
ENDED = tuple(state for state, after in MOVES.items() if not after)
TIMES = {state: "ended_at" if state in ENDED else f"{state}_at" for state in STATES}

# Conditions for SQL: each experiment that has not ended is one of the two. A suspended one is with its worker, or was never handed out
# (its owner held it while it waited): only the first takes a place among those that run.
HANDED_OUT = "(status IN ('queued', 'running', 'suspended') AND (status <> 'suspended' OR claim IS NOT NULL OR claimed_by IS NOT NULL))"
WAITS = "(status IN ('submitted', 'suspended') AND (status = 'submitted' OR (claim IS NULL AND claimed_by IS NULL)))"


def move(core: "Core", id: int, to: str, **columns: Any) -> Row:
    """Bring an experiment into the state `to`, if the table allows it from where it is now; returns its row.

    Compare-and-set in one statement: of two that try at once, one succeeds. Raises Conflict, or NotFound when there is none.
    """
    before = ", ".join(f"'{state}'" for state, after in MOVES.items() if to in after)
    changes = "".join(f", {name} = :{name}" for name in columns)
    with core.store.write() as store:
        row = store.one(
            f"UPDATE experiments SET status = :to, {TIMES[to]} = :now{changes} WHERE id = :id AND status IN ({before}) RETURNING *",
            to=to,
            now=core.clock(),
            id=id,
            **columns,
        )
        if row is not None:
            return row
        status = store.value("SELECT status FROM experiments WHERE id = :id", id=id)
    if status is None:
        raise NotFound(f"there is no experiment {id}")
    if status == to:
        raise Conflict(f"experiment {id} is {status} already")
    raise Conflict(f"experiment {id} is {status}: it cannot become {to}")
