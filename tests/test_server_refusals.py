"""Requests that two programs could understand differently, or that are broken, are refused with 400 and closed."""

import pytest

from serverkit import Served, answer, chunked, closed, get, post, read_answer

seen = []


def app(environ, start_response):
    seen.append(environ["PATH_INFO"])
    return answer(start_response, len(environ["wsgi.input"].read()))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(app, tmp_path_factory.mktemp("served"), head_bytes=4096)
    yield running
    running.stop()


def lines(*given, first="POST /smuggle HTTP/1.1"):
    return "\r\n".join([first, "Host: localhost", *given, "", ""]).encode("latin-1")


SMUGGLED = {
    "length and coding": lines("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two lengths": lines("Content-Length: 5", "Content-Length: 6") + b"123456",
    "the same length twice": lines("Content-Length: 5", "Content-Length: 5") + b"12345",
    "a list of lengths": lines("Content-Length: 5, 6") + b"123456",
    "a signed length": lines("Content-Length: +5") + b"12345",
    "a length with underscore": lines("Content-Length: 1_0") + b"1234567890",
    "a negative length": lines("Content-Length: -1"),
    "an empty length": lines("Content-Length: "),
    "a hexadecimal length": lines("Content-Length: 0x5") + b"12345",
    "a huge length": lines("Content-Length: " + "9" * 30),
    "two codings": lines("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "coding in HTTP/1.0": lines("Transfer-Encoding: chunked", first="POST /smuggle HTTP/1.0") + b"0\r\n\r\n",
    "a blank before the colon": lines("Content-Length : 5") + b"12345",
    "a folded line": lines("X-A: b", " Content-Length: 5"),
    "a folded first line": b"GET /smuggle HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "bare line feeds": b"GET /smuggle HTTP/1.1\nHost: localhost\n\n",
    "one bare line feed": b"GET /smuggle HTTP/1.1\r\nHost: localhost\r\nX-A: b\nX-B: c\r\n\r\n",
    "a bare line feed at the end": b"GET /smuggle HTTP/1.1\r\nHost: localhost\n\r\n",
    "a bare carriage return": lines("X-A: b\rX-B: c"),
    "a zero byte": lines("X-A: b\0c"),
    "no colon": lines("X-A"),
    "an empty name": lines(": b"),
    "a name with a blank": lines("X A: b"),
    "a name with a letter outside ASCII": lines("X-\xc4: b"),
    "no host": b"GET /smuggle HTTP/1.1\r\n\r\n",
    "two hosts": lines("Host: other"),
    "no version": b"GET /smuggle\r\nHost: localhost\r\n\r\n",
    "a blank in the address": lines(first="GET /smug gle HTTP/1.1"),
    "two blanks": lines(first="GET  /smuggle HTTP/1.1"),
    "a small method": lines(first="get /smuggle HTTP/1.1"),
    "a fragment": lines(first="GET /smuggle#a HTTP/1.1"),
    "no slash": lines(first="GET smuggle HTTP/1.1"),
    "a tunnel": lines(first="CONNECT localhost:22 HTTP/1.1"),
    "an address with a control character": lines(first="GET /smuggle\x01 HTTP/1.1"),
    "TLS inside TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_ambiguous_heads_are_400_and_closed(served, data, tls):
    with served.tls() if tls else served.plain() as connection:
        connection.sendall(data + get("/after"))
        reply = read_answer(connection)
        assert (reply.status, reply.headers["connection"], reply.headers["content-type"]) == (400, "close", "application/json")
        assert reply.json["error"].endswith(".")
        assert closed(connection)
    assert "/smuggle" not in seen and "/after" not in seen


OTHERS = {
    501: lines("Transfer-Encoding: gzip, chunked"),
    505: lines(first="GET /smuggle HTTP/2.0"),
    414: b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
    431: lines("X-A: " + "b" * 5000),
}


@pytest.mark.parametrize("status", OTHERS)
def test_heads_that_are_refused_for_another_reason(served, status):
    reply = served.ask(OTHERS[status])
    assert (reply.status, reply.headers["connection"]) == (status, "close")


def test_too_many_fields_are_431(served):
    assert served.ask(lines(*[f"a{n}:" for n in range(300)])).status == 431


def test_an_endless_head_is_refused_before_it_ends(served):
    with served.tls() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000)
        assert read_answer(connection).status == 431


CHUNKS = {
    "no number": b"x\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a negative number": b"-1\r\nabc\r\n0\r\n\r\n",
    "a huge number": b"f" * 20 + b"\r\nabc",
    "a chunk longer than it says": b"3\r\nabcd\r\n0\r\n\r\n",
    "bare line feeds": b"3\nabc\n0\n\n",
    "an endless line": b"3" + b";a=b" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "an endless trailer": b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
}


@pytest.mark.parametrize("data", CHUNKS.values(), ids=CHUNKS.keys())
def test_malformed_chunks_are_400_and_closed(served, data):
    with served.tls() as connection:
        connection.sendall(get("/chunks", "Transfer-Encoding: chunked", method="POST") + data + get("/after"))
        reply = read_answer(connection)
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert "malformed" in reply.json["error"]
        assert closed(connection)
    assert "/after" not in seen


def test_the_server_works_on_after_all_that(served):
    assert served.ask(chunked("/fine", b"abc")).json == 3
    assert served.ask(post("/fine", b"abc")).json == 3
