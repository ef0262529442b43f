"""What the access log says of a request: never a query, a body or a token."""

import re
from typing import Any

LINE = re.compile(r"([A-Z-]{1,20}) ([^ ?#]*)")
MOST_PATH = 200  # characters, as they are written: who knocks without an account must not fill the disk with what is asked for


def facts(connection: Any, line: str, status: int, count: int, begin: float, seconds: float, request_id: str) -> dict:
    """The facts of one answered request: `line` is the first line as sent, `begin` is in seconds since 1970."""
    match = LINE.match(line)
    return {
        "time": begin,
        "listener": connection.listener.name,
        "address": connection.remote_addr,
        "uid": connection.uid,
        "method": match[1] if match else "-",
        "path": escaped(match[2]) if match else "-",
        "status": status,
        "bytes": count,
        "milliseconds": round(seconds * 1000, 1),
        "request_id": request_id,
    }


def escaped(path: str) -> str:
    """A path in printable ASCII: one line stays one line, and a terminal shows what was sent."""
    return path[:MOST_PATH].encode("unicode_escape").decode("ascii").replace('"', "\\x22")[:MOST_PATH]
