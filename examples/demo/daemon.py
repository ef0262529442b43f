"""Starts and stops `ippd serve` in a folder of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from portal import Failure, Portal

IPPD = Path(sys.executable).with_name("ippd")  # the one of the environment that the demo runs in
OLD_NAMES = ("UPLOAD_FOLDER", "ADMIN_EMAIL", "ADMIN_SLACK")  # variables that the daemon also listens to


def free_ports(count):
    """Ports of loopback on which nobody listens."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


class Daemon:
    """A daemon with its data and settings in `folder`; `public` and `local` are its addresses, `log` its log file."""

    def __init__(self, folder, program=IPPD, **settings):
        """Write the settings file; `settings` are like mail__host="127.0.0.1". `program` is the ippd to start."""
        self.program = program
        self.public_port, self.local_port = free_ports(2)
        self.public, self.local = f"https://127.0.0.1:{self.public_port}", f"http://127.0.0.1:{self.local_port}"
        self.data, self.config, self.log = folder / "data", folder / "ippd.conf", folder / "ippd.log"
        given = {
            "data__directory": self.data,
            "public__listen": f"127.0.0.1:{self.public_port}",
            "public__url": self.public,
            "local__listen": f"127.0.0.1:{self.local_port}",
            "worker__url": self.local,
        } | settings
        lines = []
        for name, value in given.items():
            section, _, option = name.partition("__")
            lines += [f"[{section}]", f"{option} = {value}"]
        self.config.write_text("\n".join(lines) + "\n")
        self._environment = {n: v for n, v in os.environ.items() if not n.startswith("IPPD_") and n not in OLD_NAMES}
        self._process = None

    def start(self, seconds=30):
        """Start it and wait until it answers; raises Failure. Returns a Portal over its public listener."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "-c", self.config, "serve"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )
        end = time.monotonic() + seconds
        certificate = self.data / "certificate.pem"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise Failure(f"the daemon ended with status {self._process.returncode} instead of starting")
            try:
                portal = Portal(self.public_port, certificate)
                if portal.get("/readyz").status == 200:
                    return portal
            except OSError:  # not there yet: the certificate, or the listener
                pass
            time.sleep(0.05)
        raise Failure(f"the daemon does not answer after {seconds} s")

    @property
    def pid(self):
        """The process id of the daemon's parent process."""
        return self._process.pid

    def command(self, *words, given=""):
        """Run an ippd command beside the daemon, with `given` as its standard input; returns what it prints. Raises Failure."""
        done = subprocess.run(
            [self.program, "-c", self.config, *words], input=given, capture_output=True, text=True, env=self._environment, timeout=60
        )
        if done.returncode != 0:
            raise Failure(f"ippd {' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    @contextlib.contextmanager
    def worker(self, engine):
        """While inside, a worker runs beside it."""
        words = [self.program, "-c", self.config, "worker", "--as-root", "--engine", engine.name]
        given = self._environment | engine.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=given)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    def stop(self, seconds=45):
        """Ask it to end; returns its exit status, or None if it had to be killed (or was never started)."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None
