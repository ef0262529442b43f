"""What the daemon's account, in an attacker's hands, gets root to do: nothing outside of what is the account's own."""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ippd import releases
from ippd.errors import Forbidden
from serverkit import wait_for
from test_update import ROOT, SECRET, Host, frontend

NOBODY, OTHER = 65534, 65533
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def host():
    folder = Path(tempfile.mkdtemp(prefix="ippd-"))  # where each account may go
    folder.chmod(0o755)
    yield Host(folder)
    shutil.rmtree(folder)


def given(path):
    """The path, given to the account."""
    path.mkdir(exist_ok=True)
    os.chown(path, NOBODY, NOBODY)
    return path


def test_a_data_folder_below_a_folder_of_root_in_settings_of_the_account(host):
    config = host.folder / "ippd.conf"
    os.chown(config, NOBODY, NOBODY)
    target = given(host.folder / "own")
    (host.folder / "system").mkdir()
    for path in (host.folder / "system/ippd.service.d", host.folder / "system/a/b"):
        for words in (("user", "list"), ("backup", str(host.folder / "b.tar")), ("update", "2.0")):
            refused = host.run("--set", f"data.directory={path}", *words)
            assert refused.returncode == 1 and "cannot make" in refused.stderr, refused.stderr
    assert list((host.folder / "system").iterdir()) == []
    (target / "link").symlink_to(host.folder / "system/made")
    assert host.run("--set", f"data.directory={target}/link", "user", "list").returncode == 1
    assert not (host.folder / "system/made").exists()
    assert host.run("--set", f"data.directory={target}/data", "user", "list").returncode == 0
    assert (target / "data").stat().st_uid == NOBODY, "where the account may make it, it is made"


def test_a_data_folder_of_a_third_account_in_settings_that_the_daemon_has_written(host):
    """Bad input: the daemon's account names somebody's home as data.directory, in its own file or in one of root's that it may write."""
    config, home = host.folder / "ippd.conf", given(host.folder / "home")
    home.chmod(0o755)
    (home / "reserve").write_text("hers")
    os.chown(home / "reserve", NOBODY, NOBODY)
    line = ("--set", f"data.directory={home}")
    for owner, group, mode in ((OTHER, OTHER, 0o600), (0, OTHER, 0o660), (0, 0, 0o666)):
        os.chown(config, owner, group)
        config.chmod(mode)
        for words in (("user", "list"), ("backup", f"{host.folder}/b.tar"), ("update", "2.0"), ("restore", str(config)), ("doctor",)):
            refused = host.run(*line, *words)
            assert refused.returncode == 1 and "may be changed by another" in refused.stderr, refused
    assert {path.name for path in home.iterdir()} == {"reserve"} and (home / "reserve").read_text() == "hers"
    assert stat.S_IMODE(home.stat().st_mode) == 0o755 and not (host.folder / "b.tar").exists()
    os.chown(config, 0, NOBODY)
    config.chmod(0o660)
    assert host.run(*line, "user", "list").returncode == 0, "it is the account's own word"


def test_the_group_of_the_data_folder_is_not_taken_for_that_of_its_owner(host):
    """Bad input: a folder with a group that its owner is not in, as one below a folder with the bit for the group has."""
    os.chown(given(host.folder / "data"), NOBODY, OTHER)
    assert host.run("user", "list").returncode == 0
    made = list((host.folder / "data").rglob("*"))
    assert made and {path.stat().st_gid for path in made} == {NOBODY}


# A release in the shell, which each account can run. It does what the account would: puts a link in the place of the trial's folder.
RELEASE = """#!/bin/sh
case "$*" in
version) echo ippd {version} ;;
*housekeeping*)
    id -u > {said}
    for word; do
        case "$word" in --set=data.directory=*) place=${{word#--set=data.directory=}} ;; esac
    done
    test -s "$place/ippd.sqlite" || exit 8
    {more} ;;
esac
"""
EXCHANGES = 'mv "$place" "$place.mine"; ln -s {target} "$place"; : > "$place/made" || exit 9'


def in_the_shell(host, version, more=":"):
    path = host.releases / f"ippd-{version}"
    path.write_text(RELEASE.format(version=version, said=host.folder / "own/said", more=more))
    path.with_name(f"{path.name}.sig").write_text(releases.sign(path, "program", version, SECRET))


def test_a_folder_of_a_trial_that_is_exchanged_for_a_link_to_a_folder_of_root(host):
    given(host.folder / "data"), given(host.folder / "own")
    target = host.folder / "roots"
    target.mkdir(mode=0o700)
    in_the_shell(host, "2.0", EXCHANGES.format(target=target))
    refused = host.run("update", "--check", "2.0")
    assert refused.returncode == 1 and "Permission denied" in refused.stderr, refused.stderr
    assert list(target.iterdir()) == [] and target.stat().st_uid == 0
    in_the_shell(host, "3.0")
    done = host.run("update", "3.0")
    assert (done.returncode, done.stdout) == (0, "1.0 has been replaced by 3.0\n"), done.stderr
    assert (host.folder / "own/said").read_text() == f"{NOBODY}\n" and host.program.stat().st_uid == 0
    assert {path.lstat().st_uid for path in (host.folder / "data").rglob("*")} == {NOBODY} and list(target.iterdir()) == []


# What the account finds of the terminal at which root has called: it could type there what root's shell reads next.
LOOKS = "readlink /proc/$$/fd/0 >> {said}; (: </dev/tty) 2>> {said} || echo none >> {said}"


def at_a_terminal(host, *words):
    """Run a command as a shell at a terminal would."""
    line = f"{shlex.join([str(host.program), *map(str, words)])}; exit $?"
    return subprocess.run(["script", "-qec", line, "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=host.environ, timeout=120)


def test_the_trial_of_a_release_does_not_get_the_terminal_of_root(host):
    """Bad input: an account that traces the trial, which is its process, to write to the terminal. The release does it itself here."""
    given(host.folder / "data"), given(host.folder / "own")
    in_the_shell(host, "2.0", LOOKS.format(said=host.folder / "own/said"))
    done = at_a_terminal(host, "update", "--check", "2.0")
    assert done.returncode == 0, done.stdout
    said = (host.folder / "own/said").read_text().splitlines()
    assert said[:2] == [f"{NOBODY}", "/dev/null"] and said[-1] == "none" and "No such device or address" in said[-2]


PROBE = """
import os, subprocess
from ippd.host import account, steps
look = ["sh", "-c", {look!r}]
nobody = account.Account({nobody}, {nobody})
account.run_as(nobody, lambda: print(subprocess.run(look, check=True)))
steps.run(*look, user={nobody})
account.become(nobody)
subprocess.run(look, check=True)
"""


def test_no_process_that_is_another_account_gets_the_terminal_of_root(host):
    """Each way to be the account: in a child, in a program of the host, and for good, as what `ippd doctor` starts."""
    said = given(host.folder / "own") / "said"
    look = f"id -u >> {said}; {LOOKS.format(said=said)}"
    code = PROBE.format(look=look, nobody=NOBODY)
    line = shlex.join([sys.executable, "-c", code])
    # In the foreground, but for the second time as the leader of a group, as an interactive shell makes it.
    subprocess.run(["script", "-qec", f"{line}; set -m; {line}; exit $?", "/dev/null"], stdin=subprocess.DEVNULL, check=True,
                   env=host.environ | {"PYTHONPATH": str(ROOT)}, timeout=120)
    lines = said.read_text().splitlines()
    assert len(lines) == 6 * 4 and lines[::4] == [f"{NOBODY}"] * 6 and lines[1::4] == ["/dev/null"] * 6 and lines[3::4] == ["none"] * 6


def test_ctrl_c_ends_what_runs_as_the_account_and_leaves_nothing(host):
    """The child has a session of its own, which does not hear Ctrl-C: its parent tells it."""
    given(host.folder / "data"), given(host.folder / "own")
    in_the_shell(host, "2.0", "exec sleep 100")
    process = subprocess.Popen([host.program, "update", "--check", "2.0"], env=host.environ, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: (host.folder / "own/said").exists(), 60)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (None, "ippd: interrupted\n") and process.returncode == 130
    assert not list((host.folder / "data").glob(".trial-*"))


def test_a_pipe_in_the_place_of_a_signature_or_a_release_is_not_waited_for(host):
    """Bad input: pipes that nobody writes to, in a folder for releases of the account's."""
    given(host.folder / "data")
    in_the_shell(host, "2.0")
    (host.releases / "ippd-2.0.sig").unlink()
    os.mkfifo(host.releases / "ippd-2.0.sig")
    refused = host.run("update", "--check", "2.0")
    assert refused.returncode == 1 and refused.stderr == f"ippd: {host.releases}/ippd-2.0.sig is no file\n"
    os.mkfifo(host.releases / "pipe")
    with pytest.raises(Forbidden, match="is no file"):  # exchanged after it was looked at
        releases.opened(host.releases / "pipe")


def test_a_database_that_is_a_link_to_one_of_root_is_not_copied(host):
    given(host.folder / "data")
    assert host.run("user", "list").returncode == 0
    (host.folder / "data/ippd.sqlite").rename(host.folder / "roots.sqlite")
    os.chown(host.folder / "roots.sqlite", 0, 0)
    (host.folder / "roots.sqlite").chmod(0o600)
    (host.folder / "data/ippd.sqlite").symlink_to(host.folder / "roots.sqlite")
    before = (host.folder / "roots.sqlite").read_bytes()
    host.release("2.0")
    assert host.run("update", "--check", "2.0").returncode == 1
    assert (host.folder / "roots.sqlite").read_bytes() == before


def test_a_frontend_in_a_folder_of_the_account_is_unpacked_as_the_account(host):
    www = given(host.folder / "www")
    frontend(host, "5.0", {"index.html": b"five"})
    done = host.run("--set", f"public.frontend={www}/frontend", "update", "--frontend", "5.0")
    assert done.returncode == 0, done.stderr
    assert {path.lstat().st_uid for path in www.rglob("*")} == {NOBODY}
    target = host.folder / "roots"
    target.mkdir(mode=0o700)
    (www / "elsewhere.versions").symlink_to(target)
    refused = host.run("--set", f"public.frontend={www}/elsewhere", "update", "--frontend", "5.0")
    assert refused.returncode == 1 and "may not replace" in refused.stderr, refused.stderr
    (www / "link").symlink_to(host.folder)  # leads out of the account's folder to one of root's
    refused = host.run("--set", f"public.frontend={www}/link/page", "update", "--frontend", "5.0")
    assert refused.returncode == 1 and "may not replace" in refused.stderr, refused.stderr
    assert list(target.iterdir()) == [] and stat.S_IMODE(target.stat().st_mode) == 0o700
    assert not list(host.folder.glob("page*"))


def test_a_frontend_in_a_folder_that_other_accounts_may_write_to(host):
    shared = host.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    frontend(host, "5.0", {"index.html": b"five"})
    refused = host.run("--set", f"public.frontend={shared}/frontend", "update", "--frontend", "5.0")
    assert refused.returncode == 1 and "root does not write below" in refused.stderr and list(shared.iterdir()) == []
