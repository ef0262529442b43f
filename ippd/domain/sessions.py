"""Sessions: a signed token (JWT, RFC 7519) with a row behind it, so that it can be revoked."""

import secrets
from typing import TYPE_CHECKING

import jwt

from ippd import fields
from ippd.errors import Forbidden, Unauthorized
from ippd.permissions import Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

ALGORITHM = "HS256"
WRONG = "the e-mail address or the password is wrong"
NOT_YET = {
    "pending": "your account waits for approval",
    "denied": "your account was not approved",
}


class Sessions:
    """Who is logged in. A user may have several sessions."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    @permits("session.log_in")
    def log_in(self, actor: Actor, email: str, password: str, remember: bool = False) -> str:
        """A token for the right e-mail address and password, good for `auth.token_lifetime` (`auth.remember_lifetime`).

        Raises Unauthorized (also for an unknown address, after as long a time), Forbidden for a pending or denied account (only after
        the right password), TooMany past the rate of an address or the failures of an account.
        """
        core, settings = self._core, self._core.settings
        email = fields.address(email)
        core.attempts.count("log-in from", actor.address, settings["auth.logins_per_minute"], 60)
        # Counted before the password is looked at: guesses sent at the same time cannot all pass the check.
        core.attempts.count("log-in", email, settings["auth.lockout_failures"], settings["auth.lockout_time"])
        row = core.store.one("SELECT id, password, status FROM users WHERE email = :email", email=email)
        if not core.passwords.matches(password, row["password"] if row else None) or row is None:
            raise Unauthorized(WRONG)
        core.attempts.forget("log-in", email)
        if row["status"] in NOT_YET:
            raise Forbidden(NOT_YET[row["status"]])
        return self._start(row, actor, settings["auth.remember_lifetime" if remember else "auth.token_lifetime"])

    def _start(self, row: Row, actor: Actor, lifetime: float) -> str:
        now, user = self._core.clock(), row["id"]
        id = secrets.token_hex(16)
        with self._core.store.write() as store:
            # The hash took its time: a password that was changed meanwhile has ended all sessions, and must not begin one.
            if store.value("SELECT password FROM users WHERE id = :user", user=user) != row["password"]:
                raise Unauthorized(WRONG)
            store.insert("sessions", id=id, user_id=user, created_at=now, expires_at=now + lifetime, address=actor.address)
        claims = {"sub": str(user), "jti": id, "iat": int(now), "exp": int(now + lifetime)}
        return jwt.encode(claims, self._core.secret, ALGORITHM)

    def actor(self, token: str, address: str | None = None) -> Actor:
        """Who sends this token. Raises Unauthorized when it is not (any more) good."""
        try:
            # The row's time decides, by the one clock of the core; the claim `exp` is for the client.
            claims = jwt.decode(token, self._core.secret, [ALGORITHM], options={"verify_exp": False, "verify_iat": False})
            session, user = str(claims["jti"]), int(claims["sub"])
        except (jwt.InvalidTokenError, KeyError, ValueError):
            raise Unauthorized("please log in (again): the token is not valid") from None
        email = self._core.store.value(
            "SELECT u.email FROM sessions s JOIN users u ON u.id = s.user_id "
            "WHERE s.id = :session AND u.id = :user AND s.expires_at > :now AND u.status = 'approved'",
            session=session,
            user=user,
            now=self._core.clock(),
        )
        if email is None:
            raise Unauthorized("please log in (again): the session has ended")
        return Actor("user", user, session, address, email)

    @permits("session.log_out")
    def log_out(self, actor: Actor) -> None:
        """End the session that is asking."""
        self._core.store.execute("DELETE FROM sessions WHERE id = :id", id=actor.session)

    def end_all(self, user: int, keep: str | None = None) -> None:
        """End all sessions of a user, but for the one to `keep`."""
        self._core.store.execute("DELETE FROM sessions WHERE user_id = :user AND id <> :keep", user=user, keep=keep or "")
