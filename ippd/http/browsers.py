"""What browsers make necessary: which pages may read an answer (CORS), which may cause a change (CSRF), what an answer forbids."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ippd.errors import Forbidden, Misdirected

if TYPE_CHECKING:
    from ippd.http.request import Request

DAY = 86400  # seconds
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.ASCII)
SAFE = ("GET", "HEAD", "OPTIONS")
COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, If-Range, Range",
    "Access-Control-Max-Age": "600",
}
EXPOSED = "Content-Disposition, Content-Range, ETag, Retry-After, X-Request-Id"


def check_host(request: "Request") -> None:
    """Raise Misdirected unless Host is a loopback name: another name means that DNS was turned round to get here."""
    match = HOST.fullmatch((request.header("Host") or "").strip())
    name = match[1].strip("[]").lower().removesuffix(".") if match else ""
    if name == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(name).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Misdirected("the local listener answers to localhost and loopback addresses only")


def check_same_site(request: "Request", changes: bool) -> None:
    """Raise Forbidden when a page of another site makes a browser change something here."""
    if changes and from_another_site(request):
        raise Forbidden("a page of another site may not do this")


def from_another_site(request: "Request") -> bool:
    """Whether a page of another site is behind a request.

    Browsers tell by Sec-Fetch-Site, older ones by Origin or Referer; programs send none of them.
    """
    fetched = request.header("Sec-Fetch-Site")
    if fetched is not None and fetched.strip().lower() not in ("same-origin", "none"):
        return True
    source = request.header("Origin") or request.header("Referer")
    return source is not None and _place(source) != (request.header("Host") or "").strip().lower()


def _place(url: str) -> str:
    try:
        return urlsplit(url.strip()).netloc.lower()
    except ValueError:
        return ""


def cors(settings: Mapping[str, Any], origin: str | None) -> dict[str, str]:
    """The headers that let pages of the origins in public.origins read an answer; `origin` is the request's header.

    Credentials are never allowed: there are no cookies.
    """
    origins = settings["public.origins"]
    if "*" in origins:
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
    if origin is None or origin not in origins:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED, "Vary": "Origin"}


def transport_security(settings: Mapping[str, Any]) -> dict[str, str]:
    """Strict-Transport-Security (RFC 6797) when public.url is at the usual port 443.

    It holds for every port of a host: beside another port it could lock browsers out of an unrelated plain site on that host.
    """
    url = urlsplit(settings["public.url"] or "")
    return {"Strict-Transport-Security": "max-age=31536000"} if url.scheme == "https" and url.port in (None, 443) else {}


def csrf_token(request: "Request", days_ago: int = 0) -> str:
    """What a form of a page must carry in its field `csrf`: bound to the caller's account and to the day."""
    day = int(request.core.clock() // DAY) - days_ago
    message = f"csrf {request.peer_uid} {day}".encode()  # holds no dot: it can never be what is signed in a session token
    return hmac.new(request.core.secret.encode(), message, hashlib.sha256).hexdigest()


def check_csrf(request: "Request") -> None:
    """Raise Forbidden unless the form carries the token of today or of yesterday."""
    sent = request.form.get("csrf", "").encode("utf-8", "replace")
    if not any(hmac.compare_digest(sent, csrf_token(request, days_ago).encode()) for days_ago in (0, 1)):
        raise Forbidden("this form is too old: please load the page again")
