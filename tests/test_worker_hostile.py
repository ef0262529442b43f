"""What a job can do to the worker that runs it, and what the daemon can refuse: each test says which bad input it tries."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import silence
from ippd.calls import Unreadable, Upload
from ippd.permissions import OPERATOR
from ippd.runners import files, local
from ippd.settings import load
from ippd.worker import delivery, inputs, journal, make_worker
from ippd.worker.journal import Journal, remove
from workerkit import rig_over, running


@pytest.fixture(scope="module")
def engine():
    with running("local") as made:
        yield made


@pytest.fixture
def rig(make_portal, engine, tmp_path):
    with rig_over(make_portal, engine, tmp_path) as made:
        yield made


def add(rig, name, script):
    """An app whose program is a line of shell in the job's folder work/."""
    folder = rig.folder.parent / "apps"
    (folder / f"{name}.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / f"{name}.sh").chmod(0o755)
    (folder / f"{name}.json").write_text(json.dumps({"Executable": f"{name}.sh"}))


def begun(rig, script, **run):
    """A worker, and an experiment of such an app that runs."""
    add(rig, "odd", script)
    id = rig.submit(rig.ada, app="odd", **run)
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    return worker, id


@pytest.mark.parametrize("again", [False, True])
def test_an_experiment_that_the_daemon_has_failed_is_let_go(rig, again):
    """Bad input: somebody else fails it while its job runs (POST /experiments/ID/failed); and a worker that begins anew with that."""
    id = rig.submit(rig.ada, "wait")
    worker = rig.worker(worker__slots=1)
    rig.until(worker, rig.status(id, "running"))
    rig.core.experiments.fail(OPERATOR, id, None, "by hand")
    if again:
        worker.step()
        worker.close()
        rig.workers.clear()
        worker = rig.worker(worker__slots=1)
    rig.until(worker, lambda: not rig.jobs())
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "by hand") and worker.step() == 0


BAD = {
    "no JSON": lambda kept: "{",
    "another type": lambda kept: "[]",
    "nothing": lambda kept: "",
    "deep": lambda kept: "[" * 100_000,
    "NaN": lambda kept: json.dumps(kept | {"since": float("nan")}),
    "another experiment": lambda kept: json.dumps(kept | {"item": kept["item"] | {"id": 4711}}),
    "a step that is none": lambda kept: json.dumps(kept | {"step": "x"}),
    "a word for a number": lambda kept: json.dumps(kept | {"since": "x"}),
    "no backend": lambda kept: json.dumps(kept | {"item": {"id": kept["item"]["id"], "claim": kept["item"]["claim"]}}),
    "a field too many": lambda kept: json.dumps(kept | {"x": 1}),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_entry_fails_its_experiment_and_no_other(rig, kind):
    """Bad input: a record in the journal that is not one any more."""
    bad, good = rig.submit(rig.ada, "wait"), rig.submit(rig.ada, "wait")
    worker = rig.worker()
    rig.until(worker, lambda: rig.status(bad, "running")() and rig.status(good, "running")())
    (record,) = (rig.folder / "worker" / "journal").glob(f"ippd-{bad}-*.json")
    record.write_text(BAD[kind](json.loads(record.read_text())))
    rig.until(worker, rig.status(bad))
    rig.go.touch()
    rig.until(worker, rig.status(good))
    assert rig.get(good)["status"] == "completed" and rig.get(bad)["status"] == "failed"
    assert rig.get(bad)["message"] == "the worker's record of this experiment cannot be read"
    assert record.with_suffix(".bad").exists() and rig.jobs() == []


FOLDER = ["rm ../exit; mkfifo e && mv e ../exit", "echo abc >../exit", "mkfifo ../e && mv ../e ../stdout.txt",
          "echo nan >../start; echo inf >../end", "rm ../node; mkfifo ../node", "echo 1.2.3m1.2.3s >../times", "mkfifo ../stdout.piece",
          "ln -sf /etc/passwd ../peak", "printf '%s' $$ >../pid.new; touch -d 2099-01-01 ../asked"]  # fmt: skip


@pytest.mark.parametrize("script", FOLDER)
def test_what_a_job_writes_into_its_folder_harms_neither_worker_nor_itself(rig, script):
    """Bad input: pipes, links, words and numbers that are none, under the names that the worker reads."""
    worker, id = begun(rig, f"echo 1 >results/one; {script}; while [ ! -e {rig.go} ]; do sleep 0.1; done")
    other = rig.submit(rig.ada, "wait")
    for _ in range(3):
        worker.step()
    rig.go.touch()
    rig.until(worker, lambda: rig.status(id)() and rig.status(other)())
    assert rig.get(other)["status"] == rig.get(id)["status"] == "completed", rig.get(id)
    assert rig.jobs() == [] and worker.step() == 0


@pytest.mark.parametrize("time", ["nan", "99999999999", "-inf", "x", ""])
def test_a_job_cannot_move_its_time_limit(rig, time):
    """Bad input: a start that is no time, or one to come."""
    _, id = begun(rig, f"echo '{time}' >../start; sleep 100", time_limit=1)
    rig.until(rig.workers[0], rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "the job ran longer than its time limit of 1 s")


def test_a_job_that_leaves_no_exit_status_fails(rig):
    """Bad input: a word instead of the number, and the script killed before it can write that."""
    add(rig, "odd", "echo abc >../exit; kill -9 $(cut -d' ' -f1 ../pid)")
    id = rig.submit(rig.ada, app="odd")
    rig.until(rig.worker(), rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "what the job left of its exit status is no number")


def test_a_job_that_removes_its_own_folder_fails(rig):
    """Bad input: rm -r of the folder in which the worker looks for how it ended; it was begun again."""
    worker, id = begun(rig, f"while [ ! -e {rig.go} ]; do sleep 0.1; done; rm -r ../../$IPPD_JOB", restarts=3)
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "the folder of the job was removed while it ran")
    assert rig.get(id)["restarts"] == 0 and rig.jobs() == []


def test_what_is_said_of_an_earlier_beginning_does_not_stay(rig):
    """Bad input: a worker that was silent, and an experiment that is completed when it is begun again."""
    id = rig.submit(rig.ada, "wait", restarts=3)
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    silence(rig.core, 61)
    assert "was not heard of" in rig.get(id)["message"]
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("completed", None)


@pytest.mark.skipif(not local.REAPS, reason="this kernel is older than Linux 3.4")
def test_a_cancelled_experiment_is_gone_with_what_escaped(rig):
    """Bad input: a process without the job's name, in a session of its own, that ignores SIGTERM."""
    hidden = "sh -c 'trap \"\" TERM; echo $$ >hidden; while :; do sleep 0.1; done'"
    worker, id = begun(rig, f"env -i setsid -f {hidden}; sleep 100")
    place = rig.jobs()[0] / "work" / "hidden"
    rig.until(worker, lambda: files.text(place))
    pid = int(files.text(place))
    rig.core.experiments.cancel(rig.ada, id)
    rig.until(worker, lambda: rig.core.experiments.gone(rig.ada, id))
    assert (local._stat(pid) or "Z")[0] in "ZX" and not rig.jobs()


@pytest.mark.parametrize("script", ["i=0; while [ $i -lt 3000 ]; do : >results/$i; i=$((i + 1)); done", "truncate -s 200G results/big"])
def test_results_that_the_daemon_will_never_take_fail_the_experiment(rig, script):
    """Bad input: more files, and more bytes, than it takes."""
    add(rig, "odd", script)
    id = rig.submit(rig.ada, app="odd")
    worker = rig.worker()
    rig.until(worker, rig.status(id), 80)
    assert rig.get(id)["status"] == "failed" and rig.get(id)["exit_code"] == 0
    assert rig.get(id)["message"].startswith("the results cannot be delivered: "), rig.get(id)
    assert rig.jobs() == [] and worker.step() == 0


def test_results_that_cannot_be_read_fail_the_experiment(rig, monkeypatch):
    """Bad input: a result that is gone when it is to be sent."""
    add(rig, "odd", "echo 1 >results/one")
    id = rig.submit(rig.ada, app="odd")
    found = delivery.outputs.results

    def removed(entry):
        made = found(entry)
        made[0].path.unlink()
        return made

    monkeypatch.setattr(delivery.outputs, "results", removed)
    rig.until(rig.worker(), rig.status(id))
    assert rig.get(id)["message"] == "the results cannot be delivered: a file cannot be read: No such file or directory"


def test_a_file_that_fails_while_it_is_sent_ends_the_call_and_not_the_next_one(rig):
    """Bad input: a folder in the place of a file."""
    server, folder = rig.worker()._steps.server, rig.folder / "a folder"
    folder.mkdir()
    for number in range(40):  # some file systems count the bytes of a folder by its names
        (folder / str(number)).touch()
    with pytest.raises(Unreadable, match="the file a folder cannot be read: Is a directory"):
        server.post_form("/experiments/1/log", [("claim", "x")], [Upload("text", "stdout", folder)])
    assert server.post_json("/experiments/heartbeats", {"claims": {}}) == {"answers": {}}


def test_what_was_measured_wrongly_is_left_out_when_it_is_refused(rig):
    """Bad input: a record of an ended job with a time that is none."""
    worker, id = begun(rig, f"while [ ! -e {rig.go} ]; do sleep 0.1; done")
    (record,) = (rig.folder / "worker" / "journal").glob("*.json")
    used = {"engine": "local", "started_at": "x"}
    outcome = {"kind": "failed", "exit_code": 3, "message": "it went wrong", "usage": used}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"step": "ended", "outcome": outcome}))
    rig.until(worker, rig.status(id))
    assert (rig.get(id)["exit_code"], rig.get(id)["message"]) == (3, "it went wrong") and rig.jobs() == []


def test_a_folder_that_no_entry_names_is_removed(tmp_path):
    """Bad input: what a crash left between the folder and its record, and before the record had its name."""
    Journal(tmp_path).close()
    (tmp_path / "jobs" / "ippd-1-ab").mkdir()
    (tmp_path / "journal" / ".ippd-1-ab.json.0123.partial").write_text("{")
    journal = Journal(tmp_path)
    assert journal.entries() == [] and list((tmp_path / "jobs").iterdir()) == list((tmp_path / "journal").iterdir()) == []
    journal.close()


CLOSED = """
import os, sys, tempfile
from pathlib import Path
from ippd.worker.journal import remove
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
folder = Path(tempfile.mkdtemp())
(folder / "a/b/c").mkdir(parents=True)
(folder / "a/b/c/file").touch()
for path in ("a/b/c", "a/b", "a", "."):
    (folder / path).chmod(0)
sys.exit(not remove(folder))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_folders_that_a_job_has_closed_are_removed():
    """Bad input: folders of mode 0 within one another, for a worker that is not root."""
    assert subprocess.run([sys.executable, "-c", CLOSED], cwd=Path(__file__).parents[1]).returncode == 0


def test_folders_that_are_nested_too_deeply_are_removed(tmp_path):
    """Bad input: more levels than the stack has, a path longer than a path may be, and links that lead out of it."""
    (tmp_path / "kept").touch()
    here, folder = os.getcwd(), tmp_path / "deep"
    folder.mkdir()
    try:
        os.chdir(folder)
        for _ in range(3000):
            os.symlink(tmp_path, "link")
            os.mkdir("level")
            os.chdir("level")
    finally:
        os.chdir(here)
    assert remove(folder) and [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_folder_that_cannot_be_removed_is_told_once_and_tried_later(tmp_path, caplog, monkeypatch):
    """Bad input: a folder in which a disk is mounted."""
    late = [0.0]
    monkeypatch.setattr(journal, "monotonic", lambda: time.monotonic() + late[0])
    made = Journal(tmp_path)
    place = tmp_path / "jobs" / "ippd-1-ab" / "disk"
    place.mkdir(parents=True)
    (place.parent / "file").touch()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert made.entries() == made.entries() == []
        assert caplog.text.count("cannot be removed") == 1 and [path.name for path in place.parent.iterdir()] == ["disk"]
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert made.entries() == [] and place.exists()
    late[0] = journal.LATER + 1
    assert made.entries() == [] and not place.parent.exists()
    made.close()


@pytest.mark.parametrize("claims", [("f" * 16, "0" * 16), ("0" * 16, "f" * 16)])
def test_an_experiment_that_was_lost_and_claimed_again_runs_on(rig, claims, monkeypatch):
    """Bad input: one worker with two claims of one experiment, of which the old one is over."""
    made, left = secrets.token_hex, list(claims)
    monkeypatch.setattr(secrets, "token_hex", lambda size: left.pop(0) if size == 8 else made(size))
    id = rig.submit(rig.ada, "wait", restarts=3)
    worker = rig.worker()
    rig.until(worker, rig.status(id, "running"))
    silence(rig.core, 61)
    rig.until(worker, lambda: rig.status(id, "running")() and len(rig.jobs()) == 1)
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["restarts"], rig.ran(id)) == ("completed", 1, 2) and left == []


@pytest.mark.parametrize("kind", ["completed", "failed"])
def test_a_gap_in_the_live_log_does_not_keep_results_back(rig, kind):
    """Bad input: what was kept of the log is gone, so that the rest is refused."""
    end = "exit 3" if kind == "failed" else "echo 1 >results/one"
    worker, id = begun(rig, f"echo first; while [ ! -e {rig.go} ]; do sleep 0.1; done; echo last; echo late >&2; {end}")
    rig.until(worker, lambda: rig.core.outputs.open(rig.ada, id).size == 6)
    rig.core.outputs.open(rig.ada, id).path.unlink()
    rig.go.touch()
    rig.until(worker, rig.status(id))
    assert rig.get(id)["status"] == kind and rig.jobs() == []
    assert rig.core.outputs.open(rig.ada, id, "stderr").path.read_bytes() == b"late\n"
    assert kind == "failed" or (rig.read(id, "one"), rig.read(id, "log.txt")) == (b"1\n", b"first\nlast\n")


def test_an_input_that_was_removed_fails_its_experiment(rig, monkeypatch):
    """Bad input: a file that its owner removes after the claim; the worker asked for it for ever."""
    id = rig.submit(rig.ada, "wait", files=[("scan", b"voxels")])
    bring = inputs.bring

    def too_late(server, entry):
        rig.core.store.execute("DELETE FROM files WHERE experiment_id = :id", id=id)
        return bring(server, entry)

    monkeypatch.setattr(inputs, "bring", too_late)
    worker = rig.worker()
    rig.until(worker, rig.status(id))
    assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "an input was removed before the job began")
    assert rig.jobs() == [] and rig.ran(id) == 0


@pytest.mark.parametrize("wrong", [1, 3])
def test_an_input_that_arrives_broken_is_brought_three_times(rig, wrong):
    """Bad input: bytes of the portal that are not what was uploaded, once and for good."""
    id = rig.submit(rig.ada, "wait", files=[("scan", b"voxels")])
    stored = rig.core.blobs.path(rig.core.store.value("SELECT path FROM files WHERE experiment_id = :id", id=id))
    stored.write_bytes(b"damage")
    worker = rig.worker()
    for _ in range(min(wrong, 2)):
        assert worker.step() == 1 and rig.ran(id) == 0
    if wrong == 1:
        stored.write_bytes(b"voxels")
        rig.go.touch()
    rig.until(worker, rig.status(id))
    if wrong == 1:
        assert rig.get(id)["status"] == "completed" and rig.read(id, "inputs") == b"voxels"
    else:
        assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "the input scan arrives with a wrong checksum")
    assert rig.jobs() == []


def test_a_full_disk_of_the_worker_ends_neither_it_nor_what_waits(rig, small_disk):
    """Bad input: no room where the journal lies, for a claim and in the middle of a job."""
    one = rig.submit(rig.ada, "wait")
    worker = rig.worker(worker__folder=small_disk)
    rig.until(worker, rig.status(one, "running"))
    filler = small_disk / "filler"
    fill(filler)
    rig.go.touch()
    for _ in range(20):
        worker.step()
        time.sleep(0.1)
    filler.unlink()
    rig.until(worker, rig.status(one))
    fill(filler)
    two = rig.submit(rig.ada, "wait")
    for _ in range(5):
        assert worker.step() == 0
    assert rig.get(two)["status"] == "submitted"
    filler.unlink()
    rig.until(worker, rig.status(two))
    assert [rig.get(id)["status"] for id in (one, two)] == ["completed"] * 2 and [rig.ran(id) for id in (one, two)] == [1, 1]


@pytest.mark.parametrize("end", ["cancel", "time limit"])
def test_a_job_that_fills_the_disk_of_the_worker_can_be_ended(rig, small_disk, end):
    """Bad input: a job that leaves no room for the journal."""
    add(rig, "odd", "cat /dev/zero >results/big; sleep 100")
    id = rig.submit(rig.ada, app="odd", **({"time_limit": 3} if end == "time limit" else {}))
    worker = rig.worker(worker__folder=small_disk)
    worker.step()
    rig.wait(lambda: os.statvfs(small_disk).f_bavail == 0)
    if end == "cancel":
        rig.until(worker, rig.status(id, "running"))
        rig.core.experiments.cancel(rig.ada, id)
        rig.until(worker, lambda: rig.core.experiments.gone(rig.ada, id))
    else:
        rig.until(worker, rig.status(id))
        assert (rig.get(id)["status"], rig.get(id)["message"]) == ("failed", "the job ran longer than its time limit of 3 s")
    assert worker.step() == 0 and list((small_disk / "jobs").iterdir()) == [] and os.statvfs(small_disk).f_bavail > 0


@pytest.mark.parametrize("jump", [36000, -36000])
@pytest.mark.parametrize("early", [False, True])
def test_a_clock_that_is_set_ends_no_job_and_spares_none(rig, jump, early):
    """Bad input: the time of day jumps by hours, before and after the job was first seen; and a worker that begins anew with that."""
    wall, even = [0.0], [0.0]

    def make():
        clocks = (lambda: time.time() + wall[0], lambda: time.monotonic() + even[0])
        rig.workers.append(make_worker(load("", {}, rig.settings()), "local", *clocks))
        return rig.workers[-1]

    def look(worker):
        for _ in range(3):
            worker.step()
        return rig.get(id)["status"]

    id = rig.submit(rig.ada, "wait", time_limit=600)
    worker = make()
    if early:
        worker.step()
        rig.wait(lambda: (rig.jobs()[0] / "start").exists())
    else:
        rig.until(worker, rig.status(id, "running"))
    wall[0] = jump
    assert look(worker) == "running"
    worker.close()
    worker = make()
    assert look(worker) == "running"
    even[0] = 610
    rig.until(worker, rig.status(id))
    assert rig.get(id)["message"] == "the job ran longer than its time limit of 600 s" and rig.ran(id) == 1


def fill(path):
    """Write to a new file until its disk is full."""
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
