"""What may go wrong with an update: programs that hang, bad names, two at once, a key that somebody else chose; and the ways back."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import threading

import pytest

from ippd import releases
from ippd.host import swap
from ippd.schema import MIGRATIONS
from serverkit import wait_for
from test_update import Host, free_port, frontend

HANGS = 'if sys.argv[1:] == ["serve"]: import time; time.sleep(1000)'
NOT_VERSIONS = ["", ".", "..", "...", "a/b", "../bin/ippd", "/etc/passwd", "1" * 10_240, "1.0\n", "1 0", "-1", "€", "1\0", "\0", "é" * 70]


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    if made.process:
        made.process.terminate()
        assert made.process.wait(60) == 0


def test_a_program_that_hangs_at_its_start_is_ended_and_undone(host):
    host.write(host.program, "1.0", "import ippd.processes; ippd.processes.TIME_TO_SUCCEED = 15.0")  # instead of a minute
    host.start()
    before = host.program.read_bytes()
    host.release("3.0", HANGS)
    done = host.run("update", "3.0")
    assert done.returncode == 1 and "3.0 did not become ready: 1.0 goes on, and is in its place again" in done.stderr
    assert host.version() == "1.0" and host.program.read_bytes() == before
    assert host.client.get("/readyz").status == 200
    host.release("4.0")
    assert host.run("update", "4.0").returncode == 0 and host.version() == "4.0"


@pytest.mark.parametrize(("fault", "broken"), [
    ('raise RuntimeError("a broken release")', (True, False)), ('start("200 OK", []); return [b"x" * 10, 7]', (False,)),
    ("import time; time.sleep(1000)", (True,)),
])
def test_a_program_that_starts_but_does_not_answer_well_is_undone(host, fault, broken):
    """Releases that are ready by their own account, and answer all that is asked with an error, half or never: on both listeners, the
    local (True) or the public one (False)."""
    with_all_listeners(host)
    host.start()
    before = host.program.read_bytes()
    host.release("3.0", f"""
import ippd.probe, ippd.rehearsal
from ippd.http.app import Application
ippd.probe.SECONDS = ippd.rehearsal.TIME = 1.0
answer = Application.__call__
def fail(self, environ, start):
    {fault}
Application.__call__ = lambda self, environ, start: (fail if self._local in {broken} else answer)(self, environ, start)
""")
    done = host.run("update", "3.0")
    assert done.returncode == 1 and "3.0 did not become ready: 1.0 goes on, and is in its place again" in done.stderr
    assert host.version() == "1.0" and host.program.read_bytes() == before
    host.release("4.0")
    assert host.run("update", "4.0").returncode == 0 and host.version() == "4.0"


def test_a_program_that_says_that_it_is_not_ready_is_undone(host):
    """A release whose own look at itself finds something missing."""
    host.start()
    host.release("3.0", 'from ippd.core import Core; Core.ready = lambda self: ["nothing works"]')
    done = host.run("update", "3.0")
    assert done.returncode == 1 and "3.0 did not become ready: 1.0 goes on, and is in its place again" in done.stderr
    assert host.version() == "1.0" and host.client.get("/readyz").status == 200


def test_no_client_is_answered_by_a_program_that_then_does_not_take_over(host):
    """A release that answers everything with an error, while a client asks again and again."""
    host.start()
    host.release("3.0", """
from ippd.http.app import Application
def fail(self, environ, start):
    raise RuntimeError("a broken release")
Application.__call__ = fail
""")
    seen, ended = set(), threading.Event()

    def poll():
        while not ended.is_set():
            seen.add(host.client.get("/version").status)

    poller = threading.Thread(target=poll)
    poller.start()
    assert host.run("update", "3.0").returncode == 1
    ended.set()
    poller.join()
    assert seen == {200}


def with_all_listeners(host):
    """Let the daemon have a public listener and a unix socket as well."""
    settings = host.folder / "ippd.conf"
    text = settings.read_text().replace("[public]\nlisten =\n", f"[public]\nlisten = 127.0.0.1:{free_port()}\n")
    settings.write_text(text.replace("[local]\n", f"[local]\nsocket = {host.folder}/local.socket\n"))


def test_a_failed_update_does_not_become_the_program_to_go_back_to(host):
    host.start()
    host.release("2.0")
    assert host.run("update", "2.0").returncode == 0
    host.release("3.0", 'if sys.argv[1:] == ["serve"]: sys.exit(1)')
    assert host.run("update", "3.0").returncode == 1 and host.version() == "2.0"
    assert host.run("update", "--back").returncode == 0
    assert host.version() == "1.0"
    assert sorted(path.name for path in host.program.parent.iterdir()) == ["ippd", "ippd.previous"]


def test_a_release_that_is_in_its_place_already_does_not_become_its_own_predecessor(host):
    host.release("2.0")
    assert host.run("update", "2.0").returncode == 0
    again = host.run("update", "2.0")
    assert again.returncode == 1 and "version 2.0 is in its place already" in again.stderr
    assert host.run("update", "--check", "2.0").stdout == "2.0 passed its trial\n"
    assert host.run("update", "--back").returncode == 0 and host.run("version").stdout == "ippd 1.0\n"


def test_a_release_was_taken_for_the_one_in_place_before_its_file_was_looked_at(host):
    """Bad input: what is in place signed as another version, and with bytes added after it was signed."""
    def update(*words):
        done = host.run("update", *words)
        assert done.returncode == 1
        return done.stderr

    path = host.release("2.0", says="1.0")
    assert update(path) == update("2.0") == "ippd: this program is not version 2.0, but 1.0\n"
    assert "this program is not version 2.0" in update("--check", path)
    path.write_bytes(path.read_bytes() + b"#" * 1000)
    assert update(path) == "ippd: this file is not the one that was signed\n"
    path = host.release("1.0")
    assert "version 1.0 is in its place already" in update(path)
    path.write_bytes(path.read_bytes() + b"#" * 1000)
    assert update(path) == update("--check", path) == "ippd: this file is not the one that was signed\n"


def test_a_frontend_was_taken_for_the_one_in_place_before_its_file_was_looked_at(host):
    """Bad input: an archive of the version in place with bytes added after it was signed."""
    frontend(host, "5.0", {"index.html": b"five"})
    assert host.run("update", "--frontend", "5.0").returncode == 0
    path = host.releases / "ippd-frontend-5.0.tar.gz"
    path.write_bytes(path.read_bytes() + b"#" * 1000)
    assert host.run("update", "--frontend", "5.0").stderr == "ippd: this file is not the one that was signed\n"


def test_the_program_before_it_can_put_itself_back(host):
    host.release("2.0")
    assert host.run("update", "2.0").returncode == 0
    host.program.write_text("#!/bin/sh\nexit 139\n")  # damaged: it cannot be told to go back
    previous = host.program.with_name("ippd.previous")
    host.program, program = previous, host.program
    assert host.run("update", "--back").stdout == "a program that does not run has been replaced by 1.0\n"
    host.program = program
    assert host.run("version").stdout == "ippd 1.0\n"


def test_names_that_are_no_versions_over_http(host):
    host.start()
    for path in ("/version/update", "/fe-version/update"):
        for checkout in NOT_VERSIONS:
            reply = host.client.post(path, checkout=checkout)
            assert reply.status == 400 and "version" in reply.json["error"], (path, checkout[:20], reply)
        assert host.client.post(path).status == 400
        assert host.client.post(path, files=[("checkout", "1.0", b"x")]).status == 400
        assert host.client.post(path, json={"checkout": {"a": 1}}).status == 400


def test_names_that_are_no_releases_at_the_command(host):
    for name in (".", "..", "./.", "/", "a/b", "1 0", "€", str(host.folder), "9.9"):
        for more in ((), ("--frontend",)):
            refused = host.run("update", *more, name)
            assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "unexpected" not in refused.stderr, refused.stderr
    refused = host.run("update", "--back", "--check")
    assert refused.returncode == 1 and "--back does not go with --check" in refused.stderr


def test_a_file_in_the_folder_where_one_stands_is_a_file_and_no_version(host):
    done = host.run("update", host.release("2.0").name, cwd=host.releases)
    assert (done.returncode, done.stdout) == (0, "1.0 has been replaced by 2.0\n"), done.stderr


def test_two_updates_at_once_and_what_a_killed_one_has_left(host):
    host.release("2.0")
    data = host.folder / "data"
    (data / ".trial-killed").mkdir(parents=True)
    (data / ".trial-killed/ippd.sqlite").write_text("a copy of all accounts")
    descriptor = os.open(data, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    refused = host.run("update", "2.0")
    assert refused.returncode == 1 and "another update is under way" in refused.stderr
    os.close(descriptor)
    assert host.run("update", "2.0").returncode == 0
    assert not list(data.glob(".trial-*"))


def test_a_program_that_fails_without_a_word_is_told_with_its_status(host):
    host.release("3.0", 'if "config" in sys.argv: sys.exit(9)')
    assert host.run("update", "3.0").stderr.endswith("failed its trial (config --check): status 9\n")


def test_root_does_not_believe_settings_that_another_account_may_have_written(host):
    if os.geteuid() != 0:
        pytest.skip("another account's file can be made by root only")
    host.release("2.0")
    config = host.folder / "ippd.conf"
    for mode in (0o620, 0o602):  # tests/test_install.py has one that belongs to another account
        config.chmod(mode)
        refused = host.run("update", "2.0")
        assert refused.returncode == 1 and "root does not make it as" in refused.stderr and not (host.folder / "data").exists(), mode
    config.chmod(0o640)
    assert host.run("update", "2.0").returncode == 0


def test_a_frontend_is_only_looked_at_or_taken_back(host):
    frontend(host, "5.0", {"index.html": b"five"})
    page = host.folder / "frontend/index.html"
    assert host.run("update", "--frontend", "--check", "5.0").stdout == "5.0 is a frontend\n"
    assert page.read_text() == "the first"
    refused = host.run("update", "--frontend", "--back")
    assert refused.returncode == 1 and "there is no frontend before" in refused.stderr
    assert host.run("update", "--frontend", "5.0").returncode == 0 and page.read_text() == "five"
    again = host.run("update", "--frontend", "5.0")
    assert again.returncode == 1 and "version 5.0 is in its place already" in again.stderr
    frontend(host, "6.0", {"index.html": b"six"})
    assert host.run("update", "--frontend", "6.0").returncode == 0
    assert host.run("update", "--frontend", "--back").stdout == "the frontend is now 5.0\n" and page.read_text() == "five"
    assert host.run("update", "--frontend", "--back").stdout == "the frontend is now 6.0\n" and page.read_text() == "six"


def test_a_frontend_can_be_read_by_the_daemon_whoever_unpacked_it(host):
    frontend(host, "5.0", {"index.html": b"five", "static/a.js": b"js"})
    assert host.run("update", "--frontend", "5.0", preexec_fn=lambda: os.umask(0o077)).returncode == 0
    place = host.folder / "frontend.versions/5.0"
    modes = {path.stat().st_mode & 0o777 for path in (place.parent, place, place / "static")}
    assert modes == {0o755} and (place / "static/a.js").stat().st_mode & 0o777 == 0o644


def test_a_folder_where_the_frontend_before_updates_would_go(host):
    frontend(host, "5.0", {"index.html": b"five"})
    frontend(host, "6.0", {"index.html": b"six"})
    assert host.run("update", "--frontend", "5.0").returncode == 0
    link = host.folder / "frontend"
    link.unlink()
    shutil.copytree(host.folder / "frontend.versions/5.0", link)
    refused = host.run("update", "--frontend", "6.0")
    assert refused.returncode == 1 and "is there already: move it away" in refused.stderr
    assert (link / "index.html").read_text() == "five"


def test_a_release_that_is_older_than_what_is_in_its_place(host):
    """An old one, signed long ago, with a number that as text would be the greater one."""
    host.write(host.program, "1.10")
    for version in ("1.9", "1.9.9", "0.99", "1.09"):
        host.release(version)
        refused = host.run("update", version)
        assert refused.returncode == 1 and f"version {version} is older than 1.10" in refused.stderr, refused.stderr
    assert host.run("version").stdout == "ippd 1.10\n"
    assert host.run("update", "--check", "1.9").stdout == "1.9 passed its trial\n"
    assert host.run("update", "--allow-older", "1.9").stdout == "1.10 has been replaced by 1.9\n"
    assert host.run("update", "--back").returncode == 0 and host.run("version").stdout == "ippd 1.10\n"
    for version in ("5.10", "5.9"):
        frontend(host, version, {"index.html": version.encode()})
    assert host.run("update", "--frontend", "5.10").returncode == 0
    refused = host.run("update", "--frontend", "5.9")
    assert refused.returncode == 1 and "version 5.9 is older than 5.10" in refused.stderr
    assert host.run("update", "--frontend", "--allow-older", "5.9").stdout == "the frontend is now 5.9\n"


MIGRATES = """import ippd.schema
ippd.schema.MIGRATIONS += (lambda op: op.add_column("users", "nickname", "text"),)"""


def test_the_trial_of_a_program_copied_and_removed_in_the_real_folder_of_backups(host):
    """A newer schema makes the trial copy its database first, where the settings say, and remove what is more than backup.keep there."""
    backups = host.folder / "backups"
    backups.mkdir()
    assert host.run("user", "list").returncode == 0
    kept = [f"before-schema-{len(MIGRATIONS) + 1}-2026010{day}T000000Z.sqlite" for day in (1, 2)]
    for name in kept:
        (backups / name).touch()
    host.release("2.0", MIGRATES)
    done = host.run("--set", f"backup.directory={backups}", "--set", "backup.keep=1", "update", "--check", "2.0")
    assert (done.returncode, done.stdout) == (0, "2.0 passed its trial\n"), done.stderr
    assert sorted(path.name for path in backups.iterdir()) == kept


def test_which_versions_are_older():
    for version, other in (("1.9", "1.10"), ("1", "1.0.1"), ("2.9-9", "10"), ("01.2", "1.3"), ("1.0~rc1", "1.1")):
        assert releases.older(version, other) and not releases.older(other, version), (version, other)
    for version, other in (("1.0", "1"), ("1.0", "1.0.0"), ("a1b2", "9"), ("9", "a program that does not run"), ("", "1"),
                           ("1.0-1", "1.0-2")):
        assert not releases.older(version, other) and not releases.older(other, version), (version, other)


def test_an_update_that_is_killed_while_a_broken_program_takes_over(host):
    host.start()
    before = host.program.read_bytes()
    host.release("2.0")
    assert host.run("update", "2.0").returncode == 0
    good = host.program.read_bytes()
    host.release("3.0", HANGS)
    update = subprocess.Popen([host.program, "update", "3.0"], env=host.environ)
    assert wait_for(lambda: host.run("version").stdout == "ippd 3.0\n", 60)
    update.kill()
    update.wait()
    assert host.version() == "2.0", "the daemon goes on, over a program that does not start"
    done = host.run("update", "--back")
    assert (done.returncode, done.stdout) == (0, "3.0 has been replaced by 2.0\n"), done.stderr
    assert host.program.read_bytes() == good and host.program.with_name("ippd.previous").read_bytes() == before
    assert sorted(path.name for path in host.program.parent.iterdir()) == ["ippd", "ippd.previous"] and host.version() == "2.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount namespace")
def test_an_update_where_the_unit_lets_nothing_be_written_ended_in_an_error_without_advice(host):
    """ProtectSystem=full makes /usr a read-only file system, which says EROFS and not EACCES; bad input: an update cut short there, too."""
    host.release("2.0")
    frontend(host, "5.0", {"index.html": b"five"})
    assert host.run("update", "2.0").returncode == 0
    host.release("3.0")
    mounts = f"for it in {host.program.parent} {host.folder}/www; do mount --bind $it $it && mount -o remount,ro,bind $it || exit 9; done"
    (host.folder / "www").mkdir()
    at = f"--set=public.frontend={host.folder}/www/frontend"

    def protected(*words):
        words = ["unshare", "-m", "--propagation", "private", "sh", "-c", f'{mounts}; exec "$@"', "sh", host.program, *words]
        done = subprocess.run(words, capture_output=True, text=True, env=host.environ, timeout=120)
        assert done.returncode == 1, done.stderr
        return done.stderr

    advice = f"this account may not replace {host.program}: let root run ippd update"
    assert protected("update", "3.0") == f"ippd: {advice}\n"
    assert protected("update", "--back") == f"ippd: {advice} --back\n"
    assert f"may not replace {host.folder}/www/frontend: let root" in protected(at, "update", "--frontend", "5.0")
    swap.marker(host.program).write_text(json.dumps({"version": "2.0", "size": 1, "sha256": "", "daemon": 0}))
    assert f"may not mend {host.program}: let root" in protected("update", "3.0")


def test_updates_that_are_killed_at_each_step(tmp_path):
    """Without a daemon, which says nothing then: what was there before is there again, wherever the update came to."""
    for steps in range(4):
        folder = tmp_path / str(steps)
        folder.mkdir()
        target, previous, older, spare = (folder / name for name in ("ippd", "ippd.previous", ".ippd.older", ".ippd.spare"))
        for path, text in ((target, "two"), (previous, "one"), (folder / "new", "three")):
            path.write_text(text)
        os.link(previous, older)
        os.link(target, spare)
        said = {"version": "3", "size": 5, "sha256": hashlib.sha256(b"three").hexdigest(), "daemon": 0}
        swap.marker(target).write_text(json.dumps(said))
        for path, name in ((spare, previous), (folder / "new", target))[:steps]:
            path.rename(name)
        if steps == 3:  # and whoever mended it was killed as well
            previous.rename(target)
        assert "has been undone" in swap.mend(target, folder)
        (folder / "new").unlink(missing_ok=True)
        assert {path.name: path.read_text() for path in folder.iterdir()} == {"ippd": "two", "ippd.previous": "one"}, steps
        assert swap.mend(target, folder) == ""
