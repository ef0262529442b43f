"""Heads of requests, read strictly: what two programs could understand differently is refused (RFC 9112)."""

import re
from urllib.parse import unquote_to_bytes

from ippd.server.limits import SMALL_BODY

END = re.compile(rb"\n\r?\n")  # also with bare LF, so that read_fields refuses it at once
LENGTH_HINT = re.compile(rb"\ncontent-length:[ \t]*(\d{1,6})[ \t]*\r\n", re.IGNORECASE)
NO_HINT = re.compile(rb"\n(?:expect|transfer-encoding)[ \t]*:", re.IGNORECASE)
REQUEST_LINE = re.compile(rb"([A-Z]+(?:-[A-Z]+)*) ([!-~\x80-\xff]+) HTTP/(\d\.\d)")
ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(.*)", re.IGNORECASE)
QUOTED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
LENGTH = re.compile(rb"\d{1,18}")
MOST_FIELDS = 200
SINGLE = frozenset({b"Host", b"Content-Length", b"Content-Type", b"Transfer-Encoding", b"Authorization", b"Range"})


class Fault(Exception):
    """A request that the server itself answers: the HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status, self.sentence = status, sentence
        super().__init__(sentence)


def small_body(head: bytes) -> int:
    """The announced length when the body is small and comes unasked, else 0. Only a hint: read_fields decides."""
    hint = LENGTH_HINT.search(head)
    if hint is None or NO_HINT.search(head):
        return 0
    length = int(hint[1])
    return length if length <= SMALL_BODY else 0


def read_line(line: bytes) -> tuple[bytes, bytes, str]:
    """Method, target and version of a request line. Raises Fault."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Fault(400, "The first line of the request is malformed.")
    if match[3] not in (b"1.0", b"1.1"):
        raise Fault(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    return match[1], match[2], f"HTTP/{match[3].decode()}"


def read_target(method: bytes, target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """The host that the target names (None: it names none), path and query (RFC 9112, 3.2). Raises Fault.

    The path is decoded, but for quoted slashes: they do not separate anything.
    """
    host = None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute:
        host, target = absolute[1], absolute[2]
        target = target if target.startswith(b"/") else b"/" + target
    if method == b"CONNECT" or not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise Fault(400, "The address in the first line of the request must begin with a slash.")
    if b"#" in target:
        raise Fault(400, "The address in the first line of the request has a fragment.")
    path, _, query = target.partition(b"?")
    if b"%" in path:
        path = b"%2F".join(unquote_to_bytes(piece) for piece in QUOTED_SLASH.split(path))
    return host, path, query


def read_fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """The header fields, names in Title-Case, repeated ones joined (RFC 9110, 5.3). Raises Fault.

    Fields whose name has an underscore are left out: in a WSGI environ X_Real_IP and X-Real-IP are the same.
    """
    if len(lines) > MOST_FIELDS:
        raise Fault(431, f"The request has more than {MOST_FIELDS} header fields.")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        match = FIELD.fullmatch(line)
        if match is None:
            raise Fault(400, "A header line of the request is malformed.")
        name, value = match[1].title(), match[2].rstrip(b" \t")
        if name in fields:
            if name in SINGLE:
                raise Fault(400, f"The header field {name.decode()} was sent more than once.")
            value = fields[name] + (b"; " if name == b"Cookie" else b", ") + value
        if b"_" not in name:
            fields[name] = value
    return fields


def framing(fields: dict[bytes, bytes], version: str) -> int | None:
    """The length of the body in bytes, None for a chunked one (RFC 9112, 6). Raises Fault."""
    if version == "HTTP/1.1" and b"Host" not in fields:
        raise Fault(400, "The header field Host is missing.")  # RFC 9112, 3.2
    length, coding = fields.get(b"Content-Length"), fields.get(b"Transfer-Encoding")
    if coding is not None:
        if length is not None:
            raise Fault(400, "The request has both Content-Length and Transfer-Encoding.")
        if version != "HTTP/1.1":
            raise Fault(400, "Transfer-Encoding needs HTTP/1.1.")
        if coding.lower() != b"chunked":
            raise Fault(501, "The only Transfer-Encoding understood here is chunked.")
        return None
    if length is None:
        return 0
    if not LENGTH.fullmatch(length):
        raise Fault(400, "The Content-Length is malformed.")
    return int(length)
