"""How the text of a setting becomes its value: one function per type; each raises ValueError with the reason."""

import os
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

Listen = tuple[str, int]

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LONGEST = 100 * 365 * 86400  # seconds; times stay far below what dates and the database can hold
LARGEST = 2**62  # fits a signed 64-bit column
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SOCKET_PATH = 107  # bytes: sun_path in unix(7) is 108 with its final NUL


def text(value: str) -> str:
    """One line of printable text, as it stands."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is not UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"{value!r} has a control character")
    return value


def secret(value: str) -> str:
    """Text that is never shown."""
    return text(value)


def path(value: str) -> str:
    """An absolute path; a relative one is taken from the folder in which ippd was started; empty stays empty."""
    return os.path.abspath(text(value)) if value else ""


def socket_path(value: str) -> str:
    """The path of a unix socket, which the kernel limits to 107 bytes."""
    made = path(value)
    if len(os.fsencode(made)) > SOCKET_PATH:
        raise ValueError(f"{value!r} is longer than the {SOCKET_PATH} bytes a socket's path can have")
    return made


def log_target(value: str) -> str:
    """A path, empty for the usual place, or `none`."""
    return value if value == "none" else path(value)


def between(low: int, high: int = LARGEST) -> Callable[[str], int]:
    """A whole number from low to high, both included."""

    def integer(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", value):
            raise ValueError(f"{value!r} is not a whole number")
        if not low <= int(value) <= high:
            limits = f"less than {low}" if high == LARGEST else f"not between {low} and {high}"
            raise ValueError(f"{value!r} is {limits}")
        return int(value)

    return integer


def seconds(value: str) -> float:
    """A time: 10, 10s, 10m, 24h or 7d; the value is in seconds."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([smhd]?)", value)
    if not match:
        raise ValueError(f"{value!r} is not a time such as 10s, 5m, 24h or 7d")
    amount = float(match[1]) * SECONDS[match[2]]
    if amount > LONGEST:
        raise ValueError(f"{value!r} is longer than 100 years")
    return amount


def some_seconds(value: str) -> float:
    """A time that is more than nothing; the value is in seconds."""
    amount = seconds(value)
    if not amount:
        raise ValueError(f"{value!r} is no time at all")
    return amount


def between_seconds(low: float, high: float) -> Callable[[str], float]:
    """A time from low to high seconds, both included; the value is in seconds."""

    def some(value: str) -> float:
        amount = seconds(value)
        if not low <= amount <= high:
            raise ValueError(f"{value!r} is not between {low:g} and {high:g} seconds")
        return amount

    return some


def boolean(value: str) -> bool:
    """Yes or no."""
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    if value.lower() not in words:
        raise ValueError(f"{value!r} is neither yes nor no")
    return words[value.lower()]


def size(value: str) -> int:
    """A size: 100, 64KB, 1.5MB, 5GB or 2TB, in multiples of 1024; the value is in bytes."""
    match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,6})?) ?(?:([KMGT])i?)?B?", value, re.IGNORECASE)
    if not match or ("." in match[1] and not match[2]):
        raise ValueError(f"{value!r} is not a size such as 64KB, 10MB or 5GB")
    unit = SIZES[(match[2] or "").upper()]
    amount = int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    if amount > LARGEST:
        raise ValueError(f"{value!r} is too large")
    return amount


def some_bytes(value: str) -> int:
    """A size that is more than nothing; the value is in bytes."""
    amount = size(value)
    if not amount:
        raise ValueError(f"{value!r} leaves no room at all")
    return amount


def port(value: str) -> int:
    """A TCP port, 0 to 65535 (0: any free one)."""
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65535:
        raise ValueError(f"{value!r} is not a port")
    return int(value)


def listen(value: str) -> Listen:
    """An address and a port, 0.0.0.0:8443 or [::1]:8080; the value is (address, port)."""
    host, colon, number = value.rpartition(":")
    made = port(number)
    if not colon:
        raise ValueError(f"{value!r} has no address; write 0.0.0.0:{value} or 127.0.0.1:{value}")
    bare = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        found = ip_address(bare)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None
    if (found.version == 6) != (host == f"[{bare}]"):
        raise ValueError(f"{host!r} is not an IP address; write 127.0.0.1 or [::1]")
    return bare, made


def listens(value: str) -> tuple[Listen, ...]:
    """Addresses with ports, separated by blanks."""
    found: list[Listen] = []
    for word in value.split():
        made = listen(word)
        if made in found and made[1]:
            raise ValueError(f"{word!r} is there twice")
        found.append(made)
    return tuple(found)


def local_listens(value: str) -> tuple[Listen, ...]:
    """Loopback addresses with ports, separated by blanks."""
    found = listens(value)
    for host, _ in found:
        if not any(ip_address(host) in network for network in LOOPBACK):
            raise ValueError(f"{host!r} is not a loopback address (127.0.0.1 or [::1])")
    return found


def words(value: str) -> tuple[str, ...]:
    """Words separated by blanks or commas."""
    return tuple(text(word) for word in re.split(r"[\s,]+", value) if word)


def choice(*allowed: str) -> Callable[[str], str]:
    """One of a few words."""

    def chosen(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return chosen


def host(value: str) -> str:
    """The name or address of a host; may be empty."""
    if value and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?|[0-9A-Fa-f:.]{2,45}", value):
        raise ValueError(f"{value!r} is not the name of a host")
    if value and not all(0 < len(label) < 64 for label in value.removesuffix(".").split(".")):
        raise ValueError(f"{value!r} is not the name of a host: between its dots are 1 to 63 letters")
    return value


def url(value: str) -> str:
    """An http or https address without a query; may be empty; a slash at the end is dropped."""
    if not value:
        return ""
    try:
        parts = urlsplit(text(value))
        number = parts.port
    except ValueError:
        raise ValueError(f"{value!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or number == 0 or re.search(r"\s", value):
        raise ValueError(f"{value!r} is not a URL (https://host/...)")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{value!r} must not have a user, a query or a fragment")
    return value.rstrip("/")


def server_url(value: str) -> str:
    """An http or https address, or unix:/path of a socket."""
    if not value.startswith("unix:"):
        return url(value)
    if not os.path.isabs(value.removeprefix("unix:")):
        raise ValueError(f"{value!r} has no absolute path (unix:/path)")
    return f"unix:{socket_path(value.removeprefix('unix:'))}"


def email(value: str) -> str:
    """One e-mail address; may be empty."""
    if value and not re.fullmatch(r"[^@\s<>,;\"]{1,64}@[^@\s<>,;\"]{1,255}", text(value)):
        raise ValueError(f"{value!r} is not an e-mail address")
    return value


Type = Callable[[str], Any]
