"""The commands for backups as processes of their own: whose the files are, the progress bar, what is refused."""

import os
import shlex
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

import program
from ippd.daemon import locked
from test_backup_refused import packed, with_database

PASSWORD = "correct horse battery"
NOBODY, OTHER = 65534, 65533


@pytest.fixture
def tmp_path():
    """A folder that other accounts reach too."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def environ(tmp_path):
    """The environment of a command over a data folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
    return kept | {"IPPD_CONFIG": "", "IPPD_DATA_DIRECTORY": f"{tmp_path}/data", "IPPD_DATA_RESERVE": "0", "IPPD_AUTH_BCRYPT_COST": "4"}


@pytest.fixture
def run(environ):
    """A function: run a command."""
    return lambda command, **options: subprocess.run(
        program.words(*command.split()), capture_output=True, text=True, env=environ, timeout=60, **options)


def test_a_backup_belongs_to_who_makes_it_and_what_is_restored_to_the_owner_of_the_data(run, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another account")
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", NOBODY, NOBODY)
    assert run("user add ada@example.org --password-file -", input=PASSWORD).returncode == 0
    (tmp_path / "vault").mkdir(mode=0o700)
    made = run(f"backup {tmp_path}/vault/b.tar")
    assert (made.returncode, made.stderr) == (0, "") and "0 files and the database" in made.stdout
    assert os.stat(tmp_path / "vault/b.tar").st_uid == 0 and os.stat(tmp_path / "vault/b.tar").st_mode & 0o777 == 0o600
    assert "is there already" in run(f"backup {tmp_path}/vault/b.tar").stderr
    assert "all is as it was written" in run(f"backup --verify {tmp_path}/vault/b.tar").stdout
    run("user remove ada@example.org")
    with locked(tmp_path / "data"):
        os.chown(tmp_path / "data/ippd.lock", NOBODY, NOBODY)
        assert "is in use by another ippd" in run(f"restore --overwrite {tmp_path}/vault/b.tar").stderr
    refused = run(f"restore {tmp_path}/vault/b.tar")
    assert refused.returncode == 1 and "--overwrite" in refused.stderr
    assert run(f"restore --overwrite {tmp_path}/vault/b.tar").returncode == 0
    assert "ada@example.org" in run("user list").stdout
    assert {path.stat().st_uid for path in (tmp_path / "data").rglob("*")} == {NOBODY}


def test_root_makes_no_backup_through_folders_that_an_account_may_exchange(run, tmp_path):
    """Bad input: the folder for backups in the data folder is a link to one of root's; and one of somebody else, who is not to have it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another account")
    for name, owner in (("data", NOBODY), ("data/backups", NOBODY), ("hers", OTHER)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, owner)
    (tmp_path / "roots").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "roots")
    for place, says in (("data/link", "Permission denied"), ("hers", "may exchange folders"), ("data/link/none/../x", "No such file")):
        refused = run(f"backup {tmp_path}/{place}/b.tar")
        assert refused.returncode == 1 and says in refused.stderr, refused
    assert list((tmp_path / "roots").iterdir()) == [] and list((tmp_path / "hers").iterdir()) == []
    assert run(f"backup {tmp_path}/data/backups/b.tar").returncode == 0
    found = os.stat(tmp_path / "data/backups/b.tar")
    assert (found.st_uid, found.st_mode & 0o777) == (NOBODY, 0o600), "root goes on as the account, which has all of it anyway"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "root does not write below" in run(f"backup {shared}/b.tar").stderr and list(shared.iterdir()) == []


def test_a_progress_bar_is_shown_on_a_terminal_only(run, environ, tmp_path):
    assert run(f"backup {tmp_path}/one.tar").stderr == ""
    shown = subprocess.run(["script", "-qec", shlex.join(program.words("backup", tmp_path / "two.tar")), "/dev/null"], text=True,
                           capture_output=True, timeout=60, env=environ)
    assert "backup [####" in shown.stdout and shown.returncode == 0


def test_names_from_a_backup_are_shown_without_what_a_terminal_would_obey(run, tmp_path):
    """Bad input: a path in the database that clears the screen and starts a line of its own."""
    assert run("user add ada@example.org --password-file -", input=PASSWORD).returncode == 0
    assert run(f"backup {tmp_path}/b.tar").returncode == 0
    with tarfile.open(tmp_path / "b.tar") as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar if info.name != "SHA256SUMS"]
    altered = with_database(
        members, tmp_path, "INSERT INTO files (uuid, user_id, experiment_id, kind, field, name, path, bytes, sha256, created_at)"
        " VALUES ('u', 1, 1, 'input', 'file', 'n', '1/\x1b[2J\nippd: all is well', 1, 'x', 1)")
    (tmp_path / "altered.tar").write_bytes(packed(altered))
    for command in ("backup --verify", "restore --overwrite"):
        result = run(f"{command} {tmp_path}/altered.tar")
        assert result.returncode == 1 and "\x1b" not in result.stdout
        assert result.stderr == "ippd: damaged before the backup was made: 1/\\x1b[2J\\nippd: all is well is missing\n"
