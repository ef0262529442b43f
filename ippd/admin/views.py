"""What the panel's pages show: plain values for the templates, and the limits as people write them."""

import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from ippd.domain.limits import LIMITS

ON_A_PAGE = 50
STATUSES = {"": "All", "pending": "Waiting", "approved": "Approved", "denied": "Denied"}
LABELS = {
    "files_per_experiment": "Files per experiment",
    "file_bytes": "Size of one file",
    "user_bytes": "Storage per user",
    "waiting_experiments": "Waiting experiments",
    "kept_experiments": "Kept experiments",
    "running_experiments": "Running experiments",
    "running_together": "Running in the group",
}
UNITS = (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10))


def users_view(users: list[dict[str, Any]], groups: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """The values of users.html: one page of the users with the asked status that match the search."""
    status = query.get("status", "") if query.get("status") in STATUSES else ""
    search = query.get("q", "").strip()
    found = [user for user in users if status in ("", user["status"]) and _matches(user, search)]
    pages = max(1, -(-len(found) // ON_A_PAGE))
    number = min(pages, max(1, int(query["page"]))) if query.get("page", "").isdecimal() and len(query["page"]) < 9 else 1
    shown = {"status": status, "q": search}
    return {
        "users": [_user(user, groups) for user in found[(number - 1) * ON_A_PAGE : number * ON_A_PAGE]],
        "counts": {name: sum(name in ("", user["status"]) for user in users) for name in STATUSES},
        "statuses": [(name, label, _query(shown, status=name)) for name, label in STATUSES.items()],
        "status": status,
        "search": search,
        "query": _query(shown, page=str(number) if number > 1 else ""),
        "page": number,
        "pages": [(n, _query(shown, page=str(n))) for n in range(1, pages + 1)],
    }


def groups_view(groups: list[dict[str, Any]], users: Iterable[dict[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of groups.html."""
    emails = {user["id"]: user["email"] for user in users}
    return {
        "groups": [
            {
                "id": group["id"],
                "name": group["name"],
                "members": sorted(emails[user] for user in group["members"] if user in emails),
                "limits": [_limit(name, group["limits"], settings) for name in LIMITS],
            }
            for group in groups
        ]
    }


def shown_size(number: int) -> str:
    """A number of bytes in the largest unit that holds it without a rest: "50GB"; a limit may be written so."""
    return next((f"{number // unit}{name}" for name, unit in UNITS if number and number % unit == 0), str(number))


def _limit(name: str, own: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, str]:
    def shown(number: int) -> str:
        return shown_size(number) if name.endswith("_bytes") else str(number)

    value = shown(own[name]) if name in own else ""
    return {
        "name": name,
        "label": LABELS.get(name, name.replace("_", " ").capitalize()),
        "value": value,
        "default": shown(settings[f"limits.{name}"]),
    }


def _user(user: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    profile = user["settings"]
    person = " ".join(profile[name] for name in ("fname", "lname") if profile.get(name))
    return {
        "id": user["id"],
        "email": user["email"],
        "status": user["status"],
        "label": STATUSES[user["status"]],
        "signed_up": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(user["created_at"])),
        "summary": " · ".join(text for text in (person, profile.get("institution")) if text),
        # The path of a webhook is a password.
        "profile": [(name, "(hidden)" if name == "slack_webhook" else text) for name, text in profile.items() if text],
        "groups": [(group["id"], group["name"], group["name"] in user["groups"]) for group in groups],
    }


def _matches(user: dict[str, Any], search: str) -> bool:
    texts = (user["email"], *(text for name, text in user["settings"].items() if name != "slack_webhook"))
    return any(search.casefold() in text.casefold() for text in texts)


def _query(shown: Mapping[str, str], **other: str) -> str:
    pairs = {name: text for name, text in {**shown, **other}.items() if text}
    return f"?{urlencode(pairs)}" if pairs else ""
