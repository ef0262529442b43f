"""What a handler gets: one request, read straight from the WSGI environment and never from headers that a proxy could have forged."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qsl

from ippd.domain.submission import Part
from ippd.errors import Invalid
from ippd.http.bodies import Body, Limits, json_object, parts_of

if TYPE_CHECKING:
    from ippd.core import Core
    from ippd.http.family import Family, Route
    from ippd.permissions import Actor

QUERY_FIELDS = 100
BODYLESS = ("GET", "HEAD", "OPTIONS", "DELETE")
Value = TypeVar("Value")


class once(Generic[Value]):
    """A property that is computed when it is first read, then kept.

    Not functools.cached_property: until Python 3.12 that holds one lock for all objects of a class while it computes, so one client
    whose form came slowly kept everybody else waiting for theirs.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, request: Any, owner: type) -> Value:
        value = request.__dict__[self._compute.__name__] = self._compute(request)
        return value


class Request:
    """One request. What costs something (query, body, actor) is read when it is first asked for."""

    def __init__(self, environ: dict[str, Any], core: "Core", settings: Mapping[str, Any], family: "Family", route: "Route | None") -> None:
        self.environ = environ
        self.core = core
        self.settings = settings
        self.family = family
        self.route = route
        self.method: str = environ["REQUEST_METHOD"].upper()
        self.path: str = environ["PATH_INFO"]
        self.local_role = ""  # what a caller of the local listener is without a token: "local" or "worker"
        self._held: deque[Part] = deque()

    @once
    def actor(self) -> "Actor":
        """Who asks, as the family tells. Raises Unauthorized."""
        return self.family.authenticate(self)

    @property
    def listener(self) -> str:
        """ "public" or "local"."""
        return self.environ["ippd.listener"]

    @property
    def address(self) -> str | None:
        """The network address of the other end of the connection, or None (a Unix socket)."""
        return self.environ.get("REMOTE_ADDR") or None

    @property
    def peer_uid(self) -> int | None:
        """The account at the other end of a connection to the local listener, or None when that is not known."""
        return self.environ.get("ippd.peer_uid")

    @property
    def id(self) -> str:
        """The request's id, as in the logs."""
        return self.environ.get("ippd.request_id", "")

    @property
    def length(self) -> int | None:
        """The announced bytes of the body, or None: there is none, or it comes in chunks."""
        text = self.environ.get("CONTENT_LENGTH") or ""
        return int(text) if text.isascii() and text.isdecimal() else None

    def header(self, name: str) -> str | None:
        """A header's value, or None."""
        key = name.upper().replace("-", "_")
        return self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")

    @once
    def query(self) -> dict[str, str]:
        """The query's fields, the first value of each. Raises Invalid when there are too many."""
        text = self.environ.get("QUERY_STRING", "")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=QUERY_FIELDS) if text else []
        except ValueError:
            raise Invalid(f"a query may have at most {QUERY_FIELDS} fields") from None
        return dict(reversed(pairs))

    @property
    def bearer(self) -> str | None:
        """The token of an `Authorization: Bearer` header (RFC 6750), or None."""
        scheme, _, token = (self.header("Authorization") or "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    @property
    def json_asked(self) -> bool:
        """Whether the caller speaks as programs do: with a JSON body or a Bearer token."""
        return (self.header("Content-Type") or "").partition(";")[0].strip().lower() == "application/json" or self.bearer is not None

    @once
    def json(self) -> dict[str, Any]:
        """The JSON object in the body; for families whose documents are more than flat fields. Raises Invalid."""
        return json_object(self._body, Limits(self.settings))

    @once
    def forms(self) -> dict[str, list[str]]:
        """All text fields with all their values. Raises Invalid when there is a file among them, TooLarge past limits.form_bytes."""
        fields: dict[str, list[str]] = {}
        for part in self.parts():
            if part.kind == "file":
                raise Invalid(f"this form takes no file (field '{part.name[:100]}')")
            fields.setdefault(part.name, []).append(str(part.value))
        return fields

    @once
    def form(self) -> dict[str, str]:
        """The text fields, the first value of each (see `forms`)."""
        return {name: values[0] for name, values in self.forms.items()}

    def parts(self) -> Iterator[Part]:
        """The parts of the form in the order sent, once, while they arrive; a file must be read before the next part is asked for."""
        while self._held:
            yield self._held.popleft()
        yield from self._incoming

    def early_field(self, name: str) -> str | None:
        """The text field of this name if it comes before the first file; what follows has then not been read yet."""
        if "forms" in self.__dict__:
            return self.form.get(name)
        held = next((part for part in self._held if part.name == name), None)
        while held is None and not (self._held and self._held[-1].kind == "file"):
            part = next(self._incoming, None)
            if part is None:
                return None
            self._held.append(part)
            held = part if part.name == name else None
        return held.value if held is not None and isinstance(held.value, str) else None

    def slow(self) -> contextlib.AbstractContextManager[Any]:
        """While inside, this request waits for something: others get a thread in its place."""
        return self._slow()

    def hashing(self) -> contextlib.AbstractContextManager[Any]:
        """The same for the time of a password hash. Its form has been read before: who sends one slowly takes no place of these."""
        return self._slow("log-ins")

    def following(self, who: str, most: int) -> None:
        """What this request answers comes over a long time: `who` may have at most so many of these at once, beside transfers."""
        self._slow("followers of logs", who, most)

    def _slow(self, *kind: Any) -> contextlib.AbstractContextManager[Any]:
        slow = self.environ.get("ippd.slow")
        return slow(*kind) if slow else contextlib.nullcontext()

    @once
    def _incoming(self) -> Iterator[Part]:
        if self.method in BODYLESS:
            return iter(())
        return parts_of(self._body, self.header("Content-Type") or "", Limits(self.settings))

    @once
    def _body(self) -> Body:
        return Body(self.environ["wsgi.input"], self.length)
