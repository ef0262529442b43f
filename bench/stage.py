"""What every measurement stands on: a daemon of its own, a bare server beside it, and the table of what was found."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples" / "demo"))

from daemon import Daemon, free_ports  # noqa: E402  (the demo's, which stands in another folder)

EMAIL, PASSWORD = "ada@bench.example", "a password for the bench"
# One user at one address does here what a thousand do elsewhere. All else is as it comes, the access log included.
OPEN = {"auth__logins_per_minute": 10**6, "limits__waiting_experiments": 10**6, "limits__kept_experiments": 10**6}


class Stage:
    """A running daemon with one user: `daemon`, `portal` (a client), `token`, `folder` for files, `public` and `local` URLs."""

    def __init__(self, folder, seconds, **settings):
        self.folder, self.seconds = folder, seconds
        self.daemon = Daemon(folder, **OPEN, **settings)
        self.public, self.local = self.daemon.public, self.daemon.local
        self.portal = self.daemon.start()
        self.add_user(EMAIL)
        self.token = self.log_in(EMAIL)

    def add_user(self, email):
        """Make an approved account."""
        self.daemon.command("user", "add", email, given=f"{PASSWORD}\n")

    def log_in(self, email):
        """A token."""
        return self.portal.post("/users/auth", email=email, password=PASSWORD).json()["token"]

    def submit(self, count):
        """Submit so many experiments with one small file each."""
        for number in range(count):
            fields = {"token": self.token, "app": "bench", "experimentName": f"experiment {number}", "axis": "axial"}
            self.portal.upload("/experiments/new", fields, [("scan", "scan.nii.gz", b"x" * 100)]).json()

    def certificate(self):
        """The pair that the daemon made for itself."""
        return str(self.daemon.data / "certificate.pem"), str(self.daemon.data / "key.pem")

    @contextlib.contextmanager
    def bare(self, body, tls=True):
        """A bare server that answers `body`; yields its URL."""
        file = self.folder / "answer"
        file.write_bytes(body)
        [port] = free_ports(1)
        with program(HERE / "bare.py", str(port), str(file), *(self.certificate() if tls else ())):
            wait_for(port)
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/"


@contextlib.contextmanager
def staged(seconds):
    """A Stage in a temporary folder; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ippd-bench-"))
    stage = None
    try:
        stage = Stage(folder, seconds)
        yield stage
    finally:
        if stage:
            stage.daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def program(path, *words):
    """A Python program of this folder, running; killed afterwards."""
    process = subprocess.Popen([sys.executable, path, *words], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(port, seconds=10):
    """Wait until somebody listens on a port of loopback."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Row(NamedTuple):
    """A line of the table: what, ippd's figure, the bare one, their ratio or a remark, the aim, and whether it was met (None: no aim)."""

    what: str
    ippd: str
    bare: str = ""
    ratio: str = ""
    aim: str = ""
    met: bool | None = None


def compared(what, ippd, bare, aim=None):
    """A row about requests per second: `aim` is the least ratio that will do."""
    ratio = ippd / bare
    met = ratio >= aim if aim else None
    return Row(what, f"{ippd:,.0f} /s", f"{bare:,.0f} /s", f"{ratio:.2f}x", f">= {aim}x" if aim else "", met)


def latency(what, ippd, bare=None, most=None):
    """A row about a p99 in ms: `most` is what it may be."""
    return Row(what, f"{ippd:,.1f} ms", f"{bare:,.1f} ms" if bare else "", f"{ippd / bare:.2f}x" if bare else "",
               f"< {most} ms" if most else "", ippd < most if most else None)  # fmt: skip


def show(rows):
    """Print the table."""
    cells = [("", "ippd", "bare", "ratio", "aim", "")]
    cells += [(*row[:5], {True: "met", False: "MISSED", None: ""}[row.met]) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(6)]
    for row in cells:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)), sep="  ")
