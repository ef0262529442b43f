"""The daemon as its operator sees it: `ippd serve` with all its processes, and what signals and deaths do to it."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import program
from ippd import certificate
from mailservers import Inbox, smtp_server
from serverkit import Reader, closed, get, post, read_answer, trusting, wait_for

BODY = b"email=a&password=b&" + b"&".join([b"x=" + b"y" * 47] * 2000)
START = 30.0  # seconds; a busy machine imports slowly


class Daemon:
    """`ippd serve` over a folder of its own."""

    def __init__(self, folder, *sets, environ=()):
        self.folder, self.log_path, self.config = folder, folder / "ippd.log", folder / "ippd.conf"
        self.config.touch()
        self.pid = 0  # of the parent of all its processes
        given = [f"data.directory={folder}/data", "data.reserve=0", f"log.file={self.log_path}", "public.listen=127.0.0.1:0",
                 "local.listen=127.0.0.1:0", "server.processes=2", "server.drain_timeout=5", *sets]  # fmt: skip
        words = [word for one in given for word in ("--set", one)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
        self.process = subprocess.Popen(
            program.words("--config", self.config, *words, "serve"), env=clean | dict(environ), stderr=subprocess.PIPE, text=True)

    def ready(self):
        """Wait until it serves."""
        assert wait_for(lambda: " serves\n" in self.log or self.process.poll() is not None, START)
        assert self.process.poll() is None, self.process.stderr.read()
        self.pid = program.pid_of(self.process)
        self.public = int(re.search(r"public listener: https://127\.0\.0\.1:(\d+)", self.log)[1])
        self.local = int(re.search(r"local listener: http://127\.0\.0\.1:(\d+)", self.log)[1])
        return self

    @property
    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def children(self):
        """The name of each child process: {pid: name}."""
        return program.children_of(self.pid)

    def tls(self):
        return trusting().wrap_socket(socket.create_connection(("127.0.0.1", self.public), 10), server_hostname="localhost")

    def plain(self):
        return socket.create_connection(("127.0.0.1", self.local), 10)

    def version(self):
        connection = http.client.HTTPSConnection("127.0.0.1", self.public, timeout=10, context=trusting())
        connection.request("GET", "/version")
        try:
            return json.load(connection.getresponse())["version"]
        finally:
            connection.close()

    def certificate(self):
        with self.tls() as connection:
            return connection.getpeercert(True)

    def upload(self):
        """Begin a request whose body is not there yet, and wait until a process waits for it."""
        connection = self.tls()
        form = "Content-Type: application/x-www-form-urlencoded"
        connection.sendall(post("/users/auth", b"", form, "Expect: 100-continue", length=len(BODY)))
        assert read_answer(connection).status == 100
        return connection

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """Stop it, however it fares."""
        running = self.children if self.pid else ()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in running), 10)
        self.process.stderr.close()


@pytest.fixture
def start(tmp_path):
    """A function: start a daemon."""
    running = []

    def begin(*sets, **more):
        running.append(Daemon(tmp_path, *sets, **more))
        return running[-1]

    yield begin
    for daemon in running:
        daemon.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A daemon that no test ends."""
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), "server.drain_timeout=1").ready()
    yield daemon
    daemon.end()


def test_it_has_a_parent_two_serving_processes_and_a_schedule(shared):
    assert sorted(shared.children.values()) == ["ippd: schedule", "ippd: serve 1", "ippd: serve 2"]
    assert os.listdir(f"/proc/{shared.pid}/task") == [str(shared.pid)]
    assert not [path for path in Path(f"/proc/{shared.pid}/fd").iterdir() if "sqlite" in os.readlink(path)]
    assert shared.version()


def test_both_processes_serve(shared):
    processes = set()

    def both():
        shared.version()
        processes.update(re.findall(r"info (\d+) \w+ access:", shared.log))
        return len(processes) == 2

    hold = [shared.tls() for _ in range(20)]
    assert wait_for(both, 10)
    for connection in hold:
        connection.close()


def test_a_second_daemon_on_the_same_folder_is_refused(shared):
    second = Daemon(shared.folder)
    assert second.process.wait(START) == 1
    assert f"is in use by another ippd (process {shared.pid})" in second.process.stderr.read()
    second.process.stderr.close()
    assert shared.version()


@pytest.mark.parametrize("name", ["ippd: serve 1", "ippd: schedule"])
def test_a_killed_process_is_replaced_and_the_others_go_on(shared, name):
    def pid():
        return next((pid for pid, other in shared.children.items() if other == name), None)

    before = shared.children
    victim = pid()
    os.kill(victim, signal.SIGKILL)
    for _ in range(5):
        assert shared.version()
    assert wait_for(lambda: pid() not in (None, victim), 10)
    assert {other for other in before if other != victim} <= shared.children.keys()
    assert re.search(rf"{name} \(process {victim}\) was killed by signal 9; it is replaced", shared.log)


def test_hup_takes_the_new_certificate_and_settings_and_drops_no_connection(shared):
    data = shared.folder / "data"
    before = shared.certificate()
    with shared.tls() as connection:
        reader = Reader(connection)
        connection.sendall(get("/version"))
        assert reader.answer().status == 200
        certificate.make(["localhost", "new.example"], str(data / "certificate.pem"), str(data / "key.pem"))
        shared.config.write_text("[public]\norigins = https://only.example\nlisten = 127.0.0.1:1\n")
        shared.signal(signal.SIGHUP)
        assert wait_for(lambda: "reloaded: public.origins" in shared.log)

        def new_origins():
            connection.sendall(get("/version", "Origin: https://only.example"))
            reply = reader.answer()
            return (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://only.example")

        assert wait_for(new_origins)
        assert wait_for(lambda: all(shared.certificate() != before for _ in range(10)))
        assert connection.getpeercert(True) == before
    after = shared.certificate()
    victims = [pid for pid, name in shared.children.items() if "serve" in name]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: len(shared.children) == 3 and not shared.children.keys() & set(victims), 10)
    assert shared.certificate() == after  # what comes later has it too


def test_hup_with_bad_settings_or_a_bad_certificate_changes_nothing(shared):
    before, key = shared.certificate(), (shared.folder / "data" / "key.pem").read_text()
    for path, text, complaint in (
        (shared.config, "[public]\norigin = typo\n", r"nothing was reloaded: .*ippd\.conf:2"),
        (shared.folder / "data" / "key.pem", "junk", r"nothing was reloaded: .*key\.pem"),
    ):
        shared.config.write_text("")
        path.write_text(text)
        shared.signal(signal.SIGHUP)
        assert wait_for(lambda complaint=complaint: re.search(complaint, shared.log)), shared.log[-2000:]
        assert shared.version() and shared.certificate() == before
    (shared.folder / "data" / "key.pem").write_text(key)


def test_usr1_reopens_the_log_in_all_processes(shared):
    moved = shared.log_path.with_suffix(".1")
    shared.log_path.rename(moved)
    shared.signal(signal.SIGUSR1)
    assert wait_for(shared.log_path.exists)
    processes = {*shared.children, shared.pid}


    def opened(pid):
        found = set()
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it has been closed in the meantime
                found.add(os.readlink(path))
        return found

    assert wait_for(lambda: all(str(shared.log_path) in opened(pid) and str(moved) not in opened(pid) for pid in processes))
    assert shared.version()
    assert wait_for(lambda: '"GET /version" 200' in shared.log)
    shared.log_path.write_text(moved.read_text() + shared.log)


def test_term_finishes_what_is_under_way_and_a_second_one_changes_nothing(start, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(START)
        daemon = start(f"local.socket={tmp_path}/socket", environ={"NOTIFY_SOCKET": path}.items()).ready()
        assert manager.recv(100) == b"READY=1"
        upload, idle = daemon.upload(), daemon.tls()
        begin = time.monotonic()
        for _ in range(3):
            daemon.signal(signal.SIGTERM)
            time.sleep(0.05)
        assert manager.recv(100) == b"STOPPING=1"
    assert closed(idle)
    with pytest.raises(OSError):
        daemon.tls()
    assert daemon.process.poll() is None
    upload.sendall(BODY)
    reply = read_answer(upload)
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    upload.close()
    assert daemon.process.wait(10) == 0
    assert time.monotonic() - begin < 4.9  # less than the time it would have had
    assert not os.path.exists(tmp_path / "socket")


def test_a_clean_stop_leaves_no_number_in_the_lock(start, tmp_path):
    daemon = start().ready()
    locks = list(tmp_path.rglob("ippd.lock"))
    assert [int(lock.read_text()) for lock in locks] == [daemon.pid]
    daemon.process.terminate()
    assert daemon.process.wait(60) == 0 and [lock.read_text() for lock in locks] == [""]


def test_the_time_to_drain_has_an_end(start):
    daemon = start("server.drain_timeout=0.5", "server.processes=1").ready()
    upload = daemon.upload()
    daemon.signal(signal.SIGINT)
    assert daemon.process.wait(10) == 0
    assert closed(upload)


def test_with_one_serving_process_the_schedule_is_a_thread_of_it(start):
    """Also after that one was killed."""
    inbox = Inbox()
    with smtp_server(inbox) as port:
        daemon = start("server.processes=1", "notify.interval=1", "notify.admin_email=admin@example.org", "mail.host=127.0.0.1",
                       f"mail.port={port}", "mail.from=portal@example.org").ready()  # fmt: skip
        for number in (1, 2):
            assert list(daemon.children.values()) == ["ippd: serve 1"]
            with daemon.plain() as connection:
                form = f"email=u{number}@example.org&password=correct horse&confirm-password=correct horse"
                connection.sendall(post("/users/new", form.encode(), "Content-Type: application/x-www-form-urlencoded"))
                assert read_answer(connection).status == 200
            assert wait_for(lambda count=number: len(inbox.messages) == count, START)
            os.kill(next(iter(daemon.children)), signal.SIGKILL)
            assert wait_for(lambda count=number: daemon.log.count("it is replaced") == count and daemon.children, START)


def test_killing_the_parent_leaves_no_orphan_and_frees_the_port(start):
    daemon = start().ready()
    children, upload = daemon.children, daemon.upload()
    daemon.process.kill()
    daemon.process.wait(10)
    upload.sendall(BODY)
    assert read_answer(upload).status == 200  # even then what is under way is finished
    upload.close()
    assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 10)
    with socket.create_server(("127.0.0.1", daemon.public)), socket.create_server(("127.0.0.1", daemon.local)):
        pass


def test_an_address_in_use_stops_the_start_with_a_sentence(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = start(f"public.listen=127.0.0.1:{port}")
        assert daemon.process.wait(START) == 1
        assert f"public.listen: 127.0.0.1:{port} is in use by another program" in daemon.process.stderr.read()


def test_many_clients_at_once_during_a_death(shared):
    failed, done, victim = [], [], next(pid for pid, name in shared.children.items() if name == "ippd: serve 2")

    def client():
        for _ in range(15):
            try:
                done.append(shared.version())
            except (OSError, ssl.SSLError, http.client.HTTPException) as error:
                failed.append(error)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    os.kill(victim, signal.SIGKILL)
    for one in clients:
        one.join(30)
    assert len(done) + len(failed) == 60
    assert len(failed) <= 8  # what the dead process had in its hands: a connection of each client and some not yet taken
