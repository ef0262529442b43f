"""The panel over HTTP: what its forms do, for wrappers with curl and for browsers, and what they refuse."""

import re
from urllib.parse import quote

import pytest

from conftest import join
from ippd.admin.views import shown_size
from ippd.domain.limits import LIMITS
from ippd.permissions import ANONYMOUS, OPERATOR
from ippd.setting_types import size

EVIL = "<script>document.title='evil'</script>\"'&"
BROWSER = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Site": "same-origin"}
POSTS = ["/groups/create", "/groups/edit/1", "/groups/remove/1", "/groups/limits/1", "/users/groups/map",
         "/admin/users/1/approve", "/admin/users/1/deny"]  # fmt: skip


@pytest.fixture
def served(core, served_core):
    """The real server with the portal, the panel and the page for a new password."""
    return served_core(core)


@pytest.fixture
def local(served):
    return served.local


def names(core):
    return [group["name"] for group in core.groups.list(OPERATOR)]


def token(local):
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', local.get("/admin/groups").body.decode())[1]


def sign_up(core, email="ada@example.org", **profile):
    core.users.sign_up(ANONYMOUS, email, "correct horse battery", profile)
    return core.users.find(OPERATOR, email)["id"]


@pytest.mark.parametrize("path", ["/admin", "/admin/users", "/admin/groups", "/admin/panel.css", "/api/admin/users"])
def test_the_panel_is_on_the_local_listener_only(served, path):
    assert served.local.get(path).status in (200, 302)
    assert served.public.get(path, {"X-Forwarded-For": "127.0.0.1", "Host": "localhost"}).status == 404


@pytest.mark.parametrize("path", POSTS)
def test_a_form_of_the_panel_is_on_the_local_listener_only(served, core, path):
    sign_up(core)
    core.groups.create(OPERATOR, "lab")
    assert served.public.post(path, group="x", uid="1").status == 404
    assert names(core) == ["lab"]
    assert core.users.find(OPERATOR, 1)["status"] == "pending"


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_nothing_but_post_changes_anything(local, core, path, method):
    sign_up(core)
    core.groups.create(OPERATOR, "lab")
    assert local.request(method, f"{path}?group=x&uid=1&gid=1&file_bytes=1").status in (204, 405)
    assert (names(core), core.groups.list(OPERATOR)[0]["members"], core.groups.list(OPERATOR)[0]["limits"]) == (["lab"], [], {})
    assert core.users.find(OPERATOR, 1)["status"] == "pending"


def test_a_wrapper_needs_no_token(local, core, ada, bob):
    for prefix in ("", "/api"):
        assert local.post(f"{prefix}/groups/create", group="lab").headers["location"].startswith("/admin/groups#group-")
        id = core.groups.list(OPERATOR)[0]["id"]
        assert local.post(f"{prefix}/users/groups/map", uid=str(bob.user), gid=str(id)).status == 302
        assert core.groups.names(bob) == ["lab"]
        assert local.post(f"{prefix}/groups/edit/{id}", group="labor").status == 302
        assert names(core) == ["labor"]
        assert local.post(f"{prefix}/groups/remove/{id}", group="labor").status == 302
        assert names(core) == []
    assert core.groups.names(ada) == []


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Mode": "navigate"}, {"Origin": "http://{host}"}, {"Referer": "http://{host}/"},
     {"Cookie": "a=b"}],
)  # fmt: skip
@pytest.mark.parametrize("sent", [None, "", "0" * 64, "é"])
def test_a_browser_needs_the_token_of_the_page(local, core, headers, sent):
    headers = {name: text.format(host=f"{local.host}:{local.port}") for name, text in headers.items()}
    fields = {"group": "lab"} | ({} if sent is None else {"csrf": sent})
    assert local.post("/groups/create", fields, headers=headers).status == 403
    assert names(core) == []
    assert local.post("/groups/create", fields | {"csrf": token(local)}, headers=headers).status == 302
    assert names(core) == ["lab"]


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
     {"Referer": "https://evil.example/localhost"}],
)  # fmt: skip
def test_a_page_of_another_site_is_refused_even_with_a_token(local, core, headers):
    assert local.post("/groups/create", group="lab", csrf=token(local), headers=headers).status == 403
    assert names(core) == []


def test_a_token_is_good_for_a_day_or_two(local, core, clock):
    sent = token(local)
    clock.forward(days=1)
    assert local.post("/groups/create", group="lab", csrf=sent).status == 302
    clock.forward(days=1)
    assert local.post("/groups/create", group="late", csrf=sent).status == 403
    assert names(core) == ["lab"]


def test_exactly_the_ticked_groups(local, core, ada):
    ids = [core.groups.create(OPERATOR, name) for name in ("a", "b", "c")]

    def ticked(*gids):
        fields = [("uid", str(ada.user))] + [("gid", str(gid)) for gid in gids]
        return local.post("/users/groups/map", fields).status

    assert (ticked(ids[0], ids[1]), core.groups.names(ada)) == (302, ["a", "b"])
    assert (ticked(ids[1], ids[2], ids[2]), core.groups.names(ada)) == (302, ["b", "c"])
    for wrong in ("99", "x", "-1", "1;id", "", "1 or 1=1"):
        assert ticked(ids[0], wrong) in (400, 404)
        assert core.groups.names(ada) == ["b", "c"]
    assert (ticked(), core.groups.names(ada)) == (302, [])


@pytest.mark.parametrize(("uid", "status"), [("99", 404), ("", 400), ("x", 400), ("../1", 400), ("1'--", 400), ("9" * 30, 400)])
def test_a_bad_user_is_refused(local, core, uid, status):
    core.groups.create(OPERATOR, "lab")
    assert local.post("/users/groups/map", uid=uid, gid="1").status == status


@pytest.mark.parametrize(("name", "status"), [("", 400), ("  \n ", 400), ("x" * 65, 400), ("lab", 409)])
def test_a_bad_name_of_a_group_is_refused(local, core, name, status):
    core.groups.create(OPERATOR, "lab")
    other = core.groups.create(OPERATOR, "other")
    for path in ("/groups/create", f"/groups/edit/{other}"):
        reply = local.post(path, group=name)
        assert (reply.status, list(reply.json)) == (status, ["error"])
        page = local.post(path, group=name, csrf=token(local), headers=BROWSER)
        assert page.status == status
        assert page.headers["content-type"].startswith("text/html")
        assert "This was not done" in page.body.decode()
    assert names(core) == ["lab", "other"]


@pytest.mark.parametrize("path", ["/groups/edit/99", "/groups/remove/99", "/groups/limits/99", "/admin/users/99/approve"])
def test_what_is_not_there_is_404(local, path):
    fields = {"file_bytes": "1"} if "limits" in path else {"group": "x"}
    assert local.post(path, fields).status == 404


@pytest.mark.parametrize("id", ["..", "1%3Bid", "%24(id)", "-1", "1%0a", "1/../2", "9" * 40])
def test_an_id_is_a_number(local, core, id):
    core.groups.create(OPERATOR, "lab")
    for path in (f"/groups/remove/{id}", f"/groups/edit/{id}", f"/admin/users/{id}/approve"):
        assert local.post(path, group="x").status == 404
    assert names(core) == ["lab"]


def test_limits_as_people_write_them(local, core):
    id = core.groups.create(OPERATOR, "lab")
    reply = local.post(f"/groups/limits/{id}", file_bytes="100GB", waiting_experiments=" 50 ", user_bytes="")
    assert reply.headers["location"] == f"/admin/groups#group-{id}"
    assert core.groups.list(OPERATOR)[0]["limits"] == {"file_bytes": 100 << 30, "waiting_experiments": 50}
    page = local.get("/admin/groups").body.decode()
    assert 'value="100GB" placeholder="50GB"' in page
    local.post(f"/groups/limits/{id}", file_bytes="", waiting_experiments="0")
    assert core.groups.list(OPERATOR)[0]["limits"] == {"waiting_experiments": 0}


@pytest.mark.parametrize(
    "fields",
    [{"file_bytes": "5 cows"}, {"file_bytes": "-1"}, {"waiting_experiments": "1.5"}, {"waiting_experiments": "10GB"},
     {"file_bytes": "1", "no_such": "1"}, {"file_bytes": "9" * 20}, {"running_experiments": "0"},
     {"running_together": "1", "waiting_experiments": "9" * 19}, {}],
)  # fmt: skip
def test_a_bad_limit_is_refused_and_changes_nothing(local, core, fields):
    id = core.groups.create(OPERATOR, "lab")
    assert local.post(f"/groups/limits/{id}", {"user_bytes": "7"} | fields if fields else {}).status == 400
    assert core.groups.list(OPERATOR)[0]["limits"] == {}


def test_a_size_that_a_setting_may_have_is_taken_for_a_group_as_well(local, core):
    """What the form took for a size was refused behind it, past 2^53, when the limits before it in the form were saved already."""
    id = core.groups.create(OPERATOR, "lab")
    assert local.post(f"/groups/limits/{id}", user_bytes="7", file_bytes="65536TB").status == 302
    assert core.groups.list(OPERATOR)[0]["limits"] == {"user_bytes": 7, "file_bytes": 1 << 56}


@pytest.mark.parametrize("number", [0, 1, 1023, 1024, 1536, 50 << 30, 3 << 40, (1 << 40) + 1])
def test_a_shown_size_reads_back(number):
    assert size(shown_size(number)) == number


def test_every_limit_is_on_the_page(local, core):
    core.groups.create(OPERATOR, "lab")
    page = local.get("/admin/groups").body.decode()
    assert [name for name in LIMITS if f'name="{name}"' not in page] == []


def test_nothing_that_users_typed_becomes_markup(local, core):
    sign_up(core, fname=EVIL, institution=EVIL, intention=EVIL, **{"script-x": EVIL})
    core.groups.create(OPERATOR, "<img src=x onerror=alert(1)>")
    for path in ("/admin/users", "/admin/groups", "/admin/users?q=" + quote(EVIL), "/admin/users?status=" + quote(EVIL)):
        page = local.get(path).body.decode()
        assert "<script" not in page
        assert "<img" not in page
        assert "http://" not in page and "https://" not in page, "nothing is loaded from elsewhere"
    page = local.post("/groups/create", group="<img src=x onerror=alert(1)>", csrf=token(local), headers=BROWSER)
    assert (page.status, b"<img" in page.body) == (409, False)


def test_a_webhook_is_not_shown_and_not_searched(local, core):
    sign_up(core, fname="Ada", slack_webhook="https://hooks.slack.com/services/secret")
    assert "secret" not in local.get("/admin/users").body.decode()
    assert "ada@example.org" not in local.get("/admin/users", q="services").body.decode()


def test_the_policy_of_the_pages_lets_no_script_run(local):
    policy = local.get("/admin/users").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert local.get("/admin/users").headers["cache-control"] == "no-store"


def test_users_are_found_by_status_name_and_page(local, core):
    for number in range(1, 121):
        sign_up(core, f"u{number}@example.org", lname=f"Number-{number}")
    core.users.approve(OPERATOR, 7)

    def shown(**query):
        return re.findall(r'class="email">([^<]*)<', local.get("/admin/users", **query).body.decode())

    assert len(shown()) == 50
    assert shown(page="3") == [f"u{number}@example.org" for number in range(20, 0, -1)]
    assert shown(status="approved") == ["u7@example.org"]
    assert shown(q="number-119") == ["u119@example.org"]
    assert shown(status="pending", q="u7@") == []
    for page in ("", "0", "-1", "x", "1.5", "9" * 50, "²"):
        assert shown(page=page)[0] in ("u120@example.org", "u20@example.org")
    assert len(shown(status="no such")) == 50


def test_the_way_back_keeps_the_list_as_it_was(local, core):
    id = sign_up(core)
    reply = local.post(f"/admin/users/{id}/approve?status=pending&q=a%26b&page=2&next=//evil.example")
    assert reply.headers["location"] == f"/admin/users?status=pending&q=a%26b&page=2#user-{id}"
    assert core.users.find(OPERATOR, id)["status"] == "approved"


def test_a_new_password_over_the_public_listener(served, core):
    join(core)
    core.users.forgot_password(ANONYMOUS, "ada@example.org")
    body = core.store.value("SELECT body FROM outbox WHERE kind = 'password_reset'")
    link = re.search(r"https://portal\.example\.org(/password/reset\?token=\S+)", body)[1]
    code = link.partition("=")[2]
    for _ in range(2):  # a mail program that looks first does not use it up
        assert code in served.public.get(link).body.decode()
    fields = {"token": code, "password": "a new password", "confirm-password": "a new password"}
    for bad in ({"confirm-password": "another"}, {"password": "short", "confirm-password": "short"}, {"token": "x" * 43}):
        reply = served.public.post("/password/reset", fields | bad, headers=BROWSER)
        assert (reply.status, b'role="alert"' in reply.body) == (400, True)
        assert served.public.post("/password/reset", fields | bad).json["error"]
    assert b"has been changed" in served.public.post("/password/reset", fields, headers=BROWSER).body
    assert core.sessions.log_in(ANONYMOUS, "ada@example.org", "a new password")
    assert served.public.post("/password/reset", fields, headers=BROWSER).status == 400


def test_a_code_that_is_markup_stays_text(served):
    page = served.public.get("/password/reset", token='"><script>alert(1)</script>').body.decode()
    assert "<script" not in page
