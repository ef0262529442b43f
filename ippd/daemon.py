"""The daemon: what is started, reloaded and stopped, in order."""

import ctypes
import functools
import gc
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from ippd import logs, watchdog
from ippd.children import Bound, Children
from ippd.core import open_core
from ippd.errors import SettingsError
from ippd.host.handover import REFUSED
from ippd.permissions import SYSTEM
from ippd.processes import Parent
from ippd.server import bind_tcp, bind_unix
from ippd.settings import Settings
from ippd.succession import Inheritance, become_successor, inherited

MOST_PROCESSES = 4  # when the number is left to us
SPARE_FILES = 500  # descriptors of a process besides its connections: the files that these read and write, the store
LOCK = "ippd.lock"
GLANCE = 1.0  # seconds in which whoever only looks at the lock (doctor, install, update) has long let go of it

log = logging.getLogger(__name__)


def serve(settings: Settings, reload_settings: Callable[[], Settings], ready: Callable[[], None] = lambda: None) -> int:
    """Run until told to stop; returns the exit status. The log has begun; nothing may have a thread or an open database.

    `reload_settings` reads the settings again, in each process; `ready` is called once all is up. Raises SettingsError when something
    cannot be used.
    """
    left = inherited()
    with ExitStack() as stack:
        if left:  # uploads are under way in the predecessor: nothing is swept
            return Daemon(settings, reload_settings, left.bound, left.lock, left).run(ready)
        lock = stack.enter_context(locked(Path(settings["data.directory"])))
        _sweep(settings)
        bound = stack.enter_context(listening(settings))
        return Daemon(settings, reload_settings, bound, lock).run(ready)


class Daemon:
    """What the parent keeps, and what its children run."""

    def __init__(
        self, settings: Settings, reload_settings: Callable[[], Settings], bound: list[Bound], lock: int, left: Inheritance | None = None
    ) -> None:
        self._settings, self._bound, self._lock, self._left = settings, bound, lock, left
        self._children = Children(settings, reload_settings, bound, must_be_ready=left is not None)

    def run(self, ready: Callable[[], None]) -> int:
        """Start the processes and keep them running; calls `ready` once they do their work. Returns the exit status."""
        count = self._settings["server.processes"] or min(MOST_PROCESSES, os.cpu_count() or 1)
        _allow_files(self._settings["server.connections"] + SPARE_FILES)
        roles = self._children.roles(count)
        if every := watchdog.seconds():
            roles.append(("ippd: watch", functools.partial(watchdog.watch, self._bound, every, reopen=logs.reopen)))
        parent = Parent(roles, self._settings["server.drain_timeout"])
        parent.on_ready, parent.on_stop = functools.partial(self._ready, ready), self._stop
        parent.on_reload, parent.on_reopen = self._reload, logs.reopen
        parent.on_no_successor = (Path(self._settings["data.directory"]) / REFUSED).touch
        parent.on_succeed = lambda: parent.succeed(functools.partial(become_successor, self._lock, self._bound))
        _share_memory()
        status = parent.run()
        log.info("stopped")
        return status

    def _ready(self, ready: Callable[[], None]) -> None:
        for name, sock in self._bound:
            log.info("%s listener: %s", name, _address(name, sock))
        log.info("process %d serves", os.getpid())
        watchdog.tell("READY=1")
        if self._left:
            self._left.take_over()
            self._left = None  # from now on this is a daemon like any other
        ready()

    def _stop(self) -> None:
        log.info("stopping")
        watchdog.tell("STOPPING=1")
        for _, sock in self._bound:
            sock.close()

    def _reload(self) -> bool:
        """In the parent: try the new settings. Returns whether the children should take them; if not, all stays as it is."""
        watchdog.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            live, waiting = self._children.take()
        except SettingsError as error:
            log.error("nothing was reloaded: %s", error)
            return False
        finally:
            watchdog.tell("READY=1")
        log.info("reloaded: %s", ", ".join(live) or "no setting has changed")
        if waiting:
            log.warning("these settings wait for a restart: %s", ", ".join(waiting))
        return True


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the data folder for one daemon; its children hold it too. Raises SettingsError when another one does.

    Yields the descriptor of the lock: whoever inherits it holds it as well.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + GLANCE
        while not _taken(descriptor) and time.monotonic() < deadline:
            time.sleep(GLANCE / 20)
        if not _taken(descriptor):
            other = os.read(descriptor, 100).decode("ascii", "replace").partition(" ")[0].strip()
            raise SettingsError(f"data.directory: {folder} is in use by another ippd (process {other})")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield descriptor
        finally:
            os.ftruncate(descriptor, 0)  # a number that is left would be a dead one, or another program's
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True  # also when it was ours already


@contextmanager
def listening(settings: Settings) -> Iterator[list[Bound]]:
    """All listening sockets that the settings name. Raises SettingsError."""
    bound: list[Bound] = []
    try:
        bound += [("public", bind_tcp(host, port, "public.listen")) for host, port in settings["public.listen"]]
        for host, port in settings["local.listen"]:
            try:
                bound.append(("local", bind_tcp(host, port, "local.listen")))
            except SettingsError as error:
                if host != "::1" or os.path.exists("/proc/self/net/if_inet6") or len(settings["local.listen"]) == 1:
                    raise
                log.warning("%s (IPv6 is switched off here)", error)
        if settings["local.socket"]:
            bound.append(("local", bind_unix(settings["local.socket"], "local.socket")))
        if not bound:
            raise SettingsError("nothing to listen on: public.listen, local.listen and local.socket are empty")
        yield bound
    finally:
        for _, sock in bound:
            sock.close()
        if settings["local.socket"] and bound:
            with suppress(OSError):
                os.unlink(settings["local.socket"])


def _sweep(settings: Settings) -> None:
    """Remove what a crash left of uploads. The folder is locked and nothing serves yet: no upload can be under way."""
    core = open_core(settings)
    try:
        pieces = core.housekeeping.sweep_orphans(SYSTEM, age=0)
    finally:
        core.close()
    if pieces:
        log.warning("%d pieces of broken-off uploads were removed", pieces)


def _address(name: str, sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return str(sock.getsockname())
    host, port = sock.getsockname()[:2]
    return f"{'https' if name == 'public' else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _allow_files(count: int) -> None:
    """Raise the limit of open files as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < count:
        log.warning("this account may open %d files only; server.connections would need %d", hard, count)


def _share_memory() -> None:
    """What is loaded by now stays shared with the children; what loading it has left over goes back to the kernel."""
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
