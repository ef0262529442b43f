"""What a request writes: kept together, and sent either at the end by the loop or piece by piece by its thread."""

import fcntl
import struct
import termios
import time

from ippd.server.connection import Connection
from ippd.server.pace import Pace


class Output:
    """The file that cheroot's request writes to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self.pushed = False  # whether the client may have seen something
        self._pace: Pace | None = None
        self._sent = self._confirmed = 0  # bytes; the second as of the last time that we had to wait too long

    def write(self, data: bytes) -> None:
        """Keep bytes until push() or take()."""
        self._pieces.append(data)

    def take(self) -> bytes:
        """What is kept, to be sent by somebody else."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken

    def push(self) -> None:
        """Send what is kept, and wait for the client. Raises TimeoutError when it takes too little, ConnectionError when it has gone (also
        when there is nothing to send).
        """
        data, self.pushed = self.take(), True
        if not data and self._connection.left():
            raise ConnectionResetError("the client has gone")
        if self._pace is None:
            self._pace = Pace(self._connection.limits.body_rate, self._connection.limits.body_grace)
        self._connection.sock.settimeout(self._pace.grace)
        try:
            self._send(memoryview(data), self._pace)
        except TimeoutError:
            raise
        except OSError as error:  # ssl.SSLError is one
            raise ConnectionResetError(f"the client has gone: {error}") from None
        finally:
            self._connection.sock.settimeout(0)

    def _send(self, view: memoryview, pace: Pace) -> None:
        while view:
            begin = time.monotonic()
            try:
                sent = taken = self._connection.sock.send(view)
            except TimeoutError:
                confirmed = self._sent - self._unconfirmed()
                sent, taken = 0, max(confirmed - self._confirmed, 0)
                self._confirmed = confirmed
            pace.add(time.monotonic() - begin, taken)
            self._sent += sent
            view = view[sent:]

    def _unconfirmed(self) -> int:
        """SIOCOUTQ (tcp(7)): a slow reader frees no room in a large buffer for a long time, yet takes bytes from it."""
        return int(struct.unpack("i", fcntl.ioctl(self._connection.sock, termios.TIOCOUTQ, bytes(4)))[0])
