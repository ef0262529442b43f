"""Files as answers: whole, in part (Range) or not at all (If-None-Match), as RFC 9110 says; and zips made while they are sent."""

import os
import re
from collections.abc import Iterable, Iterator
from io import FileIO
from typing import TYPE_CHECKING, Any

from zipstream import ZIP_STORED, ZipStream

from ippd.errors import BadRange, NotFound
from ippd.http.answers import Answer, attachment

if TYPE_CHECKING:
    from ippd.http.request import Request

PIECE = 256 << 10  # bytes read and sent at once: more is no faster, and each download holds one
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.ASCII | re.IGNORECASE)


class FileBody:
    """Bytes `start` to `stop` of an open file, in pieces. Raises OSError when the file has become shorter."""

    def __init__(self, file: FileIO, start: int, stop: int) -> None:
        self._file, self._start, self._stop = file, start, stop

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = self._stop - self._start
        while left:
            piece = self._file.read(min(PIECE, left))
            if not piece:
                raise OSError(f"{left} bytes are missing at the end of a stored file")
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def file_answer(request: "Request", stored: Any, content_type: str = "application/octet-stream") -> Answer:
    """A stored file (path, name, size in bytes, sha256) as a download. Raises NotFound when its bytes are gone, BadRange (416)."""
    etag = f'"{stored.sha256}"'
    headers = {
        "Content-Type": content_type,
        "Content-Disposition": attachment(stored.name),
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",  # a new upload may replace it: ask again, with the ETag
    }
    if matches(request.header("If-None-Match"), etag):
        return Answer(304, headers)
    part = _asked_part(request, etag, stored.size)
    start, stop = part or (0, stored.size)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    try:
        file = FileIO(stored.path)
    except FileNotFoundError:
        raise NotFound("this file has been removed") from None
    if os.fstat(file.fileno()).st_size < stop:
        file.close()
        raise OSError(f"the stored file of {stored.name!r} is shorter than it was")
    return Answer(206 if part else 200, headers, FileBody(file, start, stop))


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this ETag (weak comparison, RFC 9110, 13.1.2)."""
    return header is not None and (header.strip() == "*" or etag in re.findall(r'"[^"]*"', header))


def _asked_part(request: "Request", etag: str, size: int) -> tuple[int, int] | None:
    """The first byte asked for and the one after the last, or None: the whole file. Raises BadRange.

    A Range of another unit, a broken one or several at once is ignored, as RFC 9110, 14.2 allows.
    """
    match = RANGE.fullmatch((request.header("Range") or "").replace(" ", ""))
    # If-Range holds one strong ETag; a date or another ETag means: the file is not the one that was begun (13.1.5).
    if match is None or request.method != "GET" or (request.header("If-Range") or etag).strip() != etag:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    if start >= stop:
        raise BadRange(length=size)
    return start, stop


def zip_answer(name: str, files: Iterable[Any]) -> Answer:
    """A zip of stored files under their names, made while it is sent: not compressed, as images are already; zip64 where needed.

    The length is announced, so a client sees when it did not get all. Raises NotFound when the bytes of a file are gone.
    """
    stream = ZipStream(compress_type=ZIP_STORED, sized=True)
    for stored in files:
        if not os.path.exists(stored.path):
            raise NotFound(f"the file {stored.name} has been removed")
        stream.add(_read(stored.path), stored.name, size=stored.size)
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": attachment(name),
        "Content-Length": str(len(stream)),
        "Cache-Control": "private, no-cache",
    }
    return Answer(200, headers, _gathered(stream))


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _gathered(pieces: Iterable[bytes], least: int = 64 << 10) -> Iterator[bytes]:
    """The same bytes in pieces of at least `least`: a thousand small members would be several thousand small TLS records."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
