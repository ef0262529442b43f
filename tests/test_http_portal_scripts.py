"""The local routes: what job scripts and the operators' wrappers do, and what nobody may do with them."""

import hashlib
import io
import threading
import zipfile

import pytest

from ippd.permissions import SYSTEM
from test_http_portal_experiments import listed, submit


def test_a_script_takes_an_experiment_from_the_queue_to_its_results(portal):
    token = portal.user()
    id = submit(portal, token, ("scan", "scan 1.nii.gz", b"one"), ("scan", "scan 1.nii.gz", b"two"), prefix="")
    [item] = portal.local.get("/experiments/queue").json
    assert item == {
        "id": id,
        "user": 1,
        "host": "cubic",
        "app": "echo",
        "experimentName": "A first trial",
        "experimentDescription": "Two\nlines",
        "params": {"smoothing": "4", "comment": "", "scan": "inputs/scan_1.nii.gz,inputs/scan_1-2.nii.gz"},
        "files": {"scan": ["scan_1.nii.gz", "scan_1-2.nii.gz"]},
    }
    assert portal.local.get("/experiments/queue").body == b"[]"
    with zipfile.ZipFile(io.BytesIO(portal.local.get(f"/api/experiments/{id}/files").body)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"scan_1.nii.gz": b"one", "scan_1-2.nii.gz": b"two"}
    assert portal.local.post(f"/experiments/{id}/running").body == b"true"
    assert portal.local.post(f"/experiments/{id}/heartbeat").body == b"true"
    assert portal.local.post(f"/experiments/{id}/results", files=[("file", f"{id}.zip", b"zip")]).body == b"true"
    [experiment] = listed(portal, token)
    assert (experiment["status"], experiment["outputs"]) == ("completed", [f"{id}.zip"])
    assert portal.public.get(f"/experiments/{id}/file", token=token, path=f"{id}.zip").body == b"zip"


@pytest.mark.parametrize("field", ["file", "results", "", "x y"])
def test_results_are_taken_under_any_field_name(portal, field):
    id = submit(portal, portal.user())
    assert portal.local.post(f"/api/experiments/{id}/results", files=[(field, f"{id}.zip", b"x")]).body == b"true"


def test_results_without_a_file_are_400_and_change_nothing(portal):
    token = portal.user()
    id = submit(portal, token)
    for reply in (
        portal.local.post(f"/experiments/{id}/results", note="no file"),
        portal.local.post(f"/experiments/{id}/results", {"note": "no file"}, files=[]),
        portal.local.post(f"/experiments/{id}/results", files=[("file", "", b"")]),
        portal.local.request("POST", f"/experiments/{id}/results"),
    ):
        assert reply.status == 400 and reply.json["error"]
    assert listed(portal, token)[0]["status"] == "submitted"


def test_results_can_be_sent_again_and_replace_those_of_the_same_name(portal):
    token = portal.user()
    id = submit(portal, token)
    for data in (b"first", b"second"):
        portal.local.post(f"/experiments/{id}/results", files=[("file", f"{id}.zip", data), ("file", "more.txt", data)])
    assert listed(portal, token)[0]["outputs"] == [f"{id}.zip", "more.txt"]
    assert portal.public.get(f"/experiments/{id}/file", token=token, path="more.txt").body == b"second"
    assert len(list(portal.core.blobs.folder.glob("[0-9]*/*"))) == 2


def test_a_failure_keeps_its_code_and_takes_no_results_afterwards(portal):
    token = portal.user()
    id = submit(portal, token)
    assert portal.local.post(f"/experiments/{id}/failed", exit_code="137").body == b"true"
    assert portal.local.post(f"/experiments/{id}/failed").body == b"true"
    assert listed(portal, token)[0]["exit_code"] == 137
    assert portal.local.post(f"/experiments/{id}/results", files=[("file", "a.zip", b"x")]).status == 409
    other = submit(portal, token)
    assert portal.local.request("POST", f"/api/experiments/{other}/failed").body == b"true"
    assert portal.local.post(f"/experiments/{submit(portal, token)}/failed", exit_code="x").status == 400


def test_delete_is_true_once(portal):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"x"))
    assert portal.local.delete(f"/experiments/{id}/delete").body == b"true"
    assert portal.local.delete(f"/experiments/{id}/delete").body == b"false"
    assert listed(portal, token) == []
    assert list(portal.core.blobs.folder.glob("[0-9]*/*")) == []


def test_old_files_are_named_so_that_they_can_be_deleted(portal, clock):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"x"))
    portal.local.post(f"/experiments/{id}/results", files=[("file", "a.zip", b"x")])
    assert portal.local.get("/files/old", days=1).json == []
    clock.forward(days=2)
    paths = portal.local.get("/files/old", days=1).json
    assert len(paths) == 2 and not any(path.startswith("/") or ".." in path for path in paths)
    for path in paths:
        assert portal.local.post("/files/delete", path=path).body == b"true"
        assert portal.local.post("/files/delete", path=path).status == 404
    assert portal.local.get("/files/old", days=1).json == []
    assert list(portal.core.blobs.folder.glob("[0-9]*/*")) == []


@pytest.mark.parametrize("days", ["", "x", "-1", "1.5", "1e3", "١", "0 OR 1=1", "0; DROP TABLE files", "9" * 30])
def test_days_must_be_a_whole_number(portal, days):
    reply = portal.local.get("/files/old", days=days)
    assert reply.status == 400 and "whole number" in reply.json["error"]
    assert portal.local.get("/files/old").status == 400


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../ippd.sqlite", "1/../../secret", "secret", "1/", "incoming/x", "1/x\0"])
def test_nothing_outside_the_uploads_can_be_deleted(portal, path):
    portal.user()
    secret = portal.core.blobs.folder.parent / "secret"
    before = hashlib.sha256(secret.read_bytes()).digest()
    assert portal.local.post("/files/delete", path=path).status == 404
    assert hashlib.sha256(secret.read_bytes()).digest() == before


def test_a_message_goes_to_the_outbox(portal):
    portal.user()
    assert portal.local.post("/notifications/notify", email="ada@example.org", message="disk full").body == b"true"
    assert portal.local.post("/notifications/notify", email="nobody", message="x").status == 400


@pytest.mark.parametrize("verb", ["files", "results", "failed", "running", "heartbeat"])
def test_an_experiment_that_is_not_there_is_404(portal, verb):
    for id in ("99", "..", "1e3", "%D9%A1", "9" * 20):
        path = f"/experiments/{id}/{verb}"
        reply = portal.local.get(path) if verb == "files" else portal.local.post(path, files=[("file", "a.zip", b"x")])
        if verb == "failed" and id == "99":
            reply = portal.local.post(path)
        assert reply.status == 404 and "error" in reply.json, path


def test_a_claim_that_nobody_acknowledges_comes_back_and_one_that_was_does_not(portal, clock):
    token = portal.user()
    lost, taken = submit(portal, token), submit(portal, token)
    assert [item["id"] for item in portal.local.get("/experiments/queue").json] == [lost, taken]
    portal.local.get(f"/experiments/{taken}/files")
    clock.forward(minutes=11)
    portal.core.queue.requeue_unacknowledged(SYSTEM)
    assert [item["id"] for item in portal.local.get("/experiments/queue").json] == [lost]


def test_pollers_at_once_lose_nothing_and_get_nothing_twice(make_portal):
    portal = make_portal(limits__waiting_experiments=1000, queue__batch=3)
    token, submitted, handed, lock = portal.user(), [], [], threading.Lock()
    done = threading.Event()

    def submitter():
        for _ in range(25):
            id = submit(portal, token)
            with lock:
                submitted.append(id)

    def poller():
        while True:
            last = done.is_set()
            items = portal.local.get("/experiments/queue").json
            with lock:
                handed.extend(item["id"] for item in items)
            if last and not items:
                return

    submitters = [threading.Thread(target=submitter) for _ in range(4)]
    pollers = [threading.Thread(target=poller) for _ in range(4)]
    for thread in submitters + pollers:
        thread.start()
    for thread in submitters:
        thread.join()
    done.set()
    for thread in pollers:
        thread.join()
    assert len(submitted) == 100
    assert sorted(handed) == sorted(submitted)


def test_nothing_of_this_exists_on_the_public_listener(portal):
    token = portal.user()
    id = submit(portal, token)
    named = [("GET", "files"), ("POST", "results"), ("POST", "failed"), ("POST", "running"), ("POST", "heartbeat"), ("DELETE", "delete")]
    routes = [(method, f"/experiments/{id}/{verb}") for method, verb in named]
    routes += [("GET", "/users/list"), ("GET", "/users/approve/1"), ("POST", "/users/deny/1"), ("GET", "/experiments/queue"),
               ("POST", "/files/delete"), ("GET", "/files/old?days=1"), ("POST", "/notifications/notify")]  # fmt: skip
    for method, path in routes:
        for prefix in ("", "/api"):
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "127.0.0.1", "Host": "localhost"}
            reply = portal.public.request(method, prefix + path, headers=headers)
            assert (reply.status, reply.json) == (404, {"error": "there is no such path here"}), path


@pytest.mark.parametrize("path", ["/version/update", "/fe-version/update"])
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_nobody_updates_over_the_public_listener(portal, prefix, path):
    """Bad input: a user with a token; headers of a client on this machine. The local listener knows the route."""
    token = portal.user()
    forged = {"Host": "localhost", "X-Forwarded-For": "127.0.0.1"}
    for more in ({}, {"token": token}):
        assert portal.public.post(prefix + path, more | {"checkout": "9.9"}).status == 404
        assert portal.public.post(prefix + path, more | {"checkout": "9.9"}, headers=forged).status == 404
    assert portal.public.request("OPTIONS", prefix + path).status == 404
    assert portal.local.post(prefix + path, checkout="../9.9").status == 400
