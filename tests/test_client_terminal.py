"""A user's commands as processes beside a real portal: bars at a terminal, the log of what still runs, what is shown of a run."""

import json
import os
import pty
import re
import subprocess
import threading

import pytest

import program
from ippd import client
from ippd.permissions import OPERATOR

MB = 1 << 20


@pytest.fixture
def portal(make_portal, tmp_path):
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "echo.json").write_text('{"Executable": "/bin/echo"}')
    return make_portal(apps__directory=tmp_path / "apps")


@pytest.fixture
def token(portal, tmp_path, monkeypatch):
    """The token of a user whose commands are logged in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IPPD_CONFIG", "")
    made = portal.user()
    client.remember(f"https://localhost:{portal.public.port}", made, str(portal.core.certificate_path()))
    return made


def at_a_terminal(*words):
    """Run a command whose standard error is a terminal; gives (status, output, what the terminal got)."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read():
        with open(ours, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(4096):
                    shown.extend(piece)
            except OSError:  # the other side has closed
                pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(program.words(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    finally:
        os.close(theirs)
        reader.join(60)
    return done.returncode, done.stdout.decode(), shown.decode()


def shares(shown, what):
    """The per cent that the bars of a terminal have, which is nothing but bars of `what`, as long as they say."""
    drawn = re.findall(r"\r([^\r]*?) \[(#*) *\] +(\d+) %(\r?\n)?", shown)
    assert "".join(f"\r{name} [{bar:30}] {int(share):3} %{end}" for name, bar, share, end in drawn) == shown
    assert {name for name, _, _, _ in drawn} == {what} and [bool(end) for *_, end in drawn] == [False] * (len(drawn) - 1) + [True]
    assert all(abs(len(bar) - int(share) * 0.3) <= 1 for _, bar, share, _ in drawn)
    return [int(share) for _, _, share, _ in drawn]


def submit(portal, token):
    """An experiment that is claimed: its id, and the claim."""
    id = portal.public.post("/experiments/new", token=token, app="echo", experimentName="a trial").json["id"]
    asked = json.dumps({"worker": "w", "seconds": 600, "limit": 1}).encode()
    (item,) = portal.local.request("POST", "/experiments/claim", asked, {"Content-Type": "application/json"}).json["experiments"]
    return id, item["claim"]


def test_an_upload_and_a_download_show_how_far_they_are(portal, token, tmp_path):
    """Bad input: a download that was broken off, which goes on where it was, and one without a terminal, which shows nothing."""
    data = os.urandom(4 * MB)
    (tmp_path / "scan.nii").write_bytes(data)
    (tmp_path / "more.nii").write_bytes(data[:MB])
    files = (f"scan=@{tmp_path}/scan.nii", f"scan=@{tmp_path}/more.nii")
    status, id, shown = at_a_terminal("submit", "echo", *files)
    assert (status, id) == (0, "1\n")
    up = shares(shown, "upload")
    assert up == sorted(up) and up[0] < 10 and up[-1] == 100 and len(up) >= 20, "one bar for all files"
    portal.core.queue.claim(OPERATOR)
    assert portal.local.post("/experiments/1/results", {}, files=[("file", "big.bin", data)]).status == 200
    status, said, shown = at_a_terminal("get", "1", "--to", tmp_path / "out")
    assert (status, said) == (0, f"{tmp_path}/out/big.bin\n") and (tmp_path / "out" / "big.bin").read_bytes() == data
    down = shares(shown, "big.bin")
    assert down == sorted(down) and down[0] < 10 and down[-1] == 100 and len(down) >= 16
    (tmp_path / "out" / "big.bin").rename(tmp_path / "out" / "big.bin.part")
    os.truncate(tmp_path / "out" / "big.bin.part", 3 * MB)
    (tmp_path / "out" / "big.bin.part.etag").write_text(portal.core.files.open(portal.core.sessions.actor(token), 1, "big.bin").sha256)
    assert shares(at_a_terminal("get", "1", "--to", tmp_path / "out")[2], "big.bin")[0] > 75
    assert program.run("get", "1", "--to", tmp_path / "other") == (0, f"{tmp_path}/other/big.bin\n", "")


def test_what_a_run_was_and_used_is_shown(portal, token):
    """Bad input: none; and an experiment of which nothing is known yet."""
    id, claim = submit(portal, token)

    def lines():
        status, said, errors = program.run("show", id)
        assert (status, errors) == (0, "")
        return dict(re.split(" {2,}", line, maxsplit=1) for line in said.splitlines())

    first = lines()
    assert (first["WHAT"], first["status"], first["experimentName"]) == ("VALUE", "queued", "a trial")
    words = {"exit_code", "engine", "job", "node", "started", "ended", "processor time", "peak memory"}
    assert not words & set(first)
    used = {"engine": "slurm", "job": "4711", "node": "n-17", "started_at": 1e9, "ended_at": 1e9 + 90}
    used |= {"cpu_seconds": 83.25, "peak_bytes": 300 * MB}
    form = {"claim": claim, "exit_code": "3", "message": "out of memory", "usage": json.dumps(used)}
    assert portal.local.post(f"/experiments/{id}/failed", form).status == 200
    shown = lines()
    assert {word: shown[word] for word in words} == {
        "exit_code": "3", "engine": "slurm", "job": "4711", "node": "n-17", "started": "2001-09-09 01:46:40",
        "ended": "2001-09-09 01:48:10", "processor time": "83.2 s", "peak memory": "300 MB",
    }  # fmt: skip
    assert (shown["status"], shown["message"]) == ("failed", "out of memory") and "usage" not in shown


@pytest.mark.parametrize(("stream", "flags"), [("stdout", ()), ("stderr", ("--stderr",))])
def test_a_log_is_followed_while_the_experiment_runs_and_ends_with_it(portal, token, stream, flags):
    """Bad input: half a letter at the end of what is there, and an end without a line break."""
    id, claim = submit(portal, token)
    sent = 0

    def printed(data):
        nonlocal sent
        form = [("claim", claim), ("stream", stream), ("offset", sent)]
        assert portal.local.post(f"/experiments/{id}/log", form, files=[("text", "x", data)]).status == 200
        sent += len(data)

    letter = "ü".encode()
    printed(b"first Gr" + letter[:1])
    follower = subprocess.Popen(program.words("log", "-f", id, *flags), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    patience = threading.Timer(120, follower.kill)  # what never prints would be waited for without end
    patience.start()
    with follower, follower.stdout as output:
        try:
            assert os.read(output.fileno(), 100) == b"first Gr" + letter[:1], "before there is more"
            for piece in (letter[1:] + b"n\n", b"second\n"):
                printed(piece)
                assert os.read(output.fileno(), 100) == piece, "as it comes"
            assert follower.poll() is None
            printed(b"last, without an end")
            assert portal.local.post(f"/experiments/{id}/failed", {"claim": claim, "exit_code": "1"}).status == 200
            assert output.read() == b"last, without an end"
            assert follower.wait(60) == 0
        finally:
            patience.cancel()
            follower.kill()
