"""The power is cut in the middle of a write: all processes are killed at random points, two hundred times, over one data folder."""

import json
import os
import random
import re
import shutil
import time

import pytest

from ground import IPPD, Daemon
from powercut import Ledger, Writers

RUNS, FIRST_STARTS = 200, 20
READ_EVERY = 20  # runs between two looks at the bytes of all that is new


@pytest.fixture
def ground(make_ground):
    ground = make_ground("glibc-2.12")
    ground.configure(limits__waiting_experiments=1_000_000, queue__claim_timeout="1s")
    return ground


@pytest.fixture
def rng():
    """Random numbers; pytest shows the seed of a run that failed."""
    seed = int(os.environ.get("IPPD_SEED", time.time_ns() % 1_000_000))
    print(f"IPPD_SEED={seed}")
    return random.Random(seed)


def cut_while_it_starts(ground, rng):
    """Kill it somewhere between its first instruction and a little after it serves."""
    daemon = Daemon(ground)
    time.sleep(rng.random() * 1.3)
    daemon.kill()
    daemon.end()


def first_starts(ground, rng):
    """Starts that are cut off over an empty data folder (secrets, certificate, all migrations), each followed by a whole one."""
    for number in range(FIRST_STARTS):
        if number % 2 == 0:
            shutil.rmtree(ground.path(ground.data))
            ground.folder(ground.data)
            cut_while_it_starts(ground, rng)
        else:
            daemon = ground.daemon()
            assert daemon.public.get("/version").status == 200 and daemon.local.get("/readyz").status == 200
            daemon.kill()


def check(daemon, token, ledger, read=False, again=False):
    """What is listed and what lies on the disk belong together and are what was sent."""
    listed = daemon.experiments(token)
    ledger.check_list(listed)
    on_disk = daemon.stored()
    assert not [path for path in on_disk if path.parent.name == "incoming"]
    assert len(on_disk) == sum(len(found["inputs"]) + len(found["outputs"]) for found in listed.values())
    if read:
        ledger.check_files(daemon, listed, again)
    assert ledger.strange == []


def test_two_hundred_power_cuts(ground, rng):
    first_starts(ground, rng)
    ledger, token = Ledger(), None
    for number in range(FIRST_STARTS, RUNS):
        if number % 6 == 5:
            cut_while_it_starts(ground, rng)
            continue
        daemon = ground.daemon()
        token = token or daemon.join()
        check(daemon, token, ledger, read=number % READ_EVERY == 0)
        writers = Writers(daemon, token, ledger, rng)
        time.sleep(rng.random() * 0.4)
        daemon.kill()
        writers.stop()
    daemon = ground.daemon()
    check(daemon, token, ledger, read=True, again=True)
    doctor = json.loads(ground.run("ippd", "doctor", "--json").stdout)
    assert {"OK"} == {row["level"] for row in doctor if row["name"] in ("database", "orphans", "certificate")}, doctor
    assert len(list(ground.path(ground.data).glob("_MEI*"))) == 1
    assert daemon.stop() == 0
    print(f"{len(ledger.sent)} sent, {len(ledger.acknowledged)} acknowledged, {len(ledger.results_acknowledged)} results")
    assert len(ledger.acknowledged) > RUNS and len(ledger.results_acknowledged) > RUNS / 2
    assert len(ledger.sent) > len(ledger.acknowledged)


# A kill leaves what the kernel has taken; a power cut only what has been flushed. So what is flushed when is looked at as well.
CALLS = "fsync,fdatasync,rename,renameat,sendto,sendmsg,write,writev"
EVENTS = {
    "file": r"fsync\(\d+<.*/uploads/incoming/(\w{32})>\)",
    "rename": r'rename\("[^"]*/incoming/(\w{32})", "[^"]*/uploads/1/\w{32}"\)',
    "folder": r"fsync\(\d+<.*/uploads/()1>\)",
    "log": r"f(?:data)?sync\(\d+<.*/ippd\.sqlite-()wal>\)",
    "answer": r'(?:sendto|sendmsg|write|writev)\(.*"HTTP/1\.1 ()200 ',
}


def events(trace):
    """(event, name of the blob) in the order in which the calls ended."""
    begun = {}
    for line in trace.read_text(errors="replace").splitlines():
        pid, text = line.split(None, 1)
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix(" <unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            text = begun.pop(pid, "") + text[resumed.end() :]
        for event, pattern in EVENTS.items():
            if (found := re.match(pattern, text)) and " = -1 " not in text:
                yield event, found[1]


def test_what_is_acknowledged_was_flushed_before(ground, tmp_path):
    trace = tmp_path / "flushed"
    tracer = ["strace", "-D", "-f", "-y", "-qq", "--seccomp-bpf", "--signal=none", "-s", "40", "-o", trace, "-e", f"trace={CALLS}"]
    daemon = ground.daemon(before=tracer)
    token = daemon.join()
    fields = {"token": token, "app": "echo"}
    trace.write_text("")  # strace appends: what comes now is what counts
    assert daemon.local.post("/experiments/new", fields, [("scan", "a", b"voxels"), ("scan", "b", b"more")]).status == 200
    daemon.complete(("result", b"mean"))
    seen = list(events(trace))
    answers = [place for place, (event, _) in enumerate(seen) if event == "answer"]
    for before, blobs in ((answers[0], 2), (answers[-1], 1)):
        names = [name for event, name in seen[:before] if event == "file"][-blobs:]
        assert len(set(names)) == blobs
        for name in names:
            file, rename = seen.index(("file", name)), seen.index(("rename", name))
            folder = seen.index(("folder", ""), rename)
            log = max(place for place, (event, _) in enumerate(seen[:before]) if event == "log")
            assert file < rename < folder < log < before
    assert daemon.data.stat().st_uid == IPPD
