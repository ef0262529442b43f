"""The outbox: what is written, for whom, with which text."""

from contextlib import suppress

import pytest

from conftest import PASSWORD, echo
from ippd.domain.templates import TEMPLATES, clean_line, duration, render
from ippd.errors import Conflict, Forbidden, Invalid
from ippd.permissions import ANONYMOUS, OPERATOR, SYSTEM

HOOK = "https://hooks.slack.com/services/T/B/secret"


def row(core, id=1):
    return core.store.one("SELECT * FROM outbox WHERE id = :id", id=id)


def claimed(core, actor, script):
    """An experiment of this user that a script has."""
    id = core.experiments.submit(actor, echo(("scan.nii", b"bytes")))["id"]
    core.queue.claim(script)
    return id


def test_every_cause_has_its_notice(core, script, clock):
    core.users.sign_up(ANONYMOUS, "ada@example.org", PASSWORD, {"fname": "Ada", "slack_webhook": HOOK})
    core.users.approve(OPERATOR, 1)
    ada = core.sessions.actor(core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD))
    core.users.set_setting(ada, "slack_webhook", "")
    core.files.add_results(script, claimed(core, ada, script), [*echo(("1.zip", b"result"))[2:]])
    core.experiments.fail(script, claimed(core, ada, script), exit_code="3", message="out of memory")
    core.users.forgot_password(ANONYMOUS, "ada@example.org")
    core.users.sign_up(ANONYMOUS, "ada@example.org", PASSWORD)
    clock.forward(days=84)
    core.housekeeping.notice_expiry(SYSTEM)
    core.notifications.add("certificate_expiring", days=3, path="/etc/ippd/certificate.pem")
    core.notifications.add("backup_damaged", path="/backup/ippd.tar", count=1, damage="1/2 is missing")
    core.notifications.notify(script, "ada@example.org", "hello")
    core.users.deny(OPERATOR, 1)
    kinds = [notice["kind"] for notice in reversed(core.notifications.list(OPERATOR))]
    assert kinds == ["approve_account", "approved", "completed", "failed", "password_reset", "known_address", "expiring",
                     "expiring", "certificate_expiring", "backup_damaged", "message", "denied"]  # fmt: skip
    assert set(kinds) == set(TEMPLATES)
    recipients = dict(core.store.tuples("SELECT kind, recipient FROM outbox"))
    administrators = {"approve_account", "certificate_expiring", "backup_damaged"}
    assert {kind for kind, to in recipients.items() if to == "admin@example.org"} == administrators
    bodies = dict(core.store.tuples("SELECT kind, body FROM outbox"))
    assert "ippd user approve 1" in bodies["approve_account"]
    assert "hooks.slack.com" not in bodies["approve_account"]
    assert "Exit code: 3\nout of memory" in bodies["failed"]
    assert "https://portal.example.org/password/reset?token=" in bodies["password_reset"]
    assert "will be deleted in 7 days" in bodies["expiring"]
    assert all("{" not in body and "None" not in body for body in bodies.values())


def test_the_administrator_reads_who_signs_up(core):
    core.users.sign_up(ANONYMOUS, "ada@example.org", PASSWORD, {"fname": "Ada", "institution": "Analytical Society"})
    assert "fname: Ada\ninstitution: Analytical Society" in row(core)["body"]


def test_a_cause_that_is_rolled_back_takes_its_notice_along(core, ada):
    with suppress(Conflict), core.store.write():
        core.notifications.add("approved", user=ada.user)
        raise Conflict
    assert core.notifications.list(OPERATOR) == []


def test_a_notice_with_a_key_is_written_once(core, ada):
    for _ in range(3):
        core.notifications.add("expiring", user=ada.user, unique="expiring:7", id=7, name="n", days=7)
    assert len(core.notifications.list(OPERATOR)) == 1


def test_an_administrator_with_two_channels_gets_both(make_core):
    core = make_core(notify__admin_email="admin@example.org", notify__admin_slack=HOOK)
    assert core.notifications.add("certificate_expiring", unique="x", days=3, path="p") == 2
    assert core.notifications.add("certificate_expiring", unique="x", days=3, path="p") == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [("email", "ada@example.org")]),
        ({"notification_type": "email", "slack_webhook": HOOK}, [("email", "ada@example.org")]),
        ({"notification_type": "slack_message", "slack_webhook": HOOK}, [("slack", HOOK)]),
        ({"notification_type": "none"}, []),
        # A choice that cannot be kept: a mail is better than nothing.
        ({"notification_type": "slack_message"}, [("email", "ada@example.org")]),
        ({"notification_type": "slack_message", "slack_webhook": ""}, [("email", "ada@example.org")]),
    ],
)
def test_a_user_chooses_how_to_be_told(core, ada, settings, expected):
    for name, value in settings.items():
        core.users.set_setting(ada, name, value)
    core.notifications.add("completed", user=ada.user, id=1, name="n")
    assert core.store.tuples("SELECT channel, recipient FROM outbox") == expected
    core.notifications.add("approved", user=ada.user)
    assert core.store.tuples("SELECT channel, recipient FROM outbox WHERE kind = 'approved'") == [("email", "ada@example.org")]


def test_a_webhook_on_a_host_that_is_no_longer_allowed_becomes_a_mail(core, make_core, ada):
    core.users.set_setting(ada, "notification_type", "slack_message")
    core.users.set_setting(ada, "slack_webhook", HOOK)
    stricter = make_core(notify__slack_hosts="chat.example.org")
    stricter.notifications.add("completed", user=ada.user, id=1, name="n")
    assert row(core)["channel"] == "email"


def test_text_of_others_stays_in_its_place(core, ada):
    evil = "a\r\nBcc: eve@example.org\u2028\x1b[31m {email} \u202e" + "x" * 1000
    core.notifications.add("failed", user=ada.user, id=1, name=evil, message="one\x00\ntwo\r\nthree" + "y" * 20000)
    notice = row(core)
    assert notice["subject"].isprintable()
    assert len(notice["subject"]) <= 200
    assert "{email}" in notice["subject"]
    assert "one \ntwo\nthree" in notice["body"]
    assert len(notice["body"]) < 11000


def test_links_come_from_the_settings_alone(make_settings):
    _, body = render("password_reset", make_settings(), {"email": "a@b.c", "code": "c0de"})
    assert "http" not in body
    assert "c0de" in body
    assert "within 1 hour" in body
    _, body = render("approved", make_settings(public__url="https://portal.example.org/"), {"email": "a@b.c"})
    assert "at https://portal.example.org/." in body


def test_a_missing_fact_is_told_where_it_is_missing(core, ada):
    with pytest.raises(KeyError, match="days"):
        core.notifications.add("expiring", user=ada.user, id=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3600, "1 hour"), (7200, "2 hours"), (5400, "90 minutes"), (86400, "1 day"), (20, "1 minute")]
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_lines_are_clipped():
    assert clean_line("x" * 201) == "x" * 199 + "…"


@pytest.mark.parametrize(
    ("email", "message", "field"),
    [("", "m", "email"), ("ada", "m", "email"), ("a@b\r\nc", "m", "email"), ("ada@example.org", "", "message"),
     ("ada@example.org", "x" * 10001, "message")],
)  # fmt: skip
def test_a_bad_message_of_a_script_is_refused(core, script, email, message, field):
    with pytest.raises(Invalid) as caught:
        core.notifications.notify(script, email, message)
    assert list(caught.value.fields) == [field]
    assert core.notifications.list(OPERATOR) == []


def test_a_message_goes_to_a_user_as_they_chose_and_to_others_by_mail(core, ada, script):
    core.users.set_setting(ada, "notification_type", "none")
    core.notifications.notify(script, "ADA@example.org ", "m")
    core.notifications.notify(script, "colleague@example.org", "first line\nsecond line")
    assert [notice["recipient"] for notice in core.notifications.list(OPERATOR)] == ["colleague@example.org"]
    assert row(core)["body"] == "first line\nsecond line\n"


def test_a_user_may_not_send_or_see_messages(core, ada):
    for call in (
        lambda: core.notifications.notify(ada, "bob@example.org", "m"),
        lambda: core.notifications.list(ada),
        lambda: core.notifications.retry(ada),
        lambda: core.notifications.drop(ada, 7),
        lambda: core.notifications.deliver(ada, print),
    ):
        with pytest.raises(Forbidden):
            call()
