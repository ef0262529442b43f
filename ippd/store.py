"""The store: dataset on SQLite, transactions that are always opened and closed, columns that are checked."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dataset
import sqlalchemy.dialects.sqlite  # the engine looks for it late: by then this process may be an account that cannot read it
from sqlalchemy import Column, Float, ForeignKey, Integer, Text, event

from ippd.disk import is_full, refuse_network, size_of
from ippd.errors import Conflict, NoSpace, Unavailable
from ippd.livecopy import copy_database
from ippd.schema import MIGRATIONS, TABLES

Row = dict[str, Any]
Rows = list[Row]
Names = list[str]  # under names of their own, because `list` is a method of many nouns

LARGEST_LOG = 4 << 20  # bytes of the write-ahead log that are kept on the disk when all of it has been moved into the database
# Checkpoints run in one place only (`checkpoint`): SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when two of them race with a
# writer that resets the log (sqlite.org, "WAL-reset bug").
PRAGMAS = (
    "PRAGMA busy_timeout=30000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=0",
    f"PRAGMA journal_size_limit={LARGEST_LOG}",
    "PRAGMA temp_store=MEMORY",
)
# Beginnings of SQLite's names of errors (sqlite.org/rescode.html), and what is said then.
UNUSABLE = {
    ("SQLITE_IOERR",): "the disk with the database gives an error ({1}): see the system's log",
    ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL"): "the database cannot be used now: {0}",
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): "the database is damaged ({0}): restore a backup",
}
TYPES = {"key": Integer, "int": Integer, "time": Float, "text": Text, "json": Text}


class Store:
    """One database file. An object may be used by many threads of one process; after a fork it opens the file anew.

    `make_room` is called before each write, and `on_full` (once per failure) when the disk is full all the same: either can release
    a reserve, the one in time, the other before the caller tries again.
    """

    def __init__(self, path: Path, on_full: Callable[[], bool] = lambda: False, make_room: Callable[[], bool] = lambda: False) -> None:
        self.path = Path(path)
        self._on_full, self._make_room = on_full, make_room
        self._local = threading.local()
        self._lock = threading.Lock()
        self._pid = 0
        self._db: Any = None

    def _database(self) -> Any:
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._db, self._pid = self._open(), os.getpid()
        return self._db

    def _open(self) -> Any:
        db = dataset.Database(
            f"sqlite:///{self.path}",
            # More connections than the pool are closed after use; a bounded pool deadlocks inside dataset's own lock.
            engine_kwargs={
                "pool_size": 16,
                "max_overflow": -1,
                "pool_reset_on_return": None,  # `_transaction` leaves none open
                "connect_args": {"isolation_level": None, "timeout": 30},
            },
            ensure_schema=False,
            sqlite_wal_mode=False,
            on_connect_statements=list(PRAGMAS),
        )
        event.listen(db.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return db

    @contextmanager
    def read(self) -> Iterator["Store"]:
        """One consistent view for all reads inside; the connection goes back to the pool at the end. May be nested."""
        with self._transaction("BEGIN"):
            yield self

    @contextmanager
    def write(self) -> Iterator["Store"]:
        """All or nothing: commits at the end, rolls back on any exception. May be nested in another write (and joins it).

        Raises NoSpace when the disk is full, Unavailable when the database cannot be written.
        """
        self._make_room()
        with self._transaction("BEGIN IMMEDIATE"):
            yield self

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        current = getattr(self._local, "begin", None)
        if current:
            if begin != current and current == "BEGIN":
                raise RuntimeError("a write inside a read: the view could be stale")
            yield
            return
        with self._translated(), closing(self._database().engine.raw_connection()) as lent:
            driver = lent.driver_connection
            driver.execute(begin)
            try:
                with self._speaking(begin, driver):
                    yield
                driver.execute("COMMIT")
            finally:
                if driver.in_transaction:  # also when the commit failed
                    driver.execute("ROLLBACK")

    @contextmanager
    def _speaking(self, begin: str, driver: sqlite3.Connection) -> Iterator[None]:
        """What is run inside by this thread goes to this connection."""
        self._local.begin, self._local.driver = begin, driver
        try:
            yield
        finally:
            self._local.begin = self._local.driver = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            if not any(kind in str(error) for kind in ("UNIQUE", "FOREIGN KEY")):
                raise  # a fault of ours
            raise Conflict("something else has changed the same thing meanwhile") from error
        except (sqlite3.DatabaseError, sqlalchemy.exc.DatabaseError) as error:
            told = getattr(error, "orig", error)
            name = getattr(told, "sqlite_errorname", "")
            # An I/O error is what a disk gives that breaks, but a full one too: where the memory that processes share must grow (-shm).
            if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and is_full(self.path.parent)):
                self._on_full()
                raise NoSpace("the disk with the database is full, or a table has no number left to give out") from error
            for names, sentence in UNUSABLE.items():
                if name.startswith(names):
                    raise Unavailable(sentence.format(told, name)) from error
            raise

    def _run(self, sql: str, values: Row) -> sqlite3.Cursor:
        # Straight to the driver: the text layer of SQLAlchemy takes ten times as long as SQLite itself for a look-up by key.
        return self._local.driver.execute(sql, values)  # type: ignore[no-any-return]

    def _query(self, sql: str, values: Row) -> tuple[Names, list[tuple[Any, ...]]]:
        if self._inside():
            cursor = self._run(sql, values)
            return [column[0] for column in cursor.description], cursor.fetchall()
        # A single statement is a transaction of its own.
        with self._translated(), closing(self._database().engine.raw_connection()) as lent:
            cursor = lent.driver_connection.execute(sql, values)
            return [column[0] for column in cursor.description], cursor.fetchall()

    def all(self, sql: str, **values: Any) -> Rows:
        """The rows of a query (or of a statement with RETURNING inside `write`) as dicts; values are bound to :names."""
        names, rows = self._query(sql, values)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def tuples(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Like `all`, as plain tuples: for long lists."""
        return self._query(sql, values)[1]

    def one(self, sql: str, **values: Any) -> Row | None:
        """The first row of a query, or None."""
        return next(iter(self.all(sql, **values)), None)

    def value(self, sql: str, **values: Any) -> Any:
        """The first column of the first row of a query, or None."""
        rows = self.tuples(sql, **values)
        return rows[0][0] if rows else None

    def execute(self, sql: str, **values: Any) -> int:
        """Run one changing statement (in the current `write`, or in one of its own); returns the number of rows changed."""
        with self.write():
            return self._run(sql, values).rowcount

    def insert(self, table: str, **columns: Any) -> int:
        """Insert one row; returns its id (0 for tables without one). Raises ValueError for a column that the table does not have."""
        self._check(table, columns)
        names = ", ".join(columns)
        binds = ", ".join(f":{name}" for name in columns)
        sql = f"INSERT INTO {table} ({names}) VALUES ({binds})"
        with self.write():
            if TABLES[table].get("id") == "key":
                return int(self._run(f"{sql} RETURNING id", columns).fetchall()[0][0])
            self._run(sql, columns)
            return 0

    def update(self, table: str, id: int, **columns: Any) -> bool:
        """Change columns of the row with this id; returns whether there was one. Raises ValueError for an unknown column."""
        self._check(table, columns)
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        return self.execute(f"UPDATE {table} SET {changes} WHERE id = :id", id=id, **columns) > 0

    def _inside(self) -> bool:
        return getattr(self._local, "begin", None) is not None

    @staticmethod
    def _check(table: str, columns: Row) -> None:
        unknown = set(columns) - set(TABLES[table])
        if unknown:
            raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")

    def migrate(self) -> int:
        """Bring the file to the newest schema, all or nothing; returns how many migrations ran.

        Raises Unavailable with a sentence for a database that is newer than this program, or that lies on a network file system.
        """
        refuse_network(self.path.parent)
        database = self._database()
        try:
            with self._translated(), database:
                driver = database.executable.connection.driver_connection  # dataset's own: alembic's operations use it
                with self._speaking("BEGIN IMMEDIATE", driver):
                    return self._migrate(database)
        finally:
            # dataset keeps the connection when a begin or a commit fails; the next user of this thread must not inherit that.
            database._release_connection()

    def _migrate(self, database: Any) -> int:
        version = self.version()
        if version > len(MIGRATIONS):
            raise Unavailable(
                f"{self.path} has schema version {version}, this ippd knows {len(MIGRATIONS)}: a newer ippd has used it; "
                "start that one, or restore a backup"
            )
        for migration in MIGRATIONS[version:]:
            migration(_Operations(database.op))
        self._run(
            "INSERT INTO meta (name, value) VALUES ('schema', :version) ON CONFLICT (name) DO UPDATE SET value = :version",
            {"version": str(len(MIGRATIONS))},
        )
        return len(MIGRATIONS) - version

    def version(self) -> int:
        """The schema version of the file: how many migrations it has seen; 0 when it is empty."""
        if self.value("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'") is None:
            return 0
        return int(self.value("SELECT value FROM meta WHERE name = 'schema'") or 0)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database. The write lock is held meanwhile, so that no writer can reset the log."""
        with self.write(), closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("PRAGMA wal_autocheckpoint=0")
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if self.log_size() > LARGEST_LOG:
            # The next change begins the log anew, unless somebody reads what is in it, and cuts it (journal_size_limit). A checkpoint
            # that cuts (TRUNCATE) wants the lock for itself, and goes on without one when it does not get it.
            self.execute(f"PRAGMA user_version={self.value('PRAGMA user_version') % 1000 + 1}")

    def log_size(self) -> int:
        """The bytes that the write-ahead log takes on the disk."""
        return size_of(Path(f"{self.path}-wal"))

    def copy_to(self, path: Path) -> None:
        """Write a copy of the database as it is now, one file without a log; no writer waits for it. Raises NoSpace, Unavailable."""
        with self._translated():
            copy_database(self.path, path)

    def close(self) -> None:
        """Close all connections (those of this process only: a connection inherited over a fork is left alone)."""
        if self._db is not None and self._pid == os.getpid():
            self._db.close()
        self._db, self._pid = None, 0


class _Operations:
    """What a migration may do, in the schema's column language, through alembic's operations."""

    def __init__(self, op: Any) -> None:
        self._op = op

    def create_table(self, name: str, columns: dict[str, str]) -> None:
        # sqlite_autoincrement: the id of a removed experiment must never name another one.
        keyed = {"sqlite_autoincrement": True} if "key" in columns.values() else {}
        self._op.create_table(name, *(column(key, kind) for key, kind in columns.items()), **keyed)

    def add_column(self, table: str, name: str, kind: str) -> None:
        self._op.add_column(table, column(name, kind))

    def create_index(self, table: str, names: tuple[str, ...], unique: bool) -> None:
        name = "_".join([table, *(column.split()[0] for column in names)])
        self._op.create_index(name, table, [sqlalchemy.text(column) for column in names], unique=unique)


def column(name: str, kind: str) -> Any:
    """One column of the schema's language ("text! -> users") as a SQLAlchemy column."""
    kind, _, parent = kind.partition(" -> ")
    keys = [ForeignKey(f"{parent}.id", ondelete="CASCADE")] if parent else []
    return Column(name, TYPES[kind.rstrip("!")], *keys, primary_key=kind == "key", nullable=not kind.endswith("!") and kind != "key")
