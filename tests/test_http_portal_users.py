"""The portal's accounts on the wire: sign-up, approval, login, profile, passwords; in the frontend's way and in that of programs."""

import re

import pytest

from conftest import PASSWORD
from ippd.permissions import ANONYMOUS, OPERATOR, SYSTEM

SIGN_UP = {
    "remember": "false",
    "email": "Grace@Example.org",
    "password": PASSWORD,
    "confirm-password": PASSWORD,
    "setting-institution": "Navy",
    "setting-fname": "Grace",
    "setting-nih": "",
}
LOGIN = {"remember": "false", "email": "grace@example.org", "password": PASSWORD}


def approved(portal, prefix=""):
    """Sign up, approve; the id."""
    assert portal.public.post(f"{prefix}/users/new", SIGN_UP).body == b"true"
    [user] = portal.local.get(f"{prefix}/users/list", awaiting_approval=1).json
    assert portal.local.get(f"{prefix}/users/approve/{user['id']}").body == b"true"
    return user["id"]


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("multipart", [False, True])
def test_from_sign_up_to_the_first_page(portal, prefix, multipart):
    files = [] if multipart else None
    assert portal.public.post(f"{prefix}/users/new", SIGN_UP, files).body == b"true"
    [user] = portal.local.get(f"{prefix}/users/list", awaiting_approval=1).json
    assert {key: user[key] for key in ("email", "token", "approved")} == {"email": "grace@example.org", "token": None, "approved": 0}
    assert user["settings"] == {"institution": "Navy", "fname": "Grace", "nih": ""}
    reply = portal.public.post(f"{prefix}/users/auth", LOGIN, files)
    assert (reply.status, reply.json) == (200, {"token": None, "error": "your account waits for approval"})
    assert portal.local.get(f"{prefix}/users/approve/{user['id']}").body == b"true"
    token = portal.public.post(f"{prefix}/users/auth", LOGIN, files).json["token"]
    assert portal.public.get(f"{prefix}/users/groups", token=token).json == {"groups": []}
    assert portal.public.get(f"{prefix}/experiments", token=token).json == {"experiments": []}
    assert portal.local.get(f"{prefix}/users/list", awaiting_approval=1).json == []
    assert portal.local.get(f"{prefix}/users/list").json[0]["approved"] == 1


def test_a_sign_up_that_is_not_good_is_4xx_with_a_sentence(portal):
    for change, sentence in [
        ({"confirm-password": "another one"}, "the two passwords are not the same"),
        ({"password": "short", "confirm-password": "short"}, "at least 8 bytes"),
        ({"password": "x" * 73, "confirm-password": "x" * 73}, "at most 72 bytes"),
        ({"email": "nobody"}, "not an e-mail address"),
        ({"setting-slack_webhook": "https://evil.example/x"}, "slack_webhook"),
    ]:
        reply = portal.public.post("/users/new", SIGN_UP | change)
        assert reply.status == 400 and sentence in reply.json["error"], change
    assert portal.local.get("/users/list").json == []


def test_a_known_address_is_answered_like_a_new_one_and_locks_nothing(portal):
    approved(portal)
    for _ in range(3):
        reply = portal.public.post("/users/new", SIGN_UP)
        assert (reply.status, reply.body) == (200, b"true")
    assert len(portal.local.get("/users/list").json) == 1
    assert portal.public.post("/users/auth", LOGIN).json["token"]


def test_users_are_listed_newest_first_and_denied_ones_are_told(portal):
    for name in ("a", "b", "c"):
        portal.public.post("/users/new", SIGN_UP | {"email": f"{name}@example.org"})
    users = portal.local.get("/users/list").json
    assert [user["email"][0] for user in users] == ["c", "b", "a"]
    assert portal.local.post(f"/users/approve/{users[0]['id']}").body == b"true"
    assert portal.local.get(f"/users/deny/{users[1]['id']}").body == b"true"
    assert [user["approved"] for user in portal.local.get("/users/list").json] == [1, 0, 0]
    assert [user["email"][0] for user in portal.local.get("/users/list", awaiting_approval="1").json] == ["a"]
    login = LOGIN | {"email": "b@example.org"}
    assert portal.public.post("/users/auth", login).json == {"token": None, "error": "your account was not approved"}


@pytest.mark.parametrize("verb", ["approve", "deny"])
@pytest.mark.parametrize("id", ["99", "..", "1e3", "%D9%A1", "99999999999999999999", "1%20or%201=1", "-1"])
def test_a_user_that_is_not_there_is_404(portal, verb, id):
    for reply in (portal.local.get(f"/users/{verb}/{id}"), portal.local.post(f"/users/{verb}/{id}")):
        assert reply.status == 404 and "error" in reply.json


def test_a_wrong_password_in_the_portals_way_is_200_and_in_that_of_programs_401(portal):
    approved(portal)
    wrong = {"email": "grace@example.org", "password": "wrong password"}
    reply = portal.public.post("/users/auth", wrong)
    assert (reply.status, reply.json) == (200, {"token": None, "error": "the e-mail address or the password is wrong"})
    reply = portal.public.post("/users/auth", json=wrong)
    assert (reply.status, reply.json) == (401, {"error": "the e-mail address or the password is wrong"})
    assert portal.public.post("/users/auth", json=wrong | {"email": "who@example.org"}).json == reply.json
    assert portal.public.post("/users/auth", json=LOGIN).json["token"]


def test_a_pending_account_asked_by_a_program_is_403(portal):
    portal.public.post("/users/new", SIGN_UP)
    assert portal.public.post("/users/auth", json=LOGIN).status == 403


def test_a_bad_token_logs_the_frontend_out_and_is_401_for_programs(portal):
    for path in ("/experiments", "/users/groups"):
        for query in ({}, {"token": ""}, {"token": "x.y.z"}, {"token": "ö\n"}):
            reply = portal.public.get(path, **query)
            assert (reply.status, list(reply.json)) == (200, ["error"])
        reply = portal.public.get(path, headers={"Authorization": "Bearer x.y.z"})
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert portal.public.post("/users/settings/set", token="x", name="a", value="b").status == 200
    assert portal.public.post("/users/settings/set", json={"token": "x", "name": "a", "value": "b"}).status == 401
    for path in ("/users/logout", "/users/password/change", "/experiments/1/cancel"):
        assert portal.public.post(path, token="x").status == 401


def test_a_token_is_taken_from_header_query_or_field(portal):
    approved(portal)
    token = portal.public.post("/users/auth", LOGIN).json["token"]
    assert portal.public.get("/users/groups", headers={"Authorization": f"bearer {token}"}).json == {"groups": []}
    assert portal.public.get("/api/users/groups", token=token).json == {"groups": []}
    new = {"name": "fname", "value": "G."}
    assert portal.public.post("/users/settings/set", new, token=token).body == b"true"
    assert portal.public.post(f"/users/settings/set?token={token}", new).body == b"true"
    assert portal.public.post("/users/settings/set", json=new | {"token": token}).body == b"true"
    assert portal.local.get("/users/list").json[0]["settings"]["fname"] == "G."
    reply = portal.public.post("/users/settings/set", token=token, name="notification_type", value="pigeon")
    assert (reply.status, list(reply.json)) == (200, ["error", "fields"])
    assert portal.public.get("/users/groups", token=token).json == {"groups": []}


def test_logout_ends_one_session_and_denial_all(portal):
    id = approved(portal)
    one, two = (portal.public.post("/users/auth", LOGIN).json["token"] for _ in range(2))
    assert portal.public.post("/users/logout", token=one).body == b"true"
    assert "error" in portal.public.get("/users/groups", token=one).json
    assert portal.public.get("/users/groups", token=two).json == {"groups": []}
    portal.local.get(f"/users/deny/{id}")
    assert "error" in portal.public.get("/users/groups", token=two).json


def test_remember_makes_a_longer_session(portal, clock):
    approved(portal)
    short = portal.public.post("/users/auth", LOGIN).json["token"]
    long = portal.public.post("/users/auth", LOGIN | {"remember": "true"}).json["token"]
    clock.forward(hours=25)
    assert "error" in portal.public.get("/users/groups", token=short).json
    assert portal.public.get("/users/groups", token=long).json == {"groups": []}


def test_groups_are_names(portal):
    id = approved(portal)
    for name in ("zebra", "ant"):
        portal.core.groups.add(OPERATOR, portal.core.groups.create(OPERATOR, name), id)
    token = portal.public.post("/users/auth", LOGIN).json["token"]
    assert portal.public.get("/users/groups", token=token).json == {"groups": ["ant", "zebra"]}


def test_a_password_is_changed_with_the_old_one_and_other_sessions_end(portal):
    approved(portal)
    one, two = (portal.public.post("/users/auth", LOGIN).json["token"] for _ in range(2))
    change = {"token": one, "old-password": "wrong", "password": "a new password", "confirm-password": "a new password"}
    assert portal.public.post("/users/password/change", change).status == 403
    assert portal.public.post("/users/password/change", change | {"old-password": PASSWORD, "confirm-password": "x"}).status == 400
    assert portal.public.post("/users/password/change", change | {"old-password": PASSWORD}).body == b"true"
    assert "error" in portal.public.get("/users/groups", token=two).json
    assert portal.public.get("/users/groups", token=one).json == {"groups": []}
    assert portal.core.sessions.log_in(ANONYMOUS, LOGIN["email"], "a new password")


def test_a_forgotten_password_is_reset_once_with_the_code_of_the_mail(make_portal):
    portal = make_portal(mail__host="mail.example.org", public__url="https://portal.example.org")
    approved(portal)
    for email in ("grace@example.org", "who@example.org"):
        assert portal.public.post("/users/password/forgot", email=email).body == b"true"
    sent = []
    portal.core.notifications.deliver(SYSTEM, lambda channel, to, subject, body: sent.append((to, subject, body)))
    [(to, body)] = [(to, body) for to, subject, body in sent if subject == "Reset of your password"]
    assert to == "grace@example.org" and "https://portal.example.org/" in body
    code = re.search(r"[\w-]{40,}", body)[0]
    reset = {"token": code, "password": "a new password", "confirm-password": "a new password"}
    assert portal.public.post("/users/password/reset", reset | {"token": "wrong"}).status in (400, 401)
    assert portal.public.post("/users/password/reset", reset).body == b"true"
    assert portal.public.post("/users/password/reset", reset).status in (400, 401)
    assert portal.public.post("/users/auth", LOGIN | {"password": "a new password"}).json["token"]


def test_too_many_logins_are_told_with_the_time_to_wait(make_portal):
    portal = make_portal(auth__logins_per_minute=3)
    for _ in range(3):
        portal.public.post("/users/auth", LOGIN)
    reply = portal.public.post("/users/auth", json=LOGIN, headers={"X-Forwarded-For": "192.0.2.7"})
    assert reply.status == 429 and 0 < int(reply.headers["retry-after"]) <= 60
    reply = portal.public.post("/users/auth", LOGIN, headers={"X-Forwarded-For": "192.0.2.8"})
    assert (reply.status, reply.json["token"]) == (429, None)
    assert 0 < int(reply.headers["retry-after"]) <= 60


def test_too_many_sign_ups_of_one_address_are_429(make_portal):
    portal = make_portal(auth__signups_per_hour=2)
    statuses = [portal.public.post("/users/new", SIGN_UP | {"email": f"{i}@example.org"}).status for i in range(3)]
    assert statuses == [200, 200, 429]


def test_public_routes_take_no_file_where_none_belongs(portal):
    reply = portal.public.post("/users/auth", LOGIN, [("avatar", "me.png", b"x")])
    assert reply.json["error"] == "this form takes no file (field 'avatar')"


def test_the_version(portal):
    for client in (portal.public, portal.local):
        assert re.fullmatch(r"\d+\.\d+.*", client.get("/api/version").json["version"])
