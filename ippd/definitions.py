"""App definitions: what a file of the apps folder says, checked and brought into one shape. Nothing here touches a disk."""

import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ippd import setting_types
from ippd.fields import WORD

KINDS = ("string", "integer", "float", "select", "attachment")
PUBLIC = {"appkey": "appKey", "label": "label", "description": "description", "fieldgroups": "fieldGroups"}
HIDDEN = ("validator", "starter")  # programs of the server: nobody outside needs their paths
# Keys as clients know them; a file may write them in any case.
GROUP_KEYS = ("label", "open", "fields")
FIELD_KEYS = ("type", "label", "help", "required", "min", "max", "choices", "def", *HIDDEN)
CATEGORY_KEYS = ("label", "description", "apps", "groups")
DEEPEST = 64  # levels of a file: what is read near the interpreter's own limit cannot be written into an answer
ENGINE_WORDS = {"gridengine": "sgejobresources", "slurm": "slurmjobresources"}
# time_specifier of sge_types(1): a number of seconds as C writes it, or hours:minutes:seconds, each of which may be left out.
SGE_TIME = re.compile(r"\b[hs]_rt=([^\s,]*)")
SGE_PARTS = re.compile(r"([0-9]{0,9}):([0-9]{0,9}):([0-9]{0,9})")
SGE_NUMBERS = {re.compile("0[xX][0-9a-fA-F]{1,8}"): 16, re.compile("0[0-7]{0,11}"): 8, re.compile("[1-9][0-9]{0,9}"): 10}
SGE_MEMORY = re.compile(r"(?:h_vmem|mem_free)=(\d+(?:\.\d+)?[KkMmGg]?)\b")


@dataclass(frozen=True)
class Field:
    """One field of a form. `least` and `most` bound a number, the length of a text, or the count of files."""

    name: str
    kind: str
    required: bool = False
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """How an app is run: its program, which field becomes which words, and what it may use (seconds, bytes, numbers)."""

    executable: str
    params: dict[str, str]
    binopts: dict[str, str]
    defaults: dict[str, str]
    files: tuple[str, ...]
    container: str
    resources: dict[str, tuple[str, ...]]
    time_limit: float | None
    memory: int | None
    cpus: int
    gpus: int
    outputs: tuple[str, ...]
    restarts: int | None


def parsed(data: bytes) -> Any:
    """The JSON of a file. Raises ValueError (RecursionError), also for what no answer could hold: NaN, Infinity, 1e999, endless nesting."""
    content = json.loads(data.decode("utf-8-sig"), parse_constant=_number, parse_float=_number)
    if _is_deeper(content, DEEPEST):
        raise ValueError(f"this has more than {DEEPEST} levels")
    return content


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON can hold")
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return not levels or any(_is_deeper(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))


def entries(name: str, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The definitions in the parsed JSON of the file `name`: (key, definition with its own keys in lower case).

    A file holds one definition (named by its appKey, else by the file) or a list of them. Raises ValueError.
    """
    if isinstance(content, list):
        for number, item in enumerate(content, 1):
            yield f"entry {number}", _lower(item)
    else:
        yield name.rpartition(".")[0], _lower(content)


def _lower(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"": item}  # told as an error of this entry, not of the whole file
    lower: dict[str, Any] = {}
    for key, value in item.items():
        if key.lower() in lower:
            return {"": f"the key {key} is there twice"}
        lower[key.lower()] = value
    return lower


def is_categories(content: Any) -> bool:
    """Whether the parsed JSON of a file holds categories: an object of objects, each with a list of apps."""
    if not isinstance(content, dict) or not content:
        return False
    return all(
        isinstance(value, dict) and any(key.lower() == "apps" and isinstance(apps, list) for key, apps in value.items())
        for value in content.values()
    )


def parse_category(category: Mapping[str, Any]) -> dict[str, Any]:
    """A category as it may be shown. Raises ValueError when its `groups` are no list of names: nobody could say who may see it."""
    category = _spelled(category, CATEGORY_KEYS)
    groups = category.get("groups", [])
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise ValueError("groups must be a list of texts")
    return category


def parse_form(entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Field]] | None:
    """The form half of an entry, as it may be shown and as fields; None when it has none. Raises ValueError with the reason."""
    groups = entry.get("fieldgroups")
    if groups is None:
        return None
    fields: dict[str, Field] = {}
    shown: dict[str, Any] = {}
    for group_name, group in _mapping(groups, "fieldGroups").items():
        group = _spelled(_mapping(group, f"the group {group_name}"), GROUP_KEYS, f"the group {group_name}: ")
        shown_fields = {}
        for name, raw in _mapping(group.get("fields"), f"fields of the group {group_name}").items():
            if name in fields:
                raise ValueError(f"the field {name} is there twice")
            raw = _spelled(_mapping(raw, f"the field {name}"), FIELD_KEYS, f"the field {name}: ")
            fields[name] = _field(name, raw)
            shown_fields[name] = {key: value for key, value in raw.items() if key not in HIDDEN}
        shown[group_name] = group | {"fields": shown_fields}
    form = {word: entry[key] for key, word in PUBLIC.items() if key in entry}
    for word in ("label", "description"):
        _text(form.get(word, ""), word)
    return form | {"fieldGroups": shown}, fields


def _field(name: str, raw: Mapping[str, Any]) -> Field:
    kind = raw.get("type")
    if kind not in KINDS:
        raise ValueError(f"the field {name} has the type {kind!r}: known are {', '.join(KINDS)}")
    bounds = []
    for word in ("min", "max"):
        bound = raw.get(word)
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            raise ValueError(f"the field {name}: {word} must be a number")
        bounds.append(bound)
    least, most = bounds
    if least is not None and most is not None and least > most:
        raise ValueError(f"the field {name}: min {least} is more than max {most}")
    choices = raw.get("choices", {})
    if kind == "select" and (not isinstance(choices, dict | list) or not choices):
        raise ValueError(f"the field {name} is a select without choices")
    required = raw.get("required", False)
    if not isinstance(required, bool):
        raise ValueError(f"the field {name}: required must be true or false")
    return Field(name, kind, required, least, most, tuple(str(choice) for choice in choices))


def parse_backend(entry: Mapping[str, Any]) -> Backend | None:
    """The backend half of an entry; None when it has none. Raises ValueError with the reason."""
    if "executable" not in entry:
        if any(key in entry for key in ("params", "binopts", "defaults")):
            raise ValueError("there is no Executable")
        return None
    executable = _text(entry["executable"], "Executable")
    if not executable:
        raise ValueError("Executable is empty")
    resources = {engine: _words(entry, key) for engine, key in ENGINE_WORDS.items()}
    sge = " ".join(resources["gridengine"])
    return Backend(
        executable=executable,
        params=_texts(entry, "params", "PARAMS"),
        binopts=_texts(entry, "binopts", "BINOPTS"),
        defaults=_texts(entry, "defaults", "DEFAULTS"),
        files=_list(entry, "files", "FILES"),
        container=_text(entry.get("container") or "", "Container"),
        resources=resources,
        time_limit=_quantity(entry, "timelimit", "TimeLimit", setting_types.some_seconds) or _sge_seconds(sge),
        memory=_quantity(entry, "memory", "Memory", setting_types.some_bytes) or _sge_bytes(sge),
        cpus=_quantity(entry, "cpus", "Cpus", setting_types.between(1, 4096)) or 1,
        gpus=_quantity(entry, "gpus", "Gpus", setting_types.between(0, 256)) or 0,
        outputs=_list(entry, "outputs", "Outputs"),
        restarts=_quantity(entry, "restarts", "Restarts", setting_types.between(0, 100)),
    )


def key_of(fallback: str, entry: Mapping[str, Any]) -> str:
    """The key of an entry. Raises ValueError for one that no submission could name."""
    if "" in entry:
        raise ValueError(entry[""] if isinstance(entry[""], str) else "this is not an object")
    key = entry.get("appkey", fallback)
    if not isinstance(key, str) or not WORD.fullmatch(key) or len(key) > 128:
        raise ValueError(f"{key!r} is not a key of an app: letters, digits, '_', '-' and '.'")
    return key


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return value


def _spelled(raw: Mapping[str, Any], known: tuple[str, ...], where: str = "") -> dict[str, Any]:
    """The same with its known keys spelled as clients know them; others stay as they are. Raises ValueError for one that is there twice."""
    spelled: dict[str, Any] = {}
    for key, value in raw.items():
        word = key.lower() if key.lower() in known else key
        if word in spelled:
            raise ValueError(f"{where}the key {key} is there twice")
        spelled[word] = value
    return spelled


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{what} must be a text")
    return value


def _texts(entry: Mapping[str, Any], key: str, what: str) -> dict[str, str]:
    found = _mapping(entry.get(key) or {}, what)
    for name, value in found.items():
        if isinstance(value, dict | list) or value is None or "\0" in str(value):
            raise ValueError(f"{what}: {name} must be a text")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in found.items()}


def _list(entry: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list of texts")
    return tuple(_text(item, what) for item in value)


def _words(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(_text(entry.get(key, ""), key)))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _quantity(entry: Mapping[str, Any], key: str, what: str, parse: Callable[[str], Any]) -> Any:
    value = entry.get(key)
    if value is None:
        return None
    try:
        return parse(str(value))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _sge_seconds(words: str) -> float | None:
    found = SGE_TIME.search(words)
    if found is None or found[1].upper() == "INFINITY":  # the word of complex(5) for none
        return None
    if parts := SGE_PARTS.fullmatch(found[1]):
        hours, minutes, seconds = (int(part or 0) for part in parts.groups())
        return 3600.0 * hours + 60 * minutes + seconds
    for pattern, base in SGE_NUMBERS.items():
        if pattern.fullmatch(found[1]):
            return float(int(found[1], base))
    raise ValueError(f"SGEJobResources: {found[0]} is no time: seconds, or hours:minutes:seconds, each of which may be left out")


def _sge_bytes(words: str) -> int | None:
    found = SGE_MEMORY.search(words)
    return setting_types.size(found[1].upper()) if found else None
