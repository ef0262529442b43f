"""The fields of the nouns, declared once: what is asked for, what is allowed, and the sentence when it is not."""

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load, validate

from ippd.errors import Invalid

PASSWORD_BYTES = (8, 72)  # bcrypt uses no more than 72 bytes; more would be a false promise
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def _password(value: str) -> None:
    shortest, longest = PASSWORD_BYTES
    size = len(value.encode("utf-8", "surrogatepass"))
    if size < shortest:
        raise ValidationError(f"a password needs at least {shortest} bytes")
    if size > longest:
        raise ValidationError(f"a password may have at most {longest} bytes (bcrypt would ignore the rest)")
    if "\0" in value:
        raise ValidationError("a password may not hold a NUL character")


def _word(value: str) -> None:
    if value and not WORD.fullmatch(value):
        raise ValidationError("only letters, digits, '_', '-' and '.' (and no leading '-' or '.')")


def one_line(text: str) -> str:
    """Text with every control character and line break as a blank, and no blanks around it."""
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text).split())


class _Fields(Schema):
    class Meta:
        unknown = EXCLUDE


class Line(fields.String):
    """A text without line breaks or control characters (they become blanks)."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return one_line(super()._deserialize(value, attr, data, **kwargs))  # type: ignore[arg-type]


class SignUp(_Fields):
    """What a new account needs."""

    email = fields.Email(required=True, validate=validate.Length(max=254), error_messages={"invalid": "this is not an e-mail address"})
    password = fields.String(required=True, validate=_password)

    @pre_load
    def _lower(self, data: Any, **_: Any) -> Any:
        return data | {"email": address(data.get("email") or "")}


class Password(_Fields):
    """A new password."""

    password = fields.String(required=True, validate=_password)


class UserSetting(_Fields):
    """One entry of a user's profile."""

    name = fields.String(required=True, validate=[validate.Length(1, 64), _word])
    value = fields.String(required=True, validate=validate.Length(max=4096))


class GroupName(_Fields):
    """A group."""

    name = Line(required=True, validate=validate.Length(1, 64))


class Experiment(_Fields):
    """The facts of a submission besides its parameters and files."""

    app = fields.String(required=True, validate=[validate.Length(1, 128), _word])
    name = Line(load_default="", validate=validate.Length(max=255))
    description = fields.String(load_default="", validate=validate.Length(max=10000))
    host = fields.String(load_default="", validate=[validate.Length(max=128), _word])
    label = Line(load_default=None, allow_none=True, validate=validate.Length(max=255))


class Failure(_Fields):
    """What a script reports of a failed experiment."""

    exit_code = fields.Integer(load_default=None, allow_none=True, validate=validate.Range(-(2**31), 2**31 - 1))
    message = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=10000))


class Run(_Fields):
    """How a submission asks to be run."""

    priority = fields.Integer(load_default=0)
    parents = fields.String(load_default="", validate=validate.Length(max=1000))
    time_limit = fields.Float(load_default=None, allow_none=True, validate=validate.Range(1, 10 * 365 * 86400))
    restarts = fields.Integer(load_default=None, allow_none=True, validate=validate.Range(0, 100))


class Usage(_Fields):
    """What a worker knows of a job: the engine, its id there, the node, start and end (seconds since 1970), CPU seconds, bytes."""

    engine = Line(load_default=None, allow_none=True, validate=validate.Length(max=64))
    job = Line(load_default=None, allow_none=True, validate=validate.Length(max=128))
    node = Line(load_default=None, allow_none=True, validate=validate.Length(max=255))
    started_at = fields.Float(load_default=None, allow_none=True)
    ended_at = fields.Float(load_default=None, allow_none=True)
    cpu_seconds = fields.Float(load_default=None, allow_none=True, validate=validate.Range(0))
    peak_bytes = fields.Integer(load_default=None, allow_none=True, validate=validate.Range(0, 2**62))


class Lease(_Fields):
    """What a worker asks for: its name, for how many seconds, and how many experiments at most."""

    worker = Line(required=True, validate=validate.Length(1, 128))
    seconds = fields.Float(required=True, validate=validate.Range(5, 86400))
    limit = fields.Integer(required=True, validate=validate.Range(1, 1000))


class Message(_Fields):
    """What a script wants to tell somebody."""

    email = fields.Email(required=True, validate=validate.Length(max=254), error_messages={"invalid": "this is not an e-mail address"})
    message = fields.String(required=True, validate=validate.Length(1, 10000))

    @pre_load
    def _lower(self, data: Any, **_: Any) -> Any:
        return data | {"email": address(data.get("email") or "")}


def check(noun: type[Schema], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a noun, checked and cleaned; unknown names are dropped. Raises Invalid with a sentence per field."""
    try:
        return dict(noun().load(dict(data)))
    except ValidationError as error:
        raise Invalid(fields={str(name): [str(s) for s in sentences] for name, sentences in error.normalized_messages().items()}) from None


def address(email: str) -> str:
    """The form in which an e-mail address is kept and compared: NFC, lower case, no blanks around it."""
    return unicodedata.normalize("NFC", email.strip()).lower()


def network(address: str) -> str:
    """What one client has of the network: an IPv4 address, or the whole /64 of an IPv6 one; any other text as it is."""
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))


def whole_number(text: Any, what: str, least: int = 0, most: int = 2**53) -> int:
    """An integer out of a text of ASCII digits. Raises Invalid naming `what`."""
    if isinstance(text, int) and not isinstance(text, bool) and least <= text <= most:
        return text
    if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 17 and least <= int(text) <= most:
        return int(text)
    raise Invalid(fields={what: [f"this must be a whole number from {least} to {most}"]})


def integer(value: Any, what: str, least: int, most: int) -> int:
    """An integer, also a negative one, out of a text or number. Raises Invalid naming `what`."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,17}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise Invalid(fields={what: [f"this must be a whole number from {least} to {most}"]})
