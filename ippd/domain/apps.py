"""Apps: the folder of definitions, read again when it changes, and what it means for a submission."""

import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ippd.definitions import Backend, Field, entries, is_categories, key_of, parse_backend, parse_category, parse_form, parsed
from ippd.errors import Invalid, NotFound
from ippd.permissions import Actor, permits
from ippd.store import Row, Rows
from ippd.validation import FACTS, wrong_at_end, wrong_so_far

if TYPE_CHECKING:
    from ippd.core import Core

LARGEST = 16 << 20  # bytes of one file: more is no definition


class Problem(NamedTuple):
    """A file (or an entry of one) that was left out, and why."""

    file: str
    reason: str


@dataclass
class App:
    """One app: its form half (as shown, and as fields) and its backend half; each may be missing."""

    key: str
    form: dict[str, Any] | None = None
    fields: dict[str, Field] | None = None
    backend: Backend | None = None
    files: list[str] = field(default_factory=list)


@dataclass
class Folder:
    """What one reading of the folder found."""

    apps: dict[str, App] = field(default_factory=dict)
    categories: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read(self, folder: str) -> None:
        """Read all *.json of the folder, in the order of their names; what is bad is told and left out."""
        try:
            names = sorted(name for name in os.listdir(folder) if _is_definition(name))
        except OSError as error:
            self.problems.append(Problem(folder, error.strerror or str(error)))
            return
        for name in names:
            try:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or os.fstat(file.fileno()).st_size > LARGEST:
                        raise ValueError("this is no file, or far too large")
                    self._take(folder, name, parsed(file.read()))
            except (OSError, ValueError, RecursionError) as error:
                self.problems.append(Problem(name, getattr(error, "strerror", None) or str(error)))

    def _take(self, folder: str, name: str, content: Any) -> None:
        if is_categories(content):
            for key, category in content.items():
                try:
                    self.categories[key] = parse_category(category)
                except ValueError as error:
                    self.problems.append(Problem(f"{name}: {key}", str(error)))
            return
        for place, entry in entries(name, content):
            try:
                self._add(folder, name, key_of(place, entry), entry)
            except ValueError as error:
                where = name if isinstance(content, dict) else f"{name}: {entry.get('appkey', place)}"
                self.problems.append(Problem(where, str(error)))

    def _add(self, folder: str, name: str, key: str, entry: Mapping[str, Any]) -> None:
        form, backend = parse_form(entry), parse_backend(entry)
        if form is None and backend is None:
            raise ValueError("there are neither fieldGroups nor an Executable")
        known = self.apps.get(key)
        for half, there in (("form", form and known and known.form), ("backend", backend and known and known.backend)):
            if there and known:
                raise ValueError(f"the {half} of {key} is in {known.files[-1]} already")
        app = self.apps.setdefault(key, App(key))
        app.files.append(name)
        if form is not None:
            app.form, app.fields = {"appKey": key} | form[0], form[1]
        if backend is not None:
            program = os.path.normpath(os.path.join(folder, backend.executable))
            app.backend = Backend(**{**backend.__dict__, "executable": program})


class Apps:
    """The apps of `apps.directory`. Without one, every app is accepted as it comes: a site with only scripts."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._lock = threading.Lock()
        self._seen: Any = None
        self._folder = Folder()

    def now(self) -> Folder:
        """The folder as it is now: one look at names and times per call, and a new reading only when they have changed."""
        path = self._core.settings["apps.directory"]
        look = (path, _look(path)) if path else None
        if look != self._seen:
            with self._lock:
                if look != self._seen:
                    fresh = Folder()
                    if path:
                        fresh.read(path)
                    self._folder, self._seen = fresh, look
        return self._folder

    def find(self, key: str) -> App | None:
        """The app of this key, or None when any app is accepted. Raises Invalid for an app that is not accepted here."""
        app = self.now().apps.get(key)
        if app is None and self._core.settings["apps.directory"] and not self._core.settings["apps.allow_unknown"]:
            raise Invalid(fields={"app": [f"there is no app {key[:128]!r} here"]})
        return app

    @permits("app.read")
    def list(self, actor: Actor) -> Rows:
        """The form halves of all apps that have one, by key: dicts of appKey, label, description, fieldGroups."""
        return [app.form for _, app in sorted(self.now().apps.items()) if app.form is not None]

    @permits("app.read")
    def get(self, actor: Actor, key: str) -> Row:
        """The form half of one app. Raises NotFound."""
        app = self.now().apps.get(key)
        if app is None or app.form is None:
            raise NotFound("there is no app of this key with a form")
        return app.form

    @permits("app.read")
    def categories(self, actor: Actor) -> Row:
        """The categories as their files have them; one with `groups` only for members of one of these."""
        own = set(self._core.groups.names_of(actor.user)) if actor.user is not None else set()
        every = actor.scope("group.list") is not None
        found = self.now().categories.items()
        return {key: category for key, category in found if every or not category.get("groups") or own & set(category["groups"])}

    def runnable(self) -> dict[str, Backend]:
        """The backend halves, by key."""
        return {key: app.backend for key, app in self.now().apps.items() if app.backend is not None}

    def check(self, facts: Mapping[str, str], params: Mapping[str, str], counts: Mapping[str, int], whole: bool) -> None:
        """Hold a submission against its app: `counts` are files per field; before it is `whole`, only what is wrong already.

        Raises Invalid with a sentence per field.
        """
        # No word of a command can hold one; whatever has no form would be cut there, or lose it.
        wrong = {name: ["this may not hold a NUL character"] for name, text in params.items() if "\0" in text}
        app = self.find(facts["app"]) if "app" in facts else None
        if app is not None and app.fields is not None:
            texts = dict(params) | {word: facts[name] for word, name in FACTS.items() if word in app.fields and name in facts}
            wrong |= (wrong_at_end if whole else wrong_so_far)(app.fields, texts, counts)
        elif app is not None and app.backend is not None:
            needed = set(app.backend.files)
            wrong |= {name: ["this must be a file"] for name in needed & set(params) if params[name]}
        if wrong:
            raise Invalid(fields=wrong)


def as_json(backend: Backend) -> dict[str, Any]:
    """A backend half as a worker gets it."""
    return asdict(backend)


def _look(path: str) -> Any:
    try:
        with os.scandir(path) as found:
            return sorted((entry.name, *_facts(entry)) for entry in found if _is_definition(entry.name))
    except OSError as error:
        return error.errno


def _facts(entry: os.DirEntry[str]) -> tuple[int, ...]:
    """What changes with a file. One that cannot be looked at (a dangling link) keeps nobody from seeing changes of the others."""
    try:
        status = entry.stat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_definition(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")
