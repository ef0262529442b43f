"""A family: one dialect of HTTP over the core, as a table of routes with one way in and one way to tell errors."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ippd.errors import IppdError
    from ippd.http.answers import Answer
    from ippd.http.request import Request
    from ippd.permissions import Actor

PLACE = re.compile(r"\{([a-z_]+)\}")
WHOLE_NUMBER = "[0-9]{1,18}"  # 18 digits always fit the 64 bits of a database's integer


@dataclass(frozen=True)
class Route:
    """One method and path. `local`: exists on the local listener only. `changes`: answering it changes something (so no HEAD).

    `options` are for the family itself: what `render_error` has to know about the route.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    local: bool = False
    changes: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The path as a regular expression: `{id}` is a whole number, any other `{name}` is a text without a slash."""
        return "".join(
            re.escape(text) if even else f"(?P<{text}>{pattern(text)})"
            for text, even in zip(PLACE.split(self.path), _alternate(), strict=False)
        )


class Family:
    """A dialect: its name, where its paths begin, who asks (`authenticate(request) -> Actor`) and how it tells an error.

    `prefixes` are path beginnings without a slash at the end; every route exists below each. `render_error(request, error) -> Answer`.
    """

    def __init__(
        self,
        name: str,
        prefixes: str | Iterable[str],
        authenticate: Callable[["Request"], "Actor"],
        render_error: Callable[["Request", "IppdError"], "Answer"],
    ) -> None:
        self.name = name
        self.prefixes = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
        self.authenticate = authenticate
        self.render_error = render_error
        self.routes: list[Route] = []

    def get(self, path: str, local: bool = False, changes: bool = False, **options: Any) -> Callable[..., Any]:
        """Mark a handler `h(request, **places)` as the answer to GET (and HEAD, unless it `changes` something)."""
        return self._route("GET", path, local, changes, options)

    def post(self, path: str, local: bool = False, **options: Any) -> Callable[..., Any]:
        """Mark a handler as the answer to POST."""
        return self._route("POST", path, local, True, options)

    def delete(self, path: str, local: bool = False, **options: Any) -> Callable[..., Any]:
        """Mark a handler as the answer to DELETE."""
        return self._route("DELETE", path, local, True, options)

    def _route(self, method: str, path: str, local: bool, changes: bool, options: Mapping[str, Any]) -> Callable[..., Any]:
        def mark(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.routes.append(Route(method, path, handler, local, changes, options))
            return handler

        return mark


def pattern(name: str) -> str:
    """What a place of this name in a path may hold, as a regular expression."""
    return WHOLE_NUMBER if name == "id" else "[^/]+"


def value(name: str, text: str) -> int | str:
    """What a handler gets for a place of this name."""
    return int(text) if name == "id" else text


def check_conflicts(families: Iterable[Family]) -> None:
    """Raise ValueError when two routes have the same method and path: the second one would never be reached."""
    seen: dict[tuple[str, str], str] = {}
    for family in families:
        for prefix in family.prefixes:
            for route in family.routes:
                key = (route.method, prefix + PLACE.sub("{}", route.path))
                if key in seen:
                    raise ValueError(f"{route.method} {prefix}{route.path} is in the families {seen[key]} and {family.name}")
                seen[key] = family.name


def _alternate() -> Iterable[bool]:
    while True:
        yield True
        yield False
