"""A small client of the portal: forms in, JSON out, over TLS with the daemon's own certificate checked."""

import http.client
import json
import secrets
import ssl
from typing import NamedTuple
from urllib.parse import quote, urlencode


class Failure(Exception):
    """Something is not as it should be; the text says what."""


class Reply(NamedTuple):
    """Status, headers and body of an answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        """The body as JSON; raises Failure when the status is not 200 or the body is something else."""
        try:
            if self.status == 200:
                return json.loads(self.body)
        except ValueError:
            pass
        raise Failure(f"the daemon answered {self.status}: {self.body[:200]!r}")


class Portal:
    """The public listener on a port of loopback."""

    def __init__(self, port, certificate):
        """Raises OSError when the certificate file is not there."""
        self._port, self._context = port, ssl.create_default_context(cafile=certificate)

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own; the certificate must be good for 127.0.0.1."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, /, **query):
        """GET with this query."""
        return self.request("GET", f"{path}?{urlencode(query, quote_via=quote)}" if query else path)

    def post(self, path, /, **fields):
        """POST a form of texts; a name like setting__fname stands for setting-fname."""
        form = urlencode({name.replace("__", "-"): value for name, value in fields.items()})
        return self.request("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})

    def upload(self, path, fields, files):
        """POST a multipart form: texts, then files as (field, name, bytes), as a browser does it."""
        boundary = secrets.token_hex(16)
        parts = [(f'name="{name}"', "", value.encode()) for name, value in fields.items()]
        parts += [
            (f'name="{field}"; filename="{name}"', "\r\nContent-Type: application/octet-stream", content)
            for field, name, content in files
        ]
        body = b"".join(
            f"--{boundary}\r\nContent-Disposition: form-data; {names}{kind}\r\n\r\n".encode() + content + b"\r\n"
            for names, kind, content in parts
        )
        body += f"--{boundary}--\r\n".encode()
        return self.request("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
