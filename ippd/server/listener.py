"""A listening socket with its app: what cheroot's request and gateway ask of their server."""

import socket
import ssl
from collections.abc import Callable

from ippd.server.gateway import Gateway

Headers = list[tuple[str, str]]


def _no_headers(origin: str | None) -> Headers:
    return []


class Listener:
    """One listening socket. `tls` is a context of ippd.server.tls, or None for plain HTTP."""

    protocol = "HTTP/1.1"  # from here: names that cheroot gives to the attributes of a server
    software = "ippd"
    gateway = Gateway
    max_request_header_size = max_request_body_size = 0  # the first is done elsewhere, the second by the app

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        app: Callable,
        tls: ssl.SSLContext | None = None,
        headers: Callable[[str | None], Headers] = _no_headers,
        local: bool = False,
    ) -> None:
        """`name` is what environ["ippd.listener"] says. `headers` gives further header fields for the answers that the
        server makes itself; it takes the request's Origin (None: unknown). `local`: find out the client's account."""
        self.name, self.sock, self.app, self.tls, self.headers, self.local = name, sock, app, tls, headers, local
        self.can_add_keepalive_connection = True  # False as soon as the server stops
        self.ssl_adapter = tls
        self.timeout = 0  # seconds of keep-alive as told to HTTP/1.0 clients; the server sets it
        address = sock.getsockname()
        self.is_unix = sock.family == socket.AF_UNIX
        self.bind_addr = ("localhost", "") if self.is_unix else address[:2]
        self.server_name = self.bind_addr[0]
