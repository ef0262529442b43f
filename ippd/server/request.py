"""One request in a thread: from its head in memory to its answer."""

import itertools
import logging
import secrets
import time
from typing import TYPE_CHECKING

from cheroot.server import HTTPRequest

from ippd.errors import IppdError
from ippd.server import answers, head
from ippd.server.bodies import Body, ChunkedBody, Source
from ippd.server.connection import GONE, Connection
from ippd.server.head import Fault
from ippd.server.output import Output
from ippd.server.pool import Pool, Slow

if TYPE_CHECKING:
    from ippd.server.listener import Listener

log = logging.getLogger(__name__)


class Ids:
    """Ids of requests: no two are the same, whichever process gave them. To be made after the fork."""

    def __init__(self) -> None:
        self._prefix, self._counter = secrets.token_hex(5), itertools.count(1)

    def next(self) -> str:
        """A new id, of letters and digits."""
        return f"{self._prefix}{next(self._counter):x}"


class Request(HTTPRequest):
    """cheroot's request, given its head instead of waiting for it; never reads what the app has not read."""

    def __init__(self, listener: "Listener", connection: Connection, pool: Pool, id: str) -> None:
        super().__init__(listener, connection)
        self.id = id
        self.time, self._begin = time.time(), time.monotonic()
        self.slow = Slow(pool, "" if listener.local else connection.client)
        self.output = connection.wfile = Output(connection)
        self.line = connection.first_line()
        self.bytes_out = 0
        self.bodyless = False
        self.method, self.rfile = b"", None

    @property
    def seconds(self) -> float:
        """How long the request has taken so far."""
        return time.monotonic() - self._begin

    def run(self) -> int:
        """Let the app answer, or answer that it could not. Returns what the connection wants next, like its step()."""
        try:
            self._parse(self.conn.take_head())
            self.server.gateway(self).respond()
            if self.chunked_write:
                self.output.write(b"0\r\n\r\n")
            answer = self.output.take()
        except Exception as error:
            found = self._failure(error)
            if found is None:
                self.conn.abort()
                return GONE
            answer = found
        finally:
            if self.rfile is not None:
                self.rfile.close()
        self.conn.closing, self.conn.wfile = self.close_connection, None
        return self.conn.send(answer)

    def send_headers(self) -> None:
        """Write the head of the answer; decides whether the connection can be used again."""
        self.bodyless = self.method == b"HEAD" or self.status[:3] in (b"204", b"304")
        if not self.rfile.finished:
            self.close_connection = True  # what is left of the body would be taken for the next request
        told = any(name.lower() == b"connection" and b"close" in value.lower() for name, value in self.outheaders)
        if not told and self.close_connection:
            self.outheaders.append((b"Connection", b"close"))
        self.close_connection = self.close_connection or told
        self.outheaders += [
            (b"Date", answers.http_date().encode("ascii")),
            (b"Server", b"ippd"),
            (b"X-Request-Id", self.id.encode("ascii")),
        ]
        super().send_headers()

    def _parse(self, taken: bytes) -> None:
        """Understand the head. Raises Fault."""
        line, *lines = taken.removesuffix(b"\r\n\r\n").split(b"\r\n")  # a bare LF stays in: the line is then malformed
        self.method, self.uri, version = head.read_line(line)
        self.request_protocol, self.response_protocol = version.encode("ascii"), version
        self.inheaders = head.read_fields(lines)
        length = head.framing(self.inheaders, version)
        host, self.path, self.qs = head.read_target(self.method, self.uri)
        if host is not None:
            self.inheaders[b"Host"] = host
        tokens = [token.strip() for token in self.inheaders.get(b"Connection", b"").lower().split(b",")]
        self.close_connection = b"close" in tokens or (version == "HTTP/1.0" and b"keep-alive" not in tokens)
        expects = version == "HTTP/1.1" and self.inheaders.get(b"Expect", b"").lower() == b"100-continue"
        source = Source(self.conn, self.slow, expects)
        self.chunked_read = length is None
        self.rfile = ChunkedBody(source) if length is None else Body(source, length)

    def _failure(self, error: Exception) -> bytes | None:
        """The answer to a request that could not be answered; None when it is too late for one."""
        retry_after = None
        if isinstance(error, Fault):
            fault = error
        elif isinstance(error, IppdError):
            fault, retry_after = Fault(error.status, error.sentence), getattr(error, "retry_after", None)
        elif isinstance(error, TimeoutError) and self._in_body:
            fault = Fault(408, "The body of the request took too long to arrive.")
        elif isinstance(error, ValueError) and self._in_body:
            fault = Fault(400, f"The body of the request is malformed: {error}.")
        else:
            gone = isinstance(error, (ConnectionError, TimeoutError))
            log.log(logging.DEBUG if gone else logging.ERROR, "request %s failed", self.id, exc_info=error)
            fault = Fault(500, "Something went wrong here.")
            if isinstance(error, ConnectionError):
                self.status = self.status or b"499"  # as others write it in their logs: the client has gone
                return None
        if self.output.pushed:
            return None
        self.status, self.close_connection = answers.status_line(fault.status).encode("ascii"), True
        origin = self.inheaders.get(b"Origin")
        further = self.server.headers(origin.decode("latin-1") if origin else None)
        answer, self.bytes_out = answers.error(fault, self.id, further, retry_after, self.method == b"HEAD")
        return answer

    @property
    def _in_body(self) -> bool:
        return isinstance(self.rfile, Body) and self.rfile.failed
