"""Whose turn it is: which waiting experiments are handed out next, fairly between users and within what may run at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ippd.domain.states import HANDED_OUT
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

LOOK = 1000  # waiting experiments that one claim looks at: whoever is further behind has more before them than that

# A user's first waiting experiment comes before anybody's second one, and what a user has running counts as well. Priority goes
# before that, age after it. Parents that have not ended keep an experiment back.
_WAITING = f"""
WITH busy AS (SELECT user_id, COUNT(*) AS busy FROM experiments WHERE {HANDED_OUT} GROUP BY user_id),
waiting AS (
    SELECT e.id, e.user_id, e.priority, ROW_NUMBER() OVER (PARTITION BY e.user_id ORDER BY e.priority DESC, e.id) AS place
    FROM experiments e WHERE e.status = 'submitted' {{share}}
    AND NOT EXISTS (SELECT 1 FROM parents p JOIN experiments q ON q.id = p.parent_id WHERE p.experiment_id = e.id AND q.ended_at IS NULL))
SELECT w.id, w.user_id, COALESCE(b.busy, 0) AS busy FROM waiting w LEFT JOIN busy b ON b.user_id = w.user_id
ORDER BY w.priority DESC, w.place + COALESCE(b.busy, 0), w.id LIMIT {LOOK}
"""


def next_ones(core: "Core", most: int, hosts: Sequence[str] = (), apps: Sequence[str] | None = None) -> list[int]:
    """The ids of the next experiments, at most `most`, of these hosts (any, without) and apps (any, with None).

    Inside a write transaction nobody else can take them.
    """
    if apps is not None and not apps:
        return []
    share, values = "", dict[str, str]()
    for column, words in (("host", hosts), ("app", apps or ())):
        if words:
            names = {f"{column}{number}": word for number, word in enumerate(words)}
            share += f" AND e.{column} IN ({', '.join(f':{name}' for name in names)})"
            values |= names
    room = _Room(core)
    chosen: list[int] = []
    for row in core.store.all(_WAITING.format(share=share), **values):
        if len(chosen) >= most:
            break
        if room.take(row):
            chosen.append(row["id"])
    return chosen


class _Room:
    """How many more experiments each user, and each group together, may have running."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._users: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}
        for row in core.store.all("SELECT group_id, user_id FROM members"):
            self._members.setdefault(row["user_id"], []).append(row["group_id"])
        own = core.store.all("SELECT group_id, value FROM limits WHERE name = 'running_together'")
        most = {row["group_id"]: row["value"] for row in own}
        busy = (
            "SELECT m.group_id, COUNT(*) AS busy FROM experiments e JOIN members m ON m.user_id = e.user_id "
            f"WHERE {HANDED_OUT} GROUP BY m.group_id"
        )
        taken = {row["group_id"]: row["busy"] for row in core.store.all(busy)}
        default = core.settings["limits.running_together"]
        groups = {group for groups in self._members.values() for group in groups}
        self._groups = {group: most.get(group, default) - taken.get(group, 0) for group in groups}

    def take(self, row: Row) -> bool:
        user = row["user_id"]
        if user not in self._users:
            self._users[user] = self._core.limits.of(user)["running_experiments"] - row["busy"]
        groups = self._members.get(user, ())
        if self._users[user] <= 0 or any(self._groups[group] <= 0 for group in groups):
            return False
        self._users[user] -= 1
        for group in groups:
            self._groups[group] -= 1
        return True
