"""Commands as processes of their own: their output, the account they run as, the first start."""

import os
import shlex
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

import program
from ippd import certificate
from ippd.cli import service
from ippd.core import open_core
from ippd.errors import SettingsError
from ippd.permissions import OPERATOR
from ippd.settings import load

PASSWORD = "correct horse battery"
NOBODY = 65534
ROOT = str(Path(__file__).parent.parent)


@pytest.fixture
def settings(tmp_path):
    """A function: settings over a temporary folder."""
    return lambda *more: load("", {}, [f"data.directory={tmp_path}/data", "data.reserve=0", "auth.bcrypt_cost=4",
                                       "public.listen=127.0.0.1:0", *more])


@pytest.fixture
def core(settings):
    core = open_core(settings())
    yield core
    core.close()


@pytest.fixture
def run(tmp_path):
    """A function: run a command in a shell, with `ippd` at its beginning."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
    environ |= {"IPPD_CONFIG": "", "IPPD_DATA_DIRECTORY": f"{tmp_path}/data", "IPPD_DATA_RESERVE": "0",
                "IPPD_AUTH_BCRYPT_COST": "4", "IPPD": shlex.join(program.words())}
    return lambda command, more=(), **options: subprocess.run(
        ["bash", "-c", f"$IPPD {command}"], capture_output=True, text=True, env=environ | dict(more), cwd=ROOT,
        timeout=60, **options
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_mistake(run, core, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    for command in ("config", "group list", "version"):
        done = run(f"{command} >&{writer}", {"PYTHONUNBUFFERED": unbuffered}, pass_fds=[writer])
        assert (done.returncode, done.stderr) == (1, "")
    assert run(f"--help >&{writer}", {"PYTHONUNBUFFERED": unbuffered}, pass_fds=[writer]).stderr == ""
    os.close(writer)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_a_mistake(run, unbuffered):
    for command in ("config --sample", "version"):
        done = run(f"{command} >/dev/full", {"PYTHONUNBUFFERED": unbuffered})
        assert (done.returncode, done.stderr) == (1, "ippd: No space left on device\n")
    assert run("version >&-").returncode == 0


def test_a_name_that_the_terminal_cannot_show_stops_nothing(run, core):
    core.groups.create(OPERATOR, "Jörg")
    done = run("group list", {"PYTHONIOENCODING": "ascii"})
    # The binary speaks UTF-8 whatever the environment says.
    assert done.returncode == 0 and ("Jörg" if program.BINARY else "J\\xf6rg") in done.stdout


def test_a_command_works_beside_a_process_that_uses_the_store(run, core):
    core.users.sign_up(OPERATOR, "ada@example.org", PASSWORD)
    assert run("user approve ada@example.org").returncode == 0
    assert core.users.find(OPERATOR, "ada@example.org")["status"] == "approved"


def test_an_unexpected_mistake_is_one_sentence_and_a_traceback_only_when_wanted(run, core):
    core.store.execute("DROP TABLE members")
    done = run("group list")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("ippd: unexpected ")
    assert "no such table" in done.stderr and "(--set log.level=debug shows where)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in run("group list --set log.level=debug").stderr


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "data").touch()
    done = run("user list")
    assert done.returncode == 1 and done.stderr == f"ippd: data.directory: {tmp_path}/data: File exists\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_what_root_does_belongs_to_the_account_of_the_daemon(run, tmp_path):
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.chown(tmp_path / "data", NOBODY, NOBODY)
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    done = run(f"user add ada@example.org --password-file {tmp_path}/password")
    assert (done.returncode, done.stderr) == (0, "")
    made = list((tmp_path / "data").rglob("*"))
    assert "ippd.sqlite" in {path.name for path in made}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NOBODY, NOBODY)}
    assert (tmp_path / "password").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_daemon_does_not_start_in_the_folder_of_another_account(run, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.chown(tmp_path / "data", NOBODY, NOBODY)
    done = run("serve")
    assert done.returncode == 1
    assert done.stderr == f"ippd: data.directory: {tmp_path}/data belongs to the account nobody, and this is the account root\n"
    assert list((tmp_path / "data").iterdir()) == []


def test_the_first_start_makes_a_certificate(core, settings, tmp_path, capsys):
    service.prepare(core, settings())
    cert, key = f"{tmp_path}/data/certificate.pem", f"{tmp_path}/data/key.pem"
    said = capsys.readouterr().err
    assert said.startswith("Made a self-signed certificate for ") and cert in said
    assert {"localhost", "127.0.0.1", "::1"} <= set(certificate.read(cert)[0])
    assert os.stat(key).st_mode & 0o777 == 0o600
    ssl.create_default_context(cafile=cert)
    before = Path(cert).read_bytes(), Path(key).read_bytes()
    core.users.add(OPERATOR, "ada@example.org", PASSWORD)
    service.prepare(core, settings())
    assert capsys.readouterr().err == ""
    assert (Path(cert).read_bytes(), Path(key).read_bytes()) == before


def test_a_pair_that_does_not_fit_stops_the_start(core, settings, tmp_path):
    service.prepare(core, settings())
    key = tmp_path / "data" / "key.pem"
    key.unlink()
    with pytest.raises(SettingsError, match="key.pem cannot be read: No such file"):
        service.prepare(core, settings())
    certificate.make(["localhost"], f"{tmp_path}/other", str(key))
    with pytest.raises(SettingsError, match="key.pem is not the key of .*certificate.pem"):
        service.prepare(core, settings())


def test_without_a_public_listener_no_certificate_is_made(core, settings, tmp_path):
    service.prepare(core, settings("public.listen="))
    assert not (tmp_path / "data" / "certificate.pem").exists()


def test_the_certificate_is_for_the_names_people_use(settings):
    names = service.own_names(settings("public.url=https://portal.example.org:8443/x",
                                       "public.listen=192.0.2.7:1 [2001:db8::1]:2 [::]:3 0.0.0.0:4"))
    assert names[0] == "portal.example.org"
    assert {"localhost", "192.0.2.7", "2001:db8::1", "127.0.0.1", "::1"} <= set(names)
    assert not {"0.0.0.0", "::"} & set(names) and len(set(names)) == len(names)
