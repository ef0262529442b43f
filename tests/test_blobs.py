"""Bytes on disk. Bad input: vanished clients, files that are too large, hostile names, a full disk."""

import errno
import hashlib
import os
import subprocess
import sys
import time

import pytest

from ippd.blobs import Blobs, private_text
from ippd.errors import NoSpace, TooLarge


@pytest.fixture
def blobs(tmp_path):
    blobs = Blobs(tmp_path / "uploads", 1 << 20, tmp_path / "reserve")
    blobs.prepare()
    return blobs


def everything(blobs):
    return sorted(str(path.relative_to(blobs.folder)) for path in blobs.folder.rglob("*") if path.is_file())


def test_a_blob_is_stored_with_its_size_and_hash(blobs):
    blob = blobs.write(7, [b"ab", b"", b"c"])
    assert (blob.bytes, blob.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert blobs.path(blob.path).read_bytes() == b"abc"
    assert blobs.path(blob.path).stat().st_mode & 0o777 == 0o600


def test_a_file_of_no_bytes_is_a_file(blobs):
    assert blobs.path(blobs.write(7, []).path).read_bytes() == b""


def test_a_client_that_vanishes_leaves_nothing(blobs):
    def vanishing():
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        blobs.write(7, vanishing())
    assert everything(blobs) == []


def test_a_file_past_its_limit_is_refused_when_it_passes_not_when_it_ends(blobs):
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="at most 2500 bytes"):
        blobs.write(7, endless(), limit=2500)
    assert (len(seen), everything(blobs)) == (3, [])


def test_a_batch_that_is_not_kept_leaves_nothing(blobs):
    with pytest.raises(ValueError), blobs.batch() as batch:
        batch.write(7, [b"one"])
        batch.write(7, [b"two"])
        raise ValueError
    assert everything(blobs) == []


def test_a_full_disk_is_said_and_leaves_nothing(blobs):
    def full():
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpace, match="disk is full"):
        blobs.write(7, full())
    assert everything(blobs) == []


def test_an_upload_that_does_not_fit_beside_the_reserve_is_refused_before_its_first_byte(tmp_path):
    disk = os.statvfs(tmp_path)
    greedy = Blobs(tmp_path / "uploads", disk.f_blocks * disk.f_frsize, tmp_path / "reserve")
    greedy.prepare()
    assert not greedy.reserve_file.exists()
    with pytest.raises(NoSpace, match="not enough room"):
        greedy.check_room(1)


@pytest.mark.parametrize("name", ["../secret", "7/../../secret", "/etc/passwd", "7/", "7/a/b", "incoming/abc", "", "٧/abc", "7/a\0b"])
def test_no_name_leads_out_of_the_uploads(blobs, name):
    with pytest.raises(ValueError):
        blobs.path(name)
    with pytest.raises(ValueError):
        blobs.remove(name)


def test_a_link_in_place_of_the_incoming_file_is_not_followed(blobs, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "ab" * size)
    (blobs.incoming / ("ab" * 16)).symlink_to(victim)
    with pytest.raises(FileExistsError):
        blobs.write(7, [b"overwritten"])
    assert victim.read_text() == "precious"


def test_small_uploads_of_unknown_length_do_not_fill_the_free_reserve(blobs, monkeypatch):
    above = 3 << 20  # bytes
    monkeypatch.setattr(blobs, "free", lambda: max(0, above - sum((blobs.folder / name).stat().st_size for name in everything(blobs))))
    with pytest.raises(NoSpace, match="not enough room"):
        for _ in range(10):
            blobs.write(7, [bytes(1 << 20)])
    assert len(everything(blobs)) == 3
    blobs.remove(everything(blobs)[0])
    with pytest.raises(NoSpace, match="not enough room"):
        blobs.write(7, (bytes(1 << 20) for _ in range(100)))
    assert len(everything(blobs)) == 2


def test_the_sweep_removes_what_nothing_refers_to_and_leaves_what_is_young(blobs):
    kept, orphan, young = (blobs.write(7, [b"x"]) for _ in range(3))
    for path in (kept.path, orphan.path):
        os.utime(blobs.path(path), (1000, 1000))
    partial = blobs.incoming / ("a1" * 16)
    partial.write_bytes(b"x")
    os.utime(partial, (1000, 1000))
    (blobs.folder / "notes of the operator").mkdir()
    (blobs.folder / "notes of the operator" / "note").write_text("not mine")
    os.utime(blobs.folder / "notes of the operator" / "note", (1000, 1000))
    assert blobs.sweep(lambda names: {kept.path} & set(names), older_than=2000) == 2
    assert everything(blobs) == sorted([kept.path, young.path, "notes of the operator/note"])


def test_the_sweep_leaves_the_files_of_the_server_whose_folder_it_was(blobs):
    theirs = [blobs.folder / name for name in ("7/scan.nii.gz", "7/results/3.zip", "incoming/.nfs01", f"8/{'a1' * 16}/x", f"9/{'a1' * 15}")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    (blobs.folder / "7" / ("b2" * 16)).symlink_to(theirs[0])
    assert blobs.sweep(lambda names: set(), older_than=time.time() + 1000) == 0
    assert all(path.read_text() == "precious" for path in theirs)


def test_the_reserve_is_given_up_once_and_made_again(blobs):
    assert blobs.reserve_file.stat().st_size == 1 << 20
    assert (blobs.release_reserve(), blobs.release_reserve()) == (True, False)
    assert blobs.keep_reserve() and blobs.reserve_file.exists()


def test_the_reserve_is_given_up_before_the_database_meets_a_full_disk_and_not_sooner(blobs, monkeypatch):
    """The first log-in on a full disk failed: only that gave the reserve up."""
    assert not blobs.make_room() and blobs.reserve_file.exists()
    monkeypatch.setattr("ippd.blobs.LEAST", 1 << 60)  # no disk has so much room
    assert blobs.make_room() and not blobs.reserve_file.exists()
    assert not blobs.make_room()


def test_a_secret_is_made_once_and_is_private(tmp_path):
    path = tmp_path / "secret"
    assert private_text(path, lambda: "first") == private_text(path, lambda: "second") == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_the_sweep_knows_a_slow_upload_from_one_whose_process_was_killed(blobs):
    swept = []

    def slow():
        yield b"half"
        (partial,) = blobs.incoming.iterdir()
        os.utime(partial, (1000, 1000))
        swept.append(blobs.sweep(lambda names: set(), older_than=0, abandoned=2000))
        yield b" and half"

    blob = blobs.write(7, slow())
    assert swept == [0] and blobs.path(blob.path).read_bytes() == b"half and half"

    code = ("import sys, time; from pathlib import Path; from ippd.blobs import Blobs\n"
            f"blobs = Blobs(Path({str(blobs.folder)!r}), 0, Path({str(blobs.reserve_file)!r}))\n"
            "def chunks():\n    yield b'half'\n    print('written', flush=True)\n    time.sleep(1000)\n"
            "blobs.write(7, chunks())\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"written\n"
        (partial,) = blobs.incoming.iterdir()
        os.utime(partial, (1000, 1000))
        assert blobs.sweep(lambda names: set(), older_than=0, abandoned=2000) == 0
        writer.kill()
        writer.wait()
    assert blobs.sweep(lambda names: set(), older_than=0, abandoned=500) == 0, "it is too young"
    assert blobs.sweep(lambda names: set(), older_than=0, abandoned=2000) == 1
    assert everything(blobs) == [blob.path]
