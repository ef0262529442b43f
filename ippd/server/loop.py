"""The server of one process: one thread that waits for all sockets and never for one, and a pool that runs the app."""

import errno
import logging
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from ippd.peers import peer_uid
from ippd.server import access, answers
from ippd.server.connection import GONE, READ, READY, Connection, client_of
from ippd.server.head import Fault
from ippd.server.limits import Limits
from ippd.server.listener import Listener
from ippd.server.pool import Pool
from ippd.server.request import Ids, Request

TICK = 0.25  # seconds between two looks at the deadlines
PAUSE = 0.5  # seconds without accept() when the process or the machine has run out of something
QUIET = 60.0  # seconds between two warnings about the same
ONCE = select.EPOLLONESHOT  # a socket is silent until it is asked for again: only one thread ever has it
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = logging.getLogger(__name__)


class Server:
    """Serves several listeners until stop(). Made after the fork: it has a pool and an epoll of its own."""

    def __init__(
        self, listeners: Iterable[Listener], limits: Limits, access_log: Callable[[dict], None] | None = None
    ) -> None:
        """`access_log` takes the facts of each request (see access.facts); threads call it."""
        self.listeners, self.limits, self._access_log = list(listeners), limits, access_log
        self._pool = Pool(self._handle, limits.threads, limits.slow_threads, limits.slow_threads_per_address)
        self._ids = Ids()
        self._connections: dict[int, Connection] = {}
        self._clients: Counter = Counter()
        self._lock = threading.Lock()  # for the two above, and for handing a connection back
        self._calls: deque[Callable[[], None]] = deque()
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._accepting: dict[int, Listener] = {}
        self._resume_at = self._sweep_at = self._warned_at = 0.0
        self.drained = False
        self._stopping, self._ended, self._deadline = False, False, 0.0
        for listener in self.listeners:
            listener.timeout = int(limits.keepalive_timeout)

    def run(self) -> None:
        """Serve until stop() was called and all is done; then `drained` is False if requests were cut off."""
        self._pool.start()
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._accept_again()
        while not (self._stopping and self._drained()):
            for fd, _ in self._epoll.poll(TICK if self._connections or self._resume_at else None):
                self._safely(self._event, fd)
            while self._calls:
                self._safely(self._calls.popleft())
            if time.monotonic() >= self._sweep_at:
                self._safely(self._sweep)
        self._end()

    def stop(self) -> None:
        """End: accept nothing, finish what is under way, at most drain_timeout. Twice is not faster."""
        self.call(self._begin_drain)

    def call(self, function: Callable[[], None]) -> None:
        """Let the loop's thread call a function soon; after the end nothing happens. From any thread."""
        self._calls.append(function)
        with self._lock, suppress(BlockingIOError):
            if not self._ended:
                os.write(self._wake_write, b"!")

    def _safely(self, function: Callable, *arguments: object) -> None:
        """One bad connection must not take the others with it."""
        try:
            function(*arguments)
        except Exception:
            log.exception("the server goes on after an error")

    def _event(self, fd: int) -> None:
        connection = self._connections.get(fd)
        if connection is not None:
            self._go_on(connection, connection.step())
        elif fd in self._accepting:
            self._accept(self._accepting[fd])
        elif fd == self._wake_read:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    def _accept(self, listener: Listener) -> None:
        """Take one connection, so that siblings get some too."""
        try:
            sock, address = listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # a sibling was faster, or the client has gone
        except OSError as error:
            self._pause(f"no connection can be accepted: {error.strerror}")
            if error.errno not in SCARCE:
                log.exception("accept failed")
            return
        where = ("", 0) if listener.is_unix else address[:2]
        try:
            sock.setblocking(False)
            uid = peer_uid(sock) if listener.local else None
            if self._full(listener, where[0], uid):
                sock.close()
                return
            if listener.tls is not None:
                sock = listener.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            return
        connection = Connection(listener, sock, self.limits, where, uid)
        with self._lock:
            self._connections[connection.fd] = connection
            self._clients[connection.client] += 1
        self._epoll.register(connection.fd, READ | ONCE)

    def _full(self, listener: Listener, address: str, uid: int | None) -> bool:
        """Whether there is no place for a further connection. Idle ones make place for new ones."""
        client = client_of(listener, address, uid)
        if self._clients[client] >= self._most(listener, uid):
            self._warn(f"{client} has {self._clients[client]} connections: further ones are refused")
            return True
        if len(self._connections) < self.limits.connections:
            return False
        idle = self._idle()
        if not idle:
            self._warn(f"{len(self._connections)} connections are open: further ones are refused")
            return True
        self._drop(min(idle, key=lambda connection: connection.deadline))
        return False

    def _most(self, listener: Listener, uid: int | None) -> int:
        """The connections that one client may have. On a login node everybody can connect to the local listener: a stranger there
        must not take the places of all others."""
        if not listener.local:
            return self.limits.connections_per_address
        return self.limits.connections + 1 if uid in (0, os.geteuid()) else max(1, self.limits.connections // 4)

    def _idle(self) -> list[Connection]:
        with self._lock:
            return [connection for connection in self._connections.values() if connection.idle]

    def _pause(self, why: str) -> None:
        """Stop accepting for a moment: the socket stays readable, and the loop would only turn."""
        self._warn(why)
        self._accept_nothing()
        self._resume_at = time.monotonic() + PAUSE
        for connection in self._idle()[:100]:
            self._drop(connection)

    def _warn(self, sentence: str) -> None:
        if time.monotonic() >= self._warned_at + QUIET or not self._warned_at:
            self._warned_at = time.monotonic()
            log.warning(sentence)

    def _accept_again(self) -> None:
        for listener in self.listeners:
            self._accepting[listener.sock.fileno()] = listener
            self._epoll.register(listener.sock.fileno(), READ)

    def _accept_nothing(self) -> None:
        for fd in self._accepting:
            self._epoll.unregister(fd)
        self._accepting.clear()

    def _go_on(self, connection: Connection, wanted: int) -> None:
        """Do what the last step of a connection asks for: in the loop, or in the thread that hands it back."""
        if wanted == READY and connection.fault:
            wanted = self._refuse(connection, connection.fault)
        if wanted == READY:
            connection.busy = True
            self._pool.submit(connection)
        elif wanted == GONE:
            self._drop(connection)
        else:
            with self._lock:
                connection.busy = False
                if not self._ended:
                    self._epoll.modify(connection.fd, wanted | ONCE)

    def _handle(self, connection: Connection) -> None:
        """In a thread of the pool: run one request."""
        wanted = GONE
        try:
            request = Request(connection.listener, connection, self._pool, self._ids.next())
            wanted = request.run()
            if self._access_log:
                status = int(request.status[:3] or 0)
                self._access_log(access.facts(
                    connection, request.line, status, request.bytes_out, request.time, request.seconds, request.id))
        finally:
            self._go_on(connection, wanted)

    def _refuse(self, connection: Connection, fault: Fault) -> int:
        """Answer instead of an app. Returns what the connection wants next."""
        request_id, line = self._ids.next(), connection.first_line()
        answer, length = answers.error(fault, request_id, connection.listener.headers(None))
        connection.fault, connection.closing = None, True
        wanted = connection.send(answer)
        if self._access_log:
            self._access_log(access.facts(connection, line, fault.status, length, time.time(), 0.0, request_id))
        return wanted

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            if self._connections.get(connection.fd) is not connection:
                return  # it has been dropped before, and its number may be another's by now
            del self._connections[connection.fd]
            self._clients[connection.client] -= 1
            if not self._clients[connection.client]:
                del self._clients[connection.client]
        connection.close()

    def _sweep(self) -> None:
        """Look at all deadlines."""
        now = time.monotonic()
        self._sweep_at = now + TICK
        if self._resume_at and now >= self._resume_at:
            self._resume_at = 0.0
            if not self._stopping:
                self._accept_again()
        with self._lock:
            late = [connection for connection in self._connections.values()
                    if not connection.busy and (now >= connection.deadline or (self._stopping and connection.unused(now)))]
        for connection in late:
            fault = connection.expire()
            self._go_on(connection, self._refuse(connection, fault) if fault else GONE)

    def _begin_drain(self) -> None:
        if self._stopping:
            return
        self._stopping, self._deadline = True, time.monotonic() + self.limits.drain_timeout
        self._sweep_at = 0.0
        self._accept_nothing()
        for listener in self.listeners:
            listener.can_add_keepalive_connection = False
            listener.sock.close()

    def _drained(self) -> bool:
        return not self._connections or time.monotonic() >= self._deadline

    def _end(self) -> None:
        """Close what is left, so that threads that wait for a client wake up."""
        with self._lock:
            self._ended = True
            left = list(self._connections.values())
        self._pool.stop()
        for connection in left:
            connection.abort()
            if not connection.busy:
                self._drop(connection)
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.drained = not left
        if left:
            log.warning("%d connections were cut off: they did not end in time", len(left))
