"""The texts of the notifications: one table of kinds, and how text that somebody else typed gets into them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Whom a kind is for: the administrator of the settings; a user by e-mail whatever they chose (their account depends on
# it); a user as they chose.
ADMINISTRATOR, ACCOUNT, OWNER = "administrator", "account", "owner"

LINE, TEXT = 200, 10000  # the longest one-line and many-line fact, in characters


class Template(NamedTuple):
    """A subject and a body with {facts}, and the audience."""

    subject: str
    body: str
    audience: str


TEMPLATES: dict[str, Template] = {
    "approve_account": Template(
        "New account waits for approval: {email}",
        "{email} has signed up and waits for your decision.\n\n{profile}\n\n"
        "Approve:  ippd user approve {id}\nDeny:     ippd user deny {id}\n"
        "or open /admin/users on the local listener of the server.",
        ADMINISTRATOR,
    ),
    "approved": Template(
        "Your account was approved",
        "Your account {email} was approved. You can log in now{at_portal}.",
        ACCOUNT,
    ),
    "denied": Template(
        "Your account was not approved",
        "Your account {email} was not approved, so you cannot log in. If you think that this is a mistake, please "
        "write to the people who run the portal.",
        ACCOUNT,
    ),
    "completed": Template(
        "Experiment {id} is completed: {name}",
        "Your experiment {id} ({name}) is completed. The results can be downloaded{from_portal}.",
        OWNER,
    ),
    "failed": Template(
        "Experiment {id} has failed: {name}",
        "Your experiment {id} ({name}) has failed.\n\nExit code: {exit_code}\n{message}\n\n"
        "Its inputs are kept; you find it in your list{at_portal}.",
        OWNER,
    ),
    "expiring": Template(
        "Files of experiment {id} expire in {days} days: {name}",
        "The files of your experiment {id} ({name}) will be deleted in {days} days. Please download what you "
        "want to keep{from_portal}. The experiment stays in your list.",
        OWNER,
    ),
    "password_reset": Template(
        "Reset of your password",
        "Somebody, probably you, asked to reset the password of {email}. {how_to_reset}\n\nThis works once, within "
        "{valid} of being asked for. If it was not you, do nothing: your password stays as it is.",
        ACCOUNT,
    ),
    "known_address": Template(
        "You already have an account",
        "Somebody, probably you, signed up with the address {email}, which already has an account. Nothing was "
        "changed. If you forgot your password, have it reset{at_portal}. If it was not you, you need not do anything.",
        ACCOUNT,
    ),
    "certificate_expiring": Template(
        "The certificate of the portal expires in {days} days",
        "The certificate {path} of the public listener expires in {days} days. Replace the files and send SIGHUP to "
        "the daemon: no connection is dropped.",
        ADMINISTRATOR,
    ),
    "backup_damaged": Template(
        "Damaged files in the backup: {count}",
        "The backup {path} was made, but files were missing or damaged before:\n\n{damage}\n\n"
        "The log has all of them. Older backups may still hold these files: none is removed as long as there is damage.",
        ADMINISTRATOR,
    ),
    "message": Template("Message about your work", "{message}", OWNER),
}

# Messages that carry a secret: never shown, blanked once they are sent, and of no use later.
SECRET_KINDS = ("password_reset",)

# Facts that may have several lines.
LONG_FACTS = ("message", "damage")

# Facts that may be left out. A profile never shows a webhook: it is a password.
OPTIONAL: dict[str, Any] = {"name": "", "exit_code": None, "message": None, "profile": {}}
HIDDEN = ("slack_webhook",)


def render(kind: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, str]:
    """The subject (one line) and the body of a notification.

    Facts are cleaned and clipped here, whoever gives them. Links are made from the setting `public.url` only. Raises
    KeyError when a fact is missing.
    """
    template = TEMPLATES[kind]
    texts = {name: _fact(name, value) for name, value in (OPTIONAL | dict(facts)).items()} | _links(settings, facts)
    return clean_line(template.subject.format_map(texts)), template.body.format_map(texts).strip() + "\n"


def clean_line(text: str, most: int = LINE) -> str:
    """`text` without line breaks, control characters and invisible marks, and at most `most` characters long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def clean_lines(text: str, most: int = TEXT) -> str:
    """`text` line by line without control characters, and at most `most` characters long."""
    clipped = text if len(text) <= most else text[: most - 1] + "…"
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in clipped.splitlines())


def duration(seconds: float) -> str:
    """A length of time for people: "1 hour", "90 minutes", "3 days"."""
    for unit, size in (("day", 86400), ("hour", 3600)):
        if seconds >= size and seconds % size == 0:
            return _count(int(seconds // size), unit)
    return _count(max(1, round(seconds / 60)), "minute")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _fact(name: str, value: Any) -> str:
    if value in (None, "", {}):
        return "-"
    if isinstance(value, Mapping):
        shown = [(str(key), str(text)) for key, text in value.items() if key not in HIDDEN][:20]
        return "\n".join(f"{clean_line(key, 40)}: {clean_line(text)}" for key, text in shown)
    return clean_lines(str(value)) if name in LONG_FACTS else clean_line(str(value))


def _links(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    url = str(settings["public.url"]).rstrip("/")
    links = {"at_portal": f" at {url}/" if url else "", "from_portal": f" from {url}/" if url else " from the portal"}
    if "code" in facts:
        code = clean_line(str(facts["code"]), TEXT)
        links["how_to_reset"] = (
            f"To choose a new one, open\n\n{url}/password/reset?token={code}"
            if url
            else f"To choose a new one, give this code where the portal asks for it:\n\n{code}"
        )
        links["valid"] = duration(settings["auth.reset_lifetime"])
    return links
