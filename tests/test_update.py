"""Updates of a real daemon by real programs: nothing is lost, nothing unsigned is taken, and what does not start is undone."""

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ecdsa import Ed25519, SigningKey

from client import Client, form
from ippd import probe, releases
from ippd.errors import Forbidden, Invalid
from ippd.settings import load
from serverkit import wait_for

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse battery"
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
import ippd
ippd.VERSION = {version!r}
{more}
from ippd.cli import main
sys.exit(main())
"""
SECRET, PUBLIC = releases.new_key()


class Host:
    """A program, its settings, and releases beside it."""

    def __init__(self, folder):
        self.folder, self.program, self.process = folder, folder / "bin" / "ippd", None
        self.program.parent.mkdir()
        self.releases = folder / "releases"
        self.releases.mkdir()
        self.write(self.program, "1.0")
        (folder / "frontend").mkdir()
        (folder / "frontend/index.html").write_text("the first")
        self.port = free_port()
        (folder / "ippd.conf").write_text(
            f"[data]\ndirectory = {folder}/data\nreserve = 0\n[public]\nlisten =\nfrontend = {folder}/frontend\n"
            f"[local]\nlisten = 127.0.0.1:{self.port}\nallow = *\n[auth]\nbcrypt_cost = 4\n"
            f"[server]\nprocesses = 2\ndrain_timeout = 1s\nbody_grace = 10m\n[update]\nkey = {PUBLIC}\ndirectory = {self.releases}\n")
        self.client = Client("127.0.0.1", self.port)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
        self.environ = kept | {"IPPD_CONFIG": str(folder / "ippd.conf")}

    def write(self, path, version, more=""):
        path.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT), version=version, more=more))
        path.chmod(0o755)

    def release(self, version, more="", says=None):
        path = self.releases / f"ippd-{version}"
        self.write(path, says or version, more)
        path.with_name(f"{path.name}.sig").write_text(releases.sign(path, "program", version, SECRET))
        return path

    def run(self, *words, **options):
        return subprocess.run([self.program, *words], capture_output=True, text=True, env=self.environ, timeout=120, **options)

    def start(self):
        self.process = subprocess.Popen([self.program, "serve"], env=self.environ)
        assert probe.wait(load(str(self.folder / "ippd.conf"), {}), 40, lambda: self.process.poll() is not None) == ""

    def version(self):
        return self.client.get("/version").json["version"]


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    if made.process:
        made.process.terminate()
        assert made.process.wait(60) == 0


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_an_update_loses_no_request_and_can_be_taken_back(host):
    assert host.run("user", "add", "ada@example.org", "--password-file", "-", input=PASSWORD).returncode == 0
    host.start()
    token = host.client.post("/users/auth", email="ada@example.org", password=PASSWORD).json["token"]
    fields = [("token", token), ("app", "echo"), ("experimentName", "n"), ("experimentDescription", "d"), ("host", "cubic")]
    kind, length, pieces = form(fields, [("scan", "scan.nii", b"x" * 200_000)])
    body = b"".join(pieces)
    upload = http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)
    upload.putrequest("POST", "/experiments/new")
    upload.putheader("Content-Type", kind)
    upload.putheader("Content-Length", str(length))
    upload.endheaders()
    upload.send(body[:100_000])  # under way while the program changes, for longer than drain_timeout
    seen, ended = [], threading.Event()

    def poll():
        while not ended.is_set():
            seen.append(host.client.get("/version"))
            time.sleep(0.02)

    poller = threading.Thread(target=poll)
    poller.start()
    done = host.run("update", str(host.release("2.0")))
    assert (done.returncode, done.stdout) == (0, "1.0 has been replaced by 2.0\n"), done.stderr
    time.sleep(2)
    ended.set()
    poller.join()
    upload.send(body[100_000:])
    answer = upload.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["status"] == "submitted"
    assert {reply.status for reply in seen} == {200} and [reply.json["version"] for reply in seen][-1] == "2.0"
    assert host.version() == "2.0" and host.run("version").stdout == "ippd 2.0\n"

    done = host.run("update", "--back")
    assert (done.returncode, done.stdout) == (0, "2.0 has been replaced by 1.0\n"), done.stderr
    assert host.version() == "1.0" and host.run("version").stdout == "ippd 1.0\n"
    assert host.process.poll() is None, "the process that the service manager knows is the same all the time"


def test_updates_leave_no_chain_of_processes(host):
    """Three updates, with an upload under way through all of them that began with the second program."""
    host.start()
    assert host.run("update", str(host.release("2.0"))).returncode == 0
    with socket.create_connection(("127.0.0.1", host.port), timeout=60) as upload:
        upload.sendall(b"POST /users/auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                       b"Content-Length: 28\r\n\r\nemail=nobody@")  # fmt: skip
        for version in ("3.0", "4.0"):
            assert host.run("update", str(host.release(version))).returncode == 0
            assert host.version() == version
            # The first parent; the one before that with the process that serves the upload; the successor with two and the schedule.
            assert wait_for(lambda: len(family(host.process.pid)) == 7, 30), family(host.process.pid)
        upload.sendall(b"a.de&password=x")
        assert upload.recv(100).startswith(b"HTTP/1.1 200 ")
    assert wait_for(lambda: len(family(host.process.pid)) == 5, 30), family(host.process.pid)
    host.process.send_signal(signal.SIGHUP)
    assert host.run("update", "--back").returncode == 0 and host.version() == "3.0"
    assert wait_for(lambda: len(family(host.process.pid)) == 5, 30)


def family(pid):
    """The process and all below it that have not ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, state, parent = re.match(r"(\d+) \(.*\) (\S) (\d+)", path.read_text()).groups()
            if state != "Z":
                parents[int(number)] = int(parent)
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def test_a_program_that_does_not_come_up_is_undone(host):
    host.start()
    before = host.program.read_bytes()
    host.release("3.0", 'if sys.argv[1:] == ["serve"]: sys.exit(1)')
    done = host.run("update", "3.0")
    assert done.returncode == 1 and "3.0 did not become ready: 1.0 goes on" in done.stderr
    assert host.version() == "1.0" and host.program.read_bytes() == before
    host.release("4.0")
    assert host.run("update", "4.0").returncode == 0 and host.version() == "4.0", "the next one is not hindered"


def test_a_program_that_fails_its_trial_is_not_put_in_place(host):
    before = host.program.read_bytes()
    host.release("3.0", says="3.1")
    assert "is not version 3.0" in host.run("update", "3.0").stderr
    host.release("3.1", 'if "config" in sys.argv: sys.exit("these settings are too old for me")')
    assert "these settings are too old for me" in host.run("update", "3.1").stderr
    host.release("3.2", 'if "housekeeping" in sys.argv: sys.exit("this database cannot be migrated")')
    assert "this database cannot be migrated" in host.run("update", "3.2").stderr
    (host.releases / "ippd-3.3").write_text("no program")
    (host.releases / "ippd-3.3.sig").write_text(releases.sign(host.releases / "ippd-3.3", "program", "3.3", SECRET))
    assert "cannot be run" in host.run("update", "3.3").stderr
    assert host.program.read_bytes() == before and [path.name for path in host.program.parent.iterdir()] == ["ippd"]
    host.release("3.4")
    done = host.run("update", "--check", "3.4")
    assert done.stdout == "3.4 passed its trial\n" and host.program.read_bytes() == before
    assert not list((host.folder / "data").glob(".trial-*"))


def test_what_is_not_signed_with_our_key_is_not_taken(host):
    before = host.program.read_bytes()
    path = host.release("2.0")
    good = path.read_bytes()
    path.write_bytes(good + b"# changed after it was signed\n")
    assert "is not the one that was signed" in host.run("update", "2.0").stderr
    path.write_bytes(good)
    signature = path.with_name("ippd-2.0.sig")
    signature.write_text(releases.sign(path, "program", "2.0", releases.new_key()[0]))
    assert "was not made with the key" in host.run("update", "2.0").stderr
    signature.write_text(releases.sign(path, "frontend", "2.0", SECRET))
    assert "release of the frontend" in host.run("update", "2.0").stderr
    signature.write_text(releases.sign(path, "program", "1.9", SECRET))
    assert "is version 1.9" in host.run("update", "2.0").stderr
    signature.unlink()
    assert "is missing" in host.run("update", "2.0").stderr
    assert "update.key is not set" in host.run("--set", "update.key=", "update", str(host.release("2.1"))).stderr
    assert "name a release" in host.run("update").stderr and "name a release" in host.run("update", "--back", "2.0").stderr
    assert "there is no" in host.run("update", "--back").stderr
    assert host.program.read_bytes() == before


def test_updates_over_the_local_listener(host):
    host.start()
    host.release("2.0")
    reply = host.client.post("/version/update", checkout="9.9")
    assert (reply.status, reply.json) == (404, {"error": f"there is no {host.releases}/ippd-9.9"})
    reply = host.client.post("/version/update", checkout="2.0")
    assert (reply.status, reply.json) == (200, {"version": "2.0"})
    assert host.version() == "2.0" and host.run("version").stdout == "ippd 2.0\n"


def frontend(host, version, files):
    path = host.releases / f"ippd-frontend-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path.with_name(f"{path.name}.sig").write_text(releases.sign(path, "frontend", version, SECRET))


def test_the_frontend_is_replaced_in_one_step(host):
    host.start()
    frontend(host, "5.0", {"index.html": b"five", "static/a.js": b"js"})
    assert host.client.get("/version").json == {"version": "1.0", "frontend": None}
    assert host.client.post("/fe-version/update", checkout="5.0").json == {"frontend": "5.0"}
    assert (host.folder / "frontend/index.html").read_text() == "five" and (host.folder / "frontend/static/a.js").read_text() == "js"
    assert host.client.get("/version").json == {"version": "1.0", "frontend": "5.0"}
    frontend(host, "6.0", {"index.html": b"six"})
    assert host.run("update", "--frontend", "6.0").stdout == "the frontend is now 6.0\n"
    assert sorted(path.name for path in (host.folder / "frontend.versions").iterdir()) == [".previous", "5.0", "6.0", "before-updates"]
    frontend(host, "7.0", {"page.html": b"no index"})
    frontend(host, "8.0", {"index.html": b"eight", "../../evil": b"evil"})
    assert "it is no frontend" in host.client.post("/fe-version/update", checkout="7.0").json["error"]
    assert "cannot be unpacked" in host.client.post("/fe-version/update", checkout="8.0").json["error"]
    assert (host.folder / "frontend/index.html").read_text() == "six" and not list(host.folder.rglob("evil"))


def test_signatures(tmp_path):
    (tmp_path / "f").write_bytes(b"content")
    text = releases.sign(tmp_path / "f", "program", "1.0", SECRET)
    release = releases.check(text, "program", PUBLIC)
    assert (release.version, release.size) == ("1.0", 7)
    flipped = base64.b64encode(bytes([base64.b64decode(PUBLIC)[0] ^ 1]) + base64.b64decode(PUBLIC)[1:]).decode()
    for changed, key in ((text.replace("1.0", "1.1"), PUBLIC), (text.replace("size 7", "size 8"), PUBLIC), (text + "\n", PUBLIC),
                         (text[:-3] + "=\n", PUBLIC), ("", PUBLIC), (text, ""), (text, flipped), (text, "AAAA"), (text, "no base64!"),
                         (text, "A" * 43 + "="), (text.replace("signature ", "signature\t"), PUBLIC)):
        with pytest.raises(Forbidden):
            releases.check(changed, "program", key)
    for version, secret in (("1/0", SECRET), ("", SECRET), ("-1", SECRET), ("1.0", "AAAA"), ("1.0", "é")):
        with pytest.raises(Invalid):
            releases.sign(tmp_path / "f", "program", version, secret)


def test_rfc_8032_test_vector_2():
    key = SigningKey.from_string(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"), Ed25519)
    assert key.verifying_key.to_string().hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")


def test_the_commands_that_make_keys_and_signatures(host):
    made = host.run("release", "key", str(host.folder / "key"))
    public = made.stdout.splitlines()[1].removeprefix("key = ")
    assert (host.folder / "key").stat().st_mode & 0o777 == 0o600
    assert host.run("release", "key", str(host.folder / "key")).returncode == 1, "a key is never overwritten"
    assert host.run("release", "public", str(host.folder / "key")).stdout == made.stdout
    (host.folder / "none").write_bytes(b"\xff")
    for none in (host.program, host.folder / "none"):
        assert host.run("release", "public", str(none)).stderr == "ippd: this is no secret key of ippd release key\n"
    done = host.run("release", "sign", str(host.program), "1.0", "--key", str(host.folder / "key"))
    assert done.returncode == 0, done.stderr
    assert releases.check(releases.read_signature(host.program), "program", public).version == "1.0"


SPEC = """Name: owner
Version: 1
Release: 1
Summary: Owns the program
License: none
BuildArch: noarch
%description
Owns the program.
%install
install -D /dev/null %{{buildroot}}{path}
%files
{path}
"""


def test_a_program_that_belongs_to_a_package_is_left_to_its_manager(host):
    """A real package that owns the file, in a package database of its own."""
    home = host.folder / "home"
    home.mkdir()
    (home / "owner.spec").write_text(SPEC.format(path=host.program))
    host.environ["HOME"] = str(home)
    (home / ".rpmmacros").write_text(f"%_dbpath {home}/db\n%_topdir {home}/rpmbuild\n")
    package = f"{home}/rpmbuild/RPMS/noarch/owner-1-1.noarch.rpm"
    for command in (f"rpmbuild -bb --quiet {home}/owner.spec", f"rpm -i --justdb --nodeps {package}"):
        subprocess.run(command, shell=True, check=True, env=host.environ, capture_output=True)
    before = host.program.read_bytes()
    host.release("2.0")
    for words in (("2.0",), ("--back",)):
        refused = host.run("update", *words)
        assert refused.returncode == 1 and "belongs to the package owner-1-1.noarch: update it with rpm or yum" in refused.stderr
    assert host.program.read_bytes() == before
