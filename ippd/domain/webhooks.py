"""Which Slack webhooks are accepted: https, and on a host that the settings name."""

import re
from collections.abc import Iterable

# Nothing may come before the host (user information), and the path has visible ASCII only, so that every reader sees
# the same host.
_WEBHOOK = re.compile(r"https://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(/[!-~]*)")


def parse_webhook(url: str, hosts: Iterable[str]) -> tuple[str, int, str]:
    """The host, port and path of a webhook URL.

    `hosts` are names (then only port 443) or `name:port`, as in `notify.slack_hosts`. Raises ValueError with a sentence
    that does not repeat the path, which is a secret.
    """
    found = _WEBHOOK.fullmatch(url)
    if not found:
        raise ValueError("a Slack webhook begins with https://, a host and a path")
    host, port, path = found[1].lower(), int(found[2] or 443), found[3]
    allowed = {name.lower() if ":" in name else f"{name.lower()}:443" for name in hosts}
    if f"{host}:{port}" not in allowed:
        raise ValueError(f"Slack webhooks on {host} are not allowed here (notify.slack_hosts)")
    return host, port, path
