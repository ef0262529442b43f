"""Processes: a parent without threads that starts children, hears signals, and replaces a child that dies."""

import ctypes
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ippd.errors import IppdError

# What a parent tells its children. RETIRE is STOP without haste: a successor takes the new work. SUCCEED is for a parent, and so is
# RETIRE_ALL: it passes RETIRE on to its own children and ends with the last of them.
STOP, RELOAD, REOPEN, RETIRE, SUCCEED, RETIRE_ALL = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2, signal.SIGRTMIN)  # fmt: skip
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, RETIRE_ALL)
TIME_TO_SUCCEED = 60.0  # seconds that a successor has to become ready
TIME_TO_RETIRE = 86400.0  # seconds that requests have that were under way when a successor took over
PATIENCE = 5.0  # seconds that children have to end after the time in which they should
STEADY = 30.0  # seconds that a child must live for its next death to count as the first
LONGEST_PAUSE = 30.0  # seconds before a child that dies again and again is replaced
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # prctl(2)

log = logging.getLogger(__name__)


class SignalPipe:
    """Signals as something to wait for: they never interrupt anything. For the main thread of a process."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, lambda number, frame: None)

    def wait(self, timeout: float | None, more: Iterable[int] = ()) -> set[int]:
        """The signals that came; returns when there is one, or `more` has something to read, or after `timeout` seconds."""
        poll = select.poll()
        for descriptor in (self._read, *more):
            poll.register(descriptor, select.POLLIN)
        poll.poll(None if timeout is None else max(0, round(timeout * 1000)))
        try:
            return set(os.read(self._read, 4096))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        """In a child: forget the pipe of the parent."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


class Orders:
    """What a child hears from its parent: iterate over RELOAD and REOPEN; the end means: finish and return."""

    def __init__(self, ready: int) -> None:
        self.news, self._signals = ready, SignalPipe()
        self.retired = False  # whether the end came as RETIRE
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent says when to stop
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def ready(self) -> None:
        """Tell the parent that this child does its work."""
        os.write(self.news, b"!")

    def __iter__(self) -> Iterator[int]:
        while True:
            heard = self._signals.wait(None)
            if heard & {STOP, RETIRE}:
                self.retired = STOP not in heard
                return
            yield from heard & {RELOAD, REOPEN}


@dataclass
class Child:
    """A place for a process: what it is called, what it runs, and how it fares."""

    name: str
    run: Callable[[Orders], None]
    pid: int = 0  # 0: it does not run
    news: int = -1  # the pipe by which it says that it is ready
    ready: bool = False  # whether it, or one before it, has done its work
    started: float = 0.0
    due: float = 0.0  # when to start it again
    deaths: int = 0  # in a row
    successor: bool = False  # takes the place of all others once it is ready
    retired: bool = False  # finishes what it has; not to be replaced

    def died(self, now: float) -> float:
        """Note the end; returns the seconds to wait before the next start: none the first time."""
        if now - self.started >= STEADY:
            self.deaths = 0
        pause = min(LONGEST_PAUSE, 0.25 * 2**self.deaths) if self.deaths else 0.0
        self.deaths += 1
        self.pid, self.due = 0, now + pause
        if self.news >= 0:
            os.close(self.news)
            self.news = -1
        return pause


class Parent:
    """Keeps its children running until it is told to stop. It must have no other thread: a fork would copy held locks."""

    def __init__(self, roles: Iterable[tuple[str, Callable[[Orders], None]]], time_to_stop: float) -> None:
        """Takes (name, function) of each child, and the seconds that they have to finish."""
        self._children = [Child(name, run) for name, run in roles]
        self._time_to_stop = time_to_stop
        self._stop_at: float | None = None  # when patience ends, once they have been told to stop
        self._retiring = False  # a successor has taken over; `_stop_at` is far away
        self._status = 0
        self._was_ready = False
        self.on_ready: Callable[[], None] = lambda: None  # all children do their work, for the first time
        self.on_stop: Callable[[], None] = lambda: None  # before the children are told
        self.on_reload: Callable[[], bool] = lambda: True  # returns whether to tell the children
        self.on_reopen: Callable[[], None] = lambda: None
        self.on_succeed: Callable[[], None] = lambda: None  # somebody wants a successor
        self.on_no_successor: Callable[[], None] = lambda: None  # it did not become ready

    def succeed(self, run: Callable[[Orders], None]) -> None:
        """Start a process that takes over from all others, an earlier successor too, once it is ready; if that fails, all goes on."""
        under_way = any(child.successor and not child.ready for child in self._children)
        if self._stop_at is None and self._was_ready and not under_way:
            self._children.append(Child("ippd: successor", run, successor=True))

    def run(self) -> int:
        """Start the children and keep them running. Returns the exit status: 0 when stopped, 1 when they did not start."""
        self._signals = SignalPipe()
        while True:
            if self._stop_at is None:
                for child in self._children:
                    if not child.pid and time.monotonic() >= child.due:
                        self._start(child)
            elif not any(child.pid for child in self._children):
                return self._status
            heard = self._signals.wait(self._pause(), [child.news for child in self._children if child.news >= 0])
            self._obey(heard)

    def _obey(self, heard: set[int]) -> None:
        """Orders come before the dead: a child that ends because all have been told to must not be replaced."""
        if heard & {signal.SIGTERM, signal.SIGINT}:
            self._stop()
        # A successor may know settings that this program does not: it judges for itself.
        if RELOAD in heard and self._stop_at is None and (self._successor() or self.on_reload()):
            self._tell(RELOAD)
        if SUCCEED in heard:
            self.on_succeed()
        if RETIRE_ALL in heard and self._stop_at is None:
            log.info("process %d retires: a successor serves", os.getpid())
            self._stop_at, self._retiring = time.monotonic() + TIME_TO_RETIRE + PATIENCE, True
            for child in list(self._children):
                self._retire(child)
        if signal.SIGUSR1 in heard:
            self.on_reopen()
            self._tell(REOPEN)
        self._hear_news()
        self._bury()
        self._watch_successor()
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            log.error("not all processes have ended in time: those left are killed")
            self._tell(signal.SIGKILL)
            self._stop_at = time.monotonic() + PATIENCE

    def _pause(self) -> float | None:
        """Seconds until something is to be done without a signal."""
        if self._stop_at is not None:
            return self._stop_at - time.monotonic()
        due = [child.due for child in self._children if not child.pid]
        due += [child.started + TIME_TO_SUCCEED for child in self._children if child.successor and not child.ready and child.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start(self, child: Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child.news, ready = os.pipe()
        child.started, parent = time.monotonic(), os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until the child has a pipe of its own for them
        try:
            child.pid = os.fork()
            if not child.pid:
                self._become(child, ready, parent)
        except OSError as error:
            pause = child.died(time.monotonic()) or 1.0
            child.due = time.monotonic() + pause
            log.error("%s cannot be started (%s); once more in %g s", child.name, error.strerror, pause)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(ready)

    def _become(self, child: Child, ready: int, parent: int) -> None:
        """In the new process: run what the child is for, and end."""
        status = 1
        try:
            self._signals.close()
            for other in self._children:
                if other.news >= 0:
                    os.close(other.news)
            orders = Orders(ready)
            name_process(child.name)
            end_with_parent(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            child.run(orders)
            status = 0
        except IppdError as error:
            log.error("%s: %s", child.name, error)
        except BaseException:
            log.exception("%s ends after an error", child.name)
        finally:
            os._exit(status)  # nothing of the parent's is to be cleaned up here, and no thread is waited for

    def _hear_news(self) -> None:
        for child in self._children:
            if child.news >= 0 and select.select([child.news], [], [], 0)[0]:
                child.ready = os.read(child.news, 1) == b"!" or child.ready
                os.close(child.news)
                child.news = -1
        if not self._was_ready and all(child.ready for child in self._children):
            self._was_ready = True
            self.on_ready()

    def _successor(self) -> Child | None:
        """The one that has taken over last."""
        return next((child for child in reversed(self._children) if child.successor and child.ready and child.pid), None)

    def _watch_successor(self) -> None:
        """Let those before it retire once a successor is ready; end one that does not become ready."""
        for child in self._children:
            if child.successor and not child.ready and child.pid and time.monotonic() >= child.started + TIME_TO_SUCCEED:
                os.kill(child.pid, signal.SIGKILL)
        if successor := self._successor():
            for other in self._children[: self._children.index(successor)]:
                self._retire(other)

    def _retire(self, child: Child) -> None:
        if not child.pid:  # it waits for its next start, which is not wanted any more
            self._children.remove(child)
        elif not child.retired:
            child.retired = True
            os.kill(child.pid, RETIRE_ALL if child.successor else RETIRE)

    def _bury(self) -> None:
        """Take note of children that have ended."""
        for child in list(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG) if child.pid else (0, 0)
            if not pid:
                continue
            failed = child.successor and not child.ready
            pause = child.died(time.monotonic())
            if self._stop_at is not None:
                continue
            if child.retired or failed:
                self._children.remove(child)
                if failed:
                    log.error("the successor (process %d) did not become ready: all goes on as before", pid)
                    self.on_no_successor()
                continue
            if not child.ready:
                log.error("%s (process %d) did not start", child.name, pid)
                self._status = 1
                self._stop()
                continue
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            log.error("%s (process %d) %s; it is replaced %s", child.name, pid, how, f"in {pause:g} s" if pause else "now")

    def _stop(self) -> None:
        """Tell all to finish. A second time changes nothing."""
        if self._stop_at is None or self._retiring:
            self._retiring = False
            self._stop_at = time.monotonic() + self._time_to_stop + PATIENCE
            self.on_stop()
            self._tell(STOP)

    def _tell(self, order: int) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, order)


def name_process(name: str) -> None:
    """The name that ps and top show; the kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def end_with_parent(parent: int) -> None:
    """Be told to stop when the parent dies, however it dies. Exits at once if it has died already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, STOP, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
