"""The account at the other end of a local connection comes from the kernel, and a closed end proves nothing."""

import os
import select
import socket
import subprocess
from pathlib import Path

import pytest

from ippd import peers
from ippd.server import bind_tcp
from serverkit import Served, answer, get, read_answer, wait_for

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


def app(environ, start_response):
    return answer(start_response, [environ["ippd.peer_uid"], environ["REMOTE_ADDR"]])


@pytest.fixture(params=["netlink", "tables"])
def peer_uid(request, monkeypatch):
    """The function, with each of its two ways to ask the kernel."""
    if request.param == "tables":
        monkeypatch.setattr(peers, "NETLINK_SOCK_DIAG", 31)  # a kernel without it
    else:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            assert peers._asked(client.getsockname(), server.getsockname()), "this kernel has no sock_diag"
    return peers.peer_uid


@pytest.fixture
def listening():
    made = [bind_tcp("127.0.0.1", 0, "a"), bind_tcp("::1", 0, "b")]
    yield made
    for one in made:
        one.close()


def accepted(listener):
    assert wait_for(lambda: listener in select.select([listener], [], [], 0)[0])
    return listener.accept()[0]


def as_nobody(*words):
    """Start a command as another account."""
    return subprocess.Popen(words, user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE, text=True, cwd="/")


def test_the_own_account_is_found_over_ipv4_and_ipv6(listening, peer_uid):
    for listener in listening:
        with socket.create_connection(listener.getsockname()[:2]), accepted(listener) as ours:
            assert peer_uid(ours) == os.geteuid()


def test_an_ipv6_socket_that_speaks_ipv4_is_found(listening, peer_uid):
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", listening[0].getsockname()[1]))
        with accepted(listening[0]) as ours:
            assert peer_uid(ours) == os.geteuid()


def test_a_client_that_has_closed_is_nobody_although_its_row_says_root(listening, peer_uid):
    for listener in listening:
        client = socket.create_connection(listener.getsockname()[:2])
        client.sendall(get())
        theirs = client.getsockname()
        client.close()
        with accepted(listener) as ours:
            ports = [f"{theirs[1]:04X}", f"{ours.getsockname()[1]:04X}"]

            def row_says_root(ports=ports):
                rows = [line.split() for table in peers.TABLES for line in Path(table).read_text().splitlines()]
                return ["0", "0"] in [row[7:10:2] for row in rows if [row[1][-4:], row[2][-4:]] == ports]

            assert wait_for(row_says_root)
            assert peer_uid(ours) is None


@needs_root
def test_another_account_is_not_root_whether_or_not_it_closes_first(listening, peer_uid):
    for listener in listening:
        host, port = listener.getsockname()[:2]
        script = f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3"
        with as_nobody("bash", "-c", script) as closing:
            assert closing.wait(10) == 0
            with accepted(listener) as ours:
                assert ours.recv(100).startswith(b"GET / ")
                assert peer_uid(ours) is None
        with as_nobody("bash", "-c", script + "; read -t 10 line <&3") as staying:
            with accepted(listener) as ours:
                assert peer_uid(ours) == NOBODY
                ours.sendall(b"done\n")
            assert staying.wait(10) == 0


def test_another_pair_of_ports_is_nobody(listening, peer_uid):
    with socket.create_connection(listening[0].getsockname()), accepted(listening[0]) as ours:
        assert peer_uid(ours) == os.geteuid()
        theirs, own = ours.getpeername(), ours.getsockname()
        for one, other in (((theirs[0], 1), own), (theirs, (own[0], 1)), (("127.0.0.2", theirs[1]), own)):
            assert peers._trusted(peers._asked(one, other) or peers._in_tables(one, other)) is None


def test_a_listening_socket_at_the_port_of_a_client_that_has_gone_is_not_the_client():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        assert peers._trusted(peers._asked(address, ("127.0.0.1", 1))) is None


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(app, tmp_path_factory.mktemp("served"))
    yield running
    running.stop()


def test_the_app_gets_the_account_on_local_listeners_only(served):
    assert served.get(tls=False).json == [os.geteuid(), "127.0.0.1"]
    assert served.get(tls=True).json == [None, "127.0.0.1"]
    with served.unix() as connection:
        connection.sendall(get())
        assert read_answer(connection).json == [os.geteuid(), ""]


@needs_root
def test_the_app_gets_another_account_over_tcp_and_a_unix_socket(served):
    folder = os.path.dirname(served.unix_path)
    while folder != "/":  # pytest makes private folders
        os.chmod(folder, os.stat(folder).st_mode | 0o711)
        folder = os.path.dirname(folder)
    for words in (["--unix-socket", served.unix_path, "http://localhost/"], [f"http://127.0.0.1:{served.plain_port}/"]):
        with as_nobody("curl", "-s", *words) as curl:
            assert f"[{NOBODY}, " in curl.communicate(timeout=10)[0]
