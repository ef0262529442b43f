"""What the daemon's account, in an attacker's hands, gets root to do: nothing outside of what is the account's own."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from ippd import releases
from test_update import SECRET, Host, frontend

NOBODY = 65534
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
