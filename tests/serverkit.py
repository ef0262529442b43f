"""A real server over any WSGI app, in a thread of the test, and raw sockets to talk to it."""

import json
import re
import socket
import ssl
import threading
import time

from ippd import certificate
from ippd.server import Limits, Listener, Server, bind_tcp, bind_unix
from ippd.server.tls import make_context

LIMITS = {
    "threads": 4, "slow_threads": 8, "slow_threads_per_address": 8, "connections": 500, "connections_per_address": 400,
    "handshake_timeout": 5.0, "head_timeout": 5.0, "head_bytes": 32768, "body_rate": 1024, "body_grace": 5.0,
    "keepalive_timeout": 5.0, "drain_timeout": 5.0,
}  # fmt: skip


def answer(start_response, body, status="200 OK", *headers):
    """Answer with bytes, or with anything else as JSON."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


class Served:
    """The listeners `tls`, `plain` (which asks for the peer's account) and `unix`, until stop()."""

    def __init__(self, app, folder, **limits):
        self.cert, self.key = str(folder / "cert.pem"), str(folder / "key.pem")
        certificate.make(["localhost", "127.0.0.1"], self.cert, self.key)
        self.context = make_context(self.cert, self.key)
        self.log = []
        self.unix_path = str(folder / "unix.socket")
        sockets = [bind_tcp("127.0.0.1", 0, "a"), bind_tcp("127.0.0.1", 0, "b"), bind_unix(self.unix_path, "c")]
        self.tls_port, self.plain_port = (made.getsockname()[1] for made in sockets[:2])
        self.server = Server(
            [
                Listener("public", sockets[0], app, self.context, lambda origin: [("Access-Control-Allow-Origin", origin or "*")]),
                Listener("local", sockets[1], app, local=True),
                Listener("local", sockets[2], app, local=True),
            ],
            Limits(**(LIMITS | limits)),
            self.log.append,
        )
        self.thread = threading.Thread(target=self.server.run, name="server")
        self.thread.start()

    def stop(self):
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def tls(self, context=None, timeout=10):
        """A socket after its TLS handshake."""
        return (context or trusting()).wrap_socket(self.raw_tls(timeout), server_hostname="localhost")

    def raw_tls(self, timeout=10):
        """A socket to the TLS port, without a handshake."""
        return socket.create_connection(("127.0.0.1", self.tls_port), timeout)

    def plain(self, timeout=10):
        """A socket to the port without TLS."""
        return socket.create_connection(("127.0.0.1", self.plain_port), timeout)

    def unix(self, timeout=10):
        """A unix socket."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(timeout)
        made.connect(self.unix_path)
        return made

    def ask(self, data, tls=True):
        """Send bytes on a connection of their own; returns the first answer."""
        with self.tls() if tls else self.plain() as connection:
            connection.sendall(data)
            return read_answer(connection)

    def get(self, path="/", tls=True):
        """The answer to a plain GET."""
        return self.ask(get(path), tls)

    def logged(self, count=1):
        """The facts in the access log, as soon as there are so many."""
        assert wait_for(lambda: len(self.log) >= count)
        return self.log


class Answer:
    """Status, headers (names in lower case) and body of one answer; `whole` when the body is as long as announced."""

    def __init__(self, status, headers, body, whole=True):
        self.status, self.headers, self.body, self.whole = status, headers, body, whole

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:200]!r}"


class Reader:
    """Takes one answer after the other from a connection."""

    def __init__(self, connection):
        self.connection, self.held = connection, b""

    def more(self):
        try:
            data = self.connection.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.held += data
        return bool(data)

    def until(self, mark):
        while mark not in self.held:
            if not self.more():
                raise EOFError(f"the server closed after {self.held!r}")
        taken, self.held = self.held.split(mark, 1)
        return taken

    def exactly(self, count):
        while len(self.held) < count and self.more():
            pass
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def answer(self, head_only=False):
        line, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", line)[1])
        headers = {name.lower(): value for name, value in (text.split(": ", 1) for text in lines)}
        if head_only or status in (100, 204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size + 2)[:-2]
            return Answer(status, headers, body, self.exactly(2) == b"\r\n")
        if "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
            return Answer(status, headers, body, len(body) == int(headers["content-length"]))
        while self.more():
            pass
        return Answer(status, headers, self.held)


def read_answer(connection, head_only=False):
    """One answer. Raises EOFError when the server closes before there is a head."""
    return Reader(connection).answer(head_only)


def closed(connection, timeout=5):
    """Whether the server closes the connection within so many seconds; what it sends before is thrown away."""
    connection.settimeout(timeout)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def get(path="/", *lines, version="1.1", method="GET"):
    """The bytes of a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode("latin-1")


def post(path, body=b"", *lines, length=None):
    """The bytes of a POST; `length` is announced instead of the body's own."""
    size = len(body) if length is None else length
    return get(path, f"Content-Length: {size}", *lines, method="POST") + body


def chunked(path, *chunks):
    """The bytes of a chunked POST."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return get(path, "Transfer-Encoding: chunked", method="POST") + body


def trusting():
    """A client context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def wait_for(condition, timeout=5.0):
    """Whether the condition becomes true in time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
