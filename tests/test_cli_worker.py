"""The command `ippd worker`: where it logs, which signals it bears. Bad input: engines whose programs are missing."""

import os
import pwd
import signal
import subprocess

import pytest

import program
from conftest import echo, join
from ippd.errors import Unavailable
from ippd.permissions import OPERATOR
from ippd.runners import ENGINES
from ippd.settings import load
from ippd.worker import make_worker

BATCH = pytest.mark.parametrize("engine", ["slurm", "gridengine"])


def words(folder, url="http://127.0.0.1:9"):
    given = {"worker.url": url, "worker.folder": f"{folder}/worker", "worker.interval": "0.1s"}
    return [f"{name}={value}" for name, value in given.items()]


def flags(settings):
    return [word for setting in settings for word in ("--set", setting)]


def test_it_logs_on_standard_error_and_opens_no_log_of_the_daemon(tmp_path):
    settings = [*words(tmp_path), f"log.file={tmp_path}/ippd.log", f"log.access={tmp_path}/access.log"]
    status, said, errors = program.run("worker", "--as-root", "--engine", "local", "--once", *flags(settings), "-c", "")
    assert (status, said) == (0, "")
    assert f"worker: the engine is local, the folder {tmp_path}/worker, the daemon http://127.0.0.1:9\n" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["worker"]


def test_what_is_meant_for_the_daemon_does_not_end_it(tmp_path):
    environ = os.environ | {"IPPD_CONFIG": ""}
    given = program.words("worker", "--as-root", "--engine", "local", *flags(words(tmp_path)))
    worker = subprocess.Popen(given, env=environ, stderr=subprocess.PIPE)
    try:
        assert b"the engine is local" in worker.stderr.readline()
        for number in (signal.SIGUSR1, signal.SIGHUP):
            os.kill(program.pid_of(worker), number)
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(1)
        os.kill(program.pid_of(worker), signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize("engine", ENGINES)
def test_programs_of_users_ran_as_root_because_root_had_started_the_worker(engine, tmp_path):
    """Bad input: `ippd worker` in root's shell."""
    if os.geteuid() != 0:
        pytest.skip("only root can run them as root")
    status, said, errors = program.run("worker", "--engine", engine, "--once", *flags(words(tmp_path)), "-c", "")
    assert (status, said) == (1, "") and errors.startswith("ippd: the programs that users ask for would run as root: start the worker as")
    assert "local.workers" in errors and errors.endswith("or say --as-root\n") and not (tmp_path / "worker").exists()


@pytest.mark.parametrize("place", ["worker", "worker/lock", "worker/journal/ippd-1-0.json"])
def test_a_folder_that_another_account_has_used_is_told_with_the_way_out(place, tmp_path):
    """Bad input: a folder in which root, or another account, has run a worker before; all that was said was `Permission denied`."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another account")
    (tmp_path / "worker/journal").mkdir(parents=True)
    (tmp_path / place).touch()
    os.chown(tmp_path / place, 1, 1)
    given = [*flags(words(tmp_path)), "-c", ""]
    status, _, errors = program.run("worker", "--as-root", "--engine", "local", "--once", *given)
    assert (status, errors) == (1, f"ippd: worker.folder: {tmp_path}/{place} belongs to the account {pwd.getpwuid(1).pw_name}, and this is "
                                   f"the account root: chown -R root: {tmp_path}/worker, or start the worker as the other account\n")


@BATCH
def test_an_engine_without_its_programs_is_refused(engine, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Unavailable, match=f"{engine} needs programs that are not in PATH: {', '.join(ENGINES[engine].PROGRAMS)}"):
        make_worker(load("", {}, words(tmp_path)), engine)
    (tmp_path / "bin" / ENGINES[engine].PROGRAMS[0]).symlink_to("/bin/false")
    status, said, errors = program.run("worker", "--as-root", "--engine", engine, "--once", *flags(words(tmp_path)), "-c", "")
    assert (status, said) == (1, "") and errors.count("\n") == 1
    assert errors.startswith("ippd: ") and errors.endswith(f"PATH: {', '.join(ENGINES[engine].PROGRAMS[1:])}\n")
    assert not (tmp_path / "worker").exists()


@BATCH
def test_nothing_is_claimed_while_programs_of_the_engine_are_away(engine, make_portal, tmp_path, monkeypatch):
    apps, tools = tmp_path / "apps", tmp_path / "bin"
    apps.mkdir()
    tools.mkdir()
    (apps / "echo.json").write_text('{"Executable": "/bin/echo"}')
    for name in ENGINES[engine].PROGRAMS:
        (tools / name).symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tools))
    portal = make_portal(apps__directory=apps)
    id = portal.core.experiments.submit(join(portal.core), echo())["id"]
    worker = make_worker(load("", {}, words(tmp_path, f"http://127.0.0.1:{portal.local.port}")), engine)
    (tools / ENGINES[engine].PROGRAMS[0]).unlink()
    assert worker.step() == 0 and portal.core.experiments.get(OPERATOR, id)["status"] == "submitted"
    (tools / ENGINES[engine].PROGRAMS[0]).symlink_to("/bin/false")
    assert worker.step() == 1 and portal.core.experiments.get(OPERATOR, id)["status"] == "queued"
    worker.close()
