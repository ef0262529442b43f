"""Heartbeats: the daemon hears which claims are held, and says what it wants of each; also while a round takes its time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from logging import getLogger
from time import monotonic

from ippd.calls import Server
from ippd.errors import IppdError, Unavailable
from ippd.stop import Stop
from ippd.worker.journal import Entry

Claim = tuple[int, str]  # the id of an experiment, and the word that shows that it is ours
FRESH = 5.0  # seconds after which an order is asked for again before it is followed
BEATS = 5  # in the time of a lease
log = getLogger("ippd.worker")


def ask(server: Server, claims: Iterable[Claim]) -> dict[Claim, str]:
    """What the daemon wants of each. An experiment that was lost and claimed again has two claims: they are asked about apart."""
    left, answers = set(claims), dict[Claim, str]()
    while left:
        some = dict(sorted(left))
        said = server.post_json("/experiments/heartbeats", {"claims": {str(id): claim for id, claim in some.items()}})
        if not isinstance(said, dict) or not isinstance(said.get("answers"), dict):
            raise Unavailable("the daemon's answer to a heartbeat is none")
        answers |= {(id, claim): str(said["answers"].get(str(id), "lost")) for id, claim in some.items()}
        left -= some.items()
    return answers


class Orders:
    """What the daemon wants of each entry of a round. While one is staged in or delivered, another may have been cancelled."""

    def __init__(self, server: Server, entries: Iterable[Entry]) -> None:
        """Asks at once. Raises Unavailable, Refused."""
        self._server, self._entries = server, list(entries)
        self._said: dict[Claim, str] = {}
        self._ask()

    def of(self, entry: Entry) -> str:
        """The order for an entry, which is never older than FRESH. Raises Unavailable, Refused."""
        if monotonic() - self._asked > FRESH:
            self._ask()
        return self._said[entry.id, entry.claim]

    def add(self, fresh: Iterable[Entry]) -> None:
        """What was claimed just now."""
        self._entries += fresh
        self._said |= {(entry.id, entry.claim): self._said.get((entry.id, entry.claim), "go on") for entry in self._entries}

    def _ask(self) -> None:
        self._said |= ask(self._server, [(entry.id, entry.claim) for entry in self._entries if entry.held])
        self._asked = monotonic()


@contextmanager
def beating(server: Server, claims: Callable[[], Iterable[Claim]], lease: float) -> Iterator[None]:
    """Renew the claims as long as the block lasts, from a thread of its own: a transfer may take longer than a lease of so many seconds.

    It shares nothing with the rounds: `claims` looks into the journal, `server` is its own. Orders are left to the rounds.
    """
    over = Stop()

    def beat() -> None:
        while not over.wait(lease / BEATS):
            try:
                ask(server, claims())
            except (IppdError, OSError) as error:
                log.debug("no heartbeat: %s", error)  # the round will tell of it
            except Exception:  # the next beat is needed whatever this one met
                log.exception("no heartbeat")
        server.close()

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
