"""The store: what every database behind it must do. Bad input: unknown columns, a newer schema, full, broken and far disks, threads."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from ippd import disk
from ippd.disk import refuse_network
from ippd.errors import Conflict, NoSpace, Unavailable
from ippd.schema import INDEXES, TABLES
from ippd.store import LARGEST_LOG, Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "test.sqlite")
    store.migrate()
    yield store
    store.close()


def test_a_transaction_is_all_or_nothing(store):
    with pytest.raises(KeyError), store.write():
        store.insert("groups", name="a")
        raise KeyError
    assert store.all("SELECT * FROM groups") == []


def test_a_nested_write_is_undone_with_the_outer_one(store):
    with pytest.raises(KeyError), store.write():
        with store.write():
            store.insert("groups", name="a")
        raise KeyError
    assert store.value("SELECT COUNT(*) FROM groups") == 0


def test_a_write_inside_a_read_is_refused_because_the_view_could_be_stale(store):
    with store.read(), pytest.raises(RuntimeError, match="write inside a read"):
        store.insert("groups", name="a")
    assert store.insert("groups", name="b")


def test_a_misspelt_column_is_neither_added_nor_dropped(store):
    with pytest.raises(ValueError, match="groups has no column nmae"):
        store.insert("groups", nmae="a")
    with pytest.raises(ValueError, match="groups has no column nmae"):
        store.update("groups", 1, nmae="a")
    assert store.all("SELECT * FROM groups") == []


def test_a_duplicate_is_a_conflict_and_the_database_stays_usable(store):
    store.insert("groups", name="a")
    with pytest.raises(Conflict):
        store.insert("groups", name="a")
    assert store.insert("groups", name="b")


def test_the_id_of_a_removed_row_is_never_given_out_again(store):
    first = store.insert("groups", name="a")
    store.execute("DELETE FROM groups")
    assert store.insert("groups", name="b") > first


def test_thirty_threads_at_once_lose_no_change_and_do_not_freeze(store):
    store.insert("meta", name="n", value="0")
    add = "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'n'"
    threads = [threading.Thread(target=lambda: [store.execute(add) for _ in range(10)]) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert int(store.value("SELECT value FROM meta WHERE name = 'n'")) == 300


def test_a_forked_child_opens_the_database_anew(store):
    store.insert("groups", name="parent")
    child = os.fork()
    if not child:
        try:
            os._exit(0 if store.insert("groups", name="child") else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [row["name"] for row in store.all("SELECT name FROM groups ORDER BY id")] == ["parent", "child"]


def test_every_connection_has_its_pragmas(store):
    with store.write():
        found = {name: store.value(f"PRAGMA {name}") for name in ("journal_mode", "foreign_keys", "wal_autocheckpoint", "synchronous")}
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "wal_autocheckpoint": 0, "synchronous": 2}


def test_the_log_is_moved_into_the_database_only_by_checkpoint(store):
    for number in range(200):
        store.insert("groups", name=f"group {number}" * 50)
    before = store.path.stat().st_size
    store.checkpoint()
    assert store.path.stat().st_size > before
    assert store.value("SELECT COUNT(*) FROM groups") == 200


def test_a_log_that_has_grown_large_does_not_stay_so(store):
    """Bad input: more changes between two checkpoints than the log shall take; then some while somebody reads what is in it."""
    log = store.path.with_name(f"{store.path.name}-wal")

    def grow():
        for number in range(100):
            store.insert("groups", name=f"group {number} {os.urandom(40_000).hex()}")
        assert log.stat().st_size > LARGEST_LOG

    grow()
    store.checkpoint()
    assert log.stat().st_size <= LARGEST_LOG and store.value("SELECT COUNT(*) FROM groups") == 100
    grow()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM groups").fetchone()
        store.insert("groups", name="later")
        store.checkpoint()
        assert reader.execute("SELECT COUNT(*) FROM groups").fetchone() == (200,)
    store.checkpoint()
    assert log.stat().st_size <= LARGEST_LOG and store.value("SELECT COUNT(*) FROM groups") == 201


def test_the_database_has_the_tables_columns_and_indexes_of_the_schema(store):
    for table, columns in TABLES.items():
        assert [row["name"] for row in store.all(f"PRAGMA table_info({table})")] == list(columns)
    assert store.value("SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL") == len(INDEXES)


def test_migrating_twice_changes_nothing(store):
    assert store.migrate() == 0


def test_a_database_of_a_newer_release_is_refused_with_a_sentence(store):
    store.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    with pytest.raises(Unavailable, match=r"schema version 99.*newer ippd"):
        store.migrate()


def test_a_damaged_database_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "junk.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    store = Store(path)
    with pytest.raises(Unavailable, match="is damaged .*: restore a backup"):
        store.version()
    store.close()


def test_a_full_disk_releases_the_reserve_and_says_so(tmp_path):
    released = []
    store = Store(tmp_path / "full.sqlite", on_full=lambda: released.append(1) or True)
    store.migrate()
    with pytest.raises(NoSpace), store.write():
        store.execute(f"PRAGMA max_page_count = {store.value('PRAGMA page_count')}")
        for _ in range(100):
            store.insert("groups", name=os.urandom(4000).hex())
    assert released == [1]
    store.close()


FULL = """
import os, pathlib, sys
from ippd.errors import NoSpace
from ippd.store import LARGEST_LOG, Store
folder = pathlib.Path(sys.argv[1])
store = Store(folder / "full.sqlite", on_full=lambda: print("released") or True)
store.migrate()
store.close()
assert not (folder / "full.sqlite-shm").exists()
with open(folder / "junk", "wb", buffering=0) as junk:
    try:
        while True:
            junk.write(bytes(4096))
    except OSError:
        pass
try:
    store.version()
except NoSpace:
    print(repr(sys.exc_info()[1].__cause__.sqlite_errorname))
"""


def test_a_full_disk_is_seen_where_sqlite_calls_it_an_io_error(tmp_path):
    """The first to open a database needs a new -shm file, which finds no room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = f"mount -t tmpfs -o size=2m none {tmp_path} && exec '{sys.executable}' -c '{FULL}' {tmp_path}"
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", mount], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["released", "'SQLITE_IOERR_SHMSIZE'"], done.stderr


def test_a_disk_that_breaks_is_not_taken_for_a_full_one(tmp_path):
    """Writes past a limit on the size of files fail with an I/O error, and the disk has room."""
    released = []
    store = Store(tmp_path / "test.sqlite", on_full=lambda: released.append(1) or True)
    store.migrate()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "test.sqlite-wal").stat().st_size, hard))
    try:
        with pytest.raises(Unavailable, match=r"the disk with the database gives an error \(SQLITE_IOERR_WRITE\): see the system's log"):
            store.insert("groups", name="a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert released == [] and store.insert("groups", name="a")
    store.close()


def test_a_row_goes_with_its_parent(store):
    user = store.insert("users", uuid="u", email="e", password="p", status="pending", settings="{}", created_at=0.0)
    group = store.insert("groups", name="g")
    store.insert("members", group_id=group, user_id=user)
    store.execute("DELETE FROM users")
    assert store.all("SELECT * FROM members") == []


def test_a_database_that_is_no_database_is_not_overwritten(tmp_path):
    path = tmp_path / "text"
    path.write_text("no database at all, but somebody's text\n" * 50)
    with pytest.raises(Exception, match="not a database"):
        Store(path).migrate()
    assert path.read_text().startswith("no database at all")


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A function: let these be mounted, (kind, folder) in their order, as the kernel tells it."""

    def mount(*mounts):
        lines = ["/dev/sda1 / ext4 rw,relatime 0 0", "proc /proc proc rw 0 0"]
        for kind, folder in mounts:
            point = str(folder).replace("\\", "\\134").replace(" ", "\\040")
            lines.append(f"somewhere:/export {point} {kind} rw,vers=4.2 0 0")
        (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")

    return mount


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs"])
@pytest.mark.parametrize("name", ["data", "my data", "back\\040slash"])
def test_a_network_file_system_is_refused_before_a_database_is_made(tmp_path, mounted, kind, name):
    """Bad input: nfs, nfs4, cifs and sshfs, also at a path with a blank or a backslash."""
    folder = tmp_path / name / "ippd"
    folder.mkdir(parents=True)
    mounted((kind, folder.parent))
    store = Store(folder / "ippd.sqlite")
    with pytest.raises(Unavailable) as refused:
        store.migrate()
    why = "where SQLite's write-ahead log breaks: data.directory must be a local disk"
    assert str(refused.value) == f"{folder} lies on {kind} ({folder.parent}), {why}"
    assert list(folder.iterdir()) == []


def test_a_local_disk_below_or_over_a_network_one_is_taken(tmp_path, mounted):
    mounted(("nfs4", tmp_path), ("xfs", tmp_path / "data"), ("cifs", tmp_path / "data" / "ippd2"))
    refuse_network(tmp_path / "data" / "ippd")
    with pytest.raises(Unavailable, match="nfs4"):
        refuse_network(tmp_path / "database")
    mounted(("nfs", tmp_path), ("ext4", tmp_path))  # what was mounted later hides the other
    refuse_network(tmp_path)


def test_a_network_disk_below_a_local_one_is_refused_through_a_link_as_well(tmp_path, mounted):
    mounted(("xfs", tmp_path), ("nfs", tmp_path / "far"))
    (tmp_path / "near").symlink_to(tmp_path / "far")
    with pytest.raises(Unavailable, match="lies on nfs"):
        refuse_network(tmp_path / "near" / "ippd")


def test_a_local_folder_is_not_taken_for_a_network_one(tmp_path):
    refuse_network(tmp_path)
    assert sqlite3.sqlite_version_info >= (3, 35), "RETURNING needs SQLite 3.35"


LOADS = """
import sys
from pathlib import Path
from ippd.store import Store
before = set(sys.modules)
store = Store(Path(sys.argv[1]))
store.migrate()
store.insert("groups", name="a")
store.close()
print(*sorted(set(sys.modules) - before))
"""


def test_what_opens_the_database_is_loaded_before_root_has_become_an_account_that_cannot_read_it(tmp_path):
    """Bad input: a program below a folder that is closed to the account; its process must look for no module any more."""
    late = subprocess.run([sys.executable, "-c", LOADS, tmp_path / "late.sqlite"], capture_output=True, text=True, check=True)
    assert late.stdout == "\n"
