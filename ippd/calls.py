"""Calls to a portal over HTTP: JSON, forms with files that are streamed, downloads that go on where they stopped."""

import hashlib
import http.client
import json
import os
import re
import secrets
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from ippd import dial, partfile
from ippd.errors import Invalid, IppdError, Unavailable

PIECE = 256 << 10
LARGEST = 64 << 20  # bytes of a JSON answer
UNKNOWN = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_ codes for a certificate that is self-signed, or whose issuer is not known
Progress = Callable[[int, int], None]  # bytes done, bytes altogether


class Refused(IppdError):
    """The portal answered with an error: `status` is that of the answer."""

    code = "refused"

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Unreadable(IppdError):
    """A file that was to be sent could not be read (to its end)."""

    code = "unreadable"


class Damaged(Unavailable):
    """What was brought has another checksum than the portal says."""

    code = "damaged"


class Upload(NamedTuple):
    """A file to be sent: the field, the name it gets there, where it lies, or (a piece of it) its bytes."""

    field: str
    name: str
    path: Path
    data: bytes | None = None

    @property
    def size(self) -> int:
        """In bytes. Raises OSError for a file that is not there."""
        return self.path.stat().st_size if self.data is None else len(self.data)


class Server:
    """One portal. Every method raises Unavailable when it cannot be reached (or says so itself), Refused for any other error."""

    def __init__(
        self, url: str, token: str | None = None, authority: str | None = None, timeout: float = 60.0, accounts: Iterable[str] | None = None
    ) -> None:
        """`url` is http, https or unix:/path; `authority` a file with certificates (PEM) that are trusted instead of the system's;
        `accounts` those of this host that are called without TLS (see dial), else all. Raises Invalid for an authority that is none.
        """
        parts = urlsplit(url)
        self._socket, self._accounts = url.removeprefix("unix:") if parts.scheme == "unix" else "", accounts
        self._host, self._port, self._path = parts.hostname or "localhost", parts.port, "" if self._socket else parts.path.rstrip("/")
        self._tls = dial.trusting(authority) if parts.scheme == "https" else None
        self.token, self._timeout = token, timeout
        self._kept: http.client.HTTPConnection | None = None

    def get(self, path: str, /, **query: Any) -> Any:
        """The JSON of a GET; names of the query that are None are left out."""
        return self._json(self._ask("GET", _with_query(path, query), None, {}))

    def post(self, path: str, /, **fields: Any) -> Any:
        """Post a form; returns the JSON of the answer."""
        body = urlencode({name: value for name, value in fields.items() if value is not None}).encode()
        return self._json(self._ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"}))

    def post_json(self, path: str, value: Any) -> Any:
        """Post JSON; returns the JSON of the answer."""
        return self._json(self._ask("POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"}))

    def post_form(
        self, path: str, fields: Sequence[tuple[str, str]], uploads: Sequence[Upload] = (), progress: Progress | None = None
    ) -> Any:
        """Post a form with files, which are read while they are sent; returns the JSON of the answer.

        Raises OSError for a file that is not there, Unreadable for one that fails while it is read.
        """
        boundary = secrets.token_hex(16)
        heads = [_head(boundary, name) + value.encode() + b"\r\n" for name, value in fields]
        parts = [(_head(boundary, upload.field, upload.name), upload, upload.size) for upload in uploads]
        end = f"--{boundary}--\r\n".encode()
        length = sum(map(len, heads)) + sum(len(head) + size + 2 for head, _, size in parts) + len(end)

        def body() -> Iterator[bytes]:
            done, total = 0, sum(size for _, _, size in parts)
            yield b"".join(heads)
            for head, upload, size in parts:
                yield head
                for piece in _read(upload.path, size) if upload.data is None else [upload.data]:
                    done += len(piece)
                    yield piece
                    if progress:
                        progress(done, total)
                yield b"\r\n"
            yield end

        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
        return self._json(self._ask("POST", path, body, headers))

    def stream(self, path: str, /, **query: Any) -> Iterator[bytes]:
        """The bytes of a GET as they come."""
        answer = self._ask("GET", _with_query(path, query), None, {})
        try:
            while piece := answer.read1(PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the connection broke: {error}") from None
        finally:
            self.close()

    def download(self, path: str, target: Path, progress: Progress | None = None, keep: bool = False, /, **query: Any) -> str:
        """Bring the bytes of a GET to `target`, going on after what `target`.part has of them; returns their SHA-256 in hexadecimal.

        The file appears under its name only when it is whole and has the checksum that the portal names (its ETag). One that is there
        with this checksum is left as it is; with `keep`, one with another is Invalid instead of replaced. Nothing goes through a link.
        """
        part = target.with_name(target.name + ".part")
        there = _sha256(target) if target.is_file() else ""
        other = target if keep and os.path.lexists(target) else None
        if keep:
            partfile.check_own(part)
        etag = self._fetch(_with_query(path, query), part, progress, there, other)
        if etag == there != "":
            return there
        found = _sha256(part)
        if etag and found != etag and re.fullmatch("[0-9a-f]{64}", etag):
            part.unlink()
            partfile.etag_file(part).unlink(missing_ok=True)
            raise Damaged(f"{target.name} has another checksum than the portal says: it was removed, please try again")
        os.replace(part, target)
        partfile.etag_file(part).unlink(missing_ok=True)  # last: a .part without it is not ours
        return found

    def _fetch(self, path: str, part: Path, progress: Progress | None, there: str, other: Path | None) -> str:
        """Bring `part` and return its ETag; `there` when this is the checksum. Raises Invalid when it is not and `other` is in the way."""
        have, etag = partfile.begun(part)
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{etag}"'} if have and etag else {}
        headers |= {"If-None-Match": f'"{there}"'} if there else {}
        try:
            answer = self._ask("GET", path, None, headers)
        except Refused as refused:
            if refused.status != 416 or not have or other:  # all of it was there already
                raise
            return etag
        if there and answer.status == 304:
            answer.read()
            return there
        etag = (answer.getheader("ETag") or "").strip('"')
        if other:
            self.close()
            if there and etag == there:
                return there
            raise Invalid(f"{other} is there already and is another file: move it away, or name another folder (--to)")
        if answer.status != 206:
            have = 0
        total = have + (answer.length or 0)
        try:
            with partfile.opened(part, etag, bool(have)) as file:
                while piece := answer.read(PIECE):
                    have += file.write(piece)
                    if progress:
                        progress(have, total)
        except http.client.HTTPException as error:
            self.close()
            raise Unavailable(f"the connection broke after {have} of {total} bytes: {error}") from None
        if have < total:
            self.close()
            raise Unavailable(f"the connection broke after {have} of {total} bytes")
        return etag

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self.token:
            headers = headers | {"Authorization": f"Bearer {self.token}"}
        for last in (False, True):
            kept = self._kept is not None
            connection = self._kept = self._kept or self._connect()
            try:
                answer = self._answer(connection, method, self._path + path, body() if callable(body) else body, headers)
                break
            except Unreadable:  # the portal waits for the rest, which will not come
                self.close()
                raise
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection may have been closed by the other side meanwhile: once more with a new one.
                if last or not kept or isinstance(error, TimeoutError):
                    raise Unavailable(_unreachable(self._socket or f"{self._host}:{connection.port}", error)) from None
        if answer.status in (200, 206, 304):
            return answer
        raise self._refusal(answer)

    @staticmethod
    def _answer(
        connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, path, body, headers)
        except OSError as error:
            # Who refuses a large upload does not read it to its end: the reason may be there already.
            if connection.sock is None or isinstance(error, TimeoutError):
                raise
            with suppress(OSError, http.client.HTTPException):
                return connection.getresponse()
            raise
        return connection.getresponse()

    def _refusal(self, answer: http.client.HTTPResponse) -> IppdError:
        try:
            said = json.loads(answer.read(64 << 10))
            sentence = str(said["error"])
        except (ValueError, KeyError, TypeError, RecursionError, OSError, http.client.HTTPException):
            sentence = f"the portal answered with status {answer.status}"
        self.close()
        return Unavailable(sentence) if answer.status in (408, 429, 502, 503, 504) else Refused(sentence, answer.status)

    def _json(self, answer: http.client.HTTPResponse) -> Any:
        try:
            said = answer.read(LARGEST + 1)
            if len(said) > LARGEST:
                raise ValueError(f"it has more than {LARGEST >> 20} MB")
            return json.loads(said)
        except (ValueError, RecursionError, OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(f"the portal's answer cannot be read: {error}") from None

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return dial.Plain(self._host, self._port, self._timeout, self._socket, self._accounts)

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _unreachable(host: str, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        said = f"the certificate of {host} is not one to trust: {error.verify_message}"
        return f"{said} (if its operator has given you the certificate: --ca FILE)" if error.verify_code in UNKNOWN else said
    return f"{host} cannot be reached: {(error.strerror if isinstance(error, OSError) else '') or error or 'it closed the connection'}"


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def _head(boundary: str, field: str, name: str | None = None) -> bytes:
    names = [("name", field)] + ([("filename", name)] if name is not None else [])
    # As browsers write them (HTML, multipart/form-data encoding algorithm).
    words = "".join(f'; {word}="{_escaped(text)}"' for word, text in names)
    kind = "Content-Type: application/octet-stream\r\n" if name is not None else ""
    return f"--{boundary}\r\nContent-Disposition: form-data{words}\r\n{kind}\r\n".encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _read(path: Path, size: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while size and (piece := file.read(min(PIECE, size))):
                size -= len(piece)
                yield piece
    except OSError as error:
        raise Unreadable(f"the file {path.name} cannot be read: {error.strerror or error}") from None
    if size:
        raise Unreadable(f"the file {path.name} became shorter while it was sent")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
