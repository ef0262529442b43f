"""The binary itself: what is in it, where it unpacks, what it leaves to its children, what it takes. Runs with --binary only.

Bad input: a folder of somebody else to unpack to, what killed programs left, an unpacked program that is taken away.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

import program
from client import Client
from conftest import PASSWORD, echo, join
from ippd import VERSION
from ippd.cli import main
from ippd.permissions import OPERATOR
from serverkit import wait_for
from test_daemon import Daemon
from test_update import Host

pytestmark = pytest.mark.binary_only
ROOT = Path(__file__).parent.parent
MB = 1 << 20


def environ(unpack, **more):
    """The environment of a program that unpacks to `unpack`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")} | {"TMPDIR": str(unpack)} | more


def unpacked(folder):
    return sorted(path.name for path in folder.glob("_MEI*"))


def is_ours(line):
    """Whether a line of an environment is something that PyInstaller put there."""
    return line.startswith(("_PYI", "_MEI", "PYINSTALLER", "LD_LIBRARY_PATH_ORIG=")) or "/_MEI" in line


@pytest.fixture
def folder(tmp_path):
    """Where the programs of these tests unpack."""
    made = tmp_path / "unpacked"
    made.mkdir()
    return made


@pytest.fixture
def start(tmp_path, folder):
    """A function: a daemon with so many serving processes, which unpacks to `folder`, and a client of each listener."""
    running = []

    def begin(processes=1):
        own = tmp_path / str(len(running))
        own.mkdir()
        made = Daemon(own, f"server.processes={processes}", "auth.bcrypt_cost=4", environ={"TMPDIR": str(folder)}).ready()
        made.https, made.http = Client("127.0.0.1", made.public, tls=True), Client("127.0.0.1", made.local)
        running.append(made)
        return made

    yield begin
    for one in running:
        one.end()


def test_each_file_in_it_passes_the_audit_and_the_versions_are_those_of_the_sources():
    done = subprocess.run([sys.executable, ROOT / "packaging/audit.py", program.BINARY], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sources = (ROOT / "centos/python/sources.txt").read_text()
    patterns = {"Python": r"/python3\.13_(3\.13\.\d+)\.", "OpenSSL": r"/openssl_(3\.5\.\d+)\.", "SQLite": r"/sqlite3_(3\.\d+\.\d+)\."}
    wanted = {name: re.search(pattern, sources)[1] for name, pattern in patterns.items()}
    assert dict(re.findall(r"^(Python|OpenSSL|SQLite) (\S+)$", done.stdout, re.MULTILINE)) == wanted
    assert tuple(map(int, wanted["SQLite"].split("."))) >= (3, 51, 3)
    assert Path(program.BINARY).stat().st_size <= 16 * MB


@pytest.mark.parametrize("words", ["manual ippd.8", "manual ippd.conf.5", "manual completion", "config --sample", "version"])
def test_it_says_the_same_as_the_source(words, capsys):
    """Though it has neither docstrings nor asserts."""
    assert main(words.split()) == 0
    assert program.run(*words.split()) == (0, capsys.readouterr().out, "")


def test_it_unpacks_where_tmpdir_says_and_only_there(start, folder, tmp_path):
    daemon = start(2)
    (name,) = unpacked(folder)
    for pid in (daemon.process.pid, daemon.pid, *daemon.children):
        used = re.findall(r"\s(/\S+)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
        used += [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert {path.rpartition("/_MEI")[0] for path in used if "/_MEI" in path} <= {str(folder)}
        assert pid == daemon.process.pid or f"{folder}/{name}/libpython3.13.so.1.0" in used
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(30) == 0 and unpacked(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("owner, mode", [(65534, 0o755), (65534, 0o1777), (0, 0o777), (0, 0o775)])
def test_a_folder_where_others_could_exchange_files_is_passed_over(folder, owner, mode):
    """The owner of a folder can rename all in it, sticky or not; others who may write can if it is not sticky."""
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    words = program.words("user", "add", "ada@example.org", "--password-file", "-", "--set", f"data.directory={folder.parent}/data")
    waiting = subprocess.Popen(words, env=environ(folder), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait_for(lambda: program.children_of(waiting.pid), 30) and unpacked(folder) == []
    _, said = waiting.communicate(b"\n", timeout=60)
    assert b"no password was given" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("owner, mode, link", [(65534, 0o755, False), (0, 0o777, False), (65534, 0o755, True)])
def test_a_folder_of_root_below_one_of_another_account_is_passed_over(tmp_path, owner, mode, link):
    """Bad input: TMPDIR is root's, but who owns a folder above it can put another one there; or a link of somebody else leads to it."""
    above = tmp_path / "above"
    folder = tmp_path / "roots" if link else above / "sub/roots"
    above.mkdir()
    folder.mkdir(parents=True)
    named = above / "link" if link else folder
    if link:
        named.symlink_to(folder)
        os.chown(named, owner, owner, follow_symlinks=False)
    os.chown(above, owner, owner)
    above.chmod(mode)
    words = program.words("user", "add", "ada@example.org", "--password-file", "-", "--set", f"data.directory={tmp_path}/data")
    waiting = subprocess.Popen(words, env=environ(named), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait_for(lambda: program.children_of(waiting.pid), 30)
    if link:  # what it leads to now is out of the account's reach, and the program does not go by the link again
        (child,) = program.children_of(waiting.pid)
        assert unpacked(folder) != [] and str(named) not in Path(f"/proc/{child}/maps").read_text()
    else:
        assert unpacked(folder) == []
    _, said = waiting.communicate(b"\n", timeout=60)
    assert b"no password was given" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can go on as another account")
def test_root_can_run_it_from_a_folder_that_the_serving_account_may_not_read():
    """Commands go on as that account; nothing is read from the program by then."""
    with tempfile.TemporaryDirectory() as top:  # pytest's folders are closed to others
        os.chmod(top, 0o755)
        private, data = Path(top, "private"), Path(top, "data")
        private.mkdir(0o700)
        data.mkdir(0o700)
        os.chown(data, 65534, 65534)
        shutil.copy(program.BINARY, private / "ippd")
        for words in ("housekeeping checkpoint", "user list", "group list", "notifications list", f"backup {data}/b.tar", "app list"):
            given = [private / "ippd", "--set", f"data.directory={data}", "--set", f"apps.directory={data}", *words.split()]
            done = subprocess.run(given, env=environ(top), capture_output=True, text=True)
            assert done.returncode == 0, (words, done.stderr)
        assert {path.stat().st_uid for path in data.rglob("*") if path.name != "b.tar"} == {65534}


def test_what_killed_programs_left_is_removed_at_the_next_start(start, folder):
    daemon = start()
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, other = folder / f"_MEI{gone.pid:08x}abcdef", folder / "_MEI-notes"
    for path in (dead, other):
        path.mkdir()
        (path / "file").touch()
    (folder / f"_MEI{gone.pid:08x}ghijkl").symlink_to(other)
    (live,) = (name for name in unpacked(folder) if name.startswith(f"_MEI{daemon.process.pid:08x}"))
    assert subprocess.run(program.words("version"), env=environ(folder), stdout=subprocess.DEVNULL).returncode == 0
    assert unpacked(folder) == sorted([live, other.name, f"_MEI{gone.pid:08x}ghijkl"]) and (other / "file").exists()
    for pid in (daemon.process.pid, daemon.pid, *daemon.children):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.process.wait(30)
    assert live in unpacked(folder)
    assert wait_for(lambda: not os.path.exists(f"/proc/{daemon.pid}"), 10)
    subprocess.run(program.words("version"), env=environ(folder), stdout=subprocess.DEVNULL, check=True)
    assert live not in unpacked(folder)


def test_it_ends_when_the_process_that_unpacked_it_dies(folder, tmp_path):
    """A command that waits for its input, and a worker between two rounds: no daemon, whose own tests try that."""
    worker = ("worker", "--as-root", "--engine", "local")
    for words in (("user", "add", "a@example.org", "--password-file", "-"), worker):
        given = ("--set", f"data.directory={tmp_path}/data", "--set", f"worker.folder={tmp_path}/worker", "--set", "worker.url=http://127.0.0.1:9")
        outer = subprocess.Popen(program.words(*words, *given), env=environ(folder), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        inner = program.pid_of(outer)
        outer.kill()
        outer.wait(30)
        assert wait_for(lambda inner=inner: not os.path.exists(f"/proc/{inner}"), 30), words
        outer.stdin.close()


def test_all_is_loaded_at_the_start(start, folder):
    """Its unpacked files fall to a cleaner, and a process that dies is replaced: whatever it is asked for is there."""
    daemon = start(2)
    for name in unpacked(folder):
        shutil.rmtree(folder / name)
    for number in (1, 2):
        email = f"ada{number}@example.org"
        https, http = daemon.https, daemon.http
        assert https.post("/users/new", email=email, password=PASSWORD, **{"confirm-password": PASSWORD}).json is True
        page = http.get("/admin/users").body.decode()
        assert email in page and http.get("/admin/groups").status == 200 and http.get("/admin/panel.css").status == 200
        number = next(user["id"] for user in http.get("/users/list").json if user["email"] == email)
        assert http.post(f"/users/approve/{number}").status == 200
        token = https.post("/users/auth", email=email, password=PASSWORD).json["token"]
        fields = {"token": token, "app": "echo", "experimentName": "Ünïcode"}
        id = https.post("/experiments/new", fields, [("scan", "Größe.nii", b"voxels" * 1000)]).json["id"]
        assert id in [item["id"] for item in http.get("/experiments/queue").json]
        assert http.get(f"/experiments/{id}/files").body[:2] == b"PK"
        assert http.post(f"/experiments/{id}/results", files=[("file", "a.txt", b"result")]).status == 200
        assert https.get(f"/experiments/{id}/file", token=token, path="a.txt").body == b"result"
        assert https.get("/password/reset", token="x").status == 200 and https.get("/no/such/page").status == 404
        assert https.request("POST", "/experiments/new", b"{", {"Content-Type": "application/json"}).status in (400, 401)
        victim = next(pid for pid, name in daemon.children.items() if name.startswith("ippd: serve"))
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda victim=victim: victim not in daemon.children and len(daemon.children) == 3, 30)
    assert "Traceback" not in daemon.log and "rror:" not in daemon.log, daemon.log


def test_first_start_needs_no_program_of_the_host(folder, tmp_path):
    settings = (f"data.directory={tmp_path}/data", "public.listen=127.0.0.1:0", "local.listen=")
    words = program.words(*(word for one in settings for word in ("--set", one)), "serve")
    process = subprocess.Popen(words, env={"PATH": "/nonexistent", "TMPDIR": str(folder)}, stderr=subprocess.PIPE, text=True)
    said = ""
    while " serves\n" not in said and (line := process.stderr.readline()):
        said += line
    assert " serves\n" in said and "Made a self-signed certificate" in said
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("given", [None, "/opt/site/lib"])
def test_a_job_gets_the_environment_that_the_worker_was_given(make_portal, folder, tmp_path, given):
    apps = tmp_path / "apps"
    apps.mkdir()
    (apps / "show.sh").write_text('#!/bin/sh\nenv\nprintf "%s\\0" "$@" >results/words\n')
    (apps / "show.sh").chmod(0o755)
    (apps / "echo.json").write_text(json.dumps({"Executable": "show.sh", "PARAMS": {"text": ""}}))
    portal = make_portal(apps__directory=apps)
    ada, hostile = join(portal.core), "3;id $(id)\n'\""
    id = portal.core.experiments.submit(ada, echo(text=hostile))["id"]
    settings = {"worker.url": f"http://127.0.0.1:{portal.local.port}", "worker.folder": tmp_path / "worker", "worker.interval": "0.1s"}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    more = {"LD_LIBRARY_PATH": given} if given else {}
    worker = subprocess.Popen(program.words(*words, "worker", "--as-root", "--engine", "local"), env=environ(folder, **more))
    assert wait_for(lambda: portal.core.experiments.get(OPERATOR, id)["status"] in ("completed", "failed"), 60)
    worker.terminate()
    assert worker.wait(30) == 0 and unpacked(folder) == []
    assert portal.core.files.open(ada, id, "words").path.read_bytes() == hostile.encode() + b"\0"
    lines = portal.core.files.open(ada, id, "log.txt").path.read_text().splitlines()
    assert any(line.startswith("PATH=") for line in lines) and [line for line in lines if is_ours(line)] == []
    assert [line for line in lines if line.startswith("LD_LIBRARY_PATH=")] == ([f"LD_LIBRARY_PATH={given}"] if given else [])


def test_it_hands_over_to_another_program_and_takes_over_from_it(folder, tmp_path):
    """To a program of another kind, which tells its environment; back from that; and to itself, unpacked anew."""
    host = Host(tmp_path)
    shutil.copy(program.BINARY, host.program)
    host.environ |= {"TMPDIR": str(folder)}
    host.start()
    try:
        first = unpacked(folder)
        assert len(first) == 1 and host.version() == VERSION
        told = tmp_path / "environment"
        save = f"open({str(told)!r}, 'w').write('\\n'.join(map('='.join, os.environ.items())))"
        host.release("2.0", f"import os\nif 'serve' in sys.argv: {save}")
        done = host.run("update", "2.0")
        assert done.returncode == 0 and host.version() == "2.0", done.stderr
        assert [line for line in told.read_text().splitlines() if line.startswith("LD_LIBRARY_PATH=") or "/_MEI" in line] == []
        assert host.run("update", "--back").returncode == 0 and host.version() == VERSION
        lock = tmp_path / "data/ippd.lock"
        before = lock.read_text()
        host.process.send_signal(signal.SIGUSR2)
        assert wait_for(lambda: lock.read_text() not in (before, ""), 30) and host.version() == VERSION
    finally:
        host.process.terminate()
        assert host.process.wait(60) == 0
    assert wait_for(lambda: unpacked(folder) == [], 30)


def memory(daemon):
    """Megabytes of all processes of a daemon, the one that unpacked among them; shared pages count once."""
    pids = (daemon.process.pid, daemon.pid, *daemon.children)
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)[1]) for text in texts) / 1024


def test_what_it_takes_of_memory(start):
    found = []
    for processes in (1, 2, 3):
        daemon = start(processes)
        for number in range(100):
            assert daemon.https.get("/version" if number % 2 else "/apps").status == 200
        time.sleep(1)
        found.append(memory(daemon))
        daemon.end()
    print("proportional set size with 1, 2 and 3 serving processes, after 100 requests:", *(f"{size:.1f} MB" for size in found))
    assert found[0] <= 60
    assert found[2] - found[1] <= 25 and (found[1] - found[0]) <= 50  # with two the schedule is a process of its own
