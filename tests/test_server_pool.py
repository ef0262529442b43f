"""Short requests have their threads whatever waits, and what waits is bounded."""

import threading
import time

import pytest

from ippd.errors import Unavailable
from ippd.server import pool as pool_module
from ippd.server.pool import Pool, Slow
from serverkit import Served, answer, get, post, read_answer, wait_for

QUICK = "quick"


class Gate:
    """An app of which the slow paths wait until the gate opens."""

    def __init__(self):
        self.open, self.inside = threading.Event(), 0

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            with environ["ippd.slow"](), environ["ippd.slow"]():
                self.inside += 1
                self.open.wait(10)
            return answer(start_response, "slow")
        if environ["PATH_INFO"] == "/stream":
            return self.stream(start_response)
        if environ["PATH_INFO"] == "/silent":
            return self.silent(start_response)
        if environ["PATH_INFO"] == "/other":
            with environ["ippd.slow"]("another kind", "me", 1):
                return answer(start_response, "other")
        return answer(start_response, len(environ["wsgi.input"].read()))

    def stream(self, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        self.inside += 1
        yield b"first"
        self.open.wait(10)
        yield b"last"

    def silent(self, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        self.inside += 1
        try:
            while not self.open.is_set():
                yield b""
                time.sleep(0.05)
        finally:
            self.inside -= 1


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def served(gate, tmp_path):
    running = Served(gate, tmp_path, threads=2, slow_threads=5)
    yield running
    gate.open.set()
    running.stop()


def ask(served, data, count):
    connections = [served.tls() for _ in range(count)]
    for connection in connections:
        connection.sendall(data)
    return connections


def test_short_requests_are_served_while_slow_ones_wait(served, gate):
    slow = ask(served, get("/slow"), 5)
    assert wait_for(lambda: gate.inside == 5)
    assert [served.get().status for _ in range(20)] == [200] * 20
    gate.open.set()
    assert [read_answer(connection).json for connection in slow] == ["slow"] * 5


def test_uploads_and_streams_are_slow_by_themselves(served, gate):
    uploads = ask(served, post("/", b"x" * 10, length=100_000), 3)
    streams = ask(served, get("/stream"), 2)
    assert wait_for(lambda: gate.inside == 2)
    assert [served.get().status for _ in range(20)] == [200] * 20
    gate.open.set()
    for connection in uploads:
        connection.sendall(b"x" * 99_990)
        assert read_answer(connection).json == 100_000
    assert [read_answer(connection).body for connection in streams] == [b"firstlast"] * 2


def test_too_many_slow_ones_are_503_and_short_ones_are_not(served, gate):
    held = ask(served, get("/slow"), 5)
    assert wait_for(lambda: gate.inside == 5)
    for data in (get("/slow"), get("/stream"), post("/", b"x" * 10, length=100_000)):
        reply = served.ask(data)
        assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "5", "close")
        assert "error" in reply.json
    assert served.get().status == 200
    assert served.ask(post("/", b"x" * 50_000)).json == 50_000  # a small body is in memory before a thread begins
    gate.open.set()
    assert [read_answer(connection).status for connection in held] == [200] * 5
    assert served.get("/slow").status == 200


def test_an_answer_that_has_nothing_yet_begins_at_once_and_ends_with_its_client(served, gate):
    """Bad input: clients that ask for a stream without a byte so far, and go."""
    for connect in (served.tls, served.plain):
        connections = [connect() for _ in range(5)]
        for connection in connections:
            connection.sendall(get("/silent"))
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in connections) and gate.inside == 5
        assert served.get("/slow").status == 503
        for connection in connections:
            connection.close()
        assert wait_for(lambda: gate.inside == 0)
    gate.open.set()
    assert wait_for(lambda: served.get("/slow").status == 200)


def test_what_waits_in_one_way_takes_no_place_from_what_waits_in_another(served, gate):
    held = ask(served, get("/slow"), 5)
    assert wait_for(lambda: gate.inside == 5)
    assert served.get("/slow").status == 503 and served.get("/other").status == 200
    gate.open.set()
    assert [read_answer(connection).status for connection in held] == [200] * 5


def test_a_limit_of_ones_own_holds_for_one_kind():
    pool = Pool(lambda job: None, 1, 4, 2)
    pool.start()
    with Slow(pool).of("followers", "ada", 1):
        with pytest.raises(Unavailable, match="followers of yours"), Slow(pool).of("followers", "ada", 1):
            pass
        with Slow(pool).of("followers", "bob", 1), Slow(pool, "ada"):
            pass
    pool.stop()


def request_threads(known=frozenset()):
    return {thread for thread in threading.enumerate() if thread.name == "request"} - known


def test_surplus_threads_are_used_again_and_end_when_nobody_needs_them(monkeypatch):
    monkeypatch.setattr(pool_module, "SPARE_TIME", 0.2)
    before, gate, done = request_threads(), threading.Event(), []
    pool = None

    def handle(job):
        if job != QUICK:
            with Slow(pool):
                gate.wait(10)
        done.append(job)

    pool = Pool(handle, 2, 6, 6)
    pool.start()
    for job in range(6):
        pool.submit(job)
    assert wait_for(lambda: len(request_threads(before)) == 8)
    gate.set()
    assert wait_for(lambda: len(done) == 6)
    assert wait_for(lambda: len(request_threads(before)) == 2)
    for _ in range(50):
        pool.submit(QUICK)
    assert wait_for(lambda: len(done) == 56)
    pool.stop()
    assert wait_for(lambda: not request_threads(before))


def test_a_pool_gives_no_slow_place_beyond_its_limit_and_gives_places_back():
    pool = Pool(lambda job: None, 1, 1, 1)
    pool.start()
    first, second = Slow(pool), Slow(pool)
    with first, pytest.raises(Unavailable), second:
        pass
    with second:
        pass
    pool.stop()


def test_one_address_cannot_take_all_slow_places():
    pool = Pool(lambda job: None, 1, 4, 2)
    pool.start()
    with Slow(pool, "192.0.2.1"), Slow(pool, "192.0.2.1"):
        with pytest.raises(Unavailable), Slow(pool, "192.0.2.1"):
            pass
        with Slow(pool, "192.0.2.2"), Slow(pool):
            pass
    with Slow(pool, "192.0.2.1"):
        pass
    pool.stop()


def test_a_job_that_fails_costs_no_thread():
    done = []
    pool = Pool(lambda job: done.append(1 // job), 1, 1, 1)
    pool.start()
    for job in (0, 0, 0, 1):
        pool.submit(job)
    assert wait_for(lambda: done == [1])
    pool.stop()


def test_many_slow_and_short_ones_at_once_all_end(served, gate):
    gate.open.set()
    results = []

    def client(path):
        for _ in range(15):
            status = served.get(path).status
            if status == 503:
                time.sleep(0.02)
            results.append(status)

    clients = [threading.Thread(target=client, args=(path,)) for path in ("/slow", "/", "/stream") * 3]
    for one in clients:
        one.start()
    for one in clients:
        one.join(20)
    assert len(results) == 135 and set(results) <= {200, 503} and results.count(200) > 45
