"""Asks the daemon of some settings whether it is there and can do its work, as one of its clients would."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

SECONDS = 5.0  # for each address
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def ask(settings: Mapping[str, Any], path: str) -> tuple[int, str] | None:
    """GET a path from the first listener that answers: (status, body); None when none does."""
    for connection in _connections(settings):
        if answer := _get(connection, path):
            return answer
    return None


def silent(settings: Mapping[str, Any]) -> int:
    """How many of the listeners give no answer at all."""
    return sum(_get(connection, "/livez") is None for connection in _connections(settings))


def unwell(settings: Mapping[str, Any]) -> int:
    """How many of the listeners give no answer, or the one of a process that should be started again."""
    answers = (_get(connection, "/livez") for connection in _connections(settings))
    return sum(answer is None or answer[0] == 500 for answer in answers)  # 503 is one that has too much to do


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str] | None:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(100_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait(settings: Mapping[str, Any], seconds: float, stopped: Callable[[], bool] = lambda: False) -> str:
    """Wait until the daemon is ready; returns why it is not after `seconds`, or once `stopped` says so, else nothing."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask(settings, "/readyz")
        if answer and answer[0] == 200:
            return ""
        if time.monotonic() >= deadline or stopped():
            return _reason(answer[1]) if answer else "nobody answers on any address of the settings"
        time.sleep(0.1)


def answers(settings: Mapping[str, Any], seconds: float) -> bool:
    """Wait until the daemon answers on all of its addresses, be it ready or not; whether it does."""
    deadline = time.monotonic() + seconds
    while ask(settings, "/livez") is None or silent(settings):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _reason(body: str) -> str:
    """The sentence in an answer that is no good one."""
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(body)["error"])
    return body.strip()


def _connections(settings: Mapping[str, Any]) -> Iterator[http.client.HTTPConnection]:
    if settings["local.socket"]:
        yield _Unix(settings["local.socket"])
    for host, port in settings["local.listen"]:
        if port:
            yield http.client.HTTPConnection(host, port, timeout=SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is this machine, and the certificate may be of its own making
    for host, port in settings["public.listen"]:
        if port:
            yield http.client.HTTPSConnection(ANY.get(host, host), port, timeout=SECONDS, context=context)
