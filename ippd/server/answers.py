"""Answers that the server itself makes: one JSON object with a sentence."""

import json
import time
from email.utils import formatdate
from http import HTTPStatus

from ippd.server.head import Fault

SAFE = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]


def status_line(status: int) -> str:
    """The code with its phrase, as 404 Not Found."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Error"


def error(fault: Fault, request_id: str, further: list[tuple[str, str]], retry_after: float | None = None,
          bodyless: bool = False) -> tuple[bytes, int]:
    """A whole answer, after which the connection is closed, and the length of its body in bytes."""
    body = b"" if bodyless else json.dumps({"error": fault.sentence}).encode("ascii")
    fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("Date", http_date()),
        ("Server", "ippd"),
        ("X-Request-Id", request_id),
        *SAFE,
        *further,
    ]
    if retry_after is not None:
        fields.append(("Retry-After", str(max(1, round(retry_after)))))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status_line(fault.status)}\r\n{head}\r\n".encode("latin-1") + body, len(body)


def http_date() -> str:
    """Now, as in the header field Date (RFC 9110, 5.6.7)."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = second, formatdate(second, usegmt=True)
    return _date[1]


_date = (0, "")  # made once a second: it is in each answer
