"""The systemd unit of the worker: what systemd says of it, what systemd 219 knows, and that a restart leaves the jobs alone."""

import configparser
import os
import re
import shlex
import signal
import subprocess

import pytest

import program
from ippd.cli.parser import make
from ippd.runners import ENGINES
from test_systemd_unit import KNOWN_219, UNIT
from workerkit import rig_over, running

WORKER = UNIT.with_name("ippd-worker@.service")


@pytest.mark.parametrize("engine", ENGINES)
def test_systemd_finds_nothing_wrong_with_it(engine, tmp_path):
    unit = tmp_path / f"ippd-worker@{engine}.service"
    unit.write_text(WORKER.read_text().replace("/usr/bin/ippd", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_219_knows_each_line_of_it():
    assert set(re.findall(r"^([A-Za-z]+)=", WORKER.read_text(), re.M)) <= {*KNOWN_219.split(), "EnvironmentFile"}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_in_it_is_one_of_ours(engine):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(WORKER)
    program, *words = shlex.split(unit["Service"]["ExecStart"].replace("%i", engine))
    given = make().parse_args(words)
    assert program == "/usr/bin/ippd" and given.engine == engine
    assert unit["Service"]["KillMode"] == "process"


def test_a_worker_that_is_restarted_finds_its_jobs_still_running(make_portal, tmp_path):
    with running("local") as engine, rig_over(make_portal, engine, tmp_path) as rig:
        words = [word for setting in rig.settings(worker__interval="0.1s") for word in ("--set", setting)]
        environ = os.environ | {"IPPD_CONFIG": ""}

        def start():
            return subprocess.Popen(program.words("worker", "--as-root", "--engine", "local", *words), env=environ, start_new_session=True)

        id = rig.submit(rig.ada, "wait")
        first = start()
        rig.wait(rig.status(id, "running"))
        first.send_signal(signal.SIGTERM)  # KillMode=process: to the worker alone
        assert first.wait(30) == 0
        (job,) = rig.jobs()
        shell = int((job / "pid").read_text().split()[0])
        os.kill(shell, 0)
        second = start()
        try:
            rig.go.touch()
            rig.wait(rig.status(id))
        finally:
            second.terminate()
        assert second.wait(30) == 0
        assert rig.get(id)["status"] == "completed" and rig.ran(id) == 1
