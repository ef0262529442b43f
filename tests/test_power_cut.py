"""What a power cut leaves of names of files: what their folder held when it was flushed last. Each test looks at these moments."""

import os
import sqlite3
from pathlib import Path

import pytest

from conftest import echo, join
from ippd.blobs import Blobs, private_text
from ippd.domain.backup import before_migration
from ippd.domain.restore import UNDER_WAY, restore
from ippd.host import swap
from ippd.permissions import OPERATOR
from ippd.releases import Release
from ippd.wholefile import whole_file


class Disk:
    """A list of (folder, {name: inode}): what each flushed folder held then."""

    def __init__(self):
        self.flushes = []
        self._fsync = os.fsync

    def flush(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):
            self.flushes.append((Path(path), {entry.name: entry.inode() for entry in os.scandir(path)}))
        self._fsync(descriptor)

    def of(self, folder):
        return [names for path, names in self.flushes if path == folder]

    def has(self, path):
        """Whether this name of this file would be there after a power cut."""
        return bool(self.of(path.parent)) and self.of(path.parent)[-1].get(path.name) == path.stat().st_ino


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(os, "fsync", made.flush)
    return made


@pytest.fixture
def blobs(tmp_path):
    made = Blobs(tmp_path / "uploads", 0, tmp_path / "reserve")
    made.prepare()
    return made


def test_the_first_upload_of_a_user_was_lost_with_the_folder_that_was_made_for_it(disk, blobs):
    blob = blobs.path(blobs.write(7, [b"abc"]).path)
    assert disk.has(blob) and disk.has(blob.parent)
    again = blobs.path(blobs.link(8, blobs.write(7, [b"abc"]).path, 3, "").path)
    assert disk.has(again) and disk.has(again.parent)
    count = len(disk.of(blobs.folder))
    blobs.write(7, [b"abc"])
    assert len(disk.of(blobs.folder)) == count, "once is enough"


def test_a_folder_that_another_process_has_made_was_not_known_to_be_on_the_disk(disk, blobs):
    (blobs.folder / "7").mkdir()
    assert disk.has(blobs.path(blobs.write(7, [b"abc"]).path).parent)


def test_tokens_were_signed_with_a_secret_that_might_be_another_one_later(disk, tmp_path):
    private_text(tmp_path / "secret", lambda: "x")
    assert disk.has(tmp_path / "secret") and disk.of(tmp_path)[-1].keys() == {"secret"}


def test_a_migration_began_before_the_copy_of_the_database_had_its_name(disk, core, tmp_path):
    made = before_migration(core.store, tmp_path / "backups", 7, core.clock)
    assert disk.has(made) and disk.has(tmp_path / "backups")
    with sqlite3.connect(made) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_restore_moved_files_before_it_was_known_that_it_is_under_way(disk, core, tmp_path):
    core.experiments.submit(join(core), echo(("scan.nii", b"scan")))
    with whole_file(tmp_path / "b.tar") as file:
        core.backups.make(OPERATOR, file)
    core.close()
    data, uploads = tmp_path / "data", tmp_path / "elsewhere"
    before = (data / "ippd.sqlite").stat().st_ino
    (uploads / "1").mkdir(parents=True)
    disk.flushes.clear()
    with open(tmp_path / "b.tar", "rb") as file:
        restore(file, data, uploads, overwrite=True)
    first, *_, last = disk.of(data)
    assert first.get("ippd.sqlite") == before and UNDER_WAY in first and "replaced" not in first
    assert UNDER_WAY not in last and last["ippd.sqlite"] == (data / "ippd.sqlite").stat().st_ino != before


def test_a_daemon_went_over_to_a_program_that_a_power_cut_would_have_taken_away(disk, tmp_path):
    (tmp_path / "data").mkdir()
    target, new = tmp_path / "ippd", tmp_path / ".ippd.new"
    target.write_text("one")
    new.write_text("two")
    inodes = {"ippd": new.stat().st_ino, "ippd.previous": target.stat().st_ino}
    assert swap.swap(target, new, Release("program", "2.0", 3, ""), tmp_path / "data")
    begun, put, *_, ended = disk.of(tmp_path)
    assert begun[".ippd.updating"] and begun["ippd"] == inodes["ippd.previous"]
    assert inodes.items() <= put.items() and put[".ippd.updating"]
    assert ended == inodes | {"data": (tmp_path / "data").stat().st_ino}
