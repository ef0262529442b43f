"""The tables of the portal's old server, as they are found: read only, and with whatever is missing or odd in them."""

import sqlite3
import uuid
from calendar import timegm
from contextlib import suppress
from pathlib import Path
from time import strptime
from typing import Any

from ippd.errors import Invalid
from ippd.store import Rows

COLUMNS: dict[str, tuple[str, ...]] = {
    "users": ("id", "email", "password", "token_created", "approved"), "user_settings": ("uid", "name", "value"),
    "groups": ("id", "name"), "user_groups": ("uid", "gid"), "limits": ("id", "gid", "name", "value"),
    "experiments": ("id", "uid", "label", "host", "status", "created"), "experiment_settings": ("eid", "name", "value"),
}
NAMESPACE = uuid.UUID("6f0c6a52-3f0e-5d0b-9a51-0d3f5b1f7c11")
LARGEST_ID = 10**15  # larger ones are not kept: after the largest of all, no table could give out another


class Tables:
    """The old tables, read row by row; a table or column that is missing is reported once and is empty."""

    def __init__(self, old: sqlite3.Connection, problems: list[str]) -> None:
        self._old = old
        self._select: dict[str, str] = {}
        for table, columns in COLUMNS.items():
            have = {row[1] for row in old.execute(f'PRAGMA table_info("{table}")')}
            missing = [column for column in columns if column not in have]
            if missing:
                problems.append(f"the old table {table} has no {', '.join(missing)}" if have else f"there is no old table {table}")
            if have:
                self._select[table] = ", ".join(column if column in have else f"NULL AS {column}" for column in columns)

    def rows(self, table: str, order: str) -> Rows:
        """All rows of a table."""
        return self._read(f'SELECT DISTINCT {self._select[table]} FROM "{table}" ORDER BY {order}') if table in self._select else []

    def of(self, table: str, key: str, value: Any) -> Rows:
        """The rows that belong to one thing."""
        if table not in self._select:
            return []
        return self._read(f'SELECT DISTINCT {self._select[table]} FROM "{table}" WHERE {key} = ? ORDER BY rowid', value)

    def paths(self, experiment: int) -> list[str]:
        """The paths of an experiment's input files, as the old server noted them."""
        sql = "SELECT DISTINCT f.path FROM experiment_files e JOIN files f ON f.id = e.fid WHERE e.eid = ? AND f.path IS NOT NULL"
        with suppress(sqlite3.OperationalError):  # no such tables: an old server without files
            return [str(path) for (path,) in self._old.execute(sql, (experiment,))]
        return []

    def _read(self, sql: str, *values: Any) -> Rows:
        cursor = self._old.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def open_old(path: Path) -> sqlite3.Connection:
    """The old database, opened for reading. Raises Invalid when it is none."""
    old = None
    try:
        old = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        old.execute("SELECT id FROM users LIMIT 1").fetchall()
        old.execute("SELECT id FROM experiments LIMIT 1").fetchall()
    except sqlite3.Error as error:
        if old:
            old.close()
        raise Invalid(f"{path} is no database of the old server: {error}") from error
    return old


def text(value: Any) -> str:
    """A value as text; nothing is the empty text."""
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def moment(value: Any) -> float | None:
    """A time as SQLite's CURRENT_TIMESTAMP or date() writes it, in UTC."""
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        with suppress(ValueError):
            return float(timegm(strptime(text(value), form)))
    return None


def too_large(id: Any) -> bool:
    """Whether an id is not kept because it is too large."""
    return isinstance(id, int) and id > LARGEST_ID


def made_uuid(kind: str, key: str) -> str:
    """The same thing gets the same uuid each time: so an import that was interrupted goes on where it was."""
    return str(uuid.uuid5(NAMESPACE, f"{kind} {key}"))
