"""Housekeeping: what is done by the clock. Each job works from what the store says, so doing it twice does nothing more."""

from typing import TYPE_CHECKING

from ippd import certificate
from ippd.permissions import Actor, permits

if TYPE_CHECKING:
    from ippd.core import Core

DAY = 86400.0
BATCH = 200
KEPT_MAIL = 30 * DAY
LONGEST_UPLOAD = 7 * DAY
LONGEST_SILENCE = 3600.0  # seconds that an upload may bring no byte; far more than server.body_grace


class Housekeeping:
    """The jobs of the schedule; each can also be run by a command. They return how many things they dealt with."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("house.keep")
    def notice_expiry(self, actor: Actor) -> int:
        """Tell the owners of experiments that ended `files.retention_days` less `files.notice_days` ago that their files will go."""
        settings, now = self._core.settings, self._core.clock()
        retention, notice = settings["files.retention_days"], settings["files.notice_days"]
        if not retention or not notice:
            return 0
        due = (
            "SELECT e.id, e.user_id, e.name, e.app, e.ended_at FROM experiments e WHERE e.expired_at IS NULL AND e.noticed_at IS NULL "
            "AND e.ended_at <= :then AND EXISTS (SELECT 1 FROM files f WHERE f.experiment_id = e.id) ORDER BY e.ended_at LIMIT :batch"
        )
        told = 0
        while rows := self._store.all(due, then=now - max(0, retention - notice) * DAY, batch=BATCH):
            with self._store.write() as store:
                for row in rows:
                    days = max(notice, round((row["ended_at"] + retention * DAY - now) / DAY))
                    store.update("experiments", row["id"], noticed_at=now)
                    name = row["name"] or row["app"]
                    key = f"expiring:{row['id']}"
                    self._core.notifications.add("expiring", user=row["user_id"], unique=key, id=row["id"], name=name, days=days)
            told += len(rows)
        return told

    @permits("house.keep")
    def expire_files(self, actor: Actor) -> int:
        """Remove the files of experiments that ended `files.retention_days` ago: rows first, then bytes. Returns how many files.

        Nobody's files go without notice: where `files.notice_days` is set, the owner was told that many days before.
        """
        settings, now = self._core.settings, self._core.clock()
        retention, notice = settings["files.retention_days"], settings["files.notice_days"]
        if not retention:
            return 0
        told = "AND noticed_at <= :told" if notice else ""
        due = (
            f"SELECT id FROM experiments WHERE expired_at IS NULL AND ended_at <= :then {told} "
            "AND EXISTS (SELECT 1 FROM files f WHERE f.experiment_id = experiments.id) ORDER BY ended_at LIMIT :batch"
        )
        values = {"then": now - retention * DAY, "batch": BATCH} | ({"told": now - notice * DAY} if notice else {})
        removed = 0
        while rows := self._store.all(due, **values):
            paths: list[str] = []
            with self._store.write() as store:
                for row in rows:
                    paths += [f["path"] for f in store.all("DELETE FROM files WHERE experiment_id = :id RETURNING path", id=row["id"])]
                    store.update("experiments", row["id"], expired_at=now)
            for path in paths:
                self._core.blobs.remove(path)
            removed += len(paths)
        return removed

    @permits("house.keep")
    def expire_sessions(self, actor: Actor) -> int:
        """Remove sessions, reset codes and counters of attempts that are over."""
        now = self._core.clock()
        with self._store.write() as store:
            gone = store.execute("DELETE FROM sessions WHERE expires_at <= :now", now=now)
            gone += store.execute("DELETE FROM resets WHERE expires_at <= :now", now=now)
            return gone + self._core.attempts.clean(now - DAY)

    @permits("house.keep")
    def clean_outbox(self, actor: Actor) -> int:
        """Remove notifications that were sent a month ago; failed ones stay until somebody looks at them."""
        return self._store.execute("DELETE FROM outbox WHERE status = 'sent' AND sent_at < :then", then=self._core.clock() - KEPT_MAIL)

    @permits("house.keep")
    def sweep_orphans(self, actor: Actor, age: float = LONGEST_UPLOAD) -> int:
        """Remove bytes that no row refers to and that are older than `age` seconds: what a crash left in the middle of an upload.

        The half of an upload whose process has died goes after an hour.
        """

        def known(paths: list[str]) -> set[str]:
            found: set[str] = set()
            for start in range(0, len(paths), BATCH):
                some = {f"p{i}": path for i, path in enumerate(paths[start : start + BATCH])}
                names = ", ".join(f":{name}" for name in some)
                found |= {row["path"] for row in self._store.all(f"SELECT path FROM files WHERE path IN ({names})", **some)}
            return found

        now = self._core.clock()
        return self._core.outputs.sweep() + self._core.blobs.sweep(known, now - age, now - LONGEST_SILENCE)

    @permits("house.keep")
    def warn_certificate(self, actor: Actor) -> int:
        """Tell the administrator once when the certificate of the public listener ends within `certificate.warn_days`."""
        path = self._core.certificate_path()
        if not path.exists():
            return 0
        _, not_after = certificate.read(str(path))
        days = int((not_after - self._core.clock()) // DAY)
        if days > self._core.settings["certificate.warn_days"]:
            return 0
        key = f"certificate:{int(not_after)}"
        return self._core.notifications.add("certificate_expiring", unique=key, days=days, path=str(path))

    @permits("house.keep")
    def checkpoint(self, actor: Actor) -> int:
        """Move the write-ahead log into the database; returns 1 when the reserve was put back, now that there is room again."""
        self._store.checkpoint()
        gone = not self._core.blobs.reserve_file.exists()
        return int(gone and self._core.blobs.keep_reserve())
