"""Old ground: a root with nothing but an old glibc, busybox and the binary, and daemons that run in it as on a host of its own."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from client import Client, form
from serverkit import post, read_answer, wait_for

RUN = Path(__file__).resolve().parents[1] / "root" / "run.py"
IPPD = 990  # number of the account and group ippd in the root
START = 60.0  # seconds; a busy machine unpacks and imports slowly
PASSWORD = "correct horse battery"
ADA, ADMINISTRATOR = "ada@example.org", "admin@example.org"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# Those that every test wants; all others are as the program ships them.
SETTINGS = {"public.listen": "127.0.0.1:0", "local.listen": "127.0.0.1:0", "log.file": "/var/log/ippd/ippd.log",
            "auth.bcrypt_cost": "4", "server.processes": "2", "data.reserve": "4MB"}  # fmt: skip


class Ground:
    """A root, its account ippd, and the binary at /usr/bin/ippd."""

    def __init__(self, root, old_kernel=False):
        self.root, self.old_kernel = Path(root), old_kernel
        self.trace = self.root.with_name(f"{self.root.name}.trace")  # the system calls that the old kernel does not know
        self.data = "/var/lib/ippd"
        self.folder("/var/log/ippd")
        self.folder(self.data)
        self._daemons = []

    def path(self, path):
        """Where a path of the root lies outside of it."""
        return self.root / path.lstrip("/")

    def folder(self, path):
        """Make a folder for the account ippd alone."""
        self.path(path).mkdir(mode=0o700)
        os.chown(self.path(path), IPPD, IPPD)

    def put_data_elsewhere(self):
        """Have the data in /srv, where the binary does not think of unpacking."""
        self.path(self.data).rmdir()
        self.data = "/srv/ippd"
        self.path("/srv").mkdir()
        self.folder(self.data)

    def words(self, *command, user=IPPD, mounts=(), beside=None, before=()):
        """The command line that runs a command inside, with the words `before` it all; `mounts` are (folder, options) of file systems
        in memory, or are those of the process `beside`.
        """
        options = ["--old-kernel", "--trace", self.trace] if self.old_kernel else []
        options += ["--user", user] if user else []
        options += [word for mount in mounts for word in ("--tmpfs", *mount)]
        options += ["--beside", beside] if beside else []
        return list(map(str, [*before, sys.executable, RUN, *options, self.root, *command]))

    def run(self, *command, environ=(), **where):
        """Run a command inside to its end; returns what became of it."""
        return subprocess.run(self.words(*command, **where), env=ENVIRONMENT | dict(environ), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120)  # fmt: skip

    def start(self, *command, environ=(), **where):
        """Begin a command inside, in a session of its own."""
        return subprocess.Popen(self.words(*command, **where), env=ENVIRONMENT | dict(environ), stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip

    def ippd(self, *words, **where):
        """Run a command of ippd; returns what it printed."""
        done = self.run("ippd", *words, **where)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def configure(self, **settings):
        """Write /etc/ippd/ippd.conf: `mail__host="127.0.0.1"` and the SETTINGS."""
        given = SETTINGS | {"data.directory": self.data} | {name.replace("__", "."): str(value) for name, value in settings.items()}
        self.path("/etc/ippd").mkdir(exist_ok=True)
        lines = [f"[{name.partition('.')[0]}]\n{name.partition('.')[2]} = {value}\n" for name, value in given.items()]
        self.path("/etc/ippd/ippd.conf").write_text("".join(lines))

    def daemon(self, **where):
        """A daemon that is ready."""
        self._daemons.append(Daemon(self, **where))
        return self._daemons[-1].ready()

    def close(self):
        """End whatever still runs here, and remove the root."""
        for daemon in self._daemons:
            daemon.end()
        shutil.rmtree(self.root)


class Daemon:
    """`ippd serve` inside: a client of each of its listeners, and its processes."""

    def __init__(self, ground, **where):
        self.ground, self.log_path = ground, ground.path(SETTINGS["log.file"])
        self._from = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.process = ground.start("ippd", "serve", **where)
        self.public = self.local = None

    @property
    def log(self):
        """What it has written since its start."""
        if not self.log_path.exists():
            return ""
        with open(self.log_path, encoding="utf-8") as file:
            file.seek(self._from)
            return file.read()

    @property
    def data(self):
        """The data folder as the daemon sees it, whatever is mounted there."""
        return Path(f"/proc/{self.process.pid}/root{self.ground.data}")

    def ready(self):
        """Wait until it serves."""
        assert wait_for(lambda: " serves\n" in self.log or self.process.poll() is not None, START), self.log
        assert self.process.poll() is None, (self.process.stderr.read(), self.log)
        self.public = Client("127.0.0.1", self._port("public"), tls=True)
        self.local = Client("127.0.0.1", self._port("local"))
        return self

    def _port(self, name):
        return int(re.search(rf"{name} listener: https?://127\.0\.0\.1:(\d+)", self.log)[1])

    def processes(self):
        """All its processes: {pid: name}; they share the session of the first."""
        return session(self.process.pid)

    def parent(self):
        """The process id of the unpacked program, the child of the one that unpacked it."""
        return next(pid for pid in self.processes() if parent_of(pid) == self.process.pid)

    def trusting(self):
        """A TLS context that trusts this daemon's own certificate, and no other."""
        return ssl.create_default_context(cafile=str(self.data / "certificate.pem"))

    def log_in(self, email=ADA):
        """The token of a login."""
        reply = self.public.post("/users/auth", email=email, password=PASSWORD)
        assert reply.status == 200 and reply.json["token"], reply
        return reply.json["token"]

    def upload(self, token, size):
        """Begin a submission of so many bytes, and wait until a process takes them in; `finish` sends them and returns the reply."""
        kind, length, pieces = form({"token": token, "app": "echo"}.items(), [("scan", "scan.nii", bytes(size))])
        body = b"".join(pieces)
        connection = self.public.socket(60)
        head = post("/experiments/new", body[:-1], f"Content-Type: {kind}", length=length)
        connection.sendall(head)
        assert wait_for(lambda: (self.data / "uploads" / "incoming").exists() and any(path.stat().st_size for path in self.stored()), 20)

        def finish():
            connection.sendall(body[-1:])
            with connection:
                return read_answer(connection)

        return finish

    def join(self, email=ADA):
        """Make an account, let it in, log it in; returns the token."""
        assert self.public.post("/users/new", email=email, password=PASSWORD).json is True
        user = next(user["id"] for user in self.local.get("/users/list").json if user["email"] == email)
        assert self.local.post(f"/users/approve/{user}").json is True
        return self.log_in(email)

    def submit(self, token, *files, app="echo", **more):
        """Submit an experiment; `files` are (name, bytes). Returns the reply."""
        fields = {"token": token, "app": app, "experimentName": "a trial"} | more
        return self.public.post("/experiments/new", fields, [("scan", *file) for file in files])

    def complete(self, *results):
        """Be a job script: take the next experiment and give results (name, bytes); returns its id."""
        (item,) = self.local.get("/experiments/queue", limit=1).json
        reply = self.local.post(f"/experiments/{item['id']}/results", {}, [("result", *file) for file in results])
        assert reply.status == 200, reply
        return item["id"]

    def experiments(self, token):
        """The user's experiments by id."""
        return {found["id"]: found for found in self.public.get("/experiments", token=token).json["experiments"]}

    def stored(self):
        """The files of uploads on the disk, finished or not."""
        return sorted(path for path in (self.data / "uploads").rglob("*") if path.is_file())

    def complaints(self):
        """The lines of the log that are worse than news."""
        return [line for line in self.log.splitlines() if not re.match(r"\S+ info ", line)]

    def stop(self):
        """Tell it to end as an operator does; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self):
        """End all its processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        assert wait_for(lambda: not self.processes(), 20), self.processes()

    def end(self):
        """Whatever it does, end it."""
        if self.processes():
            self.kill()
        self.process.wait(20)
        self.process.stderr.close()


def stat(pid):
    """The fields of /proc/PID/stat from the third on, and the name; none when there is no such process, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (fields, text[text.index("(") + 1 : text.rindex(")")])


def session(pid):
    """The living processes of a session, which has the number of its first process: {pid: name}."""
    every = {int(name): stat(name) for name in os.listdir("/proc") if name.isdecimal()}
    return {other: found[1] for other, found in every.items() if found and found[0][3] == str(pid)}


def parent_of(pid):
    """The parent of a process."""
    found = stat(pid)
    return found and int(found[0][1])


def let_time_pass(daemon, days):
    """Make all that has happened so many days older, in the database: the clock of the machine is not ours to move.

    By a program that sees the daemon's mounts: SQLite resolves /proc/PID/root to a path, which leads past them.
    """
    columns = ("created_at", "submitted_at", "ended_at", "noticed_at")
    sets = ", ".join(f"{column} = {column} - {days * 86400}" for column in columns)
    program = f"import sqlite3, sys\nwith sqlite3.connect(sys.argv[1], timeout=30) as db: db.execute('UPDATE experiments SET {sets}')"
    words = ["nsenter", f"--mount=/proc/{daemon.process.pid}/ns/mnt", sys.executable, "-c", program]
    subprocess.run([*words, f"{daemon.ground.path(daemon.ground.data)}/ippd.sqlite"], check=True, timeout=60)


def can_bind(client):
    """Whether the port of a client's listener is free."""
    with suppress(OSError), socket.create_server((client.host, client.port)):
        return True
    return False


def kill(pid, *signals, pause=0.001):
    """Send signals to a process, so many seconds apart."""
    for number in signals:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        time.sleep(pause)
