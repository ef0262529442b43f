"""One connection: what it waits for, and the steps that never block. A thread has it only while a request runs."""

import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ippd.fields import network
from ippd.server import head
from ippd.server.head import Fault
from ippd.server.limits import LINGER_BYTES, LINGER_TIME, Limits

if TYPE_CHECKING:
    from ippd.server.listener import Listener

HANDSHAKE, HEAD, BODY, FLUSH, LINGER = "handshake", "head", "body", "flush", "linger"
READ, WRITE, READY, GONE = select.EPOLLIN, select.EPOLLOUT, -1, -2  # what a step wants next
PIECE = 16 << 10  # bytes; the largest TLS record
NOTHING = memoryview(b"")
WANT_READ = (ssl.SSLWantReadError, BlockingIOError)
FRESH_TIME = 1.0  # seconds that a new connection has for its first request when the server stops: the request may be on its way
PLAIN_HTTP = "This port speaks HTTPS, not HTTP: please use an address that begins with https://"


def client_of(listener: "Listener", address: str, uid: int | None) -> str:
    """Who is counted for a connection: the network of an address, or a local account."""
    return f"the account {uid}" if listener.local else network(address)


class Connection:
    """A client's connection. While it is `busy` a thread has it, otherwise the loop, until `deadline`."""

    def __init__(
        self, listener: "Listener", sock: socket.socket, limits: Limits, address: tuple, uid: int | None
    ) -> None:
        self.listener, self.sock, self.limits, self.uid = listener, sock, limits, uid
        self.fd = sock.fileno()
        self.remote_addr, self.remote_port = address
        self.client = client_of(listener, address[0], uid)
        self.ssl_env: dict[str, str] = {}  # asked for by cheroot's gateway
        self.buffer = bytearray()  # what came and is not used yet
        self.out = NOTHING  # what is still to be sent
        self.busy = False
        self.closing = False  # no further request after this one
        self.fault: Fault | None = None  # why a request was refused before a thread saw it
        self._seen = self._end = self._needed = self._thrown = 0
        self.tls = listener.tls is not None
        self.state = HANDSHAKE if self.tls else HEAD
        now = time.monotonic()
        self.deadline = now + (limits.handshake_timeout if self.tls else limits.head_timeout)
        self._fresh_until = now + FRESH_TIME

    @property
    def idle(self) -> bool:
        """Whether it is between two requests."""
        return self.state == HEAD and not self.buffer and not self.busy

    def unused(self, now: float) -> bool:
        """Whether no request is under way, as far as can be told."""
        return (self.idle or self.state == HANDSHAKE) and now >= self._fresh_until

    def step(self) -> int:
        """Do what can be done without waiting. Returns READ, WRITE, READY (a request for a thread) or GONE."""
        try:
            return STEPS[self.state](self)
        except WANT_READ:
            return READ if self.state != FLUSH or self.tls else WRITE
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError as error:  # ssl.SSLError is one
            if self.state == HANDSHAKE and getattr(error, "reason", "") == "HTTP_REQUEST":
                return self._plain_http()
            return GONE

    def take_head(self) -> bytes:
        """Cut the head of the request off the buffer."""
        taken = bytes(self.buffer[: self._end])
        del self.buffer[: self._end]
        self._seen = self._end = self._needed = 0
        return taken

    def first_line(self) -> str:
        """What came of the request line, for the log."""
        return bytes(self.buffer[:2000]).split(b"\r\n", 1)[0].decode("latin-1")

    def next_request(self) -> int:
        """After an answer: look for a further request. Returns like step()."""
        self.state, self.deadline, self._fresh_until = HEAD, time.monotonic() + self.limits.keepalive_timeout, 0.0
        if self.buffer:
            self.deadline = time.monotonic() + self.limits.head_timeout
            if self._complete():
                return READY
        if self.tls and self.sock.pending():  # type: ignore[attr-defined]
            return self.step()
        return READ

    def send(self, data: bytes) -> int:
        """Send an answer as far as goes at once, keep the rest for the loop. Returns like step()."""
        self.out = memoryview(data)
        self.state, self.deadline = FLUSH, time.monotonic() + self.limits.time_for(len(data))
        return self.step()

    def expire(self) -> Fault | None:
        """What to say to a client whose deadline has passed; None: nothing, just close."""
        if self.state == HEAD and self.buffer:
            return Fault(408, "The head of the request took too long to arrive.")
        if self.state == BODY:
            return Fault(408, "The body of the request took too long to arrive.")
        return None

    def left(self) -> bool:
        """Whether the client has closed its side, or all of it."""
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Let the client see that this was not the end, and wake a thread that waits for it."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; nothing is sent any more."""
        with suppress(OSError):
            self.sock.close()

    def _handshake(self) -> int:
        self.sock.do_handshake()  # type: ignore[attr-defined]
        self.state, self.deadline = HEAD, time.monotonic() + self.limits.head_timeout
        return self._receive()

    def _receive(self) -> int:
        """Take what has come of a head or a small body."""
        while True:
            data = self.sock.recv(PIECE)
            if not data:
                return GONE
            begins = not self.buffer
            self.buffer += data
            if self._complete():
                return READY
            if begins and self.buffer and self.state == HEAD:  # empty lines are no request: they give no further time
                self.deadline = time.monotonic() + self.limits.head_timeout
            if not self.tls or not self.sock.pending():  # type: ignore[attr-defined]
                return READ

    def _complete(self) -> bool:
        """Whether a thread can begin: the head is there, and all of a small body; or it is to be refused."""
        if not self._end:
            while self.buffer.startswith(b"\r\n"):  # empty lines before a request (RFC 9112, 2.2)
                del self.buffer[:2]
                self._seen = 0
            found = head.END.search(self.buffer, max(self._seen - 3, 0))
            self._seen = len(self.buffer)
            end = found.end() if found else self._seen
            if end > self.limits.head_bytes:
                long = b"\r\n" not in self.buffer[: self.limits.head_bytes]
                self.fault = Fault(414, "The address is too long.") if long else Fault(431, "The head is too long.")
                return True
            if not found:
                return False
            self._end = end
            length = head.small_body(bytes(self.buffer[:end]))
            self._needed = end + length
            if len(self.buffer) < self._needed:
                self.state, self.deadline = BODY, time.monotonic() + self.limits.time_for(length)
        return len(self.buffer) >= self._needed

    def _flush(self) -> int:
        for _ in range(64):  # then others have their turn
            if not self.out:
                self.out = NOTHING  # an empty view would keep the whole answer in memory
                return self.linger() if self.closing else self.next_request()
            self.out = self.out[self.sock.send(self.out):]
        return WRITE

    def linger(self) -> int:
        """Say that this was all, and wait for the client to close: an early close would take the answer from it."""
        self.buffer.clear()
        self.state, self.deadline = LINGER, time.monotonic() + LINGER_TIME
        if self.tls:
            with suppress(OSError, ValueError):
                self.sock.unwrap()  # type: ignore[attr-defined]
            self.tls = False
        self.sock.shutdown(socket.SHUT_WR)
        return READ

    def _throw_away(self) -> int:
        """Read what the client still sends, and keep it from sending more when it is too much."""
        for _ in range(16):
            data = self.sock.recv(4 * PIECE)
            self._thrown += len(data)
            if not data:
                return GONE
            if self._thrown > LINGER_BYTES:
                return select.EPOLLRDHUP
        return READ

    def _plain_http(self) -> int:
        """The client speaks HTTP to a TLS port: go on without TLS, so far that it can be told."""
        self.sock = socket.socket(fileno=self.sock.detach())
        self.sock.setblocking(False)
        self.tls = False
        self.fault = Fault(400, PLAIN_HTTP)
        return READY


STEPS = {
    HANDSHAKE: Connection._handshake,
    HEAD: Connection._receive,
    BODY: Connection._receive,
    FLUSH: Connection._flush,
    LINGER: Connection._throw_away,
}
