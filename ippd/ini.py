"""Reads an INI file line by line, so that each value knows its line and all mistakes are told at once."""

import re
from dataclasses import dataclass, field

LONGEST = 1_000_000  # bytes; a settings file is a few KB, and somebody may name a disk image


@dataclass
class Ini:
    """What a file holds: values {"section.name": (text, line)} and problems [(line, sentence)]."""

    label: str
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def place(self, line: int) -> str:
        """Where a line is: `/etc/ippd/ippd.conf:12`."""
        return f"{self.label}:{line}"


def read(path: str) -> Ini:
    """Read the file. Raises OSError when it cannot be read and ValueError with a reason when it is no text."""
    with open(path, "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError("is larger than 1 MB, which is no settings file")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from None
    return parse(decoded, path)


def parse(content: str, label: str) -> Ini:
    """Take `[section]`, `name = value` and comment lines (# or ;) apart. There is no interpolation and no quoting."""
    ini = Ini(label)
    section: str | None = ""
    for number, raw in enumerate(content.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            match = re.fullmatch(r"\[\s*([^\[\]]+?)\s*\]", line)
            if not match:
                ini.problems.append((number, f"{line!r} is not a section; write [name] and nothing after it"))
            section = match[1] if match else None
        elif section is not None:  # below a bad section nothing can be said
            _value(ini, section, number, line)
    return ini


def _value(ini: Ini, section: str, number: int, line: str) -> None:
    # What a bad line says is not repeated: it may be the second half of a password.
    name, equals, text = (part.strip(" \t") for part in line.partition("="))
    if not equals or not name:
        ini.problems.append((number, "this line is neither [section] nor name = value"))
    elif not section:
        ini.problems.append((number, f"{name!r} stands in no section; put [section] above it"))
    elif f"{section}.{name}" in ini.values:
        first = ini.values[f"{section}.{name}"][1]
        ini.problems.append((number, f"{section}.{name}: is set twice, first in line {first}"))
    else:
        ini.values[f"{section}.{name}"] = (text, number)
