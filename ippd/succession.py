"""A new program takes over from the one that runs: it inherits the sockets and the lock, so that no connection is refused."""

import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

from ippd.host.program import program_path
from ippd.host.steps import clean
from ippd.processes import Orders

VARIABLE = "SUCCESSION_OF_IPPD"  # not IPPD_...: those are settings
Bound = tuple[str, socket.socket]


@dataclass
class Inheritance:
    """What a predecessor left: its lock, its listening sockets by the listener's name, and where to say that all is ready."""

    lock: int
    bound: list[Bound]
    news: int

    def take_over(self) -> None:
        """All is ready: name this process in the lock, behind the first one, and let the predecessor retire."""
        first = os.pread(self.lock, 100, 0).split()[0].decode()
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{first} {os.getpid()}\n".encode(), 0)
        os.write(self.news, b"!")
        os.close(self.news)


def inherited() -> Inheritance | None:
    """What a predecessor left in this process; None when there was none."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    left = json.loads(text)
    for descriptor in (left["lock"], left["news"], *(descriptor for _, descriptor in left["bound"])):
        os.set_inheritable(descriptor, False)
    bound = [(name, socket.socket(fileno=descriptor)) for name, descriptor in left["bound"]]
    for _, sock in bound:
        sock.setblocking(False)
    return Inheritance(left["lock"], bound, left["news"])


def become_successor(lock: int, bound: list[Bound], orders: Orders) -> NoReturn:
    """In a child process: become the program that lies where ours was started from, with the same arguments."""
    left = {"lock": lock, "news": orders.news, "bound": [(name, sock.fileno()) for name, sock in bound]}
    for descriptor in (lock, orders.news, *(sock.fileno() for _, sock in bound)):
        os.set_inheritable(descriptor, True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    program = str(program_path())
    words = [program, *sys.argv[1:]]
    if program.endswith("__main__.py"):  # python -m ippd
        program, words = sys.executable, [sys.executable, "-m", __package__, *sys.argv[1:]]
    # A one-file program unpacks itself anew instead of using what its predecessor unpacked.
    os.execve(program, words, clean() | {VARIABLE: json.dumps(left), "PYINSTALLER_RESET_ENVIRONMENT": "1"})
