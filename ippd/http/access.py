"""Which local accounts may use the local listener, and for what: on a login node everybody reaches 127.0.0.1."""

import functools
import grp
import logging
import os
import pwd
from collections.abc import Iterable

from ippd.errors import Forbidden

log = logging.getLogger("ippd.http")


class Access:
    """Root, the daemon's own account and those that local.allow names may do all; those that local.workers names run experiments."""

    def __init__(self, allow: Iterable[str], workers: Iterable[str]) -> None:
        """Looks the names up (`alice`, `@group`, `*`); one that does not exist is logged and lets nobody in."""
        account.cache_clear()
        self._workers, self._all = _Names("local.workers", workers), _Names("local.allow", allow)
        self._all.users |= {0, os.geteuid()}
        self._roles: dict[int, str] = {}

    def role(self, uid: int | None) -> str:
        """What this account is: "local" or, if it is named in both settings too, "worker".

        Raises Forbidden, with a sentence that names the setting, when it may not come in.
        """
        if uid is None:
            if self._all.everybody and not self._workers:
                return "local"
            raise Forbidden("it could not be found out which local account is calling (the setting local.allow says which ones may)")
        if uid not in self._roles:
            is_root = uid in (0, os.geteuid())
            self._roles[uid] = "worker" if not is_root and uid in self._workers else "local" if uid in self._all else ""
        if not self._roles[uid]:
            raise Forbidden(f"the account {account(uid)} may not use this listener (the setting local.allow says which ones may)")
        return self._roles[uid]


class _Names:
    """The accounts that a setting names."""

    def __init__(self, setting: str, names: Iterable[str]) -> None:
        self.everybody = False
        self.users: set[int] = set()
        self._groups: set[int] = set()
        for name in names:
            try:
                if name == "*":
                    self.everybody = True
                elif name.startswith("@"):
                    self._groups.add(grp.getgrnam(name[1:]).gr_gid)
                else:
                    self.users.add(pwd.getpwnam(name).pw_uid)
            except KeyError:
                log.warning("%s names %s, which does not exist here", setting, name)

    def __bool__(self) -> bool:
        return self.everybody or bool(self.users or self._groups)

    def __contains__(self, uid: int) -> bool:
        return self.everybody or uid in self.users or not self._groups.isdisjoint(_groups_of(uid))


@functools.lru_cache(1024)
def account(uid: int | None) -> str:
    """The name of an account, or its number when it has none; kept until the next reload, as a look-up can be slow."""
    if uid is None:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups_of(uid: int) -> list[int]:
    """The account's groups, its primary one included. Asked by account: group services need not list all members."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(entry.pw_name, entry.pw_gid)
