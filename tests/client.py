"""A plain HTTP client for the tests: http.client, TLS without a check of the self-made certificate, forms that stream."""

import contextlib
import http.client
import itertools
import json
import socket
import ssl
from urllib.parse import urlencode

BOUNDARY = "----boundary-of-the-tests"


class Reply:
    """Status, headers (names in lower case) and body of an answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


class Client:
    """One listener as a client sees it. Each call is a connection of its own unless `keep` is set."""

    def __init__(self, host, port, tls=False, headers=None, keep=False):
        self.host, self.port, self.headers, self.keep = host, port, dict(headers or {}), keep
        self.context = _trusting() if tls else None
        self._connection = None

    def connection(self, timeout=30):
        """A new http.client connection."""
        if self.context:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def socket(self, timeout=30):
        """A connected socket, after the TLS handshake if there is one; for what http.client would not send."""
        plain = socket.create_connection((self.host, self.port), timeout=timeout)
        return self.context.wrap_socket(plain, server_hostname="localhost") if self.context else plain

    def request(self, method, path, body=None, headers=None):
        """Send a request; `body` is bytes or an iterable of them (chunked unless Content-Length is given)."""
        connection = (self._connection if self.keep else None) or self.connection()
        # Answered and closed before all was sent: the answer is there to read all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            connection.request(method, path, body=body, headers=self.headers | dict(headers or {}))
        if connection.sock is None:
            raise ConnectionResetError("the server closed before the request was sent")
        answer = connection.getresponse()
        reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        if self.keep:
            self._connection = connection
        else:
            connection.close()
        return reply

    def get(self, path, /, headers=None, **query):
        return self.request("GET", path + ("?" + urlencode(query) if query else ""), headers=headers)

    def delete(self, path, headers=None):
        return self.request("DELETE", path, headers=headers)

    def post(self, path, /, fields=None, files=None, json=None, headers=None, **more):
        """POST a form (multipart when there are files), or JSON. `fields` is a dict or pairs; `more` are further fields."""
        pairs = [*(fields.items() if isinstance(fields, dict) else fields or ()), *more.items()]
        if json is not None:
            return self.request("POST", path, _bytes(json), {"Content-Type": "application/json"} | dict(headers or {}))
        if files is not None:
            kind, length, body = form(pairs, files)
            given = {"Content-Type": kind} | ({"Content-Length": str(length)} if length is not None else {})
            return self.request("POST", path, body, given | dict(headers or {}))
        given = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urlencode(pairs).encode(), given | dict(headers or {}))

    def raw(self, data, timeout=30):
        """Send bytes as they are; returns all that comes back until the other side closes."""
        with self.socket(timeout) as connection:
            connection.sendall(data)
            return read_all(connection)


def form(fields, files):
    """A multipart form: (content type, length or None, iterable of bytes).

    `files` are (field, file name, data); data is bytes, or (size, iterable), or an iterable of unknown size.
    """
    pieces, length = [], 0
    for name, value in fields:
        pieces.append([f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()])
    for name, filename, data in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        pieces.append([f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()])
        if isinstance(data, tuple):
            length, data = None if length is None else length + data[0], data[1]
        elif not isinstance(data, bytes):
            length = None
        pieces += [[data] if isinstance(data, bytes) else data, [b"\r\n"]]
    pieces.append([f"--{BOUNDARY}--\r\n".encode()])
    if length is not None:
        length += sum(len(piece) for group in pieces if isinstance(group, list) for piece in group)
    return f"multipart/form-data; boundary={BOUNDARY}", length, itertools.chain.from_iterable(pieces)


def read_all(connection):
    """All bytes until the other side closes or resets."""
    held = b""
    try:
        while piece := connection.recv(65536):
            held += piece
    except (ConnectionResetError, ssl.SSLError):
        pass
    return held


def _bytes(value):
    return json.dumps(value).encode()


def _trusting():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
