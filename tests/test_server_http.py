"""The server speaks HTTP/1.1 and 1.0 as the RFCs want, with real sockets and TLS."""

import threading
import time

import pytest

from serverkit import Reader, Served, answer, chunked, closed, get, post, read_answer


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/echo":
        return answer(start_response, environ["wsgi.input"].read())
    if path == "/lines":
        return answer(start_response, [line.decode() for line in environ["wsgi.input"]])
    if path == "/environ":
        shown = {name: value for name, value in environ.items() if isinstance(value, (str, int, bool)) or value is None}
        return answer(start_response, shown)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (piece for piece in (b"one ", b"", b"two ", b"three"))
    if path == "/broken-stream":
        start_response("200 OK", [("Content-Length", "1000")])
        return (b"x" * (1 if count < 3 else 1 // 0) for count in range(4))
    if path == "/error":
        raise RuntimeError("token=secret")
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"four"]
    if path == "/inject":
        start_response("200 OK", [("X-Name", "a\r\nSet-Cookie: b")])
        return [b""]
    if path == "/empty":
        start_response("204 No Content", [])
        return []
    if path == "/close":
        return answer(start_response, "bye", "200 OK", ("Connection", "close"))
    if path == "/partial":
        return answer(start_response, environ["wsgi.input"].read(10))
    return answer(start_response, path)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(app, tmp_path_factory.mktemp("served"))
    yield running
    running.stop()


@pytest.mark.parametrize("tls", [True, False])
def test_keep_alive_serves_one_request_after_the_other(served, tls):
    with served.tls() if tls else served.plain() as connection:
        reader = Reader(connection)
        for number in range(5):
            connection.sendall(get(f"/{number}"))
            reply = reader.answer()
            assert (reply.status, reply.json, "connection" in reply.headers) == (200, f"/{number}", False)


def test_pipelined_requests_are_answered_in_their_order(served):
    with served.tls() as connection:
        connection.sendall(b"".join(get(f"/{n}") if n % 3 else post("/echo", b'"%d"' % n) for n in range(30)))
        reader = Reader(connection)
        assert [reader.answer().json for _ in range(30)] == [f"/{n}" if n % 3 else str(n) for n in range(30)]


def test_a_request_after_a_chunked_one_on_the_same_connection(served):
    with served.tls() as connection:
        connection.sendall(chunked("/echo", b'"a', b'b"') + get("/next"))
        reader = Reader(connection)
        assert [reader.answer().json, reader.answer().json] == ["ab", "/next"]


def test_head_has_the_fields_of_get_and_no_body(served):
    with served.tls() as connection:
        reader = Reader(connection)
        for path in ("/x", "/empty"):
            connection.sendall(get(path, method="HEAD") + get("/after"))
            head = reader.answer(head_only=True)
            assert head.headers.get("content-length") == ("4" if path == "/x" else None)
            assert reader.answer().json == "/after"


def test_head_of_a_stream_sends_nothing_of_it(served):
    with served.tls() as connection:
        connection.sendall(get("/stream", method="HEAD"))
        reader = Reader(connection)
        assert reader.answer(head_only=True).status == 200
        assert not reader.more() and reader.held == b""


def test_http_1_0_closes_unless_asked_to_keep_alive(served):
    with served.plain() as connection:
        connection.sendall(get("/a", "Connection: Keep-Alive", version="1.0") + get("/b", version="1.0"))
        reader = Reader(connection)
        first, second = reader.answer(), reader.answer()
        assert (first.headers["connection"].lower(), first.headers["keep-alive"]) == ("keep-alive", "timeout=5")
        assert second.headers["connection"] == "close"
        assert closed(connection)


def test_http_1_0_gets_a_stream_without_chunks(served):
    reply = served.ask(get("/stream", version="1.0"), tls=False)
    assert reply.body == b"one two three"
    assert "transfer-encoding" not in reply.headers


def test_a_stream_without_length_is_chunked_and_whole(served):
    reply = served.get("/stream")
    assert (reply.headers["transfer-encoding"], reply.body, reply.whole) == ("chunked", b"one two three", True)


def test_a_stream_that_fails_is_cut_off_and_not_ended_well(served):
    reply = served.get("/broken-stream")
    assert (reply.status, reply.whole) == (200, False)
    assert served.get("/x").status == 200


@pytest.mark.parametrize("path", ["/error", "/short", "/inject"])
def test_an_app_that_fails_gives_a_sentence_and_no_details(served, path):
    reply = served.get(path)
    assert (reply.status, reply.json) == (500, {"error": "Something went wrong here."})
    assert "set-cookie" not in reply.headers


def test_errors_of_the_server_have_json_request_id_and_cors_of_the_listener(served):
    reply = served.ask(get("/error", "Origin: https://a.example"))
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["access-control-allow-origin"] == "https://a.example"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["connection"] == "close"
    assert len(reply.headers["x-request-id"]) >= 10
    assert "access-control-allow-origin" not in served.ask(get("/error"), tls=False).headers


def test_connection_close_of_the_client_and_of_the_app(served):
    for asked in (get("/x", "Connection: Close"), get("/x", "Connection: foo, close"), get("/close")):
        with served.tls() as connection:
            connection.sendall(asked)
            assert read_answer(connection).headers["connection"] == "close"
            assert closed(connection)


def test_bodies_of_all_sizes_arrive_whole(served):
    for size in (0, 1, 65535, 65536, 65537, 3_000_000):
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert served.ask(post("/echo", body)).body == body
        assert served.ask(post("/echo", body), tls=False).body == body
        assert served.ask(chunked("/echo", *(body[at : at + 70_001] for at in range(0, size, 70_001)))).body == body


def test_an_answer_larger_than_all_buffers_goes_to_a_reader_that_begins_late(served):
    body = b"0123456789abcdef" * 500_000
    with served.tls() as connection:
        sender = threading.Thread(target=connection.sendall, args=(post("/echo", body),))
        sender.start()
        sender.join()
        assert served.get("/meanwhile").status == 200
        assert read_answer(connection).body == body


def test_chunked_bodies_may_have_extensions_and_trailers(served):
    data = get("/echo", "Transfer-Encoding: Chunked", method="POST")
    data += b'3;name="v"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n' + get("/next")
    with served.tls() as connection:
        connection.sendall(data)
        reader = Reader(connection)
        assert [reader.answer().body, reader.answer().json] == [b"abc", "/next"]


def test_lines_of_a_body(served):
    assert served.ask(post("/lines", b"a\nbc\n\nd")).json == ["a\n", "bc\n", "\n", "d"]


def test_a_small_body_that_the_app_does_not_read_does_not_end_the_connection(served):
    with served.tls() as connection:
        connection.sendall(post("/ignored", b"GET /smuggled HTTP/1.1\r\n\r\n") + get("/next"))
        reader = Reader(connection)
        assert [reader.answer().json, reader.answer().json] == ["/ignored", "/next"]


def test_a_large_body_that_the_app_reads_in_part_is_not_taken_for_a_request(served):
    with served.tls() as connection:
        connection.sendall(post("/partial", get("/smuggled") * 4000) + get("/next"))
        reader = Reader(connection)
        reply = reader.answer()
        assert (reply.body, reply.headers["connection"]) == (b"GET /smugg", "close")
        assert closed(connection)


def test_what_the_app_is_told(served):
    told = served.ask(get("/environ?a=%20b", "X-Forwarded-For: 9.9.9.9", "X_Forwarded_For: 8.8.8.8", "Proxy: evil", "Cookie: a=1",
                          "Cookie: b=2", "X-A: 1", "X-A: 2", "X-Request-Id: mine")).json  # fmt: skip
    assert (told["REMOTE_ADDR"], told["QUERY_STRING"], told["wsgi.url_scheme"]) == ("127.0.0.1", "a=%20b", "https")
    assert (told["HTTP_X_FORWARDED_FOR"], told["HTTP_COOKIE"], told["HTTP_X_A"]) == ("9.9.9.9", "a=1; b=2", "1, 2")
    assert (told["ippd.listener"], told["ippd.peer_uid"]) == ("public", None)
    assert "HTTP_PROXY" not in told and told["ippd.request_id"] != "mine"
    reply = served.ask(get("/x"))
    assert reply.headers["x-request-id"].isalnum()
    assert served.ask(chunked("/environ", b"x")).json.keys().isdisjoint({"HTTP_TRANSFER_ENCODING", "CONTENT_LENGTH"})


def test_targets_of_all_allowed_forms(served):
    assert served.get("/a%20b%2Fc%41").json == "/a b%2FcA"
    assert served.get("//a//b").json == "//a//b"
    told = served.ask(b"GET http://other.example/environ?q HTTP/1.1\r\nHost: localhost\r\n\r\n").json
    assert (told["PATH_INFO"], told["QUERY_STRING"], told["HTTP_HOST"]) == ("/environ", "q", "other.example")
    assert served.ask(get("*", method="OPTIONS")).json == "*"


def test_empty_lines_before_a_request_are_skipped(served):
    assert served.ask(b"\r\n\r\n" + get("/x")).json == "/x"
    with served.plain() as connection:
        reader = Reader(connection)
        for data in (b"\r", b"\n", b"\r", b"\n" + get("/x")):
            connection.sendall(data)
            time.sleep(0.02)
        assert reader.answer().json == "/x"
