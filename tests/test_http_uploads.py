"""Uploads over the wire: refused before they are read, whole or not at all, in pieces of any kind."""

import itertools
import os
import time

import pytest

from client import BOUNDARY, form
from serving import PASSWORD
from test_http_portal_experiments import listed

MB = 1 << 20


def begun(portal, token, length, path="/experiments/new", more=b""):
    """The bytes of an upload up to the beginning of its file, announced with `length` bytes."""
    fields = [("token", token), ("app", "echo")] if token is not None else [("app", "echo")]
    body = b"".join(form(fields, [("scan", "a.nii", b"the beginning")])[2])
    body = body[: body.index(b"the beginning") + 5]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    return f"{head}Content-Length: {length}\r\n".encode() + more + b"\r\n" + body


@pytest.mark.parametrize("token", [None, "", "x.y.z"])
def test_an_upload_without_a_good_token_is_refused_before_its_file_is_read(portal, token):
    with portal.public.socket() as connection:
        connection.sendall(begun(portal, token, 10_000_000_000) + bytes(20_000))
        answer = connection.recv(65536)
    assert b" 401 " in answer.splitlines()[0]
    assert list(portal.core.blobs.incoming.iterdir()) == []


def test_a_token_after_the_file_comes_too_late(portal):
    token = portal.user()
    body = b"".join(itertools.chain(list(form([], [("scan", "a.nii", b"x")])[2])[:-1], form([("token", token), ("app", "echo")], [])[2]))
    reply = portal.public.request("POST", "/experiments/new", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    assert reply.status == 401


def test_an_announced_length_over_the_quota_is_refused_before_the_first_byte(make_portal):
    portal = make_portal(limits__user_bytes="10MB", limits__file_bytes="10MB")
    token = portal.user()
    with portal.public.socket() as connection:
        connection.sendall(begun(portal, token, 20 * MB))
        answer = connection.recv(65536)
    assert answer.splitlines()[0].split()[1] in (b"413", b"507")
    assert list(portal.core.blobs.incoming.iterdir()) == []


@pytest.mark.parametrize("listener", ["public", "local"])
def test_a_client_that_vanishes_leaves_nothing(portal, listener):
    token = portal.user()
    with getattr(portal, listener).socket() as connection:
        connection.sendall(begun(portal, token, 50 * MB) + bytes(3 * MB))
    [request] = portal.requests_done(1)
    assert request["status"] >= 400
    assert listed(portal, token) == []
    assert [path for path in portal.core.blobs.folder.rglob("*") if path.is_file()] == []


def test_clients_that_vanish_take_no_other_request_with_them(portal):
    """The error of one connection was taken for one of the next that the same thread had, with a Python that leaves it lying."""
    token, pieces = portal.user(), [os.urandom(MB)] * 20
    for _ in range(12):
        with portal.public.socket() as connection:
            connection.sendall(begun(portal, token, 50 * MB) + bytes(6 * MB))
        reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], [("scan", "big.nii", (20 * MB, iter(pieces)))])
        assert reply.status == 200, reply


def test_results_that_break_off_leave_the_experiment_as_it_was(portal):
    token = portal.user()
    id = portal.public.post("/experiments/new", token=token, app="echo").json["id"]
    with portal.local.socket() as connection:
        connection.sendall(begun(portal, None, 50 * MB, f"/experiments/{id}/results") + bytes(3 * MB))
    portal.requests_done(2)
    assert listed(portal, token)[0]["status"] == "submitted"
    assert [path for path in portal.core.blobs.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_file_arrives_as_it_was_sent(portal, announced):
    token, piece = portal.user(), os.urandom(MB)
    pieces = [piece] * 20
    data = (20 * MB, iter(pieces)) if announced else iter(pieces)
    reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], [("scan", "big.nii", data)])
    assert reply.status == 200, reply
    reply = portal.public.get(f"/experiments/{reply.json['id']}/file", token=token, path="big.nii")
    assert reply.body == piece * 20


def test_a_text_field_of_300_mb_is_refused_when_it_passes_the_limit(portal):
    token = portal.user()
    sent = 0

    def text():
        nonlocal sent
        for _ in range(300):
            sent += 1
            yield b"x" * MB

    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'
    first = f'{head}token"\r\n\r\n{token}\r\n{head}comment"\r\n\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(first) + 300 * MB)}
    reply = portal.public.request("POST", "/experiments/new", itertools.chain([first], text()), headers)
    assert reply.status == 413 and "'comment' may have at most 65536 bytes" in reply.json["error"]
    assert sent < 60


def test_an_upload_of_unknown_length_is_cut_off_when_it_passes_the_quota(make_portal):
    portal = make_portal(limits__user_bytes="3MB")
    token = portal.user()
    sent = 0

    def bytes_of_a_file():
        nonlocal sent
        for _ in range(300):
            sent += 1
            yield bytes(MB)

    reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], [("scan", "a.nii", bytes_of_a_file())])
    assert reply.status == 507 and "that you may store" in reply.json["error"]
    assert sent < 60
    assert [path for path in portal.core.blobs.folder.rglob("*") if path.is_file()] == []


def test_a_file_over_its_limit_is_413_and_leaves_nothing(make_portal):
    portal = make_portal(limits__file_bytes="1MB")
    token = portal.user()
    reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], [("scan", "a.nii", bytes(2 * MB))])
    assert reply.status == 413
    assert listed(portal, token) == []
    assert [path for path in portal.core.blobs.folder.rglob("*") if path.is_file()] == []


def test_too_many_files_are_413(make_portal):
    portal = make_portal(limits__files_per_experiment=3)
    token = portal.user()
    reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], [("scan", f"{i}.nii", b"x") for i in range(4)])
    assert reply.status == 413
    assert listed(portal, token) == []


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"x", 400),
        (f"multipart/form-data; boundary={BOUNDARY}", b"--" + BOUNDARY.encode() + b"\r\nbroken", 400),
        ("text/csv", b"a,b", 415),
        ("application/json", b"[]", 400),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 2 * MB, 413),
    ],
)
def test_a_body_that_cannot_be_read_is_told_in_a_sentence(portal, kind, body, status):
    for path in ("/experiments/new", "/users/new"):
        reply = portal.public.request("POST", path, body, {"Content-Type": kind})
        assert (reply.status, list(reply.json)) == (status, ["error"])
        assert reply.headers["access-control-allow-origin"] == "*"


def test_a_malformed_chunked_body_is_400(portal):
    head = b"POST /users/new HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 400 " in portal.public.raw(head + b"zz\r\n{}\r\n0\r\n\r\n").splitlines()[0]


def test_a_poll_during_an_upload_neither_loses_nor_shows_it(portal):
    token = portal.user()
    with portal.public.socket() as connection:
        whole = b"".join(form([("token", token), ("app", "echo")], [("scan", "a.nii", bytes(5 * MB))])[2])
        head = begun(portal, token, len(whole)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        connection.sendall(head + whole[: 3 * MB])
        assert portal.local.get("/experiments/queue").json == []
        assert listed(portal, token) == []
        connection.sendall(whole[3 * MB :])
        assert b" 200 " in connection.recv(65536).splitlines()[0]
    assert len(portal.local.get("/experiments/queue").json) == 1


@pytest.mark.parametrize(("path", "kind", "body"), [
    ("/users/auth", "application/x-www-form-urlencoded", b"email="),
    ("/experiments/new", f"multipart/form-data; boundary={BOUNDARY}", b"--"),
])  # fmt: skip
def test_a_form_that_comes_slowly_keeps_nobody_else_from_theirs(portal, path, kind, body):
    token = portal.user()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 900000\r\n\r\n".encode()
    with portal.public.socket() as connection:
        connection.sendall(head + body)
        time.sleep(0.2)  # the daemon waits for the rest now
        begin = time.monotonic()
        assert portal.public.post("/users/auth", email="ada@example.org", password=PASSWORD).json["token"]
        assert portal.public.post("/experiments/new", [("token", token), ("app", "echo")], files=[("scan", "a.nii", b"x")]).status == 200
        assert time.monotonic() - begin < 3
