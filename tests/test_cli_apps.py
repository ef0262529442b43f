"""The commands for app definitions and the worker. Bad input: no folder, broken definitions, an app that is not there."""

import io
import json
import logging
import sys

import pytest

import program
from ippd import logs
from ippd.cli import main
from ippd.domain.submission import Part
from ippd.permissions import OPERATOR


@pytest.fixture
def ippd(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPPD_CONFIG", "")
    monkeypatch.setenv("IPPD_APPS_DIRECTORY", str(tmp_path / "apps"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "echo.json").write_text(json.dumps({"Executable": "/bin/echo", "PARAMS": {"text": ""}}))

    def ippd(*words):
        if program.BINARY:
            return program.run(*words)
        capsys.readouterr()
        return (main([str(word) for word in words]), *capsys.readouterr())

    yield ippd
    logs.stop()
    logging.getLogger().setLevel(logging.WARNING)


def test_apps_are_listed_checked_and_shown(ippd, tmp_path):
    assert ippd("app", "check") == (0, "1 apps, 0 categories, 0 left out\n", "")
    assert json.loads(ippd("app", "list", "--json")[1]) == [
        {"key": "echo", "label": "", "form": False, "backend": True, "files": ["echo.json"]}
    ]
    assert json.loads(ippd("app", "show", "echo")[1])["backend"]["executable"] == "/bin/echo"
    (tmp_path / "apps" / "bad.json").write_text("{")
    status, said, _ = ippd("app", "check")
    assert status == 1 and said.startswith("bad.json: ")
    assert "there is no app other" in ippd("app", "show", "other")[2]


def test_a_program_that_is_not_there_is_a_warning(ippd, tmp_path):
    """Bad input: no file, a file that is not executable; an image brings its own."""
    apps = tmp_path / "apps"
    for name, definition in (("gone", {"Executable": "bin/none"}), ("plain", {"Executable": "plain.json"}),
                             ("boxed", {"Executable": "/opt/in/image", "Container": "image"})):  # fmt: skip
        (apps / f"{name}.json").write_text(json.dumps(definition))
    told = [
        f"gone.json: warning: gone: {apps}/bin/none is no file on this host",
        f"plain.json: warning: plain: {apps}/plain.json may not be executed on this host",
        "4 apps, 0 categories, 0 left out, 2 with a warning",
    ]
    assert ippd("app", "check") == (3, "\n".join(told) + "\n", "")
    (apps / "bad.json").write_text("{")
    assert ippd("app", "check")[0] == 1


def test_another_folder_can_be_checked_before_it_is_used(ippd, tmp_path):
    (tmp_path / "new").mkdir()
    assert ippd("app", "check", tmp_path / "new")[1] == "0 apps, 0 categories, 0 left out\n"
    assert ippd("app", "list", "--set", "apps.directory=")[0] == 1


def test_a_round_of_the_worker_by_command(ippd, make_portal, tmp_path):
    portal = make_portal(apps__directory=tmp_path / "apps")
    ada = portal.core.sessions.actor(portal.user())
    id = portal.core.experiments.submit(ada, [Part("fact", "app", "echo"), Part("param", "text", "3;id")])["id"]
    words = ["worker", "--as-root", "--engine", "local", "--once", "--set", f"worker.url=http://127.0.0.1:{portal.local.port}"]
    words += ["--set", f"worker.folder={tmp_path}/worker"]
    for _ in range(100):
        assert ippd(*words)[0] == 0
        if portal.core.experiments.get(OPERATOR, id)["status"] == "completed":
            break
    assert portal.core.files.open(ada, id, "log.txt").path.read_bytes() == b"3;id\n"


def test_a_worker_without_a_daemon_waits(ippd, tmp_path):
    status, _, _ = ippd("worker", "--as-root", "--engine", "local", "--once", "--set", "worker.url=http://127.0.0.1:9",
                             "--set", f"worker.folder={tmp_path}/worker")  # fmt: skip
    assert status == 0
