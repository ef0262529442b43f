"""ippd doctor: each check with what makes it warn or fail, on real folders, databases, certificates and ports."""

import json
import os
import subprocess
from argparse import Namespace

import pytest

import program
from conftest import echo
from ippd import certificate, checks
from ippd.cli import config
from ippd.cli.call import Call
from ippd.doctor import CHECKS, FAIL, OK, WARN, examine
from ippd.permissions import OPERATOR, SYSTEM


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


def test_a_disk_with_little_room_or_none(core, settings, look, make_disk):
    """Bad input: disks with less than 1 GB, and with less than the reserve."""
    where = make_disk(4, "mode=700")
    assert look(settings(data__uploads=where), "data folder")[-1] == (WARN, f"{where} has 4 MB free")
    (where / "large").write_bytes(bytes(3 << 20))
    assert look(settings(data__uploads=where, data__reserve="2MB"), "data folder")[-1] == (FAIL, f"{where} has 1 MB free")


@pytest.mark.source_only  # the binary is another process than the one that is started, and so sees other mounts
@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.glusterfs", "fhgfs", "gfs2", "ocfs2"])
def test_a_data_folder_on_a_file_system_that_several_hosts_share(tmp_path, kind):
    """Bad input: file systems on which the write-ahead log of SQLite breaks, as the kernel tells of them in /proc/self/mounts."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace")
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "mounts").write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} {kind} rw 0 0\n")
    run = program.words(f"--set=data.directory={tmp_path}/data", "doctor", "--json")
    script = 'mount --bind "$0" /proc/$$/mounts && exec "$@"'
    alone = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, tmp_path / "mounts"]
    done = subprocess.run([*alone, *run], capture_output=True, text=True, env={"IPPD_CONFIG": "", "PATH": os.environ["PATH"]})
    found = [row for row in json.loads(done.stdout) if row["name"] == "data folder"]
    assert [(row["level"], row["found"]) for row in found] == [
        (FAIL, f"{tmp_path}/data lies on {kind} ({tmp_path}), where SQLite's write-ahead log breaks: data.directory must be a local disk")]


def test_a_disk_on_which_nothing_can_be_written(core, settings, look, make_disk):
    """Bad input: disks that are mounted read-only, without a free inode, and with a few."""
    where = make_disk(4, "mode=700")
    subprocess.run(["mount", "-o", "remount,ro", where], check=True)
    assert look(settings(data__uploads=where), "data folder")[-1] == (FAIL, f"{where} is on a disk that is mounted read-only")
    where = make_disk(4, "mode=700", "nr_inodes=200")
    for number in range(199):  # the root folder has one
        (where / str(number)).touch()
    assert look(settings(data__uploads=where), "data folder")[-1] == (FAIL, f"{where}: no inodes are free, so no file can be made")
    where = make_disk(2048, "mode=700", "nr_inodes=200")
    for number in range(197):
        (where / str(number)).touch()
    assert look(settings(data__uploads=where), "data folder")[-1] == (WARN, f"{where}: only 2 inodes are free")


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


def test_damage_that_breaks_a_check_breaks_neither_the_others_nor_the_json(core, ada, settings, look):
    """Bad input: a database without its schema version, with a word in its place, and an experiment made at a word."""
    core.experiments.submit(ada, echo())
    core.store.execute("UPDATE experiments SET created_at = 'soon'")
    assert look(settings(), "clock") == [(FAIL, "the check broke with TypeError: '>' not supported between instances of 'str' and 'float'")]
    for change, said in (("UPDATE meta SET value = 'abc'", "'abc'"), ("DELETE FROM meta", "nothing")):
        core.store.execute(change)
        assert look(settings(), "database")[-1] == (FAIL, f"the database is damaged: {said} stands for its schema version")
    found = subprocess.run(program.words(f"--set=data.directory={core.store.path.parent}", "doctor", "--json"), capture_output=True,
                           text=True, env={"IPPD_CONFIG": "", "PATH": os.environ["PATH"]})
    names = {row["name"] for row in json.loads(found.stdout)}
    assert found.returncode == 1 and names >= {"database", "clock", "orphans", "stuck", "backups"}, found.stderr


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


def test_a_clock_that_is_wrong(core, ada, settings, look, clock):
    core.experiments.submit(ada, echo())
    clock.forward(hours=-1)
    assert look(settings(), "clock")[0][0] == FAIL
    clock.now = 0.0
    assert look(settings(), "clock")[0] == (FAIL, "it is 1970-01-01 00:00:00 UTC here")


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


def test_backups_that_cannot_be_made_were_not_missed(make_core, make_settings, settings, look, tmp_path, monkeypatch):
    """Bad input: backup.directory is a folder, or is to be in one, that belongs to root and that nobody else may enter."""
    if os.geteuid() != 0:
        pytest.skip("needs a folder of another account")
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    asked = {f"{closed}": (f"cannot write to {closed}", f"chown nobody: {closed}"),
             f"{closed}/new": (f"cannot make {closed}/new", f"install -d -m 700 -o nobody {closed}/new")}  # fmt: skip
    for folder, (said, command) in asked.items():
        given = settings(backup__directory=folder)
        assert checks.backup_trouble(given) == ("", "")
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(closed)))
            patch.setattr(os, "geteuid", lambda: 65534)
            assert look(given, "backups") == [(FAIL, f"the account nobody {said}, so no backups are made")]
            assert checks.backup_trouble(given)[1] == command
            call = Call(config.show, Namespace(sample=False, check=True), "", [f"{name}={given.text(name)}" for name in given])
            patch.setattr(config, "warn", (told := []).append)
            config.show(call)
            assert told[-1] == f"--set: backup.directory: the account nobody {said}, so no backups are made: {command}"


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


def test_settings_that_name_what_is_not_there(core, settings, look, tmp_path):
    assert look(settings(), "settings") == [(OK, "no settings file: what the settings name is there")]
    assert look(settings(log__file=tmp_path / "none/log"), "settings") == [
        (FAIL, f"--set: log.file: there is no folder {tmp_path}/none")]
    assert look(settings(local__allow="nobody-here"), "settings") == [
        (WARN, "--set: local.allow: this host knows no account nobody-here")]
