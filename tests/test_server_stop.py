"""The end of a server: what is under way is finished, what is idle is closed, and there is a hard deadline."""

import socket
import threading
import time

import pytest

from ippd.errors import SettingsError
from ippd.server import bind_tcp, bind_unix
from serverkit import Reader, Served, answer, closed, get, post, read_answer, wait_for


class Gate:
    def __init__(self):
        self.open, self.inside = threading.Event(), 0

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            self.inside += 1
            with environ["ippd.slow"]():
                self.open.wait(10)
        return answer(start_response, len(environ["wsgi.input"].read()))


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def serve(gate, tmp_path):
    running = []

    def start(**limits):
        running.append(Served(gate, tmp_path, **limits))
        return running[-1]

    yield start
    gate.open.set()
    for served in running:
        served.stop()


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def test_a_request_that_is_on_its_way_when_the_server_stops_is_answered(serve):
    """A client that had connected, and was about to ask, saw its connection closed without an answer."""
    served = serve()
    idle, fresh, plain = served.tls(), served.tls(), served.plain()
    idle.sendall(get())
    assert read_answer(idle).status == 200
    served.server.stop()
    assert closed(idle)
    for connection in (fresh, plain):
        connection.sendall(get())
        reply = read_answer(connection)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        connection.close()


def test_requests_under_way_are_finished_and_idle_connections_closed(serve, gate):
    served = serve()
    idle, busy, upload, silent = served.tls(), served.tls(), served.tls(), served.raw_tls()
    idle.sendall(get())
    assert read_answer(idle).status == 200
    busy.sendall(get("/wait"))
    upload.sendall(post("/", b"", "Expect: 100-continue", length=100_000))
    assert read_answer(upload).status == 100
    assert wait_for(lambda: gate.inside == 1)
    served.server.stop()
    assert closed(idle) and closed(silent)
    assert wait_for(lambda: refused(served.tls_port) and refused(served.plain_port))
    gate.open.set()
    upload.sendall(b"x" * 100_000)
    for connection, expected in ((busy, 0), (upload, 100_000)):
        reply = read_answer(connection)
        assert (reply.json, reply.headers["connection"]) == (expected, "close")
        connection.close()
    served.thread.join(5)
    assert served.server.drained is True


def test_stopping_twice_is_not_faster(serve, gate):
    served = serve()
    with served.tls() as busy:
        busy.sendall(get("/wait"))
        assert wait_for(lambda: gate.inside == 1)
        for _ in range(5):
            served.server.stop()
        served.thread.join(0.3)
        assert served.thread.is_alive()
        gate.open.set()
        assert read_answer(busy).status == 200


def test_the_deadline_is_hard(serve, gate):
    served = serve(drain_timeout=0.4)
    with served.tls() as busy, served.plain() as upload:
        busy.sendall(get("/wait"))
        upload.sendall(post("/", b"", "Expect: 100-continue", length=100_000))
        assert read_answer(upload).status == 100
        assert wait_for(lambda: gate.inside == 1)
        begin = time.monotonic()
        served.server.stop()
        served.thread.join(5)
        assert 0.3 < time.monotonic() - begin < 3
        assert served.server.drained is False
        assert closed(busy) and closed(upload)


def test_a_pipelined_request_is_not_begun_after_the_stop(serve, gate):
    served = serve()
    with served.tls() as connection:
        connection.sendall(get("/wait") + get("/second"))
        assert wait_for(lambda: gate.inside == 1)
        served.server.stop()
        time.sleep(0.05)
        gate.open.set()
        reader = Reader(connection)
        assert reader.answer().headers["connection"] == "close"
        assert not reader.more()


def test_an_address_in_use_is_a_sentence_that_names_the_setting(tmp_path):
    with bind_tcp("127.0.0.1", 0, "local.listen") as made:
        port = made.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^local.listen: 127.0.0.1:{port} is in use by another program$"):
            bind_tcp("127.0.0.1", port, "local.listen")
    with pytest.raises(SettingsError, match=r"^public.listen: 192.0.2.1:1 is no address of this machine$"):
        bind_tcp("192.0.2.1", 1, "public.listen")
    with pytest.raises(SettingsError, match=r"^public.listen: no-such-host.invalid:1 cannot be used: "):
        bind_tcp("no-such-host.invalid", 1, "public.listen")


def test_a_stale_unix_socket_is_replaced_and_one_in_use_or_a_file_is_not(tmp_path):
    path = str(tmp_path / "socket")
    bind_unix(path, "local.socket").close()
    with bind_unix(path, "local.socket"), pytest.raises(SettingsError, match=r"^local.socket: .*/socket is in use by another program$"):
        bind_unix(path, "local.socket")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(SettingsError, match="is there and no socket"):
        bind_unix(str(tmp_path / "file"), "local.socket")
    assert (tmp_path / "file").read_text() == "precious"
