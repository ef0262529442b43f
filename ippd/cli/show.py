"""How commands print: tables for people, JSON for programs."""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ippd.logs import visible


def moment(seconds: float | None) -> str:
    """A time as text in UTC, as in 2026-11-22T04:44:00Z; empty for none."""
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print columns with their heads, as wide as they need to be."""
    lines = [list(heads)] + [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def as_json(value: Any) -> None:
    """Print JSON; other scripts are left as they are, but what a terminal would obey is an escape: json leaves most of it as it is."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))
