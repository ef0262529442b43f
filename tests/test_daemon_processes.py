"""The parent alone, with small children: starts that fail, deaths in a row, orders."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serverkit import wait_for

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import logging, os, sys, time
from ippd.errors import SettingsError
from ippd.processes import Parent, REOPEN

def note(text):
    os.write(1, (text + "\\n").encode())

def good(orders):
    orders.ready()
    note(f"start {os.getpid()}")
    for order in orders:
        note("reopen" if order == REOPEN else "reload")
    note("end")

def fails(orders):
    raise SettingsError("it cannot be")

def crashes(orders):
    orders.ready()
    note("crash")
    sys.exit(3)

def stubborn(orders):
    orders.ready()
    for order in orders:
        pass
    note("ignored")
    time.sleep(60)

logging.basicConfig(format="%(message)s")
parent = Parent([(name, globals()[name]) for name in sys.argv[2:]], float(sys.argv[1]))
parent.on_ready = lambda: note("ready")
parent.on_stop = lambda: note("stop")
parent.on_reload = lambda: not os.path.exists("bad")
parent.on_reopen = lambda: note("parent reopens")
status = parent.run()
note("over")
sys.exit(status)
"""


class Run:
    def __init__(self, folder, *words):
        self.path = folder / "notes"
        with open(self.path, "wb") as notes:
            self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stdout=notes, stderr=notes, cwd=folder,
                                            env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip

    @property
    def notes(self):
        return self.path.read_text().splitlines()

    def wait_for(self, note, count=1):
        assert wait_for(lambda: self.notes.count(note) >= count, 10), self.notes


@pytest.fixture
def run(tmp_path):
    running = []

    def begin(*words):
        running.append(Run(tmp_path, *words))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_children_get_orders_and_end_when_told(run, tmp_path):
    started = run("1", "good", "good")
    started.wait_for("ready")
    started.process.send_signal(signal.SIGHUP)
    started.wait_for("reload", 2)
    started.process.send_signal(signal.SIGUSR1)
    started.wait_for("reopen", 2)
    (tmp_path / "bad").touch()
    started.process.send_signal(signal.SIGHUP)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(10) == 0
    notes = started.notes
    assert (notes.count("reload"), notes.count("end"), notes.count("stop"), notes[-1]) == (2, 2, 1, "over")
    assert notes.count("parent reopens") == 1


def test_a_child_that_cannot_start_ends_all_with_status_1_and_its_reason(run):
    started = run("1", "good", "fails")
    assert started.process.wait(10) == 1
    assert "fails: it cannot be" in started.notes
    assert any(note.startswith("fails (process ") and note.endswith(") did not start") for note in started.notes)
    assert "end" in started.notes and "ready" not in started.notes


def test_a_child_that_dies_again_and_again_is_replaced_ever_more_slowly(run):
    started = run("1", "good", "crashes")
    started.wait_for("crash", 4)
    reported = [note.rsplit("; ", 1)[1] for note in started.notes if "ended with status 1" in note]
    assert reported[:3] == ["it is replaced now", "it is replaced in 0.5 s", "it is replaced in 1 s"]
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(10) == 0
    assert sum(note.startswith("start ") for note in started.notes) == 1


def test_a_child_that_does_not_end_is_killed(run):
    started = run("-4.7", "good", "stubborn")
    started.wait_for("ready")
    started.process.send_signal(signal.SIGTERM)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(10) == 0
    assert {"ignored", "end", "not all processes have ended in time: those left are killed"} <= set(started.notes)


def test_ctrl_c_reaches_all_and_ends_them_in_order(run):
    started = run("1", "good", "good")
    started.wait_for("ready")
    for note in [note for note in started.notes if note.startswith("start ")]:
        os.kill(int(note.split()[1]), signal.SIGINT)
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(10) == 0
    assert started.notes.count("end") == 2


def test_children_end_when_the_parent_is_killed(run):
    started = run("1", "good", "good")
    started.wait_for("ready")
    started.process.kill()
    started.wait_for("end", 2)
