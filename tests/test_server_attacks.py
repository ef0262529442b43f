"""Clients that are silent, slow, greedy or gone cost the others nothing."""

import os
import socket
import threading
import time
from contextlib import suppress

import pytest

from ippd.fields import network
from ippd.server import loop
from serverkit import Reader, Served, answer, closed, get, post, read_answer, wait_for

MEGABYTE = bytes(1 << 20)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/endless":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (MEGABYTE for _ in range(100_000))
    if environ["PATH_INFO"] == "/list":
        return answer(start_response, MEGABYTE * 30)
    return answer(start_response, "fine")


@pytest.fixture
def serve(tmp_path):
    """A function that starts a server with some limits."""
    running = []

    def start(**limits):
        running.append(Served(app, tmp_path, **limits))
        return running[-1]

    yield start
    for served in running:
        served.stop()


def slowest_of(served, count=40):
    """The longest time of some requests, in seconds, each on a new connection with its handshake."""
    longest = 0.0
    for _ in range(count):
        begin = time.monotonic()
        assert served.get().status == 200
        longest = max(longest, time.monotonic() - begin)
    return longest


def test_silent_one_byte_and_dripping_connections_delay_nobody(serve):
    served = serve()
    silent = [served.raw_tls() for _ in range(50)]
    one_byte = [served.raw_tls() for _ in range(50)]
    dripping = [served.tls() for _ in range(50)]
    stop = threading.Event()
    for connection in one_byte:
        connection.sendall(b"\x16")
    for connection in dripping:
        connection.sendall(b"GET / HTTP/1.1\r\n")

    def drip():
        while not stop.wait(0.05):
            for connection in dripping:
                connection.sendall(b"a: b\r\n")

    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        assert slowest_of(served) < 2  # they are not waited for; a machine that does other work needs some time
    finally:
        stop.set()
        dripper.join()
        for connection in silent + one_byte + dripping:
            connection.close()


def test_handshakes_and_heads_have_deadlines(serve):
    served = serve(handshake_timeout=0.5, head_timeout=0.7)
    silent, one_byte, idle, begun = served.raw_tls(), served.raw_tls(), served.tls(), served.tls()
    one_byte.sendall(b"\x16")
    begun.sendall(b"GET / HTTP/1.1\r\nHost:")
    begin = time.monotonic()
    reply = read_answer(begun)
    assert (reply.status, reply.json) == (408, {"error": "The head of the request took too long to arrive."})
    assert closed(silent) and closed(one_byte) and closed(idle) and closed(begun)
    assert 0.4 < time.monotonic() - begin < 4


def test_a_head_that_drips_has_one_deadline_for_all_of_it(serve):
    served = serve(head_timeout=0.6)
    with served.plain() as connection:
        begin = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        connection.settimeout(0.05)
        data = b""
        while not data and time.monotonic() - begin < 5:
            connection.sendall(b"b")
            with suppress(TimeoutError):
                data = connection.recv(1000)
        assert data.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin < 3


def test_an_idle_connection_is_closed_after_the_keep_alive_time(serve):
    served = serve(keepalive_timeout=0.5)
    with served.tls() as connection:
        connection.sendall(get())
        assert read_answer(connection).status == 200
        begin = time.monotonic()
        assert closed(connection)
        assert 0.3 < time.monotonic() - begin < 3


def test_empty_lines_do_not_keep_a_connection_open(serve):
    served = serve(head_timeout=0.5)
    with served.plain() as connection:
        begin = time.monotonic()
        connection.settimeout(0.1)
        with suppress(OSError):
            while time.monotonic() - begin < 5:
                connection.sendall(b"\r\n")
                with suppress(TimeoutError):
                    assert connection.recv(100) == b""
                    break
        assert time.monotonic() - begin < 3


def test_plain_http_on_the_tls_port_is_told_so_in_plain_http(serve):
    served = serve()
    for data in (get(), post("/", b"x" * 100)):
        with served.raw_tls() as connection:
            connection.sendall(data)
            reply = read_answer(connection)
            assert reply.status == 400 and "https://" in reply.json["error"]
            assert closed(connection)


def test_noise_instead_of_tls_is_closed(serve):
    served = serve()
    for data in (b"\0" * 100, b"SSH-2.0-x\r\n", os.urandom(3000), b"\x16\x03\x01\xff\xff" + b"x" * 100):
        with served.raw_tls() as connection:
            connection.sendall(data)
            with suppress(OSError):  # the server may have closed already
                connection.shutdown(socket.SHUT_WR)
            assert closed(connection)
    assert served.get().status == 200


def test_connections_of_one_address_are_capped_and_local_ones_are_not(serve):
    served = serve(connections_per_address=5)
    held = [served.tls() for _ in range(5)]
    with served.raw_tls() as further:
        assert closed(further)
    local = [served.plain() for _ in range(10)]
    for connection in local:
        connection.sendall(get())
        assert read_answer(connection).status == 200
        connection.close()
    held.pop().close()
    assert wait_for(lambda: answers(served))
    for connection in held:
        connection.close()


def test_a_local_account_cannot_take_the_places_of_all_others(serve, monkeypatch):
    served = serve(connections=8)
    monkeypatch.setattr(loop, "peer_uid", lambda sock: 4_000_000)
    held = [served.plain() for _ in range(2)]
    for connection in held:
        connection.sendall(b"G")
    with served.plain() as further:
        assert closed(further)
    monkeypatch.setattr(loop, "peer_uid", lambda sock: 4_000_001)
    assert served.get(tls=False).status == 200
    assert served.get().status == 200
    for connection in held:
        connection.close()


def test_an_address_of_ipv6_is_counted_with_its_network():
    assert network("192.0.2.7") == "192.0.2.7"
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:3::1") != network("2001:db8:1:2::1")
    assert network("::ffff:192.0.2.7") == "192.0.2.7"
    assert network("fe80::1%eth0") == "fe80::/64"


def answers(served):
    try:
        return served.get().status == 200
    except (OSError, EOFError):
        return False


def test_an_idle_connection_makes_place_for_a_new_one_and_a_busy_one_does_not(serve):
    served = serve(connections=3)
    idle = [served.tls() for _ in range(3)]
    for connection in idle:
        connection.sendall(get())
        assert read_answer(connection).status == 200
    assert wait_for(lambda: len(served.server._idle()) == 3)  # a thread may be about to hand its connection back
    assert served.get().status == 200
    assert [closed(connection, 0.3) for connection in idle].count(True) == 1
    begun = []
    for number in range(3):
        begun.append(served.plain())
        begun[-1].sendall(b"GET / HTTP/1.1\r\n")
        assert wait_for(lambda number=number: sum(bool(one.buffer) for one in list(served.server._connections.values())) > number)
    with served.plain() as further:
        assert closed(further)
    for connection in begun:
        connection.sendall(b"Host: a\r\n\r\n")
        assert read_answer(connection).status == 200


@pytest.mark.parametrize("path", ["/endless", "/list"])
@pytest.mark.parametrize("tls", [True, False])
def test_a_reader_that_stops_is_cut_off(serve, path, tls):
    served = serve(body_grace=0.3, body_rate=100 << 20)  # the time for a list is grace + length / rate
    with served.tls() if tls else served.plain() as connection:
        connection.sendall(get(path))
        connection.recv(1000)
        assert wait_for(lambda: not served.server._connections, 5)


def test_a_reader_that_is_slow_but_fast_enough_is_not_cut_off(serve):
    served = serve(body_grace=0.6, body_rate=1000)
    with served.plain() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        connection.sendall(get("/endless"))
        reader = Reader(connection)
        for _ in range(15):
            reader.exactly(50_000)
            time.sleep(0.1)
        assert len(reader.exactly(10_000_000)) == 10_000_000


def test_clients_that_vanish_leave_nothing_behind(serve):
    served = serve()
    for number in range(30):
        connection = served.tls() if number % 2 else served.plain()
        connection.sendall([get("/endless"), post("/", b"x", length=100_000), b"GET", get("/list")][number % 4])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert wait_for(lambda: not served.server._connections)
    assert served.get().status == 200


def test_without_file_descriptors_the_server_waits_and_goes_on(serve):
    served = serve()
    waiting = served.plain()
    waiting.sendall(get())
    assert read_answer(waiting).status == 200
    client = socket.socket()
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        client.settimeout(10)
        client.connect(("127.0.0.1", served.plain_port))
        client.sendall(get())
        before = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - before
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert spent < 0.25
    assert read_answer(client).status == 200
    client.close()
    waiting.close()
