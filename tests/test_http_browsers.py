"""Browsers: pages of other sites can read what is public and change nothing; the local listener knows its own name."""

import pytest

from ippd.http import Family, check_csrf, csrf_token, json_answer
from ippd.http.browsers import transport_security
from ippd.permissions import ANONYMOUS, SYSTEM


def forms():
    """A family with a form that carries a token."""
    made = Family("forms", "/forms", lambda request: ANONYMOUS, lambda request, error: json_answer(str(error), error.status))

    @made.get("/token", local=True)
    def token(request):
        return csrf_token(request)

    @made.post("/send", local=True)
    def send(request):
        check_csrf(request)
        return True

    return made


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8080", "localhost.:1", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8080"])
def test_the_local_listener_answers_to_loopback_names(portal, host):
    assert portal.local.get("/version", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1:8080", "127.0.0.1.evil.example", "[::2]", "[::1", "a@localhost"]
)  # fmt: skip
def test_a_name_that_was_bent_to_loopback_is_421(portal, host):
    reply = portal.local.get("/experiments/queue", headers={"Host": host})
    assert reply.status == 421
    assert "loopback" in reply.json["error"]


def test_the_public_listener_answers_to_any_name(portal):
    assert portal.public.get("/version", headers={"Host": "portal.example.org"}).status == 200


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Referer": "https://evil.example/page?x=1"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing_on_the_local_listener(portal, headers):
    changing = [("GET", "/users/approve/1"), ("POST", "/users/approve/1"), ("GET", "/users/deny/1"), ("GET", "/api/experiments/queue"),
                ("POST", "/files/delete"), ("DELETE", "/experiments/1/delete"), ("POST", "/users/new"), ("POST", "/nothing")]  # fmt: skip
    for method, path in changing:
        reply = portal.local.request(method, path, headers=headers)
        assert (reply.status, reply.json) == (403, {"error": "a page of another site may not do this"}), path


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_reads_no_experiment_on_the_local_listener(portal, headers):
    token = portal.user()
    id = portal.public.post("/experiments/new", [("token", token), ("app", "echo")], files=[("scan", "patient.nii", b"data")]).json["id"]
    for path in (f"/experiments/{id}", f"/api/experiments/{id}/file?path=patient.nii", f"/experiments/{id}/files"):
        reply = portal.local.get(path, headers=headers)
        assert reply.status in (401, 403) and b"data" not in reply.body, path
    assert portal.local.get(f"/experiments/{id}/file", path="patient.nii").body == b"data"  # a job script may
    assert portal.local.get(f"/experiments/{id}", token=token, headers=headers).status == 200  # and so may who has a token


def test_only_a_script_acknowledges_a_claim(portal, clock):
    portal.public.post("/experiments/new", token=portal.user(), app="echo")
    assert len(portal.local.get("/experiments/queue").json) == 1
    assert portal.local.request("HEAD", "/experiments/1/files").status == 405
    assert portal.local.get("/experiments/1/files", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    clock.forward(minutes=11)
    assert portal.core.queue.requeue_unacknowledged(SYSTEM) == 1


def test_the_own_pages_and_programs_change_what_they_may(portal):
    own = f"http://localhost:{portal.local.port}"
    for headers in ({}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin", "Origin": own}, {"Referer": own + "/admin/users"}):
        reply = portal.local.get("/experiments/queue", headers={"Host": f"localhost:{portal.local.port}"} | headers)
        assert (reply.status, reply.json) == (200, [])


def test_options_never_runs_a_handler(portal):
    portal.public.post("/users/new", email="ada@example.org", password="correct horse")
    for method in ("GET", "POST"):
        reply = portal.local.request("OPTIONS", "/users/approve/1", headers={"Access-Control-Request-Method": method})
        assert (reply.status, reply.body) == (204, b"")
    assert portal.local.get("/users/list").json[0]["approved"] == 0


def test_a_preflight_on_the_public_listener_allows_tokens_and_json(portal):
    asked = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    reply = portal.public.request("OPTIONS", "/api/experiments/new", headers=asked)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (204, "*")
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "Authorization" in reply.headers["access-control-allow-headers"]
    assert portal.public.request("OPTIONS", "/api/nothing").status == 404


def test_every_public_answer_can_be_read_by_the_frontend_errors_included(portal):
    public = portal.public
    replies = [public.get("/version"), public.get("/experiments"), public.get("/experiments/1"), public.get("/nothing"),
               public.post("/version"), public.post("/experiments/new"), public.post("/users/new", email="bad")]  # fmt: skip
    assert {reply.headers.get("access-control-allow-origin") for reply in replies} == {"*"}
    assert not any("access-control-allow-credentials" in reply.headers for reply in replies)


def test_only_the_origins_of_the_setting_may_read(make_portal):
    portal = make_portal(public__origins="https://a.example https://b.example")
    reply = portal.public.get("/version", headers={"Origin": "https://b.example"})
    assert (reply.headers["access-control-allow-origin"], reply.headers["vary"]) == ("https://b.example", "Origin")
    for headers in ({"Origin": "https://c.example"}, {}):
        reply = portal.public.get("/version", headers=headers)
        assert reply.status == 200 and "access-control-allow-origin" not in reply.headers and reply.headers["vary"] == "Origin"


def test_answers_of_local_routes_can_be_read_by_no_other_page(portal):
    local = portal.local
    replies = [local.get("/users/list"), local.get("/nothing"), local.request("OPTIONS", "/users/list"), local.get("/files/old")]
    assert not any("access-control-allow-origin" in reply.headers for reply in replies)
    assert local.get("/version").headers["access-control-allow-origin"] == "*"


def test_every_answer_forbids_what_it_does_not_need(portal):
    for reply in (portal.public.get("/version"), portal.public.get("/nothing"), portal.local.get("/users/list")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-request-id"]


def test_strict_transport_is_promised_only_for_a_whole_host():
    promise = {"Strict-Transport-Security": "max-age=31536000"}
    assert transport_security({"public.url": "https://portal.example.org/"}) == promise
    for url in ("", "http://portal.example.org", "https://portal.example.org:8443"):
        assert transport_security({"public.url": url}) == {}


@pytest.mark.source_only
def test_a_form_is_taken_only_with_the_token_of_its_page(make_portal, clock):
    portal = make_portal([forms()])
    token = portal.local.get("/forms/token").json
    assert portal.local.post("/forms/send", csrf=token).json is True
    clock.forward(hours=24)
    assert portal.local.post("/forms/send", csrf=token).json is True
    for wrong in ("", "x", token[:-1], "ö"):
        assert portal.local.post("/forms/send", csrf=wrong).status == 403
    clock.forward(hours=24)
    assert portal.local.post("/forms/send", csrf=token).json == "this form is too old: please load the page again"
