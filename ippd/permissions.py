"""Who may do what: one table of roles, and the mark on a domain method that makes it hold everywhere."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ippd.errors import Forbidden, Unauthorized

OWN, ANY, TAKEN = "own", "any", "taken"  # TAKEN: what was claimed, by its claim or the account that claimed it, until it ends


@dataclass(frozen=True)
class Actor:
    """Who asks: a role, the user behind it (None for programs), the session, the network address it came from, the name of a program's
    account, and the claim that it names when it reads what it has claimed."""

    role: str
    user: int | None = None
    session: str | None = None
    address: str | None = None
    name: str = ""
    claim: str | None = None

    def scope(self, permission: str) -> str | None:
        """OWN, ANY, TAKEN or None: how far `permission` reaches for this actor."""
        return ROLES[self.role].get(permission)


# A permission that is not in a role's table is refused: forgetting a line closes a door, it never opens one.
_SIGN_IN = {"app.read": ANY, "user.sign_up": ANY, "session.log_in": ANY, "password.forgot": ANY, "password.reset": ANY}
_USER = {
    "session.log_out": OWN,
    "user.set": OWN,
    "password.change": OWN,
    "group.own": OWN,
    "experiment.submit": OWN,
    "experiment.list": OWN,
    "experiment.read": OWN,
    "experiment.cancel": OWN,
    "experiment.suspend": OWN,
    "experiment.prioritize": OWN,
    "file.read": OWN,
}
_RUN = ("experiment.read", "experiment.fail", "experiment.run", "file.read", "file.results")
_WORKER = dict.fromkeys(_RUN, TAKEN) | {"queue.claim": ANY}  # programs of users run in these accounts
_SCRIPT = dict.fromkeys(_RUN, ANY) | {
    "queue.claim": ANY,
    "experiment.cancel": ANY,
    "experiment.suspend": ANY,
    "experiment.prioritize": ANY,
    "experiment.remove": ANY,
    "file.old": ANY,
    "file.delete": ANY,
    "notification.send": ANY,
}
_MANAGE = {
    "user.list": ANY,
    "user.read": ANY,
    "user.decide": ANY,
    "group.list": ANY,
    "group.manage": ANY,
    "version.update": ANY,
}
_COMMAND = {
    "portal.import": ANY,
    "user.add": ANY,
    "user.remove": ANY,
    "password.set": ANY,
    "experiment.list": ANY,
    "notification.list": ANY,
    "notification.retry": ANY,
    "notification.drop": ANY,
}
_KEEP_HOUSE = {"notification.deliver": ANY, "queue.requeue": ANY, "house.keep": ANY, "backup.make": ANY}

ROLES: dict[str, dict[str, str]] = {
    "anonymous": _SIGN_IN,
    "user": _SIGN_IN | _USER,
    "worker": _SIGN_IN | _WORKER,
    "local": _SIGN_IN | _SCRIPT | _MANAGE,
    "operator": _SIGN_IN | _SCRIPT | _MANAGE | _COMMAND | _KEEP_HOUSE,
    "system": _KEEP_HOUSE,
}

ANONYMOUS = Actor("anonymous")
OPERATOR = Actor("operator")
SYSTEM = Actor("system")

Method = TypeVar("Method", bound=Callable[..., Any])


def permits(permission: str) -> Callable[[Method], Method]:
    """Mark a domain method `m(self, actor, ...)` as needing `permission`; the mark is what a test looks for.

    Raises Unauthorized for an anonymous actor, Forbidden for another one whose role lacks the permission. Whether an object belongs
    to an actor whose scope is OWN or TAKEN is the method's own look-up to answer (with NotFound, so that ids of others cannot be probed).
    """

    def mark(method: Method) -> Method:
        @functools.wraps(method)
        def checked(self: Any, actor: Actor, *args: Any, **kwargs: Any) -> Any:
            if actor.scope(permission) is None:
                if actor.role == "anonymous":
                    raise Unauthorized()
                raise Forbidden(f"a caller of the role '{actor.role}' may not do this ({permission})")
            return method(self, actor, *args, **kwargs)

        checked.permission = permission  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return mark
