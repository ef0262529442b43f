"""Whom a worker calls: an account that has taken the daemon's port, or its socket, gets nothing and says nothing."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from ippd import dial
from ippd.calls import Server
from ippd.errors import Unavailable
from ippd.permissions import OPERATOR
from ippd.settings import load
from ippd.worker import make_worker
from serverkit import Served, answer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
# Takes a place, says where, keeps what it gets, and answers every claim with a command of its own.
IMPOSTOR = """
import http.server, json, os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print("asked", self.path, flush=True)
        answer = json.dumps({"experiments": [], "answers": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def address_string(self):
        return ""
    def log_message(self, *words):
        pass
class Listener(http.server.ThreadingHTTPServer):
    address_family = {"::1": socket.AF_INET6, "127.0.0.1": socket.AF_INET}.get(sys.argv[1], socket.AF_UNIX)
    def server_bind(self):
        self.socket.bind((sys.argv[1], 0) if self.address_family != socket.AF_UNIX else sys.argv[1])
        self.server_name, self.server_port = "", 0
    def server_activate(self):
        super().server_activate()
        name = self.socket.getsockname()
        print(name if isinstance(name, str) else name[1], flush=True)
server = Listener(("", 0), Handler)
server.serve_forever()
"""


@pytest.fixture(params=["127.0.0.1", "::1", "unix"])
def impostor(request):
    """(process, URL) of a server of another account."""
    place = request.param if request.param != "unix" else f"/tmp/ippd-impostor-{os.getpid()}"
    made = subprocess.Popen([sys.executable, "-c", IMPOSTOR, place], cwd="/", stdout=subprocess.PIPE, text=True)
    try:
        said = made.stdout.readline().strip()
        host = f"[{place}]" if ":" in place else place
        yield made, f"unix:{said}" if request.param == "unix" else f"http://{host}:{said}"
    finally:
        made.kill()
        made.communicate()
        if request.param == "unix":
            os.unlink(place)


@needs_root
def test_a_worker_takes_no_orders_from_an_account_that_has_taken_the_place_of_the_daemon(impostor, tmp_path, caplog):
    """Bad input: another account at worker.url, over IPv4, IPv6 and as a unix socket; it answers as the daemon would."""
    process, url = impostor
    settings = [f"worker.url={url}", f"worker.folder={tmp_path}/worker", "worker.slots=1"]
    worker = make_worker(load("", {}, settings), "local")
    for _ in range(2):  # the connection is not kept either
        assert worker.step() == 0
    worker.close()
    assert "nobody answers there (the setting worker.server_account says which ones may)" in caplog.text
    trusting = make_worker(load("", {}, [*settings, "worker.server_account=ippd nobody"]), "local")
    assert trusting.step() == 0
    trusting.close()
    process.kill()
    assert process.stdout.read().split("\n") == ["asked /experiments/claim", ""]


@needs_root
@pytest.mark.parametrize("accounts", [("nosuchaccount",), ("65534", "x"), None])
def test_accounts_are_names_or_numbers(impostor, accounts):
    """Bad input: an account that is not there."""
    server = Server(impostor[1], accounts=accounts)
    if accounts == ("nosuchaccount",):
        with pytest.raises(Unavailable, match="the account nobody answers there"):
            server.post_json("/experiments/claim", {})
    else:
        assert server.post_json("/experiments/claim", {})["experiments"] == []
    server.close()


def test_the_daemon_is_called_through_its_unix_socket(tmp_path):
    served = Served(lambda environ, start: answer(start, [environ["PATH_INFO"], environ["ippd.peer_uid"]]), tmp_path)
    try:
        server = Server(load("", {}, [f"worker.url=unix:{served.unix_path}"])["worker.url"], accounts=())
        assert server.get("/experiments/claim") == ["/experiments/claim", os.geteuid()]
        server.close()
    finally:
        served.stop()


def test_who_hangs_up_before_it_is_known_ends_the_wait(monkeypatch):
    """Bad input: a connection that is closed instead of answered, and one that nobody accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", accounts=())
        thread = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        thread.start()
        with pytest.raises(Unavailable, match="closed"):
            server.get("/")
        thread.join(10)
        monkeypatch.setattr(dial, "ACCEPTED", 0.1)
        with pytest.raises(Unavailable, match="it could not be found out which account answers there"):
            server.get("/")


def test_a_portal_of_another_host_is_not_asked_for_its_account(make_portal):
    """What has no accounts named is called as before: users' commands, tunnels that a user has made."""
    portal = make_portal()
    assert Server(f"http://127.0.0.1:{portal.local.port}").post_json("/experiments/heartbeats", {"claims": {}}) == {"answers": {}}
    assert portal.core.experiments.list(OPERATOR) == []
