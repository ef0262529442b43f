"""What a handler can answer: JSON, a page, a redirect or nothing; files and zips stand in modules of their own."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import quote

PIECE = 1 << 20  # bytes of a long list that are sent at once

# json.dumps would make a new encoder for each call, as the separators are not the default ones.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Answer:
    """A status, headers that win over the common ones, and a body: bytes, or an iterable of bytes with an optional `close`."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: Mapping[str, str] | None = None, body: bytes | Iterable[bytes] = b"") -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        if isinstance(body, bytes):
            self.headers.setdefault("Content-Length", str(len(body)))

    def close(self) -> None:
        """Give back what the body holds (an open file) when it is not going to be sent."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """The value as compact JSON, in ASCII: no reader can take its encoding wrong. Nobody on the way may keep it."""
    return Answer(status, {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}, _encode(value).encode())


def json_text(value: Any) -> str:
    """The value as compact JSON, as `json_answer` writes it."""
    return _encode(value)


def list_answer(name: str, texts: Iterable[str]) -> Answer:
    """{name: [...]} of items that are JSON text already; a long list is sent while it is made."""
    pieces = _pieces(name, texts)
    body, further = next(pieces), next(pieces, None)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Answer(200, headers, body if further is None else chain((body, further), pieces))


def _pieces(name: str, texts: Iterable[str]) -> Iterator[bytes]:
    held, size, before = [f'{{"{name}":['], 0, ""
    for text in texts:
        held += (before, text)
        size, before = size + len(text), ","
        if size >= PIECE:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join([*held, "]}"]).encode()


def page(html: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A page of HTML that loads styles and pictures from its own host only, runs no script and posts forms only there."""
    policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    common = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Content-Security-Policy": policy}
    return Answer(status, common | dict(headers or {}), html.encode())


def redirect(path: str) -> Answer:
    """Go to a path of this host with GET (302, as clients of forms expect it). Raises ValueError for anything but a path."""
    if not path.startswith("/") or path.startswith("//") or "\\" in path:
        raise ValueError(f"{path!r} is not a path of this host")
    return Answer(302, {"Location": quote(path, safe="/?&=%#+,;:@"), "Cache-Control": "no-store"})


def attachment(name: str) -> str:
    """A Content-Disposition that saves under this name, in any script (RFC 6266, with the older form for older clients)."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
