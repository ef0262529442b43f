"""Whose turn it is: which waiting experiments are handed out next, fairly between users and within what may run at once."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ippd.domain.states import HANDED_OUT

if TYPE_CHECKING:
    from ippd.core import Core

# Parents that have not ended keep an experiment back. All that waits is read, without a sort, as an index has this order: a limit here
# would let a user who waits for room hide whoever is behind, and to number them in SQL takes several times as long.
_WAITING = """
SELECT e.id, e.user_id, e.priority FROM experiments e WHERE e.status = 'submitted' {share}
AND NOT EXISTS (SELECT 1 FROM parents p JOIN experiments q ON q.id = p.parent_id WHERE p.experiment_id = e.id AND q.ended_at IS NULL)
ORDER BY e.priority DESC, e.id
"""


def next_ones(core: "Core", most: int, hosts: Sequence[str] = (), apps: Sequence[str] | None = None) -> list[int]:
    """The ids of the next experiments, at most `most`, of these hosts (any, without) and apps (any, with None).

    A user's first waiting experiment comes before anybody's second one, and what a user has running counts as well. Priority goes before
    that, age after it. Inside a write transaction nobody else can take them.
    """
    if apps is not None and not apps:
        return []
    share, values = "", dict[str, str]()
    for column, words in (("host", hosts), ("app", apps or ())):
        if words:
            names = {f"{column}{number}": word for number, word in enumerate(words)}
            share += f" AND e.{column} IN ({', '.join(f':{name}' for name in names)})"
            values |= names
    room, places = _Room(core), Counter[int]()
    line = []
    for id, user, priority in core.store.tuples(_WAITING.format(share=share), **values):
        place = places[user]
        if place < most and place < room.of(user):
            places[user] += 1
            line.append((-priority, place + room.busy[user], id, user))
    chosen: list[int] = []
    for *_, id, user in sorted(line):
        if len(chosen) >= most:
            break
        if room.take(user):
            chosen.append(id)
    return chosen


class _Room:
    """How many more experiments each user, and each group together, may have running."""

    def __init__(self, core: "Core") -> None:
        store, settings = core.store, core.settings
        self.busy = Counter(dict(store.tuples(f"SELECT user_id, COUNT(*) FROM experiments WHERE {HANDED_OUT} GROUP BY user_id")))
        own = "SELECT user_id, MAX(value) FROM limits JOIN members USING (group_id) WHERE name = 'running_experiments' GROUP BY user_id"
        self._own = dict(store.tuples(own))
        self._default = settings["limits.running_experiments"]
        together = dict(store.tuples("SELECT group_id, value FROM limits WHERE name = 'running_together'"))
        self._members: dict[int, list[int]] = {}
        self._groups: dict[int, int] = {}
        for group, user in store.tuples("SELECT group_id, user_id FROM members"):
            self._members.setdefault(user, []).append(group)
            self._groups.setdefault(group, together.get(group, settings["limits.running_together"]))
            self._groups[group] -= self.busy[user]
        self._users: dict[int, int] = {}

    def of(self, user: int) -> int:
        """How many more a user may have, before anything is taken."""
        if user not in self._users:
            alone = self._own.get(user, self._default) - self.busy[user]
            self._users[user] = min([alone, *(self._groups[group] for group in self._members.get(user, ()))])
        return self._users[user]

    def take(self, user: int) -> bool:
        """Whether there is still room for one of this user, in each group; then it is taken."""
        groups = self._members.get(user, ())
        if any(self._groups[group] <= 0 for group in groups):
            return False
        for group in groups:
            self._groups[group] -= 1
        return True
