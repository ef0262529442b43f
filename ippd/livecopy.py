"""A copy of a database that is in use, with SQLite's online backup: whole, or an error that says what is wrong."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ippd.errors import NoSpace

PAGES = 1024  # copied between two flushes: 4 MB
FULL = (errno.ENOSPC, errno.EDQUOT)


def copy_database(path: Path, target: Path) -> None:
    """Write a copy of the database as it is now to the file `target`, without a log beside it. No writer waits for it.

    Raises NoSpace when the disk of `target` is full, sqlite3.Error.
    """
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as source, closing(sqlite3.connect(target)) as copy:
        source.execute("PRAGMA wal_autocheckpoint=0")
        # One view all the time: or each change meanwhile would make the copy begin anew, for ever where somebody always writes.
        source.execute("BEGIN")
        source.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Flushed step by step: in one go at the end, it would keep the disk from whoever commits meanwhile.
            source.backup(copy, pages=PAGES, progress=lambda *_: os.fdatasync(descriptor))
            copy.execute("PRAGMA journal_mode=DELETE")
        except (sqlite3.OperationalError, OSError) as error:
            if getattr(error, "errno", None) in FULL or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise NoSpace(f"{target.parent}: a copy of the database does not fit on this disk") from error
            raise
        finally:
            os.close(descriptor)
