"""Accounts: sign-up, approval, profile settings, passwords."""

import hashlib
import json
import secrets
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.domain.webhooks import parse_webhook
from ippd.errors import Conflict, Forbidden, Invalid, NotFound
from ippd.permissions import Actor, permits
from ippd.store import Names, Row, Rows

if TYPE_CHECKING:
    from ippd.core import Core

PENDING, APPROVED, DENIED = STATUSES = ("pending", "approved", "denied")
MOST_SETTINGS = 100
MOST_BYTES = 16 << 10  # of all settings of a user together, as they are kept: anybody may sign up
CHANNELS = ("email", "slack_message", "none")


class Users:
    """The accounts of the portal. A user is a dict: id, uuid, email, status, created_at, settings, groups."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("user.sign_up")
    def sign_up(self, actor: Actor, email: str, password: str, settings: Mapping[str, str] | None = None) -> None:
        """Ask for an account. The answer is the same for a known address, whose owner gets a mail instead.

        Raises Invalid (field by field), TooMany, and NoSpace when the disk is full.
        """
        self._core.limits.check_disk()
        self._core.attempts.count("sign-up", actor.address, self._core.settings["auth.signups_per_hour"], 3600)
        wanted = fields.check(fields.SignUp, {"email": email, "password": password})
        cleaned = self.checked(settings or {})
        digest = self._core.passwords.hash(password)
        with self._store.write():
            id = self._insert(wanted["email"], digest, cleaned, PENDING)
            if id is not None:
                facts = {"id": id, "email": wanted["email"], "profile": cleaned}
                self._core.notifications.add("approve_account", unique=f"approve_account:{id}", **facts)
                return
            known = self._row("email", wanted["email"])
            assert known is not None
            day = int(self._core.clock() // 86400)
            self._core.notifications.add("known_address", user=known["id"], unique=f"known_address:{known['id']}:{day}")

    @permits("user.add")
    def add(self, actor: Actor, email: str, password: str, settings: Mapping[str, str] | None = None) -> int:
        """Make an account that is approved at once; returns its id. Raises Invalid, or Conflict when the address is known."""
        wanted = fields.check(fields.SignUp, {"email": email, "password": password})
        id = self._insert(wanted["email"], self._core.passwords.hash(password), self.checked(settings or {}), APPROVED)
        if id is None:
            raise Conflict(f"there is an account with the address {wanted['email']} already")
        return id

    def _insert(self, email: str, digest: str, settings: Mapping[str, str], status: str) -> int | None:
        now = self._core.clock()
        return self._store_value(
            "INSERT INTO users (uuid, email, password, status, settings, created_at, decided_at) "
            "VALUES (:uuid, :email, :digest, :status, :settings, :now, :decided) ON CONFLICT (email) DO NOTHING RETURNING id",
            uuid=str(uuid.uuid4()),
            email=email,
            digest=digest,
            status=status,
            settings=json.dumps(settings, ensure_ascii=False),
            now=now,
            decided=None if status == PENDING else now,
        )

    def _store_value(self, sql: str, **values: Any) -> Any:
        with self._store.write() as store:
            return store.value(sql, **values)

    def checked(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Profile settings as they may be stored. Raises Invalid."""
        if len(settings) > MOST_SETTINGS:
            raise Invalid(f"there may be at most {MOST_SETTINGS} settings")
        cleaned = {name: self._setting(name, value) for name, value in settings.items()}
        _check_size(cleaned)
        return cleaned

    def _setting(self, name: str, value: str) -> str:
        fields.check(fields.UserSetting, {"name": name, "value": value})
        if name == "slack_webhook" and value:
            try:  # the daemon must not call whatever users like
                parse_webhook(value, self._core.settings["notify.slack_hosts"])
            except ValueError as error:
                raise Invalid(fields={name: [str(error)]}) from None
        if name == "notification_type" and value not in CHANNELS:
            raise Invalid(fields={name: [f"this must be one of {', '.join(CHANNELS)}"]})
        return value

    @permits("user.list")
    def list(self, actor: Actor, status: str | None = None) -> Rows:
        """All users, or those of one status, newest first."""
        with self._store.read() as store:
            where = "WHERE status = :status" if status else ""
            rows = store.all(f"SELECT * FROM users {where} ORDER BY id DESC", **({"status": status} if status else {}))
            groups: dict[int, Names] = {}
            for row in store.all("SELECT m.user_id, g.name FROM members m JOIN groups g ON g.id = m.group_id ORDER BY g.name"):
                groups.setdefault(row["user_id"], []).append(row["name"])
        return [_user(row, groups.get(row["id"], [])) for row in rows]

    @permits("user.read")
    def find(self, actor: Actor, who: str | int) -> Row:
        """One user by id or e-mail address. Raises NotFound."""
        text = str(who)
        row = self._row("id", int(text)) if text.isdecimal() and len(text) < 19 else self._row("email", fields.address(text))
        if row is None:
            raise NotFound(f"there is no user {fields.one_line(text)}")
        return _user(row, self._core.groups.names_of(row["id"]))

    def _row(self, key: str, value: Any) -> Row | None:
        return self._store.one(f"SELECT * FROM users WHERE {key} = :value", value=value)

    @permits("user.decide")
    def approve(self, actor: Actor, id: int) -> None:
        """Let a user in; they get a mail the first time. Raises NotFound."""
        self._decide(id, APPROVED)

    @permits("user.decide")
    def deny(self, actor: Actor, id: int) -> None:
        """Keep a user out and end their sessions; they get a mail. Raises NotFound."""
        self._decide(id, DENIED)

    def _decide(self, id: int, status: str) -> None:
        with self._store.write() as store:
            changed = store.execute(
                "UPDATE users SET status = :status, decided_at = :now WHERE id = :id AND status <> :status",
                status=status,
                now=self._core.clock(),
                id=id,
            )
            if changed:
                self._core.notifications.add(status, user=id)
                if status == DENIED:
                    self._core.sessions.end_all(id)
            elif self._row("id", id) is None:
                raise NotFound(f"there is no user {id}")

    @permits("user.remove")
    def remove(self, actor: Actor, id: int) -> None:
        """Remove a user with all experiments, files and what was printed. Raises NotFound."""
        with self._store.write() as store:
            paths = [row["path"] for row in store.all("SELECT path FROM files WHERE user_id = :id", id=id)]
            if not store.execute("DELETE FROM users WHERE id = :id", id=id):
                raise NotFound(f"there is no user {id}")
        for path in paths:
            self._core.blobs.remove(path)
        self._core.outputs.sweep()  # one look at the folder, however many experiments there were

    @permits("user.set")
    def set_setting(self, actor: Actor, name: str, value: str) -> None:
        """Set one entry of the own profile. Raises Invalid, and NoSpace when the disk is full."""
        self._setting(name, value)
        self._core.limits.check_disk()
        with self._store.write() as store:
            row = store.one("SELECT settings FROM users WHERE id = :id", id=actor.user)
            settings = (json.loads(row["settings"]) if row else {}) | {name: value}
            if len(settings) > MOST_SETTINGS:
                raise Invalid(f"there may be at most {MOST_SETTINGS} settings")
            _check_size({other: settings[other] for other in settings if other != name} | {name: value})
            store.execute(
                "UPDATE users SET settings = :settings WHERE id = :id", settings=json.dumps(settings, ensure_ascii=False), id=actor.user
            )

    @permits("password.set")
    def set_password(self, actor: Actor, id: int, password: str) -> None:
        """Set a user's password, end all their sessions and forget their wrong passwords. Raises Invalid, NotFound."""
        self._set_password(id, password)

    def _set_password(self, id: int, password: str, keep: str | None = None) -> None:
        fields.check(fields.Password, {"password": password})
        self._keep_password(id, self._core.passwords.hash(password), keep)

    def _keep_password(self, id: int, digest: str, keep: str | None = None) -> None:
        with self._store.write() as store:
            email = store.value("UPDATE users SET password = :digest WHERE id = :id RETURNING email", digest=digest, id=id)
            if email is None:
                raise NotFound(f"there is no user {id}")
            # They were tries of a password that is no more: who has the new one need not wait for them.
            self._core.attempts.forget("log-in", email)
            self._core.attempts.forget("password", str(id))
            store.execute("DELETE FROM resets WHERE user_id = :id", id=id)
            self._core.sessions.end_all(id, keep)

    @permits("password.change")
    def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Change the own password; all other sessions end. Raises Forbidden for a wrong old one, Invalid, TooMany."""
        settings = self._core.settings
        self._core.attempts.count("password", str(actor.user), settings["auth.lockout_failures"], settings["auth.lockout_time"])
        row = self._row("id", actor.user)
        if row is None or not self._core.passwords.matches(old, row["password"]):
            raise Forbidden("the old password is wrong")
        self._set_password(row["id"], new, keep=actor.session)

    @permits("password.forgot")
    def forgot_password(self, actor: Actor, email: str) -> None:
        """Mail a code for a new password, good once and for `auth.reset_lifetime`. Says nothing about whether the address is known.

        Raises TooMany.
        """
        email = fields.address(email)
        most = self._core.settings["auth.resets_per_hour"]
        self._core.attempts.count("reset", actor.address, most, 3600)
        code = secrets.token_urlsafe(32)
        # Counted in the same transaction: whether the address is known must not be seen in whether there is something to flush.
        with self._store.write() as store:
            self._core.attempts.count("reset", email, most, 3600)
            row = store.one("SELECT id FROM users WHERE email = :email AND status = :status", email=email, status=APPROVED)
            if row is None:
                return
            store.execute("DELETE FROM resets WHERE user_id = :id", id=row["id"])
            expires = self._core.clock() + self._core.settings["auth.reset_lifetime"]
            store.insert("resets", user_id=row["id"], digest=_digest(code), expires_at=expires)
            self._core.notifications.add("password_reset", user=row["id"], code=code)

    @permits("password.reset")
    def reset_password(self, actor: Actor, token: str, password: str) -> None:
        """Set a new password with a mailed code, which is used up. Raises Invalid for a bad code or password, TooMany, Unavailable."""
        self._core.attempts.count("reset", actor.address, self._core.settings["auth.resets_per_hour"], 3600)
        fields.check(fields.Password, {"password": password})
        sql = "SELECT user_id FROM resets WHERE digest = :digest AND expires_at > :now"
        id = self._store.value(sql, digest=_digest(token), now=self._core.clock())
        # Hashed before the code is used up: it must still be good when there is no place for the hash now.
        hashed = self._core.passwords.hash(password) if id is not None else ""
        with self._store.write() as store:
            if not store.execute("DELETE FROM resets WHERE digest = :digest AND user_id = :id", digest=_digest(token), id=id):
                raise Invalid("this code is not valid (any more): please ask for a new one")
            self._keep_password(id, hashed)


def _check_size(settings: Mapping[str, str]) -> None:
    """Refuse those settings, in their order, that are past MOST_BYTES. Raises Invalid."""
    size, past = 0, []
    for name, value in settings.items():
        size += len(json.dumps({name: value}, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        past += [name] if size > MOST_BYTES else []
    if past:
        raise Invalid(fields={name: [f"all settings together may have at most {MOST_BYTES} bytes"] for name in past})


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()


def _user(row: Row, groups: list[str]) -> Row:
    names = ("id", "uuid", "email", "status", "created_at")
    return {name: row[name] for name in names} | {"settings": json.loads(row["settings"]), "groups": groups}
