"""What others feel while somebody holds 150 connections open: silent ones, ones with one byte, ones that drip a header."""

import contextlib
import selectors
import socket
import ssl
import threading
import time

import wrk
from stage import Row, latency

COUNT = 50  # of each kind
ATTACKER = ("127.0.0.2", 0)  # an address of loopback that is not the one of the others


class Attack:
    """Holds the connections in a thread; each one that the server closes is opened again at once."""

    def __init__(self, port):
        self._port, self._end, self.opened = port, threading.Event(), 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._threads = [threading.Thread(target=self._hold, args=(kind,)) for kind in ("silent", "byte", "drip")]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        time.sleep(2)  # until all are open, or what the server does about them can be seen
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _open(self, kind):
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10, source_address=ATTACKER)
        self.opened += 1
        if kind == "byte":
            connection.sendall(b"\x16")
        elif kind == "drip":
            connection = self._context.wrap_socket(connection)
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        connection.setblocking(False)
        return connection

    def _hold(self, kind):
        held = selectors.DefaultSelector()
        try:
            while not self._end.is_set():
                while len(held.get_map()) < COUNT and not self._end.is_set():
                    with contextlib.suppress(OSError):
                        held.register(self._open(kind), selectors.EVENT_READ)
                for key, _ in held.select(0.5):
                    if _ended(key.fileobj):
                        held.unregister(key.fileobj)
                        key.fileobj.close()
                if kind == "drip":
                    self._drip([key.fileobj for key in held.get_map().values()])
        finally:
            for key in list(held.get_map().values()):
                key.fileobj.close()
            held.close()

    def _drip(self, connections):
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(b"X-Drip: 1\r\n")


def _ended(connection):
    """Whether the server has closed it; what it says (a session ticket, an answer) is thrown away."""
    try:
        return not connection.recv(4096)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def fresh(port, seconds, deadline=10):
    """GET /version over a new connection each time, for so many seconds; returns the p99 in ms. One that fails counts as `deadline`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        try:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=deadline)) as stream:
                stream.sendall(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                good = b"200 OK" in stream.recv(4096)
        except OSError:
            good = False
        times.append(time.perf_counter() - begin if good else deadline)
    times.sort()
    return times[int(len(times) * 0.99)] * 1000


def hostile(stage):
    """p99 of new and of kept connections, first in quiet, then under the attack; the bare server under the same attack."""
    url, port, rows = f"{stage.public}/version", stage.daemon.public_port, []
    quiet = fresh(port, stage.seconds)
    quiet_kept = wrk.run(url, 8, stage.seconds)
    with Attack(port) as attack:
        new = fresh(port, 2 * stage.seconds)
        kept = wrk.run(url, 8, 2 * stage.seconds)
        rows.append(Row("connections that the attack has opened", f"{attack.opened}"))
    with stage.bare(b'{"version": "0"}') as bare:
        bare_port = int(bare.rstrip("/").rpartition(":")[2])
        with Attack(bare_port):
            bare_new = fresh(bare_port, 2 * stage.seconds)
    return [
        latency("GET /version over new connections: p99 in quiet", quiet),
        latency("GET /version over new connections: p99 under attack", new, bare_new, 100),
        latency("GET /version, 8 kept connections: p99 in quiet", quiet_kept.p99),
        latency("GET /version, 8 kept connections: p99 under attack", kept.p99, most=100),
        *rows,
    ]
