"""Bodies of requests, as wsgi.input: read from the connection only when the app asks."""

import re
import time
from collections.abc import Iterator

from ippd.server.connection import PIECE, Connection
from ippd.server.pace import Pace
from ippd.server.pool import Slow

BLOCK = 1 << 20  # bytes; a read without a size goes in such pieces
MOST_LINE = 4 << 10  # bytes of the line before a chunk, and of all trailer fields together
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")


class Source:
    """The bytes after the head. What is in memory already costs nothing; more makes the request a slow one."""

    def __init__(self, connection: Connection, slow: Slow, wants_continue: bool) -> None:
        self._connection, self._slow, self._wants_continue = connection, slow, wants_continue
        self.buffer = connection.buffer
        self._pace = Pace(connection.limits.body_rate, connection.limits.body_grace)
        self._waiting = False

    def into(self, view: memoryview) -> int:
        """Fill some of the view. Returns the bytes (at least 1). Raises TimeoutError, ConnectionError, Unavailable."""
        if not self.buffer:
            return self._receive(view)
        count = min(len(self.buffer), len(view))
        view[:count] = self.buffer[:count]
        del self.buffer[:count]
        return count

    def line(self) -> bytes:
        """One line with its end. Raises ValueError when it is too long, and what into() raises."""
        while (end := self.buffer.find(b"\n", 0, MOST_LINE) + 1) == 0:
            if len(self.buffer) >= MOST_LINE:
                raise ValueError("a line between chunks is too long")
            piece = bytearray(PIECE)
            self.buffer += piece[: self._receive(memoryview(piece))]
        taken = bytes(self.buffer[:end])
        del self.buffer[:end]
        return taken

    def end(self) -> None:
        """Nothing more is read: the request is a short one again."""
        if self._waiting:
            self._waiting = False
            self._connection.sock.setblocking(False)
            self._slow.__exit__()

    def _begin(self) -> None:
        self._slow.__enter__()
        self._waiting = True
        self._connection.sock.settimeout(self._pace.grace)
        if self._wants_continue:
            self._connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110, 10.1.1

    def _receive(self, view: memoryview) -> int:
        try:
            if not self._waiting:
                self._begin()
            begin = time.monotonic()
            count = self._connection.sock.recv_into(view)
        except TimeoutError:
            raise TimeoutError("the client has sent nothing for too long") from None
        except OSError as error:  # ssl.SSLError is one
            raise ConnectionResetError(f"the client has gone: {error}") from None
        self._pace.add(time.monotonic() - begin, count)
        if not count:
            raise ConnectionResetError("the client has gone")
        return count


class Body:
    """wsgi.input for a body of known length: read() waits until it has as much as was asked for, or the body ends.

    Raises TimeoutError when it comes too slowly, ConnectionError when the client has gone, ValueError when the chunks
    of a chunked one are malformed, Unavailable when there is no thread left to wait for it.
    """

    def __init__(self, source: Source, length: int) -> None:
        self._source, self._left, self.failed = source, length, False  # `failed`: it cannot be read to the end

    @property
    def finished(self) -> bool:
        """Whether nothing of the body is left on the connection."""
        if not self.failed and 0 < self._left <= len(self._source.buffer):
            del self._source.buffer[: self._left]
            self._left = 0
        return self._left == 0

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; fewer only at the end of the body. Without a size: all of it."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        size = self._most(size)
        if size > BLOCK:
            pieces = [self.read(BLOCK) for _ in range(size // BLOCK)]
            return b"".join([*pieces, self.read(size % BLOCK)])
        held = bytearray(size)
        view, count = memoryview(held), 0
        while count < size and (got := self._into(view[count:])):
            count += got
        return bytes(view[:count])

    def read1(self, size: int = BLOCK) -> bytes:
        """What has arrived, at most `size` bytes; waits only when there is nothing. Empty at the end of the body."""
        held = bytearray(self._most(min(size, BLOCK)))
        return bytes(held[: self._into(memoryview(held))]) if held else b""

    def readline(self, size: int | None = -1) -> bytes:
        """One line with its end, or its first `size` bytes."""
        line = bytearray()
        while size is None or size < 0 or len(line) < size:
            byte = self.read(1)
            line += byte
            if byte in (b"", b"\n"):
                break
        return bytes(line)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Lines until the end, or until there are `hint` bytes."""
        lines, count = [], 0
        for line in self:
            lines.append(line)
            count += len(line)
            if hint and count >= hint:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def close(self) -> None:
        """The request ends; whatever is left of the body stays unread."""
        self._source.end()

    def _most(self, size: int) -> int:
        return min(size, self._left)

    def _into(self, view: memoryview) -> int:
        """Fill some of the view; 0 at the end."""
        if self.failed:
            raise ConnectionResetError("the body could not be read before")
        try:
            count = self._more(view)
        except Exception:
            self.failed = True
            self._source.end()
            raise
        if not self._left:
            self._source.end()
        return count

    def _more(self, view: memoryview) -> int:
        if not self._left:
            return 0
        count = self._source.into(view[: self._left])
        self._left -= count
        return count


class ChunkedBody(Body):
    """wsgi.input for a chunked body (RFC 9112, 7.1), decoded. `_left` is 1 until the last chunk has been seen."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, 1)
        self._chunk = 0  # bytes left of the present chunk

    @property
    def finished(self) -> bool:
        return self._left == 0

    def _most(self, size: int) -> int:
        return size if self._left else 0

    def _more(self, view: memoryview) -> int:
        if not self._left:
            return 0
        if not self._chunk:
            line = CHUNK.fullmatch(self._source.line())
            if line is None:
                raise ValueError("the size of a chunk is malformed")
            self._chunk = int(line[1], 16)
            if not self._chunk:
                self._skip_trailer()
                self._left = 0
                return 0
        count = self._source.into(view[: self._chunk])
        self._chunk -= count
        if not self._chunk and self._source.line() != b"\r\n":
            raise ValueError("a chunk is not as long as it says")
        return count

    def _skip_trailer(self) -> None:
        length = 0
        while (line := self._source.line()) != b"\r\n":
            length += len(line)
            if length > MOST_LINE or not line.endswith(b"\r\n"):
                raise ValueError("the trailer is malformed")
