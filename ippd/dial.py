"""Whom calls to a portal trust: authorities with TLS; without it, over TCP or a unix socket, some accounts of this host."""

import http.client
import os
import pwd
import select
import socket
import ssl
import time
from collections.abc import Iterable
from ipaddress import ip_address

from ippd import certificate
from ippd.errors import Invalid, Unavailable
from ippd.peers import peer_uid

ACCEPTED = 10.0  # seconds within which the other side accepts a connection: before, nobody holds its end
LOOK = 0.01  # seconds between two looks for that


class Plain(http.client.HTTPConnection):
    """A connection to `host`, or to the unix socket `path`. Unless `accounts` is None, nothing is sent before it is known that root, the
    own account or one of these (names or numbers) holds the other end.

    Any account can take a port that is free, as the daemon's is while it is off, and a worker does what it is told by whoever answers.
    """

    def __init__(self, host: str, port: int | None, timeout: float, path: str = "", accounts: Iterable[str] | None = None) -> None:
        super().__init__(host, port, timeout=timeout)
        self._path, self._accounts = path, accounts
        self.where = path or f"{self.host}:{self.port}"

    def connect(self) -> None:
        """Connect, whenever http.client wants to. Raises Unavailable for an account that is not trusted, OSError."""
        if self._path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
        try:
            if self._path:
                self.sock.connect(self._path)
            else:
                super().connect()
            if self._accounts is not None and _is_here(self.sock):
                self._check(self._accounts)
        except BaseException:
            self.close()  # else http.client would go on with it the next time
            raise

    def _check(self, accounts: Iterable[str]) -> None:
        uid = _holder(self.sock)
        if uid not in {0, os.geteuid()} | {_uid(name) for name in accounts}:
            who = "it could not be found out which account" if uid is None else f"the account {_name(uid)}"
            hint = "the setting worker.server_account says which ones may"
            raise Unavailable(f"nothing is sent to {self.where}: {who} answers there ({hint})")


def trusting(authority: str | None) -> ssl.SSLContext:
    """What trusts the certificates in a file, else the host's authorities. Raises Invalid for a file that has none."""
    try:
        return certificate.trusting(authority)
    except ssl.SSLError:
        raise Invalid(f"{authority} holds no certificate (PEM)") from None
    except OSError as error:
        raise Invalid(f"{authority}: {error.strerror}") from None


def _is_here(sock: socket.socket) -> bool:
    """Whether the other end is on this host. Of another host the kernel knows no accounts: there the network has to be trusted."""
    if sock.family == socket.AF_UNIX:
        return True
    theirs, ours = (ip_address(name[0].partition("%")[0]) for name in (sock.getpeername(), sock.getsockname()))
    return theirs == ours or (getattr(theirs, "ipv4_mapped", None) or theirs).is_loopback


def _holder(sock: socket.socket) -> int | None:
    """The account at the other end, as soon as it has accepted the connection; None when that cannot be found out."""
    closed = select.poll()
    closed.register(sock, select.POLLRDHUP)
    deadline = time.monotonic() + ACCEPTED
    while (uid := peer_uid(sock)) is None and time.monotonic() < deadline:
        if closed.poll(LOOK * 1000):
            raise ConnectionResetError("it closed the connection")
    return uid


def _uid(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:  # the daemon's account need not be on a node with a tunnel
        return -1


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
