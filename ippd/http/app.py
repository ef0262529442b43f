"""One listener's WSGI application: the routes of all families, the checks before them and the one place where errors end.

Of bottle it takes the router only: its requests believe proxies, its answers are HTML when something goes wrong.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any

import bottle

from ippd.errors import IppdError, MethodNotAllowed, NotFound
from ippd.http import browsers
from ippd.http.access import Access
from ippd.http.answers import Answer, json_answer
from ippd.http.family import PLACE, Family, Route, check_conflicts, pattern, value
from ippd.http.health import make_health
from ippd.http.request import Request
from ippd.http.static import Frontend

if TYPE_CHECKING:
    from ippd.core import Core

log = logging.getLogger("ippd.http")
BODYLESS = (204, 304)


class Application:
    """A WSGI callable. "public" knows no local route; "local" knows all of them and looks at who is calling."""

    def __init__(self, families: Iterable[Family], core: "Core | None", settings: Mapping[str, Any], listener: str) -> None:
        """`core` may also be set later, before the first request. Raises ValueError when two families have a route of the same method
        and path."""
        self._families = [*families, make_health()]
        self.core, self._settings, self._local = core, settings, listener == "local"
        check_conflicts(self._families)
        self._router = bottle.Router()
        self._prefixes: list[tuple[str, Family]] = []
        self._local_paths: list[re.Pattern[str]] = []
        for family in self._families:
            self._add(family)
        self._prefixes.sort(key=lambda pair: -len(pair[0]))
        self.reload()

    def reload(self) -> None:
        """Take over settings that have changed, and look local accounts up again."""
        self._access = Access(self._settings["local.allow"], self._settings["local.workers"])
        folder = self._settings["public.frontend"]
        self._frontend = Frontend(folder) if folder and not self._local else None
        self._common = browsers.COMMON | (browsers.transport_security(self._settings) if not self._local else {})

    def _add(self, family: Family) -> None:
        for prefix in family.prefixes:
            for route in family.routes:
                if route.local and not self._local:
                    if route.path != "/":  # there the frontend begins
                        self._local_paths.append(re.compile(re.escape(prefix) + route.rule))
                    continue
                rule = prefix + PLACE.sub(lambda place: f"<{place[1]}:re:{pattern(place[1])}>", route.path)
                self._router.add(rule, route.method, (family, route))
            if self._local or not all(route.local for route in family.routes):
                self._prefixes.append((prefix, family))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """See PEP 3333, with the keys that ippd.server adds."""
        path, handle, family, route = self._find(environ)
        environ["PATH_INFO"] = path
        assert self.core is not None
        request = Request(environ, self.core, self._settings, family, route)
        answer = self._answer(request, handle)
        headers = self._common | (browsers.cors(self._settings, request.header("Origin")) if self._readable(request) else {})
        headers |= answer.headers
        if request.method == "HEAD" or answer.status in BODYLESS:
            answer.close()
            answer.body = b""
        if answer.status in BODYLESS:
            headers.pop("Content-Length", None)
        start_response(f"{answer.status} {responses[answer.status]}", list(headers.items()))
        return [answer.body] if isinstance(answer.body, bytes) else answer.body

    def _find(self, environ: dict[str, Any]) -> tuple[str, Callable[[Request], Any], Family, Route | None]:
        """The path in its own script, what answers it, and whose it is."""
        try:
            path = environ["PATH_INFO"].encode("latin1").decode()
        except UnicodeError:
            path = ""
        if not path or "\n" in path:  # a pattern's end also matches before a last line feed
            return path, _nothing, self._families[0], None
        try:
            (family, route), places = self._router.match({"REQUEST_METHOD": environ["REQUEST_METHOD"], "PATH_INFO": path})
        except bottle.HTTPError as failure:
            family = next(f for prefix, f in self._prefixes if path.startswith(prefix + "/") or not prefix)
            allowed = [method for method in (failure.get_header("Allow") or "").split(",") if method]
            return path, (lambda request: self._other(request, allowed)) if allowed else self._page, family, None
        typed = {name: value(name, text) for name, text in places.items()}
        return path, lambda request: route.handler(request, **typed), family, route

    def _answer(self, request: Request, handle: Callable[[Request], Any]) -> Answer:
        """Check who asks, run, and turn whatever goes wrong into the family's error."""
        try:
            changes = request.route.changes if request.route else request.method not in browsers.SAFE
            if self._local:
                self._check_caller(request, changes)
            if request.method == "HEAD" and changes:
                raise MethodNotAllowed(allowed=["GET", "OPTIONS"])
            result = handle(request)
            return result if isinstance(result, Answer) else json_answer(result)
        except IppdError as error:
            if error.status >= 500:
                log.warning("request %s: %s %r: %s", request.id, request.method, request.path, error, exc_info=error.__cause__)
            return self._error(request, error)
        except Exception:
            log.exception("request %s: %s %r failed", request.id, request.method, request.path)
            return self._error(request, IppdError())

    def _check_caller(self, request: Request, changes: bool) -> None:
        browsers.check_host(request)
        if request.family.name != "health":
            request.local_role = self._access.role(request.peer_uid)
        browsers.check_same_site(request, changes)

    def _error(self, request: Request, error: IppdError) -> Answer:
        """The family's words for an error, with the headers that its status asks for."""
        try:
            answer = request.family.render_error(request, error)
        except Exception:
            log.exception("request %s: the family %s cannot tell its errors", request.id, request.family.name)
            answer = json_answer({"error": str(error)}, error.status)
        retry_after = getattr(error, "retry_after", None)
        for name, text in (
            ("Allow", ", ".join(getattr(error, "allowed", ()))),
            ("Retry-After", str(max(1, round(retry_after))) if retry_after is not None else ""),
            ("Content-Range", f"bytes */{getattr(error, 'length', None)}" if error.status == 416 else ""),
            ("WWW-Authenticate", "Bearer" if answer.status == 401 else ""),
        ):
            if text:
                answer.headers.setdefault(name, text)
        return answer

    def _other(self, request: Request, methods: Iterable[str]) -> Answer:
        """A path that is there, for other methods: OPTIONS tells them and runs nothing."""
        allowed = sorted({*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))
        if request.method != "OPTIONS":
            raise MethodNotAllowed(allowed=allowed)
        preflight = browsers.PREFLIGHT | {"Access-Control-Allow-Methods": ", ".join(allowed)} if self._readable(request) else {}
        return Answer(204, {"Allow": ", ".join(allowed)} | preflight)

    def _page(self, request: Request) -> Answer:
        """A file of the frontend for a path that is nobody else's."""
        mine = request.method in ("GET", "HEAD") and not request.path.startswith("/api/")
        if self._frontend and mine and not any(path.fullmatch(request.path) for path in self._local_paths):
            answer = self._frontend.answer(request)
            if answer:
                return answer
        return _nothing(request)

    def _readable(self, request: Request) -> bool:
        """Whether pages of other origins may read the answer: on the local listener only those of public routes."""
        return not self._local or (request.route is not None and not request.route.local)


def make_app(families: Iterable[Family], core: "Core | None", settings: Mapping[str, Any], listener: str) -> Application:
    """The application of one listener, "public" or "local"; `core` may be set later. Raises ValueError for routes that are there twice."""
    return Application(families, core, settings, listener)


def _nothing(request: Request) -> Answer:
    raise NotFound("there is no such path here")
