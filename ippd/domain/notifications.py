"""The outbox: notifications are stored with the change that causes them, and sent later."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ippd import fields
from ippd.domain.templates import ACCOUNT, ADMINISTRATOR, SECRET_KINDS, TEMPLATES, clean_line, render
from ippd.domain.webhooks import parse_webhook
from ippd.errors import Invalid
from ippd.permissions import Actor, permits
from ippd.store import Row, Rows

if TYPE_CHECKING:
    from ippd.core import Core

EMAIL, SLACK = CHANNELS = ("email", "slack")
PENDING, SENT, FAILED = STATUSES = ("pending", "sent", "failed")
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds between two tries: doubled each time
CLAIM_PAUSE = 600.0  # seconds at least that a message is kept from others while it is sent
SHOWN = "id, kind, user_id, channel, recipient, subject, status, attempts, next_attempt_at, error, created_at, sent_at"
ADD = (
    "INSERT INTO outbox (kind, user_id, channel, recipient, subject, body, status, attempts, next_attempt_at, "
    "created_at, unique_key) VALUES (:kind, :user, :channel, :recipient, :subject, :body, 'pending', 0, :now, :now, "
    ":unique) ON CONFLICT (unique_key) DO NOTHING"
)
CLAIM = (
    "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = :later, error = NULL WHERE id = (SELECT id FROM outbox "
    "WHERE status = 'pending' AND channel = :channel AND next_attempt_at <= :begun "
    "ORDER BY next_attempt_at, id LIMIT 1) RETURNING *"
)
# What a sender has in its hands now: nobody else may send or remove it until its time has come again.
IN_HAND = "(attempts > 0 AND error IS NULL AND next_attempt_at > :now)"
NO_HOST = "mail.host is not set"
DAY, LONGEST_DAYS = 86400, 36500


Send = Callable[[str, str, str, str], None]  # channel, recipient, subject, body


class Waiting(NamedTuple):
    """To how many notifications a command did something, how many are pending after it, and why mails among them wait (if they do)."""

    done: int
    pending: int
    why: str


class Refused(Exception):
    """What a sender raises when this one message was not taken now; others may be."""


class Permanent(Refused):
    """What a sender raises when this message will never be taken."""


class Notifications:
    """Messages to users and to the administrator: each is sent once, or again when the daemon died while sending."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    def add(self, kind: str, user: int | Row | None = None, to: str | None = None, unique: str | None = None, **facts: Any) -> int:
        """Store a notification of `kind` (a key of TEMPLATES) in the caller's transaction; returns how many messages.

        It goes to a user (id, or a row with id, email and settings), to a bare e-mail address, or for some kinds to the
        administrator. A second one with the same `unique` does nothing. Raises KeyError when a fact is missing that the
        template needs.
        """
        row = self._user(user)
        if row:
            facts = {"email": row["email"]} | facts
        subject, body = render(kind, self._core.settings, facts)
        now = self._core.clock()
        return sum(
            self._store.execute(
                ADD,
                kind=kind,
                user=row["id"] if row else None,
                channel=channel,
                recipient=recipient,
                subject=subject,
                body=body,
                now=now,
                unique=f"{unique}:{channel}" if unique else None,
            )
            for channel, recipient in self._recipients(TEMPLATES[kind].audience, row, to)
        )

    def _user(self, user: int | Row | None) -> Row | None:
        if isinstance(user, int):
            return self._store.one("SELECT id, email, settings FROM users WHERE id = :id", id=user)
        return user

    def _recipients(self, audience: str, user: Row | None, to: str | None) -> list[tuple[str, str]]:
        settings = self._core.settings
        if audience == ADMINISTRATOR:
            both = ((EMAIL, settings["notify.admin_email"]), (SLACK, settings["notify.admin_slack"]))
            return [(channel, recipient) for channel, recipient in both if recipient]
        if to or user is None:
            return [(EMAIL, clean_line(to))] if to else []
        return [(EMAIL, user["email"])] if audience == ACCOUNT else self._chosen(user)

    def _chosen(self, user: Row) -> list[tuple[str, str]]:
        profile = user["settings"] if isinstance(user["settings"], dict) else json.loads(user["settings"])
        wanted = profile.get("notification_type")
        if wanted == "none":
            return []
        if wanted == "slack_message":
            try:
                parse_webhook(profile.get("slack_webhook", ""), self._core.settings["notify.slack_hosts"])
                return [(SLACK, profile["slack_webhook"])]
            except ValueError:
                pass  # a notice by mail is better than none
        return [(EMAIL, user["email"])]

    @permits("notification.send")
    def notify(self, actor: Actor, email: str, message: str) -> None:
        """Send a message of a script: to a user as they chose, to any other address by e-mail. Raises Invalid."""
        wanted = fields.check(fields.Message, {"email": email, "message": message})
        with self._store.write() as store:
            user = store.one("SELECT id, email, settings FROM users WHERE email = :email", email=wanted["email"])
            self.add("message", user=user, to=None if user else wanted["email"], message=wanted["message"])

    @permits("notification.deliver")
    def deliver(self, actor: Actor, send: Send, stopped: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Send what is due, one by one; returns {"sent": how many, "later": how many, "failed": how many}.

        Several may deliver at once. After a failure that is not about one message (anything but Refused and Permanent)
        the channel rests until the next call. `stopped` is asked before each message. E-mail waits untried while
        `mail.host` is empty.
        """
        counts = {"sent": 0, "later": 0, "failed": 0}
        begun = self._core.clock()
        for channel in CHANNELS if self._core.settings["mail.host"] else (SLACK,):
            self._recall(channel, begun)
            works = True
            while works and not stopped() and (row := self._claim(channel, begun)):
                outcome, works = self._send(row, send)
                counts[outcome] += 1
        return counts

    def _claim(self, channel: str, begun: float) -> Row | None:
        # Moved ahead before it is sent, and further than sending can take: nobody else takes it meanwhile, and it comes
        # back if we die.
        with self._store.write() as store:
            return store.one(
                CLAIM,
                channel=channel,
                begun=begun,
                later=self._core.clock() + self._claim_pause(),
            )

    def _claim_pause(self) -> float:
        return float(max(CLAIM_PAUSE, 20 * self._core.settings["mail.timeout"]))

    def _recall(self, channel: str, begun: float) -> None:
        """Let be due what lies further ahead than anything is postponed: the clock was ahead when that was done, and is right again."""
        due = "FROM outbox WHERE status = 'pending' AND channel = :channel AND next_attempt_at > :ahead"
        values = {"channel": channel, "ahead": begun + max(LONGEST_PAUSE, self._claim_pause()) + FIRST_PAUSE}
        if self._store.one(f"SELECT 1 {due} LIMIT 1", **values):  # a look, not a change: this is done every few seconds
            self._store.execute(f"UPDATE outbox SET next_attempt_at = :begun WHERE id IN (SELECT id {due})", begun=begun, **values)

    def _send(self, row: Row, send: Send) -> tuple[str, bool]:
        settings = self._core.settings
        if row["kind"] in SECRET_KINDS and self._core.clock() - row["created_at"] >= settings["auth.reset_lifetime"]:
            return self._fail(row, "not sent in time: what it says is no longer valid"), True
        try:
            send(row["channel"], row["recipient"], row["subject"], row["body"])
        except Permanent as error:
            return self._fail(row, _reason(error)), True
        except Exception as error:  # whatever a network or a server can come up with
            return self._postpone(row, _reason(error)), isinstance(error, Refused)
        self._store.execute(
            "UPDATE outbox SET status = 'sent', sent_at = :now, error = NULL, body = :body WHERE id = :id",
            now=self._core.clock(),
            body="" if row["kind"] in SECRET_KINDS else row["body"],
            id=row["id"],
        )
        return SENT, True

    def _postpone(self, row: Row, reason: str) -> str:
        # Counted in tries, not by the clock: a message is never given up because the daemon was off, or because the
        # clock was set.
        if sum(pause(attempt) for attempt in range(1, row["attempts"])) >= self._core.settings["notify.give_up_after"]:
            return self._fail(row, reason)
        next_attempt_at = self._core.clock() + pause(row["attempts"])
        self._store.update("outbox", row["id"], error=reason, next_attempt_at=next_attempt_at)
        return "later"

    def _fail(self, row: Row, reason: str) -> str:
        secret = {"body": ""} if row["kind"] in SECRET_KINDS else {}
        self._store.update("outbox", row["id"], status=FAILED, error=reason, **secret)
        return FAILED

    @permits("notification.retry")
    def retry(self, actor: Actor) -> Waiting:
        """Put failed notifications back, but for those that are no longer valid, and make those due now that wait for another try."""
        secret = ", ".join(f"'{kind}'" for kind in SECRET_KINDS)
        now = self._core.clock()
        with self._store.write() as store:
            done = store.execute(
                "UPDATE outbox SET status = 'pending', attempts = 0, next_attempt_at = :now "
                f"WHERE status = 'failed' AND kind NOT IN ({secret})",
                now=now,
            )
            waits = f"status = 'pending' AND next_attempt_at > :now AND NOT {IN_HAND}"
            return self._waiting(done + store.execute(f"UPDATE outbox SET next_attempt_at = :now WHERE {waits}", now=now))

    @permits("notification.drop")
    def drop(self, actor: Actor, days: int) -> Waiting:
        """Remove notifications that are pending for more than so many days. Raises Invalid."""
        if not 0 <= days <= LONGEST_DAYS:
            raise Invalid(fields={"older-than": [f"this must be a number of days from 0 to {LONGEST_DAYS}"]})
        now = self._core.clock()
        with self._store.write() as store:
            old = f"status = 'pending' AND created_at <= :then AND NOT {IN_HAND}"
            return self._waiting(store.execute(f"DELETE FROM outbox WHERE {old}", then=now - days * DAY, now=now))

    def _waiting(self, done: int) -> Waiting:
        pending = self._store.value("SELECT count(*) FROM outbox WHERE status = 'pending'")
        mails = self._store.value("SELECT count(*) FROM outbox WHERE status = 'pending' AND channel = 'email'")
        return Waiting(done, pending, NO_HOST if mails and not self._core.settings["mail.host"] else "")

    @permits("notification.list")
    def list(self, actor: Actor, status: str | None = None, limit: int = 1000) -> Rows:
        """The newest `limit` notifications (of a status) without bodies; of a webhook the host only. Raises Invalid.

        `error` is why one failed, or why it is still pending.
        """
        if status is not None and status not in STATUSES:
            raise Invalid(fields={"status": [f"this must be one of {', '.join(STATUSES)}"]})
        where = "WHERE status = :status" if status else ""
        sql = f"SELECT {SHOWN} FROM outbox {where} ORDER BY id DESC LIMIT :limit"
        rows = self._store.all(sql, limit=limit, **({"status": status} if status else {}))
        for row in rows:
            row["recipient"] = _shown(row["channel"], row["recipient"])
            if (row["status"], row["channel"]) == (PENDING, EMAIL) and not self._core.settings["mail.host"]:
                row["error"] = NO_HOST
        return rows


def pause(attempts: int) -> float:
    """Seconds until the next try, after so many tries: 1, 2, 4, ... minutes, at most an hour."""
    return min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE)


def _reason(error: Exception) -> str:
    return clean_line(str(error) or type(error).__name__, 500)


def _shown(channel: str, recipient: str) -> str:
    # The path of a webhook is a password.
    return "/".join(recipient.split("/")[:3]) + "/..." if channel == SLACK else recipient
