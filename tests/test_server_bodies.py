"""Bodies are read only when the app asks, and an answer that comes before the body's end reaches the client."""

import json
import subprocess
import threading
import time

import pytest

from serverkit import Reader, Served, answer, closed, get, post, read_answer, wait_for

errors = []


def app(environ, start_response):
    body = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/refuse":
        return answer(start_response, {"error": "no"}, "401 Unauthorized")
    if environ["PATH_INFO"] == "/count":
        return answer(start_response, sum(len(piece) for piece in iter(lambda: body.read(1 << 18), b"")))
    if environ["PATH_INFO"] == "/catch":
        try:
            body.read()
        except (TimeoutError, ConnectionError) as error:
            errors.append(type(error))
        return answer(start_response, "caught")
    return answer(start_response, body.read().decode())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(app, tmp_path_factory.mktemp("served"), body_grace=0.5, body_rate=1000)
    yield running
    running.stop()


@pytest.mark.parametrize("size", [5, 200_000])
def test_100_continue_comes_when_the_app_reads_and_not_before(served, size):
    with served.tls() as connection:
        connection.sendall(post("/echo", b"", "Expect: 100-continue", length=size))
        reader = Reader(connection)
        assert reader.answer().status == 100
        connection.sendall(b"x" * size)
        assert reader.answer().json == "x" * size
        connection.sendall(get("/echo"))
        assert reader.answer().status == 200


def test_no_100_continue_when_the_app_answers_without_reading(served):
    with served.tls() as connection:
        connection.sendall(post("/refuse", b"", "Expect: 100-continue", length=5 << 30))
        reply = read_answer(connection)
        assert (reply.status, reply.headers["connection"]) == (401, "close")
        assert closed(connection)


def test_no_100_continue_for_http_1_0(served):
    with served.plain() as connection:
        connection.sendall(get("/echo", "Expect: 100-continue", "Content-Length: 100000", version="1.0", method="POST") + b"x" * 100_000)
        assert read_answer(connection).status == 200


@pytest.mark.parametrize("tls", [True, False])
def test_an_early_answer_reaches_a_client_that_sends_much_before_it_reads(served, tls):
    with served.tls() if tls else served.plain() as connection:
        connection.sendall(post("/refuse", b"x" * 2_000_000))
        reply = read_answer(connection)
        assert (reply.status, reply.json) == (401, {"error": "no"})
        assert closed(connection)


def test_a_5_gb_upload_that_is_refused_is_not_read_to_the_end(served):
    with served.tls() as connection:
        connection.sendall(post("/refuse", b"", length=5 << 30))
        sent, piece, begin = 0, bytes(1 << 20), time.monotonic()
        try:
            while True:
                sent += connection.send(piece)
        except OSError:
            pass  # the server has closed
        assert sent < 200 << 20
        assert time.monotonic() - begin < 4


@pytest.mark.parametrize("option", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]])
def test_curl_gets_the_answer_to_an_upload_that_is_refused(served, tmp_path, option):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(3 << 30)
    done = subprocess.run(
        ["curl", "-sk", "-w", "%{http_code} %{size_upload}", *option, "-T", tmp_path / "large", "-X", "POST",
         f"https://127.0.0.1:{served.tls_port}/refuse"], capture_output=True, text=True, timeout=20)  # fmt: skip
    body, _, rest = done.stdout.partition("}")
    status, size = rest.split()
    assert (json.loads(body + "}"), status) == ({"error": "no"}, "401")
    assert int(size) < 1 << 30


def test_an_upload_in_large_pieces_arrives_whole(served):
    with served.tls() as connection:
        body = b"y" * 30_000_001
        connection.sendall(post("/count", body))
        assert read_answer(connection).json == len(body)


def test_a_large_body_that_stops_is_408(served):
    with served.tls() as connection:
        begin = time.monotonic()
        connection.sendall(post("/echo", b"x" * 10, length=100_000))
        reply = read_answer(connection)
        assert (reply.status, reply.json) == (408, {"error": "The body of the request took too long to arrive."})
        assert 0.3 < time.monotonic() - begin < 3
        assert closed(connection)


def test_a_small_body_that_stops_is_408_and_never_holds_a_thread(served):
    with served.tls() as connection:
        connection.sendall(post("/echo", b"x" * 10, length=20))
        assert read_answer(connection).status == 408
        assert closed(connection)


def drip(connection, piece, pause, stop):
    try:
        while not stop.wait(pause):
            connection.sendall(piece)
    except OSError:
        pass  # the server has closed


@pytest.mark.parametrize("length", [300, 100_000])
def test_a_body_that_drips_is_cut_off(served, length):
    stop = threading.Event()
    with served.plain() as connection:
        connection.sendall(post("/echo", length=length))
        dripper = threading.Thread(target=drip, args=(connection, b"x", 0.05, stop))
        dripper.start()
        try:
            assert read_answer(connection).status == 408
        finally:
            stop.set()
            dripper.join()


def test_a_body_that_is_slow_but_fast_enough_arrives(served):
    with served.plain() as connection:
        connection.sendall(post("/count", length=80_000))
        for _ in range(20):
            connection.sendall(b"x" * 4000)
            time.sleep(0.05)
        assert read_answer(connection).json == 80_000


def test_the_app_is_told_that_the_client_was_slow_or_has_gone(served):
    errors.clear()
    with served.tls() as connection:
        connection.sendall(post("/catch", b"x", length=100_000))
        assert read_answer(connection).json == "caught"
        assert closed(connection)
    with served.plain() as connection:
        connection.sendall(post("/catch", b"x", length=100_000))
    assert wait_for(lambda: len(errors) == 2)
    assert issubclass(errors[0], TimeoutError) and issubclass(errors[1], ConnectionError)
