"""Who may use the local listener: accounts and groups of local.allow, as this machine knows them."""

import grp
import io
import os
import pwd
import subprocess

import pytest

from ippd.admin import panel
from ippd.api.portal import portal
from ippd.api.portal_jobs import jobs
from ippd.errors import Forbidden
from ippd.http import make_app
from ippd.http.access import Access, account

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")


def admits(allow, uid):
    try:
        assert Access(allow, []).role(uid) == "local"
    except Forbidden as error:
        assert "local.allow" in str(error)
        return False
    return True


def test_root_and_the_daemons_own_account_always_come_in():
    assert admits([], 0)
    assert admits([], os.geteuid())


def test_other_accounts_come_in_by_name_by_group_or_all():
    assert not admits([], NOBODY.pw_uid)
    assert admits(["nobody"], NOBODY.pw_uid)
    assert not admits(["nobody"], DAEMON.pw_uid)
    assert admits(["*"], DAEMON.pw_uid)


def test_a_primary_group_counts():
    primary = grp.getgrgid(NOBODY.pw_gid)
    assert NOBODY.pw_name not in primary.gr_mem
    assert admits([f"@{primary.gr_name}"], NOBODY.pw_uid)
    assert not admits([f"@{primary.gr_name}"], DAEMON.pw_uid)


def test_a_name_that_does_not_exist_lets_nobody_in_and_is_logged(caplog):
    assert not admits(["no-such-account", "@no-such-group"], NOBODY.pw_uid)
    assert "no-such-account" in caplog.text and "@no-such-group" in caplog.text


def test_an_unknown_caller_stays_out_unless_everybody_may_come():
    assert not admits(["nobody"], None)
    assert admits(["*"], None)
    assert not admits(["nobody"], 3_999_999_999)
    assert (account(None), account(3_999_999_999)) == ("unknown", "3999999999")


@pytest.fixture
def ask(core, make_settings):
    """A function: (status, body) of a request that comes from the account `uid`; settings as in local.allow and local.workers."""
    def send(path, uid, method="GET", allow="", workers=""):
        app = make_app([portal, jobs, panel], core, make_settings(local__allow=allow, local__workers=workers), "local")
        answer = {}
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "localhost", "ippd.listener": "local", "ippd.peer_uid": uid,
                   "HTTP_X_FORWARDED_FOR": "127.0.0.1", "CONTENT_TYPE": "application/x-www-form-urlencoded",
                   "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}  # fmt: skip
        body = b"".join(app(environ, lambda status, headers, error=None: answer.update(status=int(status[:3]))))
        return answer["status"], body

    return send


def test_a_hostile_local_account_reaches_nothing(ask):
    for method, path in (("GET", "/users/list"), ("GET", "/experiments/queue"), ("GET", "/users/approve/1"), ("GET", "/version"),
                         ("POST", "/files/delete"), ("DELETE", "/experiments/1/delete"), ("GET", "/nothing")):  # fmt: skip
        status, body = ask(path, NOBODY.pw_uid, method)
        assert status == 403, path
        assert b"the account nobody may not use this listener (the setting local.allow says which ones may)" in body


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another account")
def test_a_program_of_a_hostile_account_is_found_out_by_its_connection(portal):
    url = f"http://127.0.0.1:{portal.local.port}/experiments/queue"
    for headers in ([], ["-H", "X-Forwarded-For: 127.0.0.1", "-H", "Authorization: Basic cm9vdDo="]):
        command = ["curl", "-sS", "-w", " %{http_code}", *headers, url]
        answers = {user: subprocess.run(command, user=user, capture_output=True, check=True).stdout for user in ("root", "nobody")}
        assert answers["root"] == b"[] 200"
        assert answers["nobody"].endswith(b"403") and b"local.allow" in answers["nobody"]


def test_an_account_of_the_setting_reaches_all(ask):
    assert ask("/users/list", NOBODY.pw_uid, allow="nobody") == (200, b"[]")
    assert ask("/users/list", None, allow="nobody")[0] == 403


@pytest.mark.parametrize("allow", ["", "nobody", "*"])
def test_an_account_of_the_workers_runs_experiments_and_no_more(ask, allow):
    """Programs that users choose run in it: whatever else it asks for is refused, though local.allow names it as well."""
    assert ask("/experiments/queue", NOBODY.pw_uid, allow=allow, workers="nobody") == (200, b"[]")
    assert ask("/experiments/1/files", NOBODY.pw_uid, allow=allow, workers="nobody")[0] == 404  # there is none
    for method, path in (("GET", "/users/list"), ("POST", "/users/approve/1"), ("GET", "/files/old"), ("POST", "/files/delete"),
                         ("DELETE", "/experiments/1/delete"), ("POST", "/notifications/notify"),
                         ("GET", "/admin/users"), ("GET", "/admin/groups")):  # fmt: skip
        status, body = ask(path, NOBODY.pw_uid, method, allow, "nobody")
        assert status == 403, (path, body)
    assert ask("/users/list", 0, allow=allow, workers="*") == (200, b"[]")  # root is root


def test_anybody_may_ask_whether_it_lives(ask):
    assert ask("/livez", NOBODY.pw_uid) == (200, b"true")


def test_reload_takes_over_who_may_come_in(core, make_settings):
    settings = make_settings()
    app = make_app([], core, settings, "local")
    with pytest.raises(Forbidden):
        app._access.role(NOBODY.pw_uid)
    settings.take(make_settings(local__allow="nobody"))
    app.reload()
    app._access.role(NOBODY.pw_uid)
