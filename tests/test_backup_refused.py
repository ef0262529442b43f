"""Backups that somebody has altered, and restores that were killed: what is refused leaves nothing behind and takes nothing away."""

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile

import pytest

import ippd.domain.restore
from conftest import echo
from ippd.domain.restore import OLD, STAGE, UNDER_WAY, restore, verify
from ippd.errors import Conflict, Invalid, NoSpace
from ippd.permissions import OPERATOR


@pytest.fixture
def members(core, ada, tmp_path):
    """The members of a backup of one experiment: (name, bytes) in their order, without the list at the end."""
    core.experiments.submit(ada, echo(("scan.nii", b"in" * 500)))
    with open(tmp_path / "b.tar", "wb") as file:
        core.backups.make(OPERATOR, file)
    with tarfile.open(tmp_path / "b.tar") as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar if info.name != "SHA256SUMS"]


def packed(members):
    """A backup of these members, with a right list at its end."""
    made = io.BytesIO()
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in members).encode()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in (*members, ("SHA256SUMS", sums)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def with_facts(members, **changed):
    facts = json.loads(members[0][1]) | changed
    return [("backup.json", json.dumps({key: value for key, value in facts.items() if value != "gone"}).encode()), *members[1:]]


def with_database(members, tmp_path, *statements):
    path = tmp_path / "altered.sqlite"
    path.write_bytes(dict(members)["ippd.sqlite"])
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return [(name, path.read_bytes() if name == "ippd.sqlite" else data) for name, data in members]


def refused_by_both(data, tmp_path, match):
    """Verify and restore say no with the same words; nothing that was unpacked is left, above all no secret."""
    with pytest.raises(Invalid, match=match):
        verify(io.BytesIO(data))
    with pytest.raises(Invalid, match=match):
        restore(io.BytesIO(data), tmp_path / "new", tmp_path / "new" / "uploads")
    assert [path for path in (tmp_path / "new").rglob("*") if path.name != "uploads"] == []


def test_what_is_packed_here_as_it_was_is_a_good_backup(members, tmp_path):
    assert verify(io.BytesIO(packed(members))).damage == []
    assert restore(io.BytesIO(packed(members)), tmp_path / "new", tmp_path / "new" / "uploads").damage == []
    assert not (tmp_path / "new" / STAGE).exists() and not (tmp_path / "new" / OLD).exists()


@pytest.mark.parametrize("changed", [
    {"bytes": "gone"}, {"bytes": "many"}, {"bytes": 10**30}, {"bytes": -1}, {"bytes": True}, {"files": "\x1b[2J"}, {"files": None},
    {"created_at": "gone"}, {"created_at": "yesterday"}, {"created_at": 1e300}, {"created_at": float("nan")}, {"created_at": -1},
])
def test_facts_without_the_numbers_that_are_counted_on_are_refused(members, tmp_path, changed):
    refused_by_both(packed(with_facts(members, **changed)), tmp_path, "no backup of ippd that this version can read")


def test_facts_that_are_nested_too_deep_are_refused(members, tmp_path):
    refused_by_both(packed([("backup.json", b"[" * 500_000), *members[1:]]), tmp_path, "no backup")


def test_a_member_that_is_there_twice_is_refused(members, tmp_path):
    for n in range(len(members)):  # the facts, a file, the database, the secret
        refused_by_both(packed([*members[:n + 1], *members[n:]]), tmp_path, "is there twice")


@pytest.mark.parametrize(("statement", "match"), [
    ("UPDATE meta SET value = 'abc' WHERE name = 'schema'", "cannot be read"),
    ("UPDATE meta SET value = '-5' WHERE name = 'schema'", "schema version -5"),
    ("UPDATE meta SET value = '99999' WHERE name = 'schema'", "a newer ippd made it"),
    ("DELETE FROM meta", "cannot be read"),
    ("ALTER TABLE files RENAME TO papers", "has no table files"),
    ("UPDATE files SET path = x'00ff'", "cannot be read"),
    ("UPDATE files SET path = CAST(x'ff' AS TEXT)", "cannot be read"),
])
def test_a_database_that_could_not_be_used_is_refused(members, tmp_path, statement, match):
    refused_by_both(packed(with_database(members, tmp_path, statement)), tmp_path, match)


VERIFY = """
import resource, sys
from ippd.domain.restore import verify
from ippd.errors import Invalid
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    verify(sys.stdin.buffer)
except Invalid as error:
    print(error)
"""


def alone(file):
    """What a process of its own, that has little memory, says of a backup."""
    done = subprocess.run([sys.executable, "-c", VERIFY], stdin=file, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def endless(name, column):
    """Statements that put a view that never ends in the place of a table."""
    view = f"CREATE VIEW {name} AS WITH RECURSIVE n({column}) AS (SELECT 'x' UNION ALL SELECT {column} FROM n)"
    return f"DROP TABLE {name}", f"{view} SELECT {column} AS name, {column} AS value, {column} AS path, {column} AS sha256 FROM n"


@pytest.mark.parametrize("name", ["meta", "files"])
def test_a_view_without_an_end_in_the_place_of_a_table_is_not_read(members, tmp_path, name):
    """Bad input: a recursive view named as a table; looking for a row that it does not have never ends."""
    (tmp_path / "b.tar").write_bytes(packed(with_database(members, tmp_path, *endless(name, "x"))))
    with open(tmp_path / "b.tar", "rb") as file:
        assert f"has no table {name}" in alone(file)
    refused_by_both((tmp_path / "b.tar").read_bytes(), tmp_path, f"has no table {name}")


# Paths that each take a while to be read: some seconds for all.
SLOW = (
    "DROP TABLE files", "CREATE TABLE files (x INTEGER, sha256 TEXT, path TEXT AS (length(hex(zeroblob(x)))))",
    "INSERT INTO files (x) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000) SELECT 1000000 FROM n",
)  # fmt: skip


def test_a_database_that_takes_too_long_to_check_is_refused(members, tmp_path, monkeypatch):
    """Bad input: a table with a column that is calculated anew whenever it is read, and takes a while."""
    monkeypatch.setattr(ippd.domain.restore, "LONGEST_CHECK", 0.2)
    refused_by_both(packed(with_database(members, tmp_path, *SLOW)), tmp_path, "takes too long")


def test_ctrl_c_ends_the_check_of_a_database(members, tmp_path):
    """Bad input: the same, with an operator who does not want to wait."""
    slow = packed(with_database(members, tmp_path, *SLOW))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            verify(io.BytesIO(slow))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def holes(header, size):
    """A file that says it is large, and is nearly all hole."""
    made = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    made.write(header)
    made.truncate(len(header) + size)
    made.seek(0)
    return made


@pytest.mark.parametrize("kind", ["pax", "pax for all", "old pax", "long name", "long link", "list"])
def test_a_small_file_does_not_take_much_memory(members, kind):
    """Bad input: 4 KB on the disk, of which a header says that a name, or the list at the end, has 6 GB: the rest is a hole."""
    types = {"pax": tarfile.XHDTYPE, "pax for all": tarfile.XGLTYPE, "old pax": tarfile.SOLARIS_XHDTYPE,
             "long name": tarfile.GNUTYPE_LONGNAME, "long link": tarfile.GNUTYPE_LONGLINK, "list": tarfile.REGTYPE}  # fmt: skip
    info = tarfile.TarInfo("SHA256SUMS")
    info.type, info.size = types[kind], 6 << 30
    with holes(packed(members[:1])[:1024] + info.tobuf(tarfile.GNU_FORMAT), info.size) as file:
        assert os.fstat(file.fileno()).st_blocks * 512 <= 8192
        said = alone(file)
    assert "no backup" in said or "damaged" in said


def test_headers_of_headers_without_an_end_are_refused(members, tmp_path):
    """Bad input: thousands of pax headers, each for the next."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 12
    header = info.tobuf(tarfile.GNU_FORMAT) + b"12 path=abc\n".ljust(512, b"\0")
    refused_by_both(packed(members[:1])[:1024] + header * 3000 + bytes(1024), tmp_path, "no backup of ippd")


def test_a_sparse_member_is_refused_before_its_holes_are_written(members, tmp_path):
    """A terabyte of nothing in 512 bytes: a GNU sparse member without any data, and the same as a pax header says it."""
    first = packed(members[:1])[:1024]
    info = tarfile.TarInfo(members[1][0])
    gnu = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    gnu[156:157] = tarfile.GNUTYPE_SPARSE
    gnu[483:495] = tarfile.itn(1 << 40, 12, tarfile.GNU_FORMAT)
    gnu[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(gnu))[0]
    info.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,0"}
    for member in (bytes(gnu), info.tobuf(tarfile.PAX_FORMAT)):
        refused_by_both(first + member + bytes(10240), tmp_path, "this is no backup of ippd$")


def test_more_bytes_than_were_announced_are_not_written_where_they_do_not_fit(members, tmp_path):
    """A header that says an exabyte, after facts that say three bytes."""
    data = bytearray(packed(with_facts(members, bytes=3))[:1024])
    info = tarfile.TarInfo(members[1][0])
    info.size = 1 << 60
    with pytest.raises(NoSpace, match="does not fit"):
        restore(io.BytesIO(bytes(data) + info.tobuf(tarfile.GNU_FORMAT)), tmp_path / "new", tmp_path / "new" / "uploads")
    assert not (tmp_path / "new" / STAGE).exists()


def test_a_file_that_had_grown_before_the_backup_is_restored_all_the_same(members, tmp_path):
    grown = [(name, data * 3 if name.startswith("uploads/") else data) for name, data in members]
    (damage,) = restore(io.BytesIO(packed(grown)), tmp_path / "new", tmp_path / "new" / "uploads").damage
    assert damage.endswith("its SHA-256 differs")


@pytest.mark.parametrize("left", ["uploads/7/aaaa", "uploads/7", "secret", "key.pem", "certificate.pem", "ippd.sqlite-wal"])
def test_without_overwrite_a_restore_takes_nothing_away_where_only_a_part_of_the_data_is_left(members, tmp_path, left):
    """Bad input: a data folder without a database, but with uploads (later than the backup, perhaps), a secret, a key."""
    path = tmp_path / "new" / left
    path.parent.mkdir(parents=True)
    path.write_text("the only copy")
    with pytest.raises(Conflict, match=f"there is data already .*new/{left.removesuffix('/aaaa')}.*restore --overwrite FILE"):
        restore(io.BytesIO(packed(members)), tmp_path / "new", tmp_path / "new/uploads")
    assert path.read_text() == "the only copy" and [entry for entry in (tmp_path / "new").rglob("*") if entry.is_file()] == [path]
    assert restore(io.BytesIO(packed(members)), tmp_path / "new", tmp_path / "new/uploads", overwrite=True).damage == []
    assert not path.is_file() or path.read_text() != "the only copy"


def test_folders_without_anything_in_them_are_no_data(members, tmp_path):
    (tmp_path / "new/uploads/7").mkdir(parents=True)
    (tmp_path / "new/uploads/incoming").mkdir()
    (tmp_path / "new/ippd.lock").touch()
    assert restore(io.BytesIO(packed(members)), tmp_path / "new", tmp_path / "new/uploads").damage == []


class Killed(BaseException):
    """Stands for a signal that ends the process between two steps."""


@pytest.mark.parametrize("step", range(1, 7))
def test_after_a_restore_that_was_killed_a_broken_backup_takes_nothing_away(core, members, tmp_path, monkeypatch, step):
    """Bad input: a backup cut off in the middle, after a good one whose restore was killed at each of its renames."""
    data, whole = tmp_path / "data", packed(members)
    core.close()
    before, upload = (data / "ippd.sqlite").read_bytes(), next(path for path in (data / "uploads").rglob("*/*") if path.is_file())
    old_upload = upload.read_bytes()
    again = packed(with_database(members, tmp_path, "INSERT INTO meta (name, value) VALUES ('mark', 'new')"))
    rename, remove, done = type(data).rename, shutil.rmtree, []

    def killing(self, target):
        done.append(target)
        if len(done) == step:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(type(data), "rename", killing)
        # A kill leaves what was unpacked: so does this.
        patched.setattr(ippd.domain.restore.shutil, "rmtree", lambda place, **more: None if place.name == STAGE else remove(place, **more))
        restore(io.BytesIO(again), data, data / "uploads", overwrite=True)
    assert (data / UNDER_WAY).exists()
    for _ in range(2):
        with pytest.raises(Invalid, match="not whole"):
            restore(io.BytesIO(whole[:len(whole) // 2]), data, data / "uploads")
        copies = [path.read_bytes() for place in (data, data / OLD) for path in place.glob("ippd.sqlite")]
        assert before in copies and (data / UNDER_WAY).exists() and not (data / STAGE).exists()
        assert old_upload in [path.read_bytes() for path in (data / "uploads").rglob("*/*") if path.is_file()]
    assert restore(io.BytesIO(again), data, data / "uploads").damage == []
    assert b"mark" in (data / "ippd.sqlite").read_bytes() and not list(data.rglob(OLD)) and not (data / UNDER_WAY).exists()
