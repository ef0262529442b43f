"""Tells systemd that the daemon is alive, as long as every listener answers out of the store (sd_watchdog_enabled(3)).

What keeps the daemon from its work but would be met again after a new start (a full disk, a damaged or locked database) is not asked here:
it would be started again and again, and do less than now. That is for /readyz and for `ippd doctor`.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from ippd import probe
from ippd.processes import REOPEN, Orders
from ippd.stop import Stop

AGAIN = 5.0  # seconds after which it is asked again what has not answered: several times before systemd loses patience

log = logging.getLogger(__name__)


def seconds(environ: Mapping[str, str] = os.environ) -> float:
    """The time between two messages: a third of what systemd waits for one; 0 when it waits for none."""
    with suppress(ValueError, KeyError):
        return int(environ["WATCHDOG_USEC"]) / 3e6 if environ["NOTIFY_SOCKET"] else 0.0
    return 0.0


def tell(text: str) -> None:
    """Tell systemd how the daemon fares, if it asked for that (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)


def watch(bound: Iterable[tuple[str, socket.socket]], every: float, orders: Orders, reopen: Callable[[], None]) -> None:
    """A process that asks each listener as a client would, every so many seconds, and says `WATCHDOG=1` when all have answered well.

    Silence, from a listener, from the store or from this process, makes systemd end the daemon and start it again.
    """
    places: dict[str, object] = {"local.socket": "", "local.listen": [], "public.listen": []}
    for name, sock in bound:
        if sock.family == socket.AF_UNIX:
            places["local.socket"] = sock.getsockname()
        else:
            places[f"{name}.listen"] = [*places[f"{name}.listen"], sock.getsockname()[:2]]  # type: ignore[misc]
        sock.close()
    stop = Stop()

    def check() -> None:
        pause = every
        while not stop.wait(pause):
            if unwell := probe.unwell(places):
                log.error("%d listeners do not answer, or cannot read the database", unwell)
            else:
                tell("WATCHDOG=1")
            pause = min(every, AGAIN) if unwell else every

    threading.Thread(target=check, name="watch", daemon=True).start()
    orders.ready()
    for order in orders:
        if order == REOPEN:
            reopen()
    stop.set()
