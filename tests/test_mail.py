"""One message to the outside: real SMTP servers and a real HTTPS endpoint on loopback."""

import errno
import smtplib
import socket
import ssl
import time

import pytest

from ippd import mail
from mailservers import Inbox, closed_port, make_certificate, silent_server, smtp_server, webhook_server

ADA = "ada@example.org"


@pytest.fixture
def mail_to(make_settings):
    """A function: `send` for a mail server on this port of 127.0.0.1."""

    def make(port, **overrides):
        settings = {"mail__host": "127.0.0.1", "mail__from": "ippd@example.org", "mail__timeout": "2s"} | overrides
        return mail.make_send(make_settings(mail__port=port, **settings))

    return make


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A server context whose certificate this process trusts."""
    cert, context = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    return context


def test_a_mail_arrives_with_its_headers_and_letters(mail_to):
    inbox = Inbox()
    with smtp_server(inbox) as port:
        mail_to(port)("email", ADA, "Prüfung № 7 ist fertig", "Grüße,\ndas Portal\n" + "x" * 2000 + "\n")
    (message,) = inbox.messages
    assert message["Subject"] == "Prüfung № 7 ist fertig"
    assert (message["From"], message["To"]) == ("ippd@example.org", ADA)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.org>")
    assert abs(message["Date"].datetime.timestamp() - time.time()) < 60
    assert message.get_content().splitlines() == ["Grüße,", "das Portal", "x" * 2000]
    assert inbox.envelopes[0].content.isascii()
    assert max(map(len, inbox.envelopes[0].content.splitlines())) < 998


def test_a_host_whose_name_nobody_can_resolve_sends_mail(mail_to, monkeypatch):
    """An old glibc without a name server reports an error of the system, which smtplib lets through: no mail was ever sent."""

    def unresolvable(name):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(socket, "getfqdn", lambda name="": "node7")
    monkeypatch.setattr(socket, "gethostbyname", unresolvable)
    inbox = Inbox()
    with smtp_server(inbox) as port:
        mail_to(port)("email", ADA, "s", "b")
    assert len(inbox.messages) == 1 and mail.own_name() == "[127.0.0.1]"


def test_a_line_with_a_dot_does_not_end_the_mail(mail_to):
    inbox = Inbox()
    with smtp_server(inbox) as port:
        mail_to(port)("email", ADA, "s", "one\n.\nRSET\n..two\n")
    assert inbox.messages[0].get_content().splitlines() == ["one", ".", "RSET", "..two"]


@pytest.mark.parametrize("subject", ["Hello\r\nBcc: eve@example.org", "Hello\nX: y"])
def test_a_subject_with_a_line_break_is_no_second_header(mail_to, subject):
    inbox = Inbox()
    with smtp_server(inbox) as port, pytest.raises(mail.Permanent):
        mail_to(port)("email", ADA, subject, "b")
    assert inbox.messages == []


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "a b@example.org", "ada@example.org\r\nRCPT TO:<eve@example.org>", "a@b@c", "<ada@b.c>"]
)
def test_a_bad_address_is_refused_before_the_server_is_called(mail_to, address):
    with closed_port() as port, pytest.raises(mail.Permanent, match="is not an e-mail address"):
        mail_to(port)("email", address, "s", "b")


def test_starttls_with_login(mail_to, tls):
    inbox = Inbox()
    options = {"tls_context": tls, "require_starttls": True, "authenticator": inbox.check, "auth_required": True}
    with smtp_server(inbox, **options) as port:
        send = mail_to(port, mail__security="starttls", mail__username="ippd", mail__password="right")
        send("email", ADA, "s", "b")
    assert inbox.logins == [("ippd", "right", True)]
    assert len(inbox.messages) == 1


def test_tls_from_the_first_byte(mail_to, tls):
    inbox = Inbox()
    # aiosmtpd greets a client under TLS only when it is on the loop's own context, so no login is asked for here.
    with smtp_server(inbox, ssl_context=tls) as port:
        mail_to(port, mail__security="tls")("email", ADA, "s", "b")
    assert len(inbox.messages) == 1


def test_a_wrong_password_of_ours_is_a_fault_of_the_channel(mail_to, tls):
    inbox = Inbox()
    options = {"tls_context": tls, "require_starttls": True, "authenticator": inbox.check, "auth_required": True}
    with smtp_server(inbox, **options) as port, pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        mail_to(port, mail__security="starttls", mail__username="ippd", mail__password="wrong")("email", ADA, "s", "b")
    assert not isinstance(caught.value, mail.Refused)
    assert inbox.messages == []


def test_a_server_without_starttls_gets_nothing_in_the_clear(mail_to):
    inbox = Inbox()
    with smtp_server(inbox) as port, pytest.raises(smtplib.SMTPNotSupportedError):
        mail_to(port, mail__security="starttls")("email", ADA, "s", "b")
    assert inbox.messages == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_unknown_certificate_gets_neither_password_nor_mail(mail_to, tmp_path, security):
    _, context = make_certificate(tmp_path)
    inbox = Inbox()
    options = {"ssl_context": context} if security == "tls" else {"tls_context": context}
    with smtp_server(inbox, authenticator=inbox.check, **options) as port, pytest.raises(ssl.SSLCertVerificationError):
        mail_to(port, mail__security=security, mail__username="ippd", mail__password="x")("email", ADA, "s", "b")
    assert (inbox.messages, inbox.logins) == ([], [])


def test_a_certificate_for_another_host_is_refused(mail_to, tmp_path, monkeypatch):
    cert, context = make_certificate(tmp_path, ["mail.example.org"])
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    with smtp_server(Inbox(), tls_context=context) as port, pytest.raises(ssl.SSLCertVerificationError, match="IP address"):
        mail_to(port, mail__security="starttls")("email", ADA, "s", "b")


def test_a_refused_recipient_is_for_good_and_the_next_one_passes(mail_to):
    inbox = Inbox({"gone@example.org": "550 5.1.1 no such user"})
    with smtp_server(inbox) as port:
        send = mail_to(port)
        with pytest.raises(mail.Permanent, match=r"recipient was refused: 550 5\.1\.1 no such user"):
            send("email", "gone@example.org", "s", "b")
        send("email", ADA, "s", "b")
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("inbox", [Inbox({ADA: "451 4.7.1 greylisted, come back later"}), Inbox(data_answer="452 4.3.1 mailbox full")])
def test_a_refusal_for_now_is_not_for_good(mail_to, inbox):
    with smtp_server(inbox) as port, pytest.raises(mail.Refused) as caught:
        mail_to(port)("email", ADA, "s", "b")
    assert not isinstance(caught.value, mail.Permanent)


def test_a_refused_text_is_for_good(mail_to):
    with smtp_server(Inbox(data_answer="554 5.7.1 looks like spam")) as port, pytest.raises(mail.Permanent, match="spam"):
        mail_to(port)("email", ADA, "s", "b")


def test_a_server_that_is_down_or_silent_is_a_fault_of_the_channel(mail_to):
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        mail_to(port)("email", ADA, "s", "b")
    begun = time.monotonic()
    with silent_server() as port, pytest.raises(OSError, match="timed out"):
        mail_to(port, mail__timeout="0.3s")("email", ADA, "s", "b")
    assert time.monotonic() - begun < 3


def test_letters_beyond_ascii_in_an_address(mail_to):
    inbox = Inbox()
    with smtp_server(inbox, enable_SMTPUTF8=True) as port:
        mail_to(port)("email", "jürgen@example.org", "Grüße", "b")
    assert inbox.envelopes[0].rcpt_tos == ["jürgen@example.org"]
    assert inbox.messages[0]["To"] == "jürgen@example.org"
    with smtp_server(inbox, enable_SMTPUTF8=False) as port:
        mail_to(port)("email", "ada@müller.example", "s", "b")
        with pytest.raises(mail.Permanent, match="beyond ASCII"):
            mail_to(port)("email", "jürgen@example.org", "s", "b")
    assert inbox.envelopes[1].rcpt_tos == ["ada@xn--mller-kva.example"]


def test_a_failure_at_quit_does_not_have_a_mail_sent_twice(mail_to):
    class Rude(Inbox):
        async def handle_QUIT(self, server, session, envelope):
            return "421 no goodbye"

    inbox = Rude()
    with smtp_server(inbox) as port:
        mail_to(port)("email", ADA, "s", "b")
    assert len(inbox.messages) == 1


@pytest.fixture
def slack(make_settings):
    """A function: `send` with webhooks allowed on this port of localhost."""

    def make(port, timeout="2s"):
        return mail.make_send(make_settings(notify__slack_hosts=f"localhost:{port}", mail__timeout=timeout))

    return make


def test_slack_gets_the_text_and_no_markup_out_of_it(slack, tls):
    with webhook_server(tls) as hook:
        slack(hook.port)("slack", f"https://localhost:{hook.port}/services/T/B/x", "Done: <!channel>", "a & b\n")
    assert hook.texts == [("/services/T/B/x", "Done: &lt;!channel&gt;\n\na &amp; b\n")]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/x",
        "https://localhost/x",
        "https://127.0.0.1:{port}/x",
        "https://localhost:{port}@127.0.0.1:{port}/x",
        "https://evil@localhost:{port}/x",
        "https://localhost:{port}\\@127.0.0.1/x",
        "https://localhost:{port}.example.org/x",
        "https://localhost:{port}",
        "https://localhost:{port}/x\r\nHost: elsewhere",
        "https://localhost:{port}/x y",
        "HTTPS://localhost:{port}/x",
        "",
    ],
)
def test_a_webhook_elsewhere_is_never_called(slack, tls, url):
    with webhook_server(tls) as hook, pytest.raises(mail.Permanent) as caught:
        slack(hook.port)("slack", url.format(port=hook.port), "s", "b")
    assert hook.texts == []
    assert "/x" not in str(caught.value)


def test_a_redirect_is_not_followed(slack, tls):
    with webhook_server(tls) as other:
        to = ("Location", f"https://localhost:{other.port}/elsewhere")
        with webhook_server(tls, 307, [to]) as hook, pytest.raises(mail.Permanent, match="answered 307"):
            slack(hook.port)("slack", f"https://localhost:{hook.port}/x", "s", "b")
    assert (len(hook.texts), other.texts) == (1, [])


@pytest.mark.parametrize(("status", "kind"), [(404, mail.Permanent), (410, mail.Permanent), (429, mail.Refused)])
def test_what_slack_refuses(slack, tls, status, kind):
    with webhook_server(tls, status) as hook, pytest.raises(mail.Refused, match=f"answered {status}") as caught:
        slack(hook.port)("slack", f"https://localhost:{hook.port}/secret", "s", "b")
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)


def test_slack_out_of_order_is_a_fault_of_the_channel(slack, tls):
    with webhook_server(tls, 503) as hook, pytest.raises(ConnectionError, match="answered 503"):
        slack(hook.port)("slack", f"https://localhost:{hook.port}/x", "s", "b")
    with webhook_server(tls, wait=5) as hook, pytest.raises(TimeoutError):
        slack(hook.port, "0.3s")("slack", f"https://localhost:{hook.port}/x", "s", "b")


def test_a_webhook_with_an_unknown_certificate_gets_nothing(slack, tmp_path):
    _, context = make_certificate(tmp_path)
    with webhook_server(context) as hook, pytest.raises(ssl.SSLCertVerificationError):
        slack(hook.port)("slack", f"https://localhost:{hook.port}/x", "s", "b")
    assert hook.texts == []
