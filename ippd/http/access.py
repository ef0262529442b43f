"""Which local accounts may use the local listener: on a login node everybody reaches 127.0.0.1."""

import functools
import grp
import logging
import os
import pwd
from collections.abc import Iterable

from ippd.errors import Forbidden

log = logging.getLogger("ippd.http")


class Access:
    """Root, the daemon's own account, and the accounts and groups that local.allow names (`alice`, `@group`, `*`)."""

    def __init__(self, allow: Iterable[str]) -> None:
        """Looks the names up; one that does not exist is logged and lets nobody in."""
        account.cache_clear()
        self._everybody = False
        self._users = {0, os.geteuid()}
        self._groups: set[int] = set()
        self._decided: dict[int, bool] = {}
        for name in allow:
            try:
                if name == "*":
                    self._everybody = True
                elif name.startswith("@"):
                    self._groups.add(grp.getgrnam(name[1:]).gr_gid)
                else:
                    self._users.add(pwd.getpwnam(name).pw_uid)
            except KeyError:
                log.warning("local.allow names %s, which does not exist here", name)

    def check(self, uid: int | None) -> None:
        """Raise Forbidden, with a sentence that names the setting, when this account may not come in."""
        if self._everybody:
            return
        if uid is None:
            raise Forbidden("it could not be found out which local account is calling (the setting local.allow says which ones may)")
        if uid not in self._decided:
            self._decided[uid] = uid in self._users or not self._groups.isdisjoint(_groups_of(uid))
        if not self._decided[uid]:
            raise Forbidden(f"the account {account(uid)} may not use this listener (the setting local.allow says which ones may)")


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
