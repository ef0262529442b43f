"""The settings that hold, from the file, the environment and the command line; mistakes are told with their place."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ippd import ini
from ippd.errors import SettingsError
from ippd.setting_table import BY_NAME, SETTINGS, Setting, sample

__all__ = ["BY_NAME", "DEFAULT_FILE", "SETTINGS", "Setting", "Settings", "load", "sample", "warnings"]
DEFAULT_FILE = "/etc/ippd/ippd.conf"


@dataclass(frozen=True)
class Given:
    """A text for a setting, with the place where it was given; its value comes with the type."""

    text: str
    source: str
    value: Any


class Settings(Mapping[str, Any]):
    """The settings that hold: `settings["public.listen"]` is the typed value. Only `take` changes them."""

    def __init__(self, given: Mapping[str, Given], file: str = "") -> None:
        """Takes all settings by name, and the path of the file they came from (empty: none)."""
        self._given = dict(given)
        self.file = file

    def __getitem__(self, name: str) -> Any:
        return self._given[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def source(self, name: str) -> str:
        """Where the value came from: `default`, `/etc/ippd/ippd.conf:12`, `IPPD_PUBLIC_LISTEN` or `--set`."""
        return self._given[name].source

    def text(self, name: str) -> str:
        """The value as somebody wrote it; those of secrets too: for other programs, never to be shown."""
        return self._given[name].text

    def shown(self, name: str) -> str:
        """The value as somebody wrote it; that of a secret is `(hidden)`."""
        written = self._given[name].text
        return "(hidden)" if BY_NAME[name].secret and written else written

    def take(self, new: "Settings") -> tuple[list[str], list[str]]:
        """Take over the live settings of `new`. Returns (names that changed, names that wait for a restart)."""
        changed = [name for name in self if self[name] != new[name]]
        live = [name for name in changed if BY_NAME[name].live]
        kept = {name: given for name, given in self._given.items() if not BY_NAME[name].live}
        self._given = new._given | kept  # one assignment: other threads see all of it or nothing
        return live, [name for name in changed if name not in live]


def warnings(settings: Settings) -> list[str]:
    """Sentences about what works but should not stay: secrets that every account can read, in the file or in the list of processes."""
    given = [row for row in SETTINGS if row.secret and settings[row.name]]
    shown = [
        f"{row.name} was given with --set, and every account can read command lines; use the file or {row.variable}"
        for row in given
        if settings.source(row.name) == "--set"
    ]
    return shown + _of_file(settings, [row.name for row in given if ":" in settings.source(row.name)])


def _of_file(settings: Settings, secrets: list[str]) -> list[str]:
    try:
        open_to_all = bool(settings.file) and os.stat(settings.file).st_mode & stat.S_IROTH
    except OSError:
        return []  # it was read a moment ago and has gone; there is nothing left to protect
    if not secrets or not open_to_all:
        return []
    return [f"{settings.file} holds {' and '.join(secrets)} and every account can read it; use chmod o-r"]


def load(path: str | None = None, environ: Mapping[str, str] = os.environ, overrides: Iterable[str] = ()) -> Settings:
    """Read all settings: defaults, then the file, old variables, IPPD_* variables and overrides, the last one counts.

    Takes the file (None: IPPD_CONFIG, else /etc/ippd/ippd.conf if there is one; empty: none), the environment and
    `name=value` texts. Raises SettingsError with every problem found, each with its place.
    """
    problems: list[str] = []
    file, texts = _from_file(environ.get("IPPD_CONFIG") if path is None else path, problems)
    texts += _from_environment(environ, problems)
    texts += _from_overrides(overrides, problems)
    given = {row.name: Given(row.default, "default", row.type(row.default)) for row in SETTINGS}
    for row, written, source in texts:
        try:
            given[row.name] = Given(written, source, row.type(written))
        except ValueError as error:
            reason = str(error).replace(repr(written), "the value") if row.secret else str(error)
            if " #" in written or " ;" in written:
                reason += " (a comment needs its own line)"
            problems.append(f"{source}: {row.name}: {reason}")
    if not given["data.uploads"].value:
        uploads = os.path.join(given["data.directory"].value, "uploads")
        given["data.uploads"] = replace(given["data.uploads"], text=uploads, value=uploads)
    settings = Settings(given, file)
    problems += _together(settings)
    if problems:
        raise SettingsError(problems)
    return settings


Texts = list[tuple[Setting, str, str]]  # (row, text, source)


def _from_file(path: str | None, problems: list[str]) -> tuple[str, Texts]:
    file = DEFAULT_FILE if path is None else path
    if not file:
        return "", []
    try:
        found = ini.read(file)
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError):
            return "", []
        problems.append(f"{file}: cannot be read: {error.strerror}")
        return file, []
    except ValueError as error:
        problems.append(f"{file}: {error}")
        return file, []
    texts: Texts = []
    for name, (written, line) in found.values.items():
        if name in BY_NAME:
            texts.append((BY_NAME[name], written, found.place(line)))
        else:
            found.problems.append((line, f"{name}: there is no such setting{_near(name, BY_NAME)}"))
    problems += [f"{found.place(line)}: {sentence}" for line, sentence in sorted(found.problems)]
    return os.path.abspath(file), texts


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Texts:
    variables = {row.variable: row for row in SETTINGS}
    # Other programs have variables of their own that begin with IPPD_, and a job has IPPD_JOB from us: only what could be a setting counts.
    sections = tuple({f"IPPD_{row.name.partition('.')[0].upper()}_" for row in SETTINGS})
    for name in sorted(environ):
        if name.startswith(sections) and name not in variables:
            problems.append(f"{name}: there is no such setting{_near(name, variables)}")
    old = [(row, environ[row.env], row.env) for row in SETTINGS if row.env and environ.get(row.env)]
    return old + [(row, environ[name], name) for name, row in variables.items() if name in environ]


def _from_overrides(overrides: Iterable[str], problems: list[str]) -> Texts:
    texts: Texts = []
    for override in overrides:
        name, equals, written = (part.strip() for part in override.partition("="))
        if not equals:
            problems.append(f"--set: {override!r} is not name=value")
        elif name not in BY_NAME:
            problems.append(f"--set: {name}: there is no such setting{_near(name, BY_NAME)}")
        else:
            texts.append((BY_NAME[name], written, "--set"))
    return texts


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), 1, 0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _together(settings: Settings) -> list[str]:
    """What is wrong although each value alone is right."""
    problems = []
    for one, other in (("public.certificate", "public.key"), ("public.key", "public.certificate")):
        if settings[one] and not settings[other]:
            problems.append(f"{settings.source(one)}: {one}: needs {other} as well")
    if not (settings["public.listen"] or settings["local.listen"] or settings["local.socket"]):
        problems.append(f"{settings.source('public.listen')}: public.listen: there is no address at all to listen on")
    return problems
