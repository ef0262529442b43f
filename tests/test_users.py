"""Accounts and sessions. Bad input: known addresses, guessed passwords, used codes, foreign tokens, hostile settings."""

import threading
from contextlib import closing

import jwt
import pytest

from conftest import PASSWORD, echo, join
from ippd.errors import Conflict, Forbidden, Invalid, NotFound, TooMany, Unauthorized, Unavailable
from ippd.permissions import ANONYMOUS, OPERATOR, Actor

VISITOR = Actor("anonymous", address="192.0.2.1")


def outbox(core):
    return [(row["kind"], row["recipient"]) for row in reversed(core.notifications.list(OPERATOR))]


def log_in(core, email="ada@example.org", password=PASSWORD, **more):
    return core.sessions.log_in(VISITOR, email, password, **more)


def sign_up(core, email="ada@example.org"):
    core.users.sign_up(VISITOR, email, PASSWORD, {"fname": "Ada"})
    return core.users.find(OPERATOR, email)["id"]


def test_a_new_user_waits_for_approval_and_the_administrator_is_told(core):
    id = sign_up(core)
    assert core.users.find(OPERATOR, id)["status"] == "pending"
    assert outbox(core) == [("approve_account", "admin@example.org")]
    with pytest.raises(Forbidden, match="waits for approval"):
        log_in(core)
    core.users.approve(OPERATOR, id)
    core.users.approve(OPERATOR, id)
    assert core.sessions.actor(log_in(core)).user == id
    assert outbox(core)[1:] == [("approved", "ada@example.org")]


def test_a_denied_user_cannot_log_in_and_loses_their_sessions(core):
    ada = join(core)
    token = log_in(core)
    core.users.deny(OPERATOR, ada.user)
    with pytest.raises(Unauthorized):
        core.sessions.actor(token)
    with pytest.raises(Forbidden, match="not approved"):
        log_in(core)
    with pytest.raises(Unauthorized):  # the wrong password learns nothing of the account
        log_in(core, password="something else")


def test_signing_up_with_a_known_address_changes_nothing_and_tells_its_owner(core):
    sign_up(core)
    core.users.sign_up(VISITOR, " ADA@example.org", "another password", {"fname": "Eve"})
    assert [user["settings"] for user in core.users.list(OPERATOR)] == [{"fname": "Ada"}]
    assert outbox(core)[1:] == [("known_address", "ada@example.org")]
    core.users.approve(OPERATOR, 1)
    assert log_in(core)


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [("no address", PASSWORD, "email"), ("a@b.org", "short", "password"), ("a@b.org", "x" * 73, "password"),
     ("a@b.org", "é" * 37, "password"), ("a@b.org", "with\0nul...", "password"), ("a\n@b.org", PASSWORD, "email"), ("", "", "email")],
)  # fmt: skip
def test_a_bad_address_or_password_is_refused_by_field(core, email, password, field):
    with pytest.raises(Invalid) as refused:
        core.users.sign_up(VISITOR, email, password)
    assert field in refused.value.fields and core.users.list(OPERATOR) == []


def test_two_sign_ups_of_one_address_at_once_make_one_account(core):
    threads = [threading.Thread(target=lambda: core.users.sign_up(ANONYMOUS, "ada@example.org", PASSWORD)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(core.users.list(OPERATOR)) == 1


def test_guessing_a_password_locks_the_account_for_a_while(core, clock):
    join(core)
    for _ in range(core.settings["auth.lockout_failures"]):
        with pytest.raises(Unauthorized):
            log_in(core, password="a wrong guess")
    with pytest.raises(TooMany) as refused:
        log_in(core)
    assert 0 < refused.value.retry_after <= core.settings["auth.lockout_time"]
    clock.forward(minutes=16)
    assert log_in(core)


def test_a_new_password_by_command_did_not_lift_the_lock_out(core):
    """Bad input: wrong passwords until the account is locked, at the log-in and as the old one of a change; another one stays locked."""
    ada = join(core)
    join(core, "bob@example.org")
    for _ in range(core.settings["auth.lockout_failures"]):
        for email in ("ada@example.org", "bob@example.org"):
            with pytest.raises(Unauthorized):
                log_in(core, email, "a wrong guess")
        with pytest.raises(Forbidden):
            core.users.change_password(ada, "a wrong guess", "another password")
    core.users.set_password(OPERATOR, ada.user, "another password")
    ada = core.sessions.actor(log_in(core, password="another password"))
    core.users.change_password(ada, "another password", PASSWORD)
    with pytest.raises(TooMany):
        log_in(core, "bob@example.org")


def test_guesses_sent_at_once_do_not_pass_the_lock_out(core):
    join(core)
    outcomes = []

    def guess():
        try:
            log_in(core, password="a wrong guess")
        except (Unauthorized, TooMany) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=guess) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count(Unauthorized), outcomes.count(TooMany)) == (core.settings["auth.lockout_failures"], 15)


def test_an_unknown_address_is_counted_like_a_known_one(core):
    for _ in range(core.settings["auth.lockout_failures"]):
        with pytest.raises(Unauthorized):
            log_in(core, "nobody@example.org")
    with pytest.raises(TooMany):
        log_in(core, "nobody@example.org")


def test_one_address_may_try_only_so_often(make_core):
    core = make_core(auth__logins_per_minute=3)
    for number in range(3):
        with pytest.raises(Unauthorized):
            log_in(core, f"user{number}@example.org")
    with pytest.raises(TooMany):
        log_in(core, "user4@example.org")


def test_a_clock_that_jumps_back_does_not_lock_for_ever(core, clock):
    join(core)
    for _ in range(10):
        with pytest.raises(Unauthorized):
            log_in(core, password="a wrong guess")
    clock.forward(days=-400)
    assert log_in(core)


def test_several_sessions_end_one_by_one(core):
    join(core)
    one, two = log_in(core), log_in(core)
    core.sessions.log_out(core.sessions.actor(one))
    with pytest.raises(Unauthorized):
        core.sessions.actor(one)
    assert core.sessions.actor(two).name == "ada@example.org"


def test_a_session_ends_after_its_time(core, clock):
    join(core)
    short, long = log_in(core), log_in(core, remember=True)
    clock.forward(hours=25)
    with pytest.raises(Unauthorized):
        core.sessions.actor(short)
    assert core.sessions.actor(long)
    clock.forward(days=30)
    assert core.housekeeping.expire_sessions(OPERATOR) >= 2
    assert core.store.value("SELECT COUNT(*) FROM sessions") == 0


@pytest.mark.parametrize("bend", ["none", "other key", "other user", "garbage", "no session"])
def test_a_token_that_was_not_given_out_is_not_good(core, bend):
    ada, token = join(core), log_in(core)
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = {
        "none": jwt.encode(claims, None, "none"),
        "other key": jwt.encode(claims, "x" * 32, "HS256"),
        "other user": jwt.encode(claims | {"sub": str(ada.user + 1)}, core.secret, "HS256"),
        "garbage": "eyJ.é.\0",
        "no session": jwt.encode({"sub": "1"}, core.secret, "HS256"),
    }
    with pytest.raises(Unauthorized):
        core.sessions.actor(forged[bend])


def test_changing_the_password_ends_the_other_sessions(core):
    join(core)
    mine, other = log_in(core), log_in(core)
    with pytest.raises(Forbidden, match="old password"):
        core.users.change_password(core.sessions.actor(mine), "wrong one", "a new password")
    core.users.change_password(core.sessions.actor(mine), PASSWORD, "a new password")
    assert core.sessions.actor(mine)
    with pytest.raises(Unauthorized):
        core.sessions.actor(other)
    assert log_in(core, password="a new password")


def reset_code(core):
    body = core.store.value("SELECT body FROM outbox WHERE kind = 'password_reset' ORDER BY id DESC LIMIT 1")
    return next(word for word in body.replace("=", " ").split() if len(word) == 43)


def test_a_reset_code_is_good_once_and_for_an_hour(core, clock):
    join(core)
    token = log_in(core)
    core.users.forgot_password(VISITOR, "ada@example.org")
    code = reset_code(core)
    with pytest.raises(Invalid):  # a bad new password does not use the code up
        core.users.reset_password(VISITOR, code, "short")
    core.users.reset_password(VISITOR, code, "a new password")
    with pytest.raises(Unauthorized):
        core.sessions.actor(token)
    assert log_in(core, password="a new password")
    with pytest.raises(Invalid, match="not valid"):
        core.users.reset_password(VISITOR, code, "yet another one")
    core.users.forgot_password(VISITOR, "ada@example.org")
    late = reset_code(core)
    clock.forward(minutes=61)
    with pytest.raises(Invalid, match="not valid"):
        core.users.reset_password(VISITOR, late, "yet another one")


def test_asking_for_a_code_tells_nobody_whether_the_address_is_known(core):
    assert core.users.forgot_password(VISITOR, "nobody@example.org") is None
    assert outbox(core) == []


def test_only_the_newest_code_is_good_and_a_mail_flood_is_stopped(core):
    join(core)
    core.users.forgot_password(VISITOR, "ada@example.org")
    first = reset_code(core)
    core.users.forgot_password(VISITOR, "ada@example.org")
    with pytest.raises(Invalid):
        core.users.reset_password(VISITOR, first, "a new password")
    with pytest.raises(TooMany):
        for number in range(20):
            core.users.forgot_password(Actor("anonymous", address=f"192.0.2.{number}"), "ada@example.org")


def test_a_log_in_that_began_before_the_password_was_changed_opens_no_session(core, monkeypatch):
    ada = join(core)
    matches = core.passwords.matches

    def and_meanwhile_it_is_changed(password, digest):
        right = matches(password, digest)
        core.users.set_password(OPERATOR, ada.user, "another good password")
        return right

    monkeypatch.setattr(core.passwords, "matches", and_meanwhile_it_is_changed)
    with pytest.raises(Unauthorized, match="password is wrong"):
        log_in(core)
    assert core.store.value("SELECT COUNT(*) FROM sessions") == 0


def test_a_reset_that_finds_no_place_for_its_hash_does_not_use_the_code_up(core, monkeypatch):
    join(core)
    core.users.forgot_password(VISITOR, "ada@example.org")
    code = reset_code(core)

    def busy(password):
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(core.passwords, "hash", busy)
        with pytest.raises(Unavailable):
            core.users.reset_password(VISITOR, code, "a new good password")
    core.users.reset_password(VISITOR, code, "a new good password")
    log_in(core, password="a new good password")


def test_whether_an_address_is_known_is_not_seen_in_what_a_reset_has_to_flush(core):
    join(core)
    changes = []
    with closing(core.store._database().engine.raw_connection()) as lent:  # which this thread gets again
        driver = lent.driver_connection
    driver.set_trace_callback(lambda sql: changes.append(driver.total_changes) if sql == "COMMIT" else None)
    flushes = []
    for email in ("ada@example.org", "nobody@example.org"):
        changes.clear()
        core.users.forgot_password(VISITOR, email)
        flushes.append(len(set(changes)))
    assert flushes == [2, 2]


def test_endless_addresses_do_not_fill_the_store(core):
    for number in range(3):
        with pytest.raises(Unauthorized):
            log_in(core, email=f"{number}" + "x" * 60_000 + "@example.org")
        core.users.forgot_password(VISITOR, f"{number}" + "x" * 60_000)
    assert core.store.value("SELECT SUM(LENGTH(key)) FROM attempts") < 1000


def test_the_addresses_of_one_network_are_counted_together(make_core):
    core = make_core(auth__logins_per_minute=3)
    for number in range(3):
        with pytest.raises(Unauthorized):
            core.sessions.log_in(Actor("anonymous", address=f"2001:db8::{number}"), "nobody@example.org", PASSWORD)
    with pytest.raises(TooMany):
        core.sessions.log_in(Actor("anonymous", address="2001:db8::ffff:1"), "nobody@example.org", PASSWORD)
    with pytest.raises(Unauthorized):
        core.sessions.log_in(Actor("anonymous", address="2001:db8:0:1::1"), "nobody@example.org", PASSWORD)


@pytest.mark.parametrize("letter", ["x", "\U0001f600", "\1"])
def test_one_sign_up_stored_a_megabyte_of_settings(core, ada, letter):
    """Bad input: 100 settings of 4096 letters, short and long ones and some that are kept as six; then the same one by one."""
    many = {f"note-{number}": letter * 4096 for number in range(100)}
    with pytest.raises(Invalid) as refused:
        core.users.sign_up(VISITOR, "eve@example.org", PASSWORD, many)
    assert "note-99" in refused.value.fields and refused.value.fields["note-99"] == ["all settings together may have at most 16384 bytes"]
    with pytest.raises(NotFound):
        core.users.find(OPERATOR, "eve@example.org")
    with pytest.raises(Invalid) as refused:
        for name, value in many.items():
            core.users.set_setting(ada, name, value[:1000])
    assert list(refused.value.fields) == [name]
    kept = core.store.value("SELECT settings FROM users WHERE id = :id", id=ada.user)
    assert 10_000 < len(kept.encode()) < 17_000
    core.users.set_setting(ada, "note-0", "short")
    core.users.set_setting(ada, "fname", "Ada")


def test_settings_are_the_users_own(core, ada, bob):
    core.users.set_setting(ada, "institution", "Café <b>")
    assert core.users.find(OPERATOR, ada.user)["settings"] == {"institution": "Café <b>"}
    assert core.users.find(OPERATOR, bob.user)["settings"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("slack_webhook", "http://hooks.slack.com/services/x"), ("slack_webhook", "https://169.254.169.254/latest"),
     ("slack_webhook", "https://hooks.slack.com@evil.example/x"), ("slack_webhook", "https://hooks.slack.com.evil.example/x"),
     ("notification_type", "carrier pigeon"), ("", "x"), ("a b", "x"), ("x" * 65, "x"), ("x", "y" * 5000)],
)  # fmt: skip
def test_a_bad_setting_is_refused(core, ada, name, value):
    with pytest.raises(Invalid):
        core.users.set_setting(ada, name, value)
    assert core.users.find(OPERATOR, ada.user)["settings"] == {}


def test_a_user_may_not_do_what_an_operator_may(core, ada, bob):
    for call in (core.users.list, core.groups.list, core.queue.claim, core.notifications.list):
        with pytest.raises(Forbidden):
            call(ada)
    with pytest.raises(Forbidden):
        core.users.approve(ada, bob.user)
    with pytest.raises(Unauthorized):
        core.experiments.list(ANONYMOUS)


def test_removing_a_user_takes_everything_along(core, ada):
    core.experiments.submit(ada, echo(("scan.nii", b"bytes")))
    core.users.remove(OPERATOR, ada.user)
    assert core.store.value("SELECT COUNT(*) FROM files") == 0
    assert [path for path in core.blobs.folder.rglob("*") if path.is_file()] == []
    with pytest.raises(NotFound):
        core.users.remove(OPERATOR, ada.user)


def test_what_the_programs_of_a_removed_user_printed_goes_at_once(core, ada, bob):
    for user in (ada, bob):
        core.outputs.append(OPERATOR, core.experiments.submit(user, echo())["id"], "stdout", 0, [b"a name"])
    core.users.remove(OPERATOR, ada.user)
    (left,) = core.outputs.folder.iterdir()
    assert left == core.outputs.open(bob, 2).path


def test_groups_and_their_limits(core, ada):
    lab, other = core.groups.create(OPERATOR, "Lab"), core.groups.create(OPERATOR, "Other")
    with pytest.raises(Conflict):
        core.groups.create(OPERATOR, " Lab ")
    with pytest.raises(Invalid):
        core.groups.create(OPERATOR, " \n ")
    core.groups.assign(OPERATOR, ada.user, [lab, other])
    assert core.groups.names(ada) == ["Lab", "Other"]
    core.groups.limit(OPERATOR, lab, {"user_bytes": "10"})
    core.groups.limit(OPERATOR, other, {"user_bytes": "20"})
    assert core.limits.of(ada.user)["user_bytes"] == 20, "the best of the groups counts"
    core.groups.assign(OPERATOR, ada.user, [lab])
    assert core.limits.of(ada.user)["user_bytes"] == 10
    with pytest.raises(NotFound):
        core.groups.assign(OPERATOR, ada.user, [lab, 99])
    assert core.groups.names(ada) == ["Lab"], "a failed change changes nothing"
    core.groups.rename(OPERATOR, lab, "Laboratory")
    with pytest.raises(Conflict):
        core.groups.rename(OPERATOR, lab, "Other")
    with pytest.raises(Invalid, match="there is no limit coffee"):
        core.groups.limit(OPERATOR, lab, {"coffee": "1"})
    with pytest.raises(Invalid):
        core.groups.limit(OPERATOR, lab, {"user_bytes": "-1"})
    core.groups.remove(OPERATOR, lab)
    assert core.groups.names(ada) == [] and core.limits.of(ada.user)["user_bytes"] == core.settings["limits.user_bytes"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [("running_together", "0", "running_together: '0' is less than 1"), ("running_experiments", "0", "'0' is less than 1"),
     ("file_bytes", "5 cows", "'5 cows' is not a size"), ("coffee", "1", "there is no limit coffee")],
)  # fmt: skip
def test_a_limit_is_what_its_setting_may_be_and_a_bad_one_saves_no_other(core, name, text, sentence):
    """Bad input: nothing that may run, no size, an unknown name; after a good one."""
    lab = core.groups.create(OPERATOR, "Lab")
    with pytest.raises(Invalid, match=sentence):
        core.groups.limit(OPERATOR, lab, {"user_bytes": "7", name: text})
    assert core.groups.list(OPERATOR)[0]["limits"] == {}
    saved = core.groups.limit(OPERATOR, lab, {"user_bytes": "1.5KB", "running_together": None})
    assert saved == {"user_bytes": 1536, "running_together": None}
    assert core.groups.list(OPERATOR)[0]["limits"] == {"user_bytes": 1536}
