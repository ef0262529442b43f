"""Groups of users, and the limits that a group brings."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ippd import fields
from ippd.domain.limits import LIMITS
from ippd.errors import Conflict, Invalid, NotFound
from ippd.permissions import Actor, permits
from ippd.setting_table import BY_NAME
from ippd.store import Names, Rows

if TYPE_CHECKING:
    from ippd.core import Core


class Groups:
    """The groups. A group is a dict: id, name, members (user ids), limits."""

    def __init__(self, core: "Core") -> None:
        self._store = core.store

    @permits("group.own")
    def names(self, actor: Actor) -> Names:
        """The names of the own groups, in order."""
        assert actor.user is not None
        return self.names_of(actor.user)

    def names_of(self, user: int) -> Names:
        """The names of a user's groups, in order."""
        sql = "SELECT g.name FROM members m JOIN groups g ON g.id = m.group_id WHERE m.user_id = :user ORDER BY g.name"
        return [row["name"] for row in self._store.all(sql, user=user)]

    @permits("group.list")
    def list(self, actor: Actor) -> Rows:
        """All groups, by name."""
        with self._store.read() as store:
            groups = {row["id"]: row | {"members": [], "limits": {}} for row in store.all("SELECT id, name FROM groups ORDER BY name")}
            for row in store.all("SELECT group_id, user_id FROM members ORDER BY user_id"):
                groups[row["group_id"]]["members"].append(row["user_id"])
            for row in store.all("SELECT group_id, name, value FROM limits ORDER BY name"):
                groups[row["group_id"]]["limits"][row["name"]] = row["value"]
        return list(groups.values())

    @permits("group.manage")
    def create(self, actor: Actor, name: str) -> int:
        """Make a group; returns its id. Raises Invalid, or Conflict when there is one of that name."""
        name = fields.check(fields.GroupName, {"name": name})["name"]
        with self._store.write() as store:
            self._refuse_taken(name)
            return store.insert("groups", name=name)

    @permits("group.manage")
    def rename(self, actor: Actor, id: int, name: str) -> None:
        """Give a group another name. Raises Invalid, NotFound, or Conflict when the name is taken."""
        name = fields.check(fields.GroupName, {"name": name})["name"]
        with self._store.write() as store:
            self._refuse_taken(name, but=id)
            if not store.update("groups", id, name=name):
                raise NotFound(f"there is no group {id}")

    def _refuse_taken(self, name: str, but: int = 0) -> None:
        if self._store.one("SELECT id FROM groups WHERE name = :name AND id <> :but", name=name, but=but):
            raise Conflict(f"there is a group {name} already")

    @permits("group.manage")
    def remove(self, actor: Actor, id: int) -> None:
        """Remove a group; its members stay users. Raises NotFound."""
        if not self._store.execute("DELETE FROM groups WHERE id = :id", id=id):
            raise NotFound(f"there is no group {id}")

    @permits("group.manage")
    def add(self, actor: Actor, id: int, user: int) -> None:
        """Put a user into a group (nothing changes when they are in it). Raises NotFound."""
        with self._store.write():
            self._insert(id, user)

    @permits("group.manage")
    def drop(self, actor: Actor, id: int, user: int) -> None:
        """Take a user out of a group (nothing changes when they are not in it)."""
        self._store.execute("DELETE FROM members WHERE group_id = :id AND user_id = :user", id=id, user=user)

    @permits("group.manage")
    def assign(self, actor: Actor, user: int, ids: Iterable[int]) -> None:
        """Put a user into exactly these groups. Raises NotFound (and changes nothing) for an unknown user or group."""
        with self._store.write() as store:
            if store.one("SELECT id FROM users WHERE id = :user", user=user) is None:
                raise NotFound(f"there is no user {user}")
            store.execute("DELETE FROM members WHERE user_id = :user", user=user)
            for id in ids:
                self._insert(id, user)

    def _insert(self, id: int, user: int) -> None:
        for what, key in (("group", id), ("user", user)):
            if self._store.one(f"SELECT id FROM {what}s WHERE id = :key", key=key) is None:
                raise NotFound(f"there is no {what} {key}")
        self._store.execute(
            "INSERT INTO members (group_id, user_id) VALUES (:id, :user) ON CONFLICT (group_id, user_id) DO NOTHING", id=id, user=user
        )

    @permits("group.manage")
    def limit(self, actor: Actor, id: int, limits: Mapping[str, str | None]) -> dict[str, int | None]:
        """Set limits for a group's members by name, all or none of them, or take them away (None); returns them as numbers.

        A text is what the setting of the limit's default may be ("50GB"). Raises Invalid, NotFound.
        """
        values = {name: _limit(name, text) for name, text in limits.items()}
        with self._store.write() as store:
            if store.one("SELECT id FROM groups WHERE id = :id", id=id) is None:
                raise NotFound(f"there is no group {id}")
            for name, value in values.items():
                store.execute("DELETE FROM limits WHERE group_id = :id AND name = :name", id=id, name=name)
                if value is not None:
                    store.insert("limits", group_id=id, name=name, value=value)
        return values


def _limit(name: str, text: str | None) -> int | None:
    if name not in LIMITS:
        raise Invalid(f"there is no limit {name}: known are {', '.join(LIMITS)}")
    if text is None:
        return None
    try:
        return int(BY_NAME[f"limits.{name}"].type(text))
    except ValueError as error:
        raise Invalid(fields={name: [str(error)]}) from None
