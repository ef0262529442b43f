"""ippd doctor: each check with what makes it warn or fail, on real folders, databases, certificates and ports."""

import _ctypes
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

import program
from conftest import echo
from ippd import certificate
from ippd.doctor import CHECKS, FAIL, OK, WARN, examine
from ippd.permissions import OPERATOR, SYSTEM


@pytest.fixture
def look(clock):
    """A function: what the check `name` finds with these settings: [(level, sentence)]."""

    def look(settings, name):
        return [(found["level"], found["found"]) for found in examine(settings, clock()) if found["name"] == name]

    return look


@pytest.fixture
def settings(make_settings, tmp_path):
    def make(**more):
        return make_settings(**{"public__listen": "", "local__listen": "", "local__socket": tmp_path / "none.sock"} | more)

    return make


def certified(core):
    certificate.make(["localhost"], str(core.certificate_path()), str(core.key_path()), core.clock)


def test_a_healthy_host(core, ada, settings, look, clock):
    core.experiments.submit(ada, echo(("scan.nii", b"x")))
    for name in ("unpack folder", "data folder", "clock", "file limits", "local listener", "orphans", "stuck"):
        assert {level for level, _ in look(settings(), name)} == {OK}, look(settings(), name)
    level, sentence = look(settings(), "database")[-1]
    assert level == OK and sentence.startswith("the database is whole, schema version")
    found = list(examine(settings(), clock()))
    assert [row["number"] for row in found] == list(range(1, len(found) + 1))
    assert all(row["advice"] or row["level"] == OK for row in found)


def test_a_host_on_which_nothing_was_started_yet(settings, look, tmp_path):
    assert look(settings(), "data folder")[0] == (FAIL, f"{tmp_path}/data is not there")
    assert look(settings(), "database")[-1] == (WARN, "there is no database yet")
    assert {name for name, _ in CHECKS} >= {found["name"] for found in examine(settings(), 2e9)}


def test_a_folder_that_is_open_to_all(core, settings, look):
    core.blobs.folder.parent.chmod(0o755)
    assert (WARN, f"{core.blobs.folder.parent} is open to other accounts (mode 755)") in look(settings(), "data folder")


def test_a_damaged_database(core, settings, look):
    core.close()
    path = core.store.path
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    path.write_bytes(bytes(data))
    assert look(settings(), "database")[-1][0] == FAIL


def test_a_database_of_a_newer_program(core, settings, look):
    core.store.execute("UPDATE meta SET value = '999' WHERE name = 'schema'")
    level, sentence = look(settings(), "database")[-1]
    assert level == FAIL and sentence.startswith("schema version 999")


def test_certificates_that_end_or_do_not_fit(core, settings, look, clock, tmp_path):
    given = settings(public__listen="127.0.0.1:0")
    assert look(given, "certificate")[0][0] == FAIL
    certified(core)
    assert look(given, "certificate")[0][0] == OK
    clock.forward(days=810)
    assert look(given, "certificate") == [(WARN, f"{core.certificate_path()} ends in 15 days")]
    clock.forward(days=20)
    assert look(given, "certificate")[0][0] == FAIL
    core.key_path().unlink()
    certificate.make(["other"], str(tmp_path / "other"), str(core.key_path()), clock)
    assert look(given, "certificate") == [(FAIL, f"{core.key_path()} is not the key of {core.certificate_path()}")]


def test_ports_that_are_free_taken_or_served(make_portal, make_settings, look):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        taken = sock.getsockname()[1]
        given = make_settings(public__listen="", local__listen=f"127.0.0.1:{taken}")
        (found,) = look(given, "ports")
        assert found[0] == FAIL and "cannot be used: Address already in use" in found[1]
    assert look(given, "ports") == [(WARN, f"local.listen: 127.0.0.1 port {taken} is free: the daemon does not run")]
    portal = make_portal()
    given = make_settings(public__listen="", local__listen=f"127.0.0.1:{portal.local.port}")
    assert look(given, "ports") == [(OK, "the daemon is ready")]


def test_a_clock_that_is_wrong(core, ada, settings, look, clock):
    core.experiments.submit(ada, echo())
    clock.forward(hours=-1)
    assert look(settings(), "clock")[0][0] == FAIL
    clock.now = 0.0
    assert look(settings(), "clock")[0] == (FAIL, "it is 1970-01-01 00:00:00 UTC here")


def test_open_files_and_the_local_listener(core, settings, look):
    assert look(settings(server__connections=10**9), "file limits")[0][0] == WARN
    assert look(settings(local__allow="* nobody-here @no-group"), "local listener") == [
        (WARN, "local.allow names what is not on this host: nobody-here, @no-group"),
        (WARN, "every account of this host may use the local listener")]


def test_a_mail_server_that_is_not_there(core, settings, look):
    assert look(settings(), "mail")[0] == (WARN, "mail.host is empty: mail stays in the outbox")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        given = settings(mail__host="127.0.0.1", mail__port=sock.getsockname()[1], mail__timeout="2s")
        assert look(given, "mail")[0][0] == FAIL


def test_files_without_rows_and_rows_without_files(core, ada, settings, look, clock):
    core.experiments.submit(ada, echo(("scan.nii", b"x"), ("mask.nii", b"y")))
    one, two = sorted(path for path in core.blobs.folder.rglob("*/*") if path.is_file())
    one.unlink()
    two.write_bytes(b"longer")
    loose = two.with_name("0" * 32)
    loose.touch()
    os.utime(loose, (0, 0))
    assert look(settings(), "orphans") == [
        (FAIL, "2 files are missing or have another size than they should"), (WARN, "1 files belong to no experiment")]


def test_files_that_the_daemon_never_removes_were_told_for_ever(core, ada, settings, look, clock):
    """Bad input: an old server's files, a folder and a link, in the folder of a user."""
    core.experiments.submit(ada, echo(("scan.nii", b"x")))
    folder = core.blobs.folder / "1"
    (folder / "7.nii").touch()
    os.utime(folder / "7.nii", (0, 0))
    (folder / ("0" * 32)).symlink_to("7.nii")
    os.utime(folder / ("0" * 32), (0, 0), follow_symlinks=False)
    (folder / ("1" * 32)).mkdir()
    os.utime(folder / ("1" * 32), (0, 0))
    assert core.housekeeping.sweep_orphans(SYSTEM) == 0
    assert look(settings(), "orphans") == [(OK, "every file belongs to an experiment, and none is missing")]


def test_experiments_and_notifications_that_do_not_get_on(core, ada, settings, look, clock):
    core.experiments.submit(ada, echo())
    core.store.execute("UPDATE outbox SET status = 'failed'")
    clock.forward(days=8)
    found = look(settings(), "stuck")
    assert (WARN, "1 experiments have not moved for a week, the first is 1") in found


def test_backups_that_are_not_made(core, make_core, settings, look, clock, tmp_path):
    assert look(settings(), "backups")[0][0] == WARN
    given = {"backup__directory": tmp_path / "backups"}
    assert look(settings(**given), "backups")[0] == (WARN, f"there is no recent backup in {tmp_path}/backups")
    make_core(**given).backups.scheduled(OPERATOR)
    assert look(settings(**given), "backups")[0][0] == OK
    clock.forward(days=3)
    assert look(settings(**given), "backups")[0][0] == WARN


def test_a_backup_from_the_future_was_taken_for_a_recent_one(make_core, settings, look, clock, tmp_path):
    """Bad input: a backup that was made while the clock was ten years ahead; then a right one beside it."""
    given = {"backup__directory": tmp_path / "backups"}
    core = make_core(**given)
    clock.forward(days=3650)
    core.backups.scheduled(OPERATOR)
    (path,) = (tmp_path / "backups").iterdir()
    clock.forward(days=-3650)
    ahead = (WARN, f"1 backups are from the future, the first is {path}")
    assert look(settings(**given), "backups") == [ahead, (WARN, f"there is no recent backup in {tmp_path}/backups")]
    core.backups.scheduled(OPERATOR)
    levels = [level for level, _ in look(settings(**given), "backups")]
    assert levels == [WARN, OK] and look(settings(**given), "backups")[0] == ahead


def test_the_command_says_all_and_its_exit_status_tells(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
    environ = kept | {"IPPD_CONFIG": "", "IPPD_DATA_DIRECTORY": str(tmp_path / "data")}
    run = program.words("--set", "public.listen=127.0.0.1:0", "--set", "local.listen=", "doctor")
    shown = subprocess.run(run, capture_output=True, text=True, env=environ)
    assert shown.returncode == 1 and " 2 OK   unpack folder:" in shown.stdout and "\n        -> " in shown.stdout
    found = subprocess.run([*run, "--json"], capture_output=True, text=True, env=environ)
    assert found.returncode == 1 and {"number", "name", "level", "found", "advice"} == set(json.loads(found.stdout)[0])
    assert not (tmp_path / "data").exists(), "looking changes nothing"


def test_where_the_daemon_not_this_command_has_unpacked_itself(core, settings, look):
    """A process that holds the lock and has a library mapped out of an unpack folder in /tmp, as a one-file program has."""
    with tempfile.TemporaryDirectory(prefix="_MEI", dir="/tmp") as unpacked:
        shutil.copy(_ctypes.__file__, unpacked)
        code = (f"import ctypes, fcntl, os, time; ctypes.CDLL({unpacked!r} + '/{os.path.basename(_ctypes.__file__)}')\n"
                f"file = open({str(core.store.path.parent)!r} + '/ippd.lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
                "print(os.getpid(), file=file, flush=True); print('held', flush=True); time.sleep(1000)")
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"held\n"
            assert look(settings(), "unpack folder") == [(WARN, "the daemon has unpacked itself in /tmp")]
            resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (100, 100))
            assert look(settings(), "file limits") == [(WARN, "a process may open 100 files, server.connections needs 2500")]
            holder.kill()
    assert look(settings(), "unpack folder")[0][0] == OK


def test_files_of_another_account_and_secrets_that_are_open(core, settings, look, clock):
    folder = core.store.path.parent
    (folder / "secret").chmod(0o644)
    assert (WARN, f"{folder}/secret is open to other accounts (mode 644)") in look(settings(), "data folder")
    if os.geteuid() == 0:
        os.chown(folder / "ippd.sqlite", 65534, 65534)
        assert (FAIL, f"{folder}/ippd.sqlite belongs to another account than its folder") in look(settings(), "data folder")
        assert f"chown -R root: {folder}" in [found["advice"] for found in examine(settings(), clock())]


def test_a_certificate_without_names(core, settings, look, tmp_path):
    done = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "36500",
                           "-subj", "/CN=portal", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], capture_output=True)
    assert done.returncode == 0, done.stderr
    given = settings(public__listen="127.0.0.1:0", public__certificate=tmp_path / "cert", public__key=tmp_path / "key")
    assert look(given, "certificate") == [
        (WARN, f"{tmp_path}/cert names no host (it has no subjectAltName): no browser accepts it")]


def test_who_may_use_the_local_listener(core, settings, look):
    assert look(settings(), "local listener") == [(OK, "the local listener is for root and the daemon's account, and nobody else")]
    assert look(settings(local__allow="daemon @root"), "local listener") == [
        (OK, "the local listener is for root and the daemon's account, daemon, @root")]


def test_settings_that_name_what_is_not_there(core, settings, look, tmp_path):
    assert look(settings(), "settings") == [(OK, "no settings file: what the settings name is there")]
    assert look(settings(log__file=tmp_path / "none/log"), "settings") == [
        (FAIL, f"--set: log.file: there is no folder {tmp_path}/none")]
    assert look(settings(local__allow="nobody-here"), "settings") == [
        (WARN, "--set: local.allow: this host knows no account nobody-here")]


def test_a_test_mail_that_is_not_taken_is_one_of_the_findings(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sets = (f"data.directory={tmp_path}/data", "public.listen=127.0.0.1:0", "mail.host=127.0.0.1", f"mail.port={sock.getsockname()[1]}")
        run = program.words(*(f"--set={one}" for one in sets), "doctor", "--json", "--mail", "you@example.org")
        done = subprocess.run(run, capture_output=True, text=True, env={"IPPD_CONFIG": "", "PATH": os.environ["PATH"]})
    last = json.loads(done.stdout)[-1]
    assert done.returncode == 1 and (last["name"], last["level"]) == ("test mail", FAIL) and "Connection refused" in last["found"], last
