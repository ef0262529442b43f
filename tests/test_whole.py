"""The whole daemon under load: huge uploads, many at once, polls in between. Bad input: sizes that do not fit in memory, races."""

import io
import shutil
import signal
import tempfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from client import Client, form
from ippd.core import open_core
from ippd.permissions import ANONYMOUS, OPERATOR
from ippd.settings import load
from serverkit import wait_for
from test_daemon import Daemon

PASSWORD = "correct horse battery"
MB, GB = 1 << 20, 1 << 30
PIECE = bytes(range(256)) * (4 * MB // 256)


@pytest.fixture
def daemon(tmp_path):
    """`ippd serve` with two serving processes, and one user: `daemon.token`."""
    folder = Path(tempfile.mkdtemp(prefix="ippd-whole-"))  # removed at once, not kept for three runs: it becomes large
    (folder / "tmp").mkdir()
    running = Daemon(folder, "auth.bcrypt_cost=4", environ={"TMPDIR": str(folder / "tmp")}).ready()
    core = open_core(load("", {}, [f"data.directory={folder}/data", "data.reserve=0", "auth.bcrypt_cost=4"]))
    core.users.add(OPERATOR, "ada@example.org", PASSWORD)
    running.token = core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD)
    core.close()
    running.https, running.http = Client("127.0.0.1", running.public, tls=True), Client("127.0.0.1", running.local)
    yield running
    running.signal(signal.SIGTERM)
    running.process.wait(30)
    running.end()
    shutil.rmtree(folder)


def memory(daemon):
    """Bytes that all processes of the daemon take, shared pages counted once."""
    total = 0
    for pid in (daemon.pid, *daemon.children):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def endless(size, seen=lambda sent: None):
    """`size` bytes in pieces; `seen` is called with the number sent so far."""
    for sent in range(0, size, len(PIECE)):
        seen(sent)
        yield PIECE[: min(len(PIECE), size - sent)]


def submit(daemon, *files, **more):
    fields = {"token": daemon.token, "app": "echo", "experimentName": "a trial"} | more
    return daemon.https.post("/experiments/new", fields, list(files))


def on_disk(daemon):
    return sum(path.stat().st_size for path in (daemon.folder / "data" / "uploads").rglob("*") if path.is_file())


def test_five_gigabytes_stream_in_and_out_with_flat_memory_and_no_copy(daemon):
    size = 5 * GB
    submit(daemon, ("scan", "warm.nii", (8 * MB, endless(8 * MB))))
    before, most = memory(daemon), 0

    def look(sent):
        nonlocal most
        if sent % (256 * MB) == 0:
            most = max(most, memory(daemon))
            assert on_disk(daemon) <= sent + 64 * MB, "the bytes are on the disk twice"
            assert [path for path in (daemon.folder / "tmp").iterdir() if not path.name.startswith("_MEI")] == []  # the binary's own

    reply = submit(daemon, ("scan", "huge.nii", (size, endless(size, look))))
    assert reply.status == 200 and max(most, memory(daemon)) - before < 20 * MB
    id = reply.json["id"]
    # Out again as a zip, of which this reads the one member as it comes: local header, then the bytes themselves.
    connection = daemon.http.connection()
    connection.request("GET", f"/experiments/{id}/files")
    answer = connection.getresponse()
    head = answer.read(30)
    answer.read(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"))
    left, crc = size, 0
    while left:
        piece = answer.read(min(left, 4 * MB))
        assert piece == PIECE[: len(piece)]
        left, crc = left - len(piece), zlib.crc32(piece, crc)
        most = max(most, memory(daemon)) if left % (512 * MB) < 4 * MB else most
    tail = answer.read()
    assert crc.to_bytes(4, "little") + size.to_bytes(8, "little") in tail, "the descriptor has the sum and the 64-bit size"
    assert most - before < 20 * MB
    connection.close()


def test_a_thousand_files_in_one_field_are_all_there(daemon):
    files = [("scan", f"slice {number % 500}.dcm", str(number).encode()) for number in range(1000)]
    id = submit(daemon, *files).json["id"]
    (experiment,) = daemon.https.get("/experiments", token=daemon.token).json["experiments"]
    assert len(set(experiment["inputs"])) == 1000 and experiment["params"]["scan"].split(",") == experiment["inputs"]
    archive = daemon.http.get(f"/experiments/{id}/files").body
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        assert members.namelist() == experiment["inputs"]
        assert [members.read(name) for name in experiment["inputs"]] == [data for _, _, data in files]


def test_of_four_hundred_submissions_none_is_lost_and_none_handed_out_twice(daemon):
    submitted, claimed, done = [], [], threading.Event()

    def send(number):
        for count in range(100):
            submitted.append(submit(daemon, ("scan", "scan.nii", f"{number} {count}".encode())).json["id"])

    def poll():
        while True:
            last = done.is_set()
            items = daemon.http.get("/experiments/queue").json
            claimed.extend(item["id"] for item in items)
            if last and not items:
                return

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    pollers = [threading.Thread(target=poll) for _ in range(4)]
    for thread in senders + pollers:
        thread.start()
    for thread in senders:
        thread.join()
    done.set()
    for thread in pollers:
        thread.join()
    assert len(submitted) == len(set(submitted)) == 400
    assert sorted(claimed) == sorted(submitted)


def test_a_poll_during_an_upload_neither_shows_nor_loses_it(daemon):
    seen = []

    def look(sent):
        if sent % (128 * MB) == 0:
            seen.extend(daemon.http.get("/experiments/queue").json)
            seen.extend(daemon.https.get("/experiments", token=daemon.token).json["experiments"])

    id = submit(daemon, ("scan", "large.nii", (GB, endless(GB, look)))).json["id"]
    assert seen == []
    assert [item["id"] for item in daemon.http.get("/experiments/queue").json] == [id]


def test_a_client_that_vanishes_in_its_upload_leaves_nothing(daemon):
    kind, length, body = form([("token", daemon.token), ("app", "echo")], [("scan", "scan.nii", (64 * MB, endless(64 * MB)))])
    with daemon.tls() as connection:
        head = ("POST /experiments/new HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}", "", "")
        connection.sendall("\r\n".join(head).encode())
        for piece, _ in zip(body, range(8), strict=False):
            connection.sendall(piece)
    assert wait_for(lambda: on_disk(daemon) == 0, 10)
    assert daemon.https.get("/experiments", token=daemon.token).json == {"experiments": []}
