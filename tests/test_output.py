"""What programs print while they run, as the daemon keeps it. Bad input: a full disk, a disk with its reserve left."""

import os

import pytest

from conftest import echo
from ippd.errors import NoSpace
from ippd.permissions import OPERATOR
from test_worker_hostile import fill


@pytest.fixture
def id(core, ada):
    return core.experiments.submit(ada, echo())["id"]


def test_a_disk_that_fills_up_loses_nothing_of_the_log(core, ada, id, small_disk):
    """Bad input: room for a part of a piece. The worker sends it again later: what is there already must not count as missing."""
    core.outputs.folder.symlink_to(small_disk)
    text = os.urandom(100_000)
    fill(small_disk / "filler")
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - 5 * 4096)
    with pytest.raises(NoSpace, match="disk is full"):
        core.outputs.append(OPERATOR, id, "stdout", 0, [text])
    assert 0 < core.outputs.open(ada, id).size < len(text)
    (small_disk / "filler").unlink()
    assert core.outputs.append(OPERATOR, id, "stdout", 0, [text]) == len(text)
    assert core.outputs.open(ada, id).path.read_bytes() == text


def test_logs_leave_the_reserve_of_the_disk_alone(core, ada, id, monkeypatch):
    """Bad input: a program that prints when there is no more room than what log-in and removal need."""
    monkeypatch.setattr(core.blobs, "free", lambda: 0)
    with pytest.raises(NoSpace, match="not enough room"):
        core.outputs.append(OPERATOR, id, "stdout", 0, [b"text"])
    assert core.outputs.open(ada, id).size == 0
