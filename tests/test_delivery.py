"""The outbox on its way out: sent once, retried, given up, never shown with its secrets."""

import smtplib
import threading

import pytest

from conftest import PASSWORD, join
from ippd import mail
from ippd.domain.notifications import Permanent, Refused, pause
from ippd.errors import Invalid
from ippd.permissions import ANONYMOUS, OPERATOR, SYSTEM
from mailservers import Inbox, closed_port, make_certificate, silent_server, smtp_server, webhook_server

HOOK = "https://hooks.slack.com/services/T/B/secret"


class Sent(list):
    """A sender that keeps what it is given, or raises what it is told to for a recipient."""

    def __init__(self, **troubles):
        self.troubles = troubles

    def __call__(self, channel, to, subject, body):
        if trouble := self.troubles.get(to.partition("@")[0]):
            raise trouble
        self.append((channel, to, subject, body))


@pytest.fixture
def mailing(make_core):
    """The core with a mail server that is never called: the tests send for it."""
    return make_core(mail__host="127.0.0.1", notify__admin_email="admin@example.org")


def row(core, id=1):
    return core.store.one("SELECT * FROM outbox WHERE id = :id", id=id)


def test_what_is_sent_is_sent_once(mailing):
    mailing.users.add(OPERATOR, "ada@example.org", PASSWORD)
    mailing.notifications.add("approved", user=1)
    sent = Sent()
    assert mailing.notifications.deliver(SYSTEM, sent)["sent"] == 1
    assert mailing.notifications.deliver(SYSTEM, sent)["sent"] == 0
    assert [(channel, to) for channel, to, _, _ in sent] == [("email", "ada@example.org")]
    assert row(mailing)["status"] == "sent"


def test_two_deliverers_never_send_the_same(mailing):
    for number in range(60):
        mailing.notifications.add("message", to=f"u{number}@example.org", message="m")
    sent = Sent()
    deliverers = [threading.Thread(target=mailing.notifications.deliver, args=(SYSTEM, sent)) for _ in range(4)]
    for thread in deliverers:
        thread.start()
    for thread in deliverers:
        thread.join()
    assert sorted(to for _, to, _, _ in sent) == sorted(f"u{number}@example.org" for number in range(60))


def test_a_deliverer_that_dies_while_sending_does_not_lose_it(mailing, clock):
    mailing.notifications.add("message", to="ada@example.org", message="m")

    def killed(*words):
        raise SystemExit

    with pytest.raises(SystemExit):
        mailing.notifications.deliver(SYSTEM, killed)
    assert mailing.notifications.deliver(SYSTEM, Sent())["sent"] == 0  # the other one may still be sending
    clock.forward(minutes=11)
    assert mailing.notifications.deliver(SYSTEM, Sent())["sent"] == 1


def test_no_transaction_is_held_while_sending(mailing):
    mailing.notifications.add("message", to="ada@example.org", message="m")
    wrote = []

    def send(*words):
        other = threading.Thread(target=lambda: wrote.append(mailing.groups.create(OPERATOR, "lab")))
        other.start()
        other.join(5)

    mailing.notifications.deliver(SYSTEM, send)
    assert len(wrote) == 1


def test_a_mail_server_that_is_down_is_tried_once_a_round_and_with_longer_pauses(mailing, clock):
    for name in ("a", "b", "c"):
        mailing.notifications.add("message", to=f"{name}@example.org", message="m")
    down = Sent(a=ConnectionRefusedError("refused"), b=TimeoutError(), c=ConnectionRefusedError("refused"))
    assert mailing.notifications.deliver(SYSTEM, down) == {"sent": 0, "later": 1, "failed": 0}
    assert [(row(mailing, id)["attempts"], row(mailing, id)["error"]) for id in (1, 2)] == [(1, "refused"), (0, None)]
    mailing.notifications.deliver(SYSTEM, down)
    assert row(mailing, 2)["error"] == "TimeoutError"
    assert [pause(attempts) / 60 for attempts in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    clock.forward(minutes=2)
    assert mailing.notifications.deliver(SYSTEM, Sent()) == {"sent": 3, "later": 0, "failed": 0}


def test_a_day_without_mail_loses_nothing_and_leaves_slack_alone(make_core, clock):
    core = make_core(mail__host="127.0.0.1", notify__admin_email="admin@example.org", notify__admin_slack=HOOK)
    core.notifications.add("certificate_expiring", days=3, path="p")
    down = Sent(admin=ConnectionRefusedError())
    assert core.notifications.deliver(SYSTEM, down) == {"sent": 1, "later": 1, "failed": 0}
    for _ in range(24 * 12):
        clock.forward(minutes=5)
        core.notifications.deliver(SYSTEM, down)
    assert row(core)["status"] == "pending"
    clock.forward(hours=1)
    assert core.notifications.deliver(SYSTEM, Sent())["sent"] == 1


def test_after_72_hours_of_trying_it_is_failed_and_can_be_put_back(mailing, clock):
    mailing.notifications.add("message", to="ada@example.org", message="m")
    down = Sent(ada=ConnectionRefusedError("nobody there"))
    hours = 0
    while row(mailing)["status"] == "pending" and hours < 100:
        mailing.notifications.deliver(SYSTEM, down)
        clock.forward(hours=1)
        hours += 1
    assert 72 <= hours <= 80
    (notice,) = mailing.notifications.list(OPERATOR, "failed")
    assert notice["error"] == "nobody there"
    clock.forward(days=30)
    assert mailing.notifications.deliver(SYSTEM, Sent())["sent"] == 0
    assert mailing.notifications.retry(OPERATOR) == (1, 1, "")
    mailing.notifications.deliver(SYSTEM, down)
    assert row(mailing)["status"] == "pending"  # it has its time again
    clock.forward(minutes=1)
    assert mailing.notifications.deliver(SYSTEM, Sent())["sent"] == 1


def test_what_waited_for_its_next_attempt_was_not_sent_again(mailing, clock):
    """Bad input: two mails that a server refused for now, one of them taken by another sender before the command runs."""
    for name in ("ada", "bob"):
        mailing.notifications.add("message", to=f"{name}@example.org", message="m")
    refused = Refused("451 try again later")
    assert mailing.notifications.deliver(SYSTEM, Sent(ada=refused, bob=refused))["later"] == 2
    assert mailing.notifications.retry(OPERATOR) == (2, 2, "")
    meanwhile = []

    def send(channel, to, subject, body):
        meanwhile.append((mailing.notifications.retry(OPERATOR).done, mailing.notifications.deliver(SYSTEM, sent)["sent"]))
        meanwhile.append(mailing.notifications.drop(OPERATOR, 0))

    sent = Sent()
    assert mailing.notifications.deliver(SYSTEM, send)["sent"] == 1
    assert meanwhile == [(0, 1), (0, 1, "")] and [to for _, to, _, _ in sent] == ["bob@example.org"], "what is being sent is left alone"
    assert mailing.notifications.retry(OPERATOR) == (0, 0, "")


def test_what_came_too_late_can_be_removed(mailing, clock):
    """Bad input: days that are none; and what was sent, failed or written later, which stays."""
    for number, status in enumerate(("sent", "failed", "pending"), 1):
        mailing.notifications.add("message", to="ada@example.org", message="m")
        mailing.store.update("outbox", number, status=status)
    clock.forward(days=8)
    mailing.notifications.add("message", to="ada@example.org", message="m")
    for days in (-1, 36501, 10**400):
        with pytest.raises(Invalid, match="older-than"):
            mailing.notifications.drop(OPERATOR, days)
    assert mailing.notifications.drop(OPERATOR, 9) == (0, 2, "") and mailing.notifications.drop(OPERATOR, 7) == (1, 1, "")
    assert [notice["id"] for notice in mailing.notifications.list(OPERATOR)] == [4, 2, 1]
    assert mailing.notifications.drop(OPERATOR, 0) == (1, 0, "")


def test_a_notification_of_an_hour_in_which_the_clock_was_ahead_waited_for_years(mailing, clock):
    """Bad input: two that are postponed and one that is stored while the clock is ten years ahead."""
    clock.forward(days=3650)
    for name in ("bob", "eve"):
        mailing.notifications.add("message", to=f"{name}@example.org", message="m")
    mailing.notifications.deliver(SYSTEM, Sent(bob=Refused("later"), eve=OSError("down")))
    mailing.notifications.add("message", to="ada@example.org", message="m")
    clock.forward(days=-3650)
    sent = Sent()
    assert mailing.notifications.deliver(SYSTEM, sent)["sent"] == 3
    assert sorted(to for _, to, _, _ in sent) == ["ada@example.org", "bob@example.org", "eve@example.org"]


def test_what_was_postponed_for_as_long_as_can_be_waits_for_its_time(make_core, clock):
    """Bad input: a mail server that has 10 minutes for each answer: what is being sent now is kept from others for hours."""
    core = make_core(mail__host="127.0.0.1", mail__timeout="10m")
    core.notifications.add("message", to="ada@example.org", message="m")
    core.store.execute("UPDATE outbox SET next_attempt_at = :then", then=clock() + 20 * 600)
    sent = Sent()
    assert core.notifications.deliver(SYSTEM, sent)["sent"] == 0 and core.store.value("SELECT attempts FROM outbox") == 0
    clock.forward(seconds=20 * 600)
    assert core.notifications.deliver(SYSTEM, sent)["sent"] == 1


def test_a_daemon_that_was_off_for_a_week_still_tries(mailing, clock):
    mailing.notifications.add("message", to="ada@example.org", message="m")
    clock.forward(days=7)
    assert mailing.notifications.deliver(SYSTEM, Sent(ada=ConnectionRefusedError()))["later"] == 1


def test_a_refusal_for_good_fails_at_once_and_the_others_pass(mailing):
    for name in ("gone", "full", "ada"):
        mailing.notifications.add("message", to=f"{name}@example.org", message="m")
    sent = Sent(gone=Permanent("550 no such user"), full=Refused("452 mailbox full"))
    assert mailing.notifications.deliver(SYSTEM, sent) == {"sent": 1, "later": 1, "failed": 1}
    assert [(row(mailing, id)["status"], row(mailing, id)["error"]) for id in (1, 2, 3)] == [
        ("failed", "550 no such user"), ("pending", "452 mailbox full"), ("sent", None),
    ]  # fmt: skip


def test_without_a_mail_server_mail_waits_untried(make_core, clock):
    core = make_core(notify__admin_email="admin@example.org", notify__admin_slack=HOOK)
    core.notifications.add("certificate_expiring", days=3, path="p")
    clock.forward(days=10)
    sent = Sent()
    core.notifications.deliver(SYSTEM, sent)
    assert [channel for channel, _, _, _ in sent] == ["slack"]
    assert (row(core)["status"], row(core)["attempts"]) == ("pending", 0)


def test_a_stop_is_heard_between_two_messages(mailing):
    for _ in range(5):
        mailing.notifications.add("message", to="ada@example.org", message="m")
    sent = Sent()
    mailing.notifications.deliver(SYSTEM, sent, lambda: len(sent) == 2)
    assert len(sent) == 2


def test_a_reset_code_is_not_kept_and_not_sent_late(mailing, clock):
    join(mailing)
    mailing.users.forgot_password(ANONYMOUS, "ada@example.org")
    assert "body" not in mailing.notifications.list(OPERATOR)[0]
    sent = Sent()
    mailing.notifications.deliver(SYSTEM, sent)
    assert "code" in sent[0][3]
    assert row(mailing)["body"] == ""
    mailing.users.forgot_password(ANONYMOUS, "ada@example.org")
    clock.forward(hours=1)
    assert mailing.notifications.deliver(SYSTEM, sent)["failed"] == 1
    assert (len(sent), row(mailing, 2)["body"]) == (1, "")
    assert mailing.notifications.retry(OPERATOR) == (0, 0, "")


def test_a_list_shows_the_host_of_a_webhook_only(make_core):
    core = make_core(notify__admin_slack=HOOK)
    core.notifications.add("certificate_expiring", days=3, path="p")
    assert core.notifications.list(OPERATOR, "pending")[0]["recipient"] == "https://hooks.slack.com/..."
    with pytest.raises(Invalid):
        core.notifications.list(OPERATOR, "lost")


def test_from_the_outbox_over_real_servers(make_core, tmp_path, monkeypatch):
    cert, context = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    inbox = Inbox({"gone@example.org": "550 no such user"})
    with smtp_server(inbox) as port, webhook_server(context) as hook:
        core = make_core(
            mail__host="127.0.0.1", mail__port=port, notify__slack_hosts=f"localhost:{hook.port}",
            notify__admin_slack=f"https://localhost:{hook.port}/services/x", notify__admin_email="admin@example.org",
        )  # fmt: skip
        core.users.sign_up(ANONYMOUS, "ada@example.org", PASSWORD)
        core.notifications.add("message", to="gone@example.org", message="m")
        assert core.notifications.deliver(SYSTEM, mail.make_send(core.settings)) == {"sent": 2, "later": 0, "failed": 1}
    assert inbox.messages[0]["Subject"] == "New account waits for approval: ada@example.org"
    assert hook.texts[0][0] == "/services/x"
    assert "550 no such user" in core.notifications.list(OPERATOR, "failed")[0]["error"]


@pytest.mark.parametrize("server", [closed_port, silent_server])
def test_a_real_server_that_does_not_answer_costs_one_time_out_a_round(make_core, server):
    calls = []

    def counted(*words):
        calls.append(words)
        return send(*words)

    with server() as port:
        core = make_core(mail__host="127.0.0.1", mail__port=port, mail__timeout="0.2s")
        send = mail.make_send(core.settings)
        for number in range(20):
            core.notifications.add("message", to=f"u{number}@example.org", message="m")
        assert core.notifications.deliver(SYSTEM, counted) == {"sent": 0, "later": 1, "failed": 0}
    assert len(calls) == 1


def test_a_failure_of_ours_at_the_mail_server_is_written_down(make_core):
    core = make_core(mail__host="127.0.0.1")
    core.notifications.add("message", to="ada@example.org", message="m")
    core.notifications.deliver(SYSTEM, Sent(ada=smtplib.SMTPAuthenticationError(535, b"wrong password")))
    assert "wrong password" in row(core)["error"]
