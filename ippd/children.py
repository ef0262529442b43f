"""What the children of the daemon run: the serving processes, and the schedule."""

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from ippd import certificate, logs, schedule
from ippd.admin import panel, reset
from ippd.api.portal import portal
from ippd.api.portal_jobs import jobs
from ippd.core import Core, open_core
from ippd.errors import SettingsError, Unavailable
from ippd.http import account, cors, make_app
from ippd.mail import make_send
from ippd.processes import REOPEN, TIME_TO_RETIRE, Orders
from ippd.rehearsal import rehearse
from ippd.server import Limits, Listener, Server
from ippd.server.tls import load, make_context
from ippd.settings import Settings
from ippd.stop import Stop

FAMILIES = (portal, jobs, panel, reset)

log = logging.getLogger(__name__)
Bound = tuple[str, socket.socket]  # the listener's name and its socket


class Children:
    """What they are made of: the settings, the certificate and the listening sockets. The parent holds the same before it forks."""

    def __init__(self, settings: Settings, read_settings: Callable[[], Settings], bound: list[Bound], must_be_ready: bool) -> None:
        """`must_be_ready`: a serving process that finds something missing fails at once (a predecessor goes on then)."""
        self._settings, self._read_settings, self._bound, self._must_be_ready = settings, read_settings, bound, must_be_ready
        self._tls = make_context(*certificate.pair(settings)) if settings["public.listen"] else None
        # Made before the fork, because much memory is touched when all those routes are compiled.
        self._apps = {name: make_app(FAMILIES, None, settings, name) for name in ("public", "local")}

    def roles(self, count: int) -> list[tuple[str, Callable[[Orders], None]]]:
        """Name and function of `count` serving processes and of the schedule.

        A process of its own keeps the schedule's work from delaying answers. Whoever asks for one serving process only wants the
        memory back: then the schedule is a thread of that one.
        """
        if count == 1:
            return [("ippd: serve 1", functools.partial(self._serve, with_schedule=True))]
        return [*((f"ippd: serve {number}", self._serve) for number in range(1, count + 1)), ("ippd: schedule", self._schedule)]

    def take(self) -> tuple[list[str], list[str]]:
        """Take the new settings and the certificate over, or nothing. Returns (changed, waiting). Raises SettingsError."""
        new = self._read_settings()
        if self._tls:
            load(self._tls, *certificate.pair(new))
        changes = self._settings.take(new)
        logs.level(self._settings)
        return changes

    def _serve(self, orders: Orders, with_schedule: bool = False) -> None:
        core = open_core(self._settings)
        limits = Limits.of(self._settings)
        if self._must_be_ready and (problems := core.ready()):
            raise Unavailable("; ".join(problems))
        for app in self._apps.values():
            app.core = core
            app.reload()
        if self._must_be_ready:
            rehearse(self._bound, self._listener, limits)
        server = Server([self._listener(name, sock) for name, sock in self._bound], limits, _log_access)
        serving = _Work("server", server.run)
        stop_schedule = Stop()
        scheduling = self._start_schedule(core, stop_schedule) if with_schedule else None
        orders.ready()

        def reload() -> None:  # in the thread that makes the TLS connections
            self._take_quietly()
            for app in self._apps.values():
                app.reload()

        for order in orders:
            if order == REOPEN:
                logs.reopen()
            else:
                server.call(reload)
        stop_schedule.set()
        if orders.retired:  # a successor takes what comes: what is under way has all the time it needs
            server.limits = replace(server.limits, drain_timeout=TIME_TO_RETIRE)
        server.stop()
        serving.join()
        jobs_ended = scheduling.join() if scheduling else True
        if server.drained and jobs_ended:  # else some thread may still use it
            core.close()

    def _listener(self, name: str, sock: socket.socket) -> Listener:
        app = _with_request_id(self._apps[name])
        if name == "local":
            return Listener(name, sock, app, local=True)
        return Listener(name, sock, app, self._tls, lambda origin: list(cors(self._settings, origin).items()))

    def _schedule(self, orders: Orders) -> None:
        """The process of the schedule: it has threads and nothing to do with the network."""
        for _, sock in self._bound:
            sock.close()
        core = open_core(self._settings)
        stop = Stop()
        scheduling = self._start_schedule(core, stop)
        orders.ready()
        for order in orders:
            if order == REOPEN:
                logs.reopen()
            else:
                self._take_quietly()
        stop.set()
        if scheduling.join():
            core.close()

    def _start_schedule(self, core: Core, stop: Stop) -> "_Work":
        """Its join() tells, some time after `stop` was set, whether all jobs have ended."""
        patience = self._settings["server.drain_timeout"]
        return _Work("schedule", functools.partial(schedule.run, core, self._settings, make_send(self._settings), stop, log, patience))

    def _take_quietly(self) -> None:
        """The parent has told what changed; only what is wrong in the meantime is worth a line."""
        try:
            self.take()
        except SettingsError as error:
            log.error("this process keeps the old settings: %s", error)


class _Work:
    """A thread that does what its process is for; if it fails, the process ends at once, so that the parent replaces it."""

    def __init__(self, name: str, function: Callable[[], Any]) -> None:
        self._function = function
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException:
            log.exception("the process ends after an error")
            _end_now()

    def join(self) -> Any:
        """Wait for the end; returns what the function returned."""
        self._thread.join()
        return self._result


def _end_now() -> NoReturn:
    os._exit(1)


def _with_request_id(app: Callable) -> Callable:
    """The app, with the id of the request in all lines that it logs."""

    def call(environ: dict[str, Any], start_response: Callable) -> Any:
        with logs.request(environ["ippd.request_id"]):
            return app(environ, start_response)

    return call


_account = functools.lru_cache(maxsize=1000)(account)


def _log_access(facts: dict[str, Any]) -> None:
    user = "" if facts["uid"] is None else _account(facts["uid"])
    with logs.request(facts["request_id"]):
        logs.access(facts["address"], user, facts["method"], facts["path"], facts["status"], facts["bytes"],
                    facts["milliseconds"] / 1000)  # fmt: skip
