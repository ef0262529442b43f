"""How often something was tried: counters in the store, so that all processes see the same."""

import hashlib
from typing import TYPE_CHECKING

from ippd.errors import TooMany
from ippd.fields import network

if TYPE_CHECKING:
    from ippd.core import Core

LONGEST = 254  # characters: of an e-mail address


class Attempts:
    """Fixed windows per key; a key is what is tried and by whom."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def count(self, what: str, who: str | None, most: int, window: float) -> None:
        """Count one attempt. Raises TooMany when there were more than `most` in `window` seconds; nothing is counted without `who`."""
        if not who:
            return
        now = self._core.clock()
        # A window that began in the future was left by a clock that has jumped back: it begins anew.
        stale = "(attempts.started_at <= :now - :window OR attempts.started_at > :now)"
        with self._core.store.write() as store:
            row = store.one(
                "INSERT INTO attempts (key, started_at, count) VALUES (:key, :now, 1) ON CONFLICT (key) DO UPDATE SET "
                f"count = CASE WHEN {stale} THEN 1 ELSE attempts.count + 1 END, "
                f"started_at = CASE WHEN {stale} THEN :now ELSE attempts.started_at END RETURNING started_at, count",
                key=_key(what, who),
                now=now,
                window=window,
            )
        assert row is not None
        if row["count"] > most:
            raise TooMany("too many attempts: please wait and try again", retry_after=row["started_at"] + window - now)

    def forget(self, what: str, who: str) -> None:
        """Forget the attempts of a key: it succeeded."""
        self._core.store.execute("DELETE FROM attempts WHERE key = :key", key=_key(what, who))

    def clean(self, older_than: float) -> int:
        """Remove counters begun before `older_than`; returns how many."""
        return self._core.store.execute("DELETE FROM attempts WHERE started_at < :then", then=older_than)


def _key(what: str, who: str) -> str:
    """The counter of an attempt. A whole network of IPv6 has one, and of an endless text only the digest is kept."""
    who = network(who) if len(who) <= LONGEST else hashlib.sha256(who.encode("utf-8", "replace")).hexdigest()
    return f"{what}:{who}"
