"""What can go wrong, as classes: each has a stable code, an HTTP status and a sentence for the person."""

from collections.abc import Iterable, Mapping


class IppdError(Exception):
    """An expected failure. `str(error)` is the sentence; `code` never changes; `status` is the HTTP status."""

    code = "error"
    status = 500
    sentence = "Something went wrong here."

    def __init__(self, sentence: str | None = None) -> None:
        """Takes the sentence for the person; without one the sentence of the class is used."""
        self.sentence = sentence or type(self).sentence
        super().__init__(self.sentence)


class Invalid(IppdError):
    """The request cannot be understood or has a bad value; `fields` says which field and why: {name: [sentence]}."""

    code = "invalid"
    status = 400
    sentence = "The request is not valid."

    def __init__(self, sentence: str | None = None, fields: Mapping[str, Iterable[str]] | None = None) -> None:
        """Takes a sentence, or only the fields, whose sentences are then joined."""
        self.fields = {name: list(sentences) for name, sentences in (fields or {}).items()}
        if sentence is None and self.fields:
            sentence = "; ".join(f"{name}: {', '.join(sentences)}" for name, sentences in self.fields.items())
        super().__init__(sentence)


class Unauthorized(IppdError):
    """Nobody is logged in, or the password or token is not good."""

    code = "unauthorized"
    status = 401
    sentence = "Please log in."


class Forbidden(IppdError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403
    sentence = "You may not do this."


class NotFound(IppdError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"
    status = 404
    sentence = "There is nothing here."


class MethodNotAllowed(IppdError):
    """The path exists, for other methods: `allowed` names them (the Allow header of RFC 9110, 15.5.6)."""

    code = "method_not_allowed"
    status = 405
    sentence = "This path does not take this method."

    def __init__(self, sentence: str | None = None, allowed: Iterable[str] = ()) -> None:
        """Takes a sentence and the methods that the path does take."""
        self.allowed = tuple(allowed)
        super().__init__(sentence)


class TimedOut(IppdError):
    """The body of the request came too slowly (RFC 9110, 15.5.9)."""

    code = "timed_out"
    status = 408
    sentence = "The request took too long to arrive."


class Conflict(IppdError):
    """The thing is not in a state in which this can be done."""

    code = "conflict"
    status = 409
    sentence = "This cannot be done in the present state."


class TooLarge(IppdError):
    """The body, a field or a file is larger than allowed."""

    code = "too_large"
    status = 413
    sentence = "This is larger than allowed."


class UnsupportedMedia(IppdError):
    """The body has a type that is not read here."""

    code = "unsupported_media"
    status = 415
    sentence = "A body of this type is not read here."


class BadRange(IppdError):
    """A Range that lies outside the file: `length` is the file's size in bytes (RFC 9110, 15.5.17)."""

    code = "bad_range"
    status = 416
    sentence = "The range lies outside the file."

    def __init__(self, sentence: str | None = None, length: int | None = None) -> None:
        """Takes a sentence and the size of the file in bytes."""
        self.length = length
        super().__init__(sentence)


class Misdirected(IppdError):
    """The Host header names a host that this listener does not serve."""

    code = "misdirected"
    status = 421
    sentence = "This listener does not serve that host name."


class _Later(IppdError):
    """Something that can be tried again: `retry_after` is in seconds, or None."""

    def __init__(self, sentence: str | None = None, retry_after: float | None = None) -> None:
        """Takes a sentence and the seconds after which to try again."""
        self.retry_after = retry_after
        super().__init__(sentence)


class TooMany(_Later):
    """A rate limit was reached."""

    code = "too_many"
    status = 429
    sentence = "Too many attempts. Please wait."


class Unavailable(_Later):
    """The daemon cannot do it now: it is starting, stopping or busy."""

    code = "unavailable"
    status = 503
    sentence = "The service is busy. Please try again."


class NoSpace(IppdError):
    """The disk or the quota is full."""

    code = "no_space"
    status = 507
    sentence = "There is no space left for this."


class SettingsError(IppdError):
    """Settings, or files that they name, are not good: `problems` is a list of sentences; the text has one per line."""

    code = "settings"
    status = 500
    sentence = "The settings are not valid."

    def __init__(self, problems: str | Iterable[str] | None = None) -> None:
        """Takes one sentence or several."""
        self.problems = [problems] if isinstance(problems, str) else list(problems or ())
        super().__init__("\n".join(self.problems) or None)


ERRORS: dict[str, type[IppdError]] = {
    error.code: error
    for error in (
        IppdError, Invalid, Unauthorized, Forbidden, NotFound, MethodNotAllowed, TimedOut, Conflict, TooLarge,
        UnsupportedMedia, BadRange, Misdirected, TooMany, Unavailable, NoSpace, SettingsError,
    )
}
