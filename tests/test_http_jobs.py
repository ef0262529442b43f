"""The routes of apps and workers. Bad input: broken JSON, other people's experiments, outsiders on local routes, gaps in output."""

import json
import threading
import time
from pathlib import Path

import pytest

from client import BOUNDARY, form, read_all
from ippd.permissions import OPERATOR
from serving import PASSWORD


@pytest.fixture
def portal(make_portal, tmp_path):
    apps = tmp_path / "apps"
    apps.mkdir()
    form = {"label": "Echo", "description": "", "fieldGroups": {"g": {"fields": {"text": {"type": "string", "max": 5}, "scan": {
        "type": "attachment", "validator": "/opt/secret"}}}}, "appKey": "echo"}  # fmt: skip
    (apps / "forms.json").write_text(json.dumps([form]))
    (apps / "echo.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}}))
    categories = {"open": {"apps": ["echo"], "label": "Open"}, "lab": {"apps": ["echo"], "label": "Lab", "groups": ["lab"]}}
    (apps / "categories.json").write_text(json.dumps(categories))
    return make_portal(apps__directory=apps)


def submit(portal, token, **fields):
    reply = portal.public.post("/experiments/new", token=token, app="echo", experimentName="a trial", **fields)
    assert reply.status == 200, reply
    return reply.json["id"]


def as_json(portal, path, value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return portal.local.request("POST", path, body, {"Content-Type": "application/json"})


def claim(portal, **more):
    reply = as_json(portal, "/experiments/claim", {"worker": "w", "seconds": 60, "limit": 9} | more)
    assert reply.status == 200, reply
    return reply.json["experiments"]


def test_apps_and_categories_are_public_and_tell_nothing_of_the_server(portal):
    reply = portal.public.get("/apps")
    assert [app["appKey"] for app in reply.json] == ["echo"] and b"/opt/secret" not in reply.body and b"/bin/echo" not in reply.body
    assert portal.public.get("/api/apps/echo").json["label"] == "Echo"
    assert portal.public.get("/apps/other").status == 404
    assert list(portal.public.get("/categories").json) == ["open"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 950 + "]" * 950], ids=lambda text: text[:9])
def test_a_definition_that_no_answer_could_hold_takes_no_other_down(portal, value):
    """Bad input: numbers that JSON has not, one that is too large to be one, and lists in lists up to what Python just reads."""
    bad = '{"appKey": "bad", "fieldGroups": {"g": {"fields": {"f": {"type": "float", "def": VALUE}}}}}'
    folder = Path(portal.core.settings["apps.directory"])
    (folder / "bad.json").write_text(bad.replace("VALUE", value))
    reply = portal.public.get("/apps")
    assert reply.status == 200 and [app["appKey"] for app in reply.json] == ["echo"]
    (folder / "bad.json").write_text(f'{{"bad": {{"apps": [], "weight": {value}}}}}')
    assert list(portal.public.get("/categories").json) == ["open"]
    assert [problem.file for problem in portal.core.apps.now().problems] == ["bad.json"]


def test_a_category_of_a_group_is_shown_to_its_members(portal):
    token = portal.user()
    portal.core.groups.assign(OPERATOR, 1, [portal.core.groups.create(OPERATOR, "lab")])
    assert list(portal.public.get("/categories", token=token).json) == ["open", "lab"]


def test_a_submission_is_refused_field_by_field(portal):
    reply = portal.public.post("/experiments/new", token=portal.user(), app="echo", text="too long", other="x")
    assert reply.status == 400 and "text: this must be at most 5 characters" in reply.json["error"] and "other:" in reply.json["error"]
    assert reply.json["fields"] == {"text": ["this must be at most 5 characters"], "other": ["this app has no such field"]}
    assert "fields" not in portal.public.get("/experiments/999", token="x").json


@pytest.mark.parametrize("more", [{}, {"apps__allow_unknown": "yes"}])
def test_a_value_with_a_nul_is_refused_and_not_cut(portal, make_portal, tmp_path, more):
    """Bad input: a NUL, which no word of a command can hold; for apps without a form and for unknown ones."""
    (tmp_path / "apps" / "bare.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}}))
    portal = make_portal(apps__directory=tmp_path / "apps", **more) if more else portal
    token = portal.user()
    for app in ("bare", "echo", *(["any"] if more else [])):
        reply = portal.public.post("/experiments/new", [("token", token), ("app", app), ("text", "x\0y")])
        assert (reply.status, reply.json["fields"]) == (400, {"text": ["this may not hold a NUL character"]})
    id = portal.public.post("/experiments/new", token=token, app="bare", text="x").json["id"]
    assert portal.public.post(f"/experiments/{id}/relaunch", token=token, text="x\0y").status == 400


@pytest.mark.parametrize("path", ["claim", "heartbeats", "1/returned", "1/stopped", "1/suspended", "1/unable"])
def test_what_is_for_workers_is_not_there_for_others(portal, path):
    assert portal.public.post(f"/experiments/{path}", token=portal.user()).status in (404, 405)
    assert portal.public.post("/experiments/1/log", token="x").status in (404, 405)


@pytest.mark.parametrize(
    ("path", "body"),
    [("claim", {}), ("claim", {"worker": "w", "seconds": "soon", "limit": 1}),
     ("claim", {"worker": "w", "seconds": 60, "limit": 1, "hosts": "x"}),
     ("claim", b"{"), ("claim", b"[]"), ("heartbeats", {}), ("heartbeats", {"claims": {"x": "y"}}), ("heartbeats", {"claims": []})],
)  # fmt: skip
def test_broken_calls_of_workers_are_400(portal, path, body):
    assert as_json(portal, f"/experiments/{path}", body).status == 400


def test_an_experiment_from_its_claim_to_its_results(portal):
    token = portal.user()
    id = submit(portal, token, text="3;id", **{"run-priority": "-3", "run-restarts": "0", "run-time-limit": "60"})
    (item,) = claim(portal)
    assert item["params"] == {"text": "3;id"} and item["time_limit"] == 60 and item["backend"]["executable"] == "/bin/echo"
    mine = {"claim": item["claim"]}
    assert portal.local.post(f"/experiments/{id}/running", **mine).body == b"true"
    beat = as_json(portal, "/experiments/heartbeats", {"claims": {id: item["claim"], 99: "x"}})
    assert beat.json["answers"] == {str(id): "go on", "99": "lost"}
    assert portal.local.post(f"/experiments/{id}/failed", claim="another").status == 409
    used = json.dumps({"job": "12", "node": "n1", "cpu_seconds": 1})
    form = [("claim", item["claim"]), ("usage", used)]
    assert portal.local.post(f"/experiments/{id}/results", form, files=[("file", "a.txt", b"x")]).body == b"true"
    done = portal.public.get(f"/experiments/{id}", token=token).json
    assert done["status"] == "completed" and done["usage"]["node"] == "n1" and done["priority"] == -3


@pytest.mark.parametrize("usage", ["[" * 60_000, "{", '{"cpu_seconds": "x"}'])
def test_a_usage_that_is_none_is_400(portal, usage):
    """Bad input: lists in lists without an end, a broken object, a wrong number."""
    id = submit(portal, portal.user())
    (item,) = claim(portal)
    told = [("claim", item["claim"]), ("usage", usage)]
    assert portal.local.post(f"/experiments/{id}/failed", told).status == 400
    assert portal.local.post(f"/experiments/{id}/results", told, files=[("file", "a", b"x")]).status == 400
    assert portal.core.experiments.get(OPERATOR, id)["status"] == "queued"


def test_output_is_appended_and_read_with_ranges(portal):
    token, bob = portal.user(), portal.user("bob@example.org")
    id = submit(portal, token)
    (item,) = claim(portal)

    def append(offset, data, stream="stdout", claim=item["claim"]):
        return portal.local.post(
            f"/experiments/{id}/log", [("claim", claim), ("stream", stream), ("offset", offset)], files=[("text", "x", data)]
        )

    assert append(0, b"0123456789").json == {"size": 10} and append(5, b"56789ab").json == {"size": 12}
    assert append(0, b"oops", "stderr").status == 200
    assert (append(50, b"x").status, append("x", b"x").status, append(0, b"x", "../x").status) == (409, 400, 400)
    assert append(0, b"x", claim="another").status == 409
    url = f"/experiments/{id}/log?token={token}"
    assert portal.public.get(url).body == b"0123456789ab" and portal.public.get(f"{url}&stream=stderr").body == b"oops"
    part = portal.public.request("GET", url, headers={"Range": "bytes=10-"})
    assert (part.status, part.body) == (206, b"ab") and part.headers["content-type"].startswith("text/plain")
    assert portal.public.get(f"/experiments/{id}/log", token=bob).status == 404
    assert portal.public.get(f"{url}&stream=core").status == 400


def test_output_that_drips_in_keeps_nobody_waiting(portal):
    """Bad input: a body of the log that comes slowly, and more for the same log meanwhile than there are threads for short requests."""
    token = portal.user()
    id = submit(portal, token)
    (item,) = claim(portal)
    head = form([("claim", item["claim"]), ("stream", "stdout"), ("offset", "0")], [("text", "x", b"")])
    begun = b"".join(head[2]).removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())
    lines = f"POST /experiments/{id}/log HTTP/1.1\r\nHost: localhost\r\nContent-Type: {head[0]}\r\nContent-Length: 10000000\r\n\r\n"
    slow = [portal.local.socket() for _ in range(4)]
    for number, connection in enumerate(slow):
        connection.sendall(lines.encode() + begun + b"first" + b"x" * number)
        if not number:
            time.sleep(0.3)
    quick = [("claim", item["claim"]), ("stream", "stdout"), ("offset", "5")]
    with portal.local.socket(5) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 " in read_all(connection)
    assert portal.local.post(f"/experiments/{id}/log", quick, files=[("text", "x", b"xxx")]).json == {"size": 8}
    assert portal.public.get(f"/experiments/{id}/log?token={token}").body == b"firstxxx"
    for connection in slow:
        connection.close()


def test_following_gives_bytes_as_they_come_until_the_end(portal):
    token = portal.user()
    id = submit(portal, token)
    claim(portal)
    core = portal.core
    core.outputs.append(OPERATOR, id, "stdout", 0, [b"one "])
    threading.Timer(0.3, core.outputs.append, (OPERATOR, id, "stdout", 4, [b"two "])).start()
    threading.Timer(0.8, core.experiments.fail, (OPERATOR, id)).start()
    assert portal.public.get(f"/experiments/{id}/log", follow="1", offset="2", token=token).body == b"e two "
    assert portal.public.get(f"/experiments/{id}/log", follow="1", offset="-1", token=token).status == 400


def test_following_ends_when_an_experiment_is_begun_again(portal):
    """Bad input: an offset in the output of a first run, which is asked for in that of a second one."""
    token = portal.user()
    id = submit(portal, token)
    core, (item,) = portal.core, claim(portal)
    core.outputs.append(OPERATOR, id, "stdout", 0, [b"one two"])

    def second():
        core.leases.give_back(OPERATOR, id, item["claim"])
        core.outputs.append(OPERATOR, id, "stdout", 0, [b"one two three"])

    threading.Timer(0.8, second).start()
    url, begin = f"/experiments/{id}/log", time.monotonic()
    assert portal.public.get(url, follow="1", offset="0", token=token).body == b"one two" and time.monotonic() - begin < 20
    assert portal.public.get(url, follow="1", offset="7", restarts="0", token=token).body == b""
    threading.Timer(0.3, core.experiments.fail, (OPERATOR, id)).start()
    assert portal.public.get(url, follow="1", offset="0", restarts="1", token=token).body == b"one two three"
    assert portal.public.get(url, follow="1", restarts="-1", token=token).status == 400


def test_what_has_printed_nothing_has_an_empty_log(portal):
    """Bad input: a program that is silent so far, and one that was so to its end."""
    token = portal.user()
    id = submit(portal, token)
    (item,) = claim(portal)
    silent = [portal.public.get(f"/experiments/{id}/log?token={token}{more}") for more in ("", "&stream=stderr")]
    told = [("claim", item["claim"]), ("usage", json.dumps({"job": "1"}))]
    assert portal.local.post(f"/experiments/{id}/results", told, files=[("file", "a", b"x")]).status == 200
    silent += [portal.public.get(f"/experiments/{id}/log?token={token}{more}") for more in ("", "&stream=stderr")]
    assert [(reply.status, reply.body) for reply in silent] == [(200, b"")] * 4


@pytest.mark.source_only  # the binary has two serving processes here, and each its own places
def test_followers_that_have_gone_hold_no_place_and_no_log_in_waits_for_them(portal):
    """Bad input: more followers of a silent log than one user may have, each of which goes at once."""
    token = portal.user()
    id = submit(portal, token)
    claim(portal)
    ask = f"GET /experiments/{id}/log?follow=1&token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    followers = [portal.public.socket() for _ in range(8)]
    for follower in followers:
        follower.sendall(ask)
        assert follower.recv(12) == b"HTTP/1.1 200"  # though nothing was printed so far
    assert portal.public.get(f"/experiments/{id}/log", follow="1", token=token).status == 503
    assert portal.public.get(f"/experiments/{id}/log", token=token).status == 200
    for follower in followers:
        follower.close()
    time.sleep(1.5)
    with portal.public.socket() as follower:
        follower.sendall(ask)
        assert follower.recv(12) == b"HTTP/1.1 200"


@pytest.mark.source_only  # the same
def test_a_log_in_takes_its_turn_while_all_transfers_are_taken(make_portal):
    """Bad input: uploads that do not go on, as many as there may be transfers, from the address and from a local account."""
    portal = make_portal(server__slow_threads=2, server__slow_threads_per_address=1, apps__allow_unknown="yes")
    token = portal.user()
    kind, _, body = form([("token", token), ("app", "echo")], [("scan", "a", b"x")])
    lines = f"POST /experiments/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 10000000\r\n\r\n"
    begun = lines.encode() + b"".join(body).split(b"x\r\n--")[0]
    uploads = [portal.public.socket(), portal.local.socket()]
    for upload in uploads:
        upload.sendall(begun)
    time.sleep(0.5)
    assert portal.public.post("/experiments/new", token=token, app="echo", files=[("scan", "a", b"x" * 100_000)]).status == 503
    reply = portal.public.post("/users/auth", email="ada@example.org", password=PASSWORD)
    assert reply.status == 200 and reply.json["token"]
    for upload in uploads:
        upload.close()


def test_a_cancel_waits_for_the_job_to_be_gone(portal):
    token = portal.user()
    id = submit(portal, token)
    (item,) = claim(portal)
    gone = threading.Timer(0.3, lambda: portal.local.post(f"/experiments/{id}/stopped", claim=item["claim"]))
    gone.start()
    reply = portal.public.post(f"/experiments/{id}/cancel", token=token, wait="20")
    assert reply.json == {"status": "cancelled", "was": "queued", "gone": True}
    assert portal.public.post(f"/experiments/{id}/cancel", token=token).status == 409


def test_a_cancel_is_told_also_when_there_is_no_thread_to_wait_in(make_portal):
    """Bad input: a cancel that shall wait, while all threads for what waits are taken by an upload that does not go on."""
    portal = make_portal(server__slow_threads=1, apps__allow_unknown="yes")
    token = portal.user()
    id = submit(portal, token)
    portal.core.store.execute("UPDATE experiments SET status = 'running', claim = 'x', lease = 60 WHERE id = :id", id=id)
    with portal.public.socket() as upload:
        kind, _, body = form([("token", token), ("app", "echo")], [("scan", "a", b"x")])
        lines = f"POST /experiments/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 10000000\r\n\r\n"
        upload.sendall(lines.encode() + b"".join(body).split(b"x\r\n--")[0])
        time.sleep(0.5)
        reply = portal.public.post(f"/experiments/{id}/cancel", token=token, wait="20")
    assert (reply.status, reply.json) == (200, {"status": "cancelled", "was": "running", "gone": False})


def test_suspend_resume_priority_and_relaunch_are_the_owners(portal):
    token, bob = portal.user(), portal.user("bob@example.org")
    id = submit(portal, token, text="a")
    for word in ("suspend", "resume", "relaunch", "priority", "cancel"):
        more = {"priority": "0"} if word == "priority" else {}
        assert portal.public.post(f"/experiments/{id}/{word}", token=bob, **more).status == 404
        assert portal.public.post(f"/experiments/{id}/{word}", **more).status == 401
    assert portal.public.post(f"/experiments/{id}/suspend", token=token).json == {"status": "suspended"}
    assert portal.public.post(f"/experiments/{id}/resume", token=token).json == {"status": "submitted"}
    assert portal.public.post(f"/experiments/{id}/priority", token=token, priority="5").status == 400
    assert portal.public.post(f"/experiments/{id}/priority", token=token, priority="-5").body == b"true"
    new = portal.public.post(f"/experiments/{id}/relaunch", token=token, text="b").json["id"]
    assert portal.public.get(f"/experiments/{new}", token=token).json["params"] == {"text": "b"}
    assert portal.public.post(f"/experiments/{id}/relaunch", token=token, text="too long").status == 400
    more = {"experimentName": "again", "run-priority": "-1"}
    new = portal.public.post(f"/experiments/{id}/relaunch", token=token, **more).json["id"]
    new = portal.public.get(f"/experiments/{new}", token=token).json
    assert (new["params"], new["experimentName"], new["priority"]) == ({"text": "a"}, "again", -1)


def test_a_script_may_ask_for_a_share_of_the_queue(portal):
    token = portal.user()
    ids = [submit(portal, token, host=host) for host in ("cubic", "other", "cubic")]
    assert [item["id"] for item in portal.local.get("/experiments/queue?host=cubic&limit=1").json] == ids[:1]
    assert [item["id"] for item in portal.local.get("/experiments/queue?app=echo").json] == ids[1:]
