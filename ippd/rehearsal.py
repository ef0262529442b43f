"""A new program asks itself for /readyz before it takes over, each serving process over sockets of its own: those that clients know are
shared with its predecessor, whose answer would prove nothing."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from ippd import probe
from ippd.errors import Unavailable
from ippd.server import Limits, Listener, Server, bind_tcp

TIME = 30.0  # seconds in which each listener has to answer; a program that has not taken over after a minute is ended
Bound = tuple[str, socket.socket]
Place = dict[str, Any]


def rehearse(bound: list[Bound], make: Callable[[str, socket.socket], Listener], limits: Limits) -> None:
    """Ask each kind of listener, made by `make` from a name and a socket as in `bound`. Raises Unavailable, SettingsError."""
    kinds = {(name, sock.family) for name, sock in bound}
    sockets = [(name, _unix() if family == socket.AF_UNIX else _loopback(name, family)) for name, family in sorted(kinds)]
    places = [(name, _place(name, sock)) for name, sock in sockets]
    server = Server([make(name, sock) for name, sock in sockets], limits)
    thread = threading.Thread(target=server.run, name="rehearsal", daemon=True)
    thread.start()
    try:
        for name, place in places:
            _ask(name, place)
    finally:
        server.stop()
    thread.join()


def _place(name: str, sock: socket.socket) -> Place:
    """Where it listens, in the words of the settings."""
    where: Place = {"local.socket": "", "local.listen": [], "public.listen": []}
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return where | {"local.socket": address.decode()}
    return where | {f"{name}.listen": [address[:2]]}


def _ask(name: str, place: Place) -> None:
    deadline = time.monotonic() + TIME
    while not (answer := probe.ask(place, "/readyz")):
        if time.monotonic() >= deadline:
            raise Unavailable(f"the {name} listener gives no answer to /readyz")
        time.sleep(0.1)
    if answer[0] != 200:
        raise Unavailable(f"the {name} listener answers /readyz with {answer[0]}: {answer[1].strip()[:500]}")


def _loopback(name: str, family: int) -> socket.socket:
    return bind_tcp("::1" if family == socket.AF_INET6 else "127.0.0.1", 0, f"{name}.listen")


def _unix() -> socket.socket:
    """One without a file (unix(7), abstract): nothing is left of it, however the process ends."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(f"\0ippd-{os.getpid()}-{secrets.token_hex(8)}")
    made.listen()
    made.setblocking(False)
    return made
