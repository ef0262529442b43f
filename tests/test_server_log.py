"""The access log: one entry per request with what is worth knowing, and nothing secret or forged."""

import os

import pytest

from serverkit import Served, answer, closed, get, post, wait_for


def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError
    return answer(start_response, environ["wsgi.input"].read())


@pytest.fixture
def served(tmp_path):
    running = Served(app, tmp_path, body_grace=0.3)
    yield running
    running.stop()


def last(served, count=1):
    return served.logged(count)[-1]


def test_an_entry_says_who_asked_for_what_and_how_it_ended(served):
    reply = served.ask(post("/path%20x?token=secret", b"four"))
    entry = last(served)
    assert entry["time"] > 1e9 and 0 <= entry["milliseconds"] < 5000
    assert (entry["listener"], entry["address"], entry["uid"]) == ("public", "127.0.0.1", None)
    assert (entry["method"], entry["path"], entry["status"], entry["bytes"]) == ("POST", "/path%20x", 200, 4)
    assert entry["request_id"] == reply.headers["x-request-id"]
    served.get("/local", tls=False)
    assert (last(served, 2)["listener"], last(served, 2)["uid"]) == ("local", os.geteuid())


def test_request_ids_differ_and_those_of_the_client_are_not_taken(served):
    for _ in range(5):
        served.ask(get("/", "X-Request-Id: forged"))
    ids = {entry["request_id"] for entry in served.logged(5)}
    assert len(ids) == 5 and "forged" not in ids


@pytest.mark.parametrize(
    ("data", "status", "path"),
    [
        (b"GET /a\x1b[2Jb\x01c?token=secret HTTP/1.1\r\nHost: a\r\n\r\n", 400, "/a\\x1b[2Jb\\x01c"),
        (b'GET /"\xc3\xa4\x85 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 200, "/\\x22\\xc3\\xa4\\x85"),
        (b"GET /?token=secret\r\nHost: a\r\n\r\n", 400, "/"),
        (b"token=secret\r\n\r\n", 400, "-"),
        (b"GET /" + b"x" * 40_000, 414, "/" + "x" * 199),
        (b"GET /" + b"\x85" * 1000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, ("/" + "\\x85" * 50)[:200]),
        (get("/error"), 500, "/error"),
        (get("/chunks", "Transfer-Encoding: chunked", method="POST") + b"x\r\n", 400, "/chunks"),
        (post("/slow", b"x", length=100_000), 408, "/slow"),
    ],
)
def test_bad_requests_are_logged_without_harm(served, data, status, path):
    with served.tls() as connection:
        connection.sendall(data)
        assert closed(connection)
    entry = last(served)
    assert (entry["status"], entry["path"]) == (status, path)
    assert "secret" not in repr(entry)


def test_a_client_that_went_away_is_499(served):
    with served.plain() as connection:
        connection.sendall(post("/gone", b"x", length=100_000))
    assert wait_for(lambda: [(entry["path"], entry["status"]) for entry in served.log] == [("/gone", 499)])
