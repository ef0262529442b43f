"""Sends one message: an e-mail over SMTP, or a text to a Slack webhook."""

import contextlib
import http.client
import json
import re
import smtplib
import socket
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid, parseaddr
from typing import Any

from ippd import certificate
from ippd.domain.notifications import Permanent, Refused, Send
from ippd.domain.webhooks import parse_webhook

# The plain form of RFC 5321, 4.1.2, without quoted strings and address literals, and with letters of all scripts (RFC 6531).
_MAILBOX = re.compile(r"((?:\w|[!#$%&'*+/=?^`{|}~.-]){1,64})@([\w.-]{1,255})")


def make_send(settings: Mapping[str, Any]) -> Send:
    """The function `send(channel, to, subject, body)` for these settings; it returns when the message has been taken.

    It raises Permanent when this message will never be taken, Refused when it was not taken now but others may be, and
    any other exception when the channel as a whole does not work (not reachable, wrong password, bad certificate). Each
    step on the network takes at most `mail.timeout` seconds.
    """

    def send(channel: str, to: str, subject: str, body: str) -> None:
        {"email": send_email, "slack": send_slack}[channel](settings, to, subject, body)

    return send


def send_email(settings: Mapping[str, Any], to: str, subject: str, body: str) -> None:
    """Hand one message to the SMTP server `mail.host`. Raises as `make_send` says."""
    sender = settings["mail.from"] or f"ippd@{socket.getfqdn()}"
    recipient = mailbox(to)
    message = compose(sender, recipient, subject, body)
    server = connect(settings)
    try:
        if settings["mail.username"]:
            server.login(settings["mail.username"], settings["mail.password"])
        server.send_message(message, parseaddr(sender)[1], [recipient])
    except smtplib.SMTPRecipientsRefused as error:
        code, reason = error.recipients[recipient]
        raise _refusal("the recipient was refused", code, reason) from error
    except smtplib.SMTPDataError as error:
        raise _refusal("the message was refused", error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        if not recipient.isascii():
            raise Permanent("the mail server takes no address with letters beyond ASCII (no SMTPUTF8)") from error
        raise
    finally:
        # The message has been taken or not by now: a server that fails at QUIT must not have it sent twice.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
        server.close()


def connect(settings: Mapping[str, Any]) -> smtplib.SMTP:
    """A connection to `mail.host`, encrypted as `mail.security` says; its certificate is checked (SSL_CERT_FILE)."""
    host, port, timeout = settings["mail.host"], settings["mail.port"], settings["mail.timeout"]
    security = settings["mail.security"]
    if security == "tls":
        return smtplib.SMTP_SSL(host, port, own_name(), timeout=timeout, context=certificate.trusting())
    server = smtplib.SMTP(host, port, own_name(), timeout=timeout)
    if security == "starttls":
        try:
            server.starttls(context=certificate.trusting())
        except BaseException:
            server.close()
            raise
    return server


def own_name() -> str:
    """What EHLO says: the full name of this host, else its address in brackets (RFC 5321, 4.1.1.1).

    The library finds the same, but fails where nobody can resolve the name: getaddrinfo of glibc 2.17 and older then reports an
    error of the system (EAI_SYSTEM), which is no gaierror.
    """
    name = socket.getfqdn()
    if "." in name:
        return name
    address = "127.0.0.1"
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
    return f"[{address}]"


def mailbox(address: str) -> str:
    """The address for the wire: a domain beyond ASCII in its ASCII form (RFC 5890). Raises Permanent if it is none."""
    found = _MAILBOX.fullmatch(address)
    try:
        if found:
            return f"{found[1]}@{found[2] if found[2].isascii() else found[2].encode('idna').decode()}"
    except UnicodeError:
        pass
    raise Permanent(f"{address!r} is not an e-mail address")


def compose(sender: str, recipient: str, subject: str, body: str) -> EmailMessage:
    """The message with its headers, as plain text in UTF-8. Raises Permanent for what would break a header."""
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = sender
        message["To"] = recipient
        message["Subject"] = subject
    except ValueError as error:
        raise Permanent(f"a header cannot be made: {error}") from error
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2] or None)
    # RFC 3834: keeps out-of-office programs from answering.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body, cte="quoted-printable")
    return message


def send_slack(settings: Mapping[str, Any], url: str, subject: str, body: str) -> None:
    """Post one text to a webhook on `notify.slack_hosts`; no redirect is followed. Raises as `make_send` says."""
    try:
        host, port, path = parse_webhook(url, settings["notify.slack_hosts"])
    except ValueError as error:
        raise Permanent(str(error)) from error
    # Slack reads & < > as markup: `<!channel>` in the name of an experiment would call everybody.
    text = f"{subject}\n\n{body}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    connection = http.client.HTTPSConnection(host, port, timeout=settings["mail.timeout"], context=certificate.trusting())
    try:
        connection.request("POST", path, json.dumps({"text": text}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        status, said = answer.status, answer.read(200).decode("utf-8", "replace")
    finally:
        connection.close()
    if status >= 500:
        raise ConnectionError(f"{host} answered {status}")
    if status in (408, 429):
        raise Refused(f"{host} answered {status}")
    if not 200 <= status < 300:
        raise Permanent(f"{host} answered {status} {said!r}: is the webhook still valid?")


def _refusal(what: str, code: int, reason: bytes | str) -> Refused:
    """The exception for an SMTP reply (RFC 5321, 4.2.1): 5xx is for good, 4xx is for now."""
    said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return (Permanent if 500 <= code < 600 else Refused)(f"{what}: {code} {said}")
