"""Daemons of the binary for tests that want a portal: started once, used by test after test, each time as if they were new."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import program
from ippd import certificate

NOW = 1_800_000_000.0  # when each test begins, in seconds since 1970
START, END = 60.0, 30.0  # seconds; a busy machine takes its time
MOST = 3  # that wait for the next test
CLOCK = Path(__file__).with_name("clock.c")
ACCESS = re.compile(r'^\S+ info \d+ \S+ access: (\S+) (\S+) "(\S+) (.*)" (\d+) (\d+) ([\d.]+)$', re.MULTILINE)


def _clock_library(folder):
    """What makes a program see the time of the tests' clock."""
    library = folder / "clock.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, CLOCK], check=True)
    return library


class Daemon:
    """`ippd serve` over `data`, with these settings: {name: text}."""

    def __init__(self, folder, given):
        self.folder, self.given, self.data = folder, given, folder / "data"
        self._log, self._clock, self._begin = folder / "log", folder / "clock", 0
        self._log.unlink(missing_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        self.show(NOW)
        certificate.make(["localhost"], str(self.data / "certificate.pem"), str(self.data / "key.pem"))
        # With two processes that serve the schedule is a process of its own.
        settings = given | {"server.processes": "2"} | {
            "data.directory": self.data, "log.file": self._log, "public.listen": "127.0.0.1:0", "local.listen": "127.0.0.1:0",
        }  # fmt: skip
        environ = {
            "PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp"), "IPPD_CONFIG": "",
            "LD_PRELOAD": str(_clock_library(folder.parent)), "TEST_CLOCK": str(self._clock),
        }  # fmt: skip
        overrides = [word for name, text in settings.items() for word in ("--set", f"{name}={text}")]
        # In a session of its own: a group of processes that loses its terminal while one of it is held gets SIGHUP, all of it.
        self.process = subprocess.Popen(
            program.words(*overrides, "serve"), env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
        self._wait(lambda: " serves\n" in self.log)
        self.public, self.local = (int(re.search(rf"{name} listener: https?://127\.0\.0\.1:(\d+)", self.log)[1])
                                   for name in ("public", "local"))  # fmt: skip
        self._children = program.children_of(program.pid_of(self.process))
        self._hold_schedule()
        self._files = self._list()
        self._database = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self.data / "ippd.sqlite")) as database:
            database.backup(self._database)
        self._sockets = self._count_sockets()

    def show(self, now):
        """Let it be `now` for the daemon, in seconds since 1970."""
        with open(self._clock, "r+b" if self._clock.exists() else "xb", buffering=0) as file:
            file.write(round(now * 1e9).to_bytes(8, sys.byteorder))

    @property
    def log(self):
        """What was logged since the test began."""
        if not self._log.exists():
            return ""
        with open(self._log, encoding="utf-8") as file:
            file.seek(self._begin)
            return file.read()

    def requests(self):
        """What the access log got since the test began."""
        names = ("address", "user", "method", "path", "status", "bytes", "seconds")
        found = [dict(zip(names, line, strict=True)) for line in ACCESS.findall(self.log)]
        return [one | {"status": int(one["status"]), "bytes": int(one["bytes"])} for one in found]

    def renew(self):
        """Make all as it was after the start; returns False when that cannot be, and the daemon should be ended."""
        if self.process.poll() is not None or program.children_of(program.pid_of(self.process)) != self._children:
            return False
        deadline = time.monotonic() + 3
        while self._count_sockets() > self._sockets:  # something of the last test is still under way
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        for path in sorted(self._list() - self._files, reverse=True):
            path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()
        if self._list() != self._files:
            return False
        with closing(sqlite3.connect(self.data / "ippd.sqlite", isolation_level=None)) as database:
            self._database.backup(database)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the schedule, which would do it, is held
        self._begin = self._log.stat().st_size
        return True

    def stop(self):
        """End it; a daemon that does not end well is a mistake."""
        for number, name in self._children.items():
            if "schedule" in name:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(END)
        finally:
            self.process.kill()
            self.process.stderr.close()
        assert status == 0, f"the daemon ended with status {status}: {self.log[-2000:]}"

    def _wait(self, condition):
        deadline = time.monotonic() + START
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, "the daemon does not start"
            time.sleep(0.02)

    def _hold_schedule(self):
        """Stop the process of the schedule: the tests do by hand what it would do at some time. Not while it holds up the database."""
        index = str(os.stat(self.data / "ippd.sqlite-shm").st_ino)
        for number in [number for number, name in self._children.items() if "schedule" in name]:
            while True:
                os.kill(number, signal.SIGSTOP)
                locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
                if not any(lock[4] == str(number) and lock[5].endswith(f":{index}") and int(lock[6]) < 128 for lock in locks):
                    break
                os.kill(number, signal.SIGCONT)
                time.sleep(0.02)

    def _list(self):
        """The files and folders in the data folder, but those that SQLite makes and removes."""
        return {path for path in self.data.rglob("*") if not path.name.startswith("ippd.sqlite-")}

    def _count_sockets(self):
        count = 0
        for number, name in self._children.items():
            if "serve" in name:
                for descriptor in Path(f"/proc/{number}/fd").iterdir():
                    with suppress(OSError):
                        count += os.readlink(descriptor).startswith("socket:")
        return count


class Daemons:
    """The daemons that wait for a test, by their settings."""

    def __init__(self, make_folder):
        self._make_folder, self._waiting = make_folder, []

    def take(self, given):
        """A daemon with these settings that knows nothing yet."""
        for daemon in [one for one in self._waiting if one.given == given]:
            self._waiting.remove(daemon)
            if daemon.renew():
                return daemon
            daemon.stop()
        return Daemon(self._make_folder(), given)

    def give_back(self, daemon, again):
        """A test has ended; `again` says whether another test can want the same settings."""
        if again:
            self._waiting.append(daemon)
        for surplus in self._waiting[:-MOST] if again else [daemon]:
            if again:
                self._waiting.remove(surplus)
            surplus.stop()

    def stop(self):
        for daemon in self._waiting:
            daemon.stop()
