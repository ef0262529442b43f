"""The logs: one format, lines that cannot be forged, no secrets, files that can be moved away."""

import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from ippd import logs
from ippd.errors import SettingsError
from ippd.settings import load

LOG = logging.getLogger("ippd.test")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_x"
MOMENT = 1_800_000_000.25  # 2027-01-15T08:00:00.250Z


@pytest.fixture
def start(tmp_path):
    """Begin to log into tmp_path with these settings."""
    yield lambda *overrides: logs.start(
        load("", {}, [f"log.file={tmp_path}/log", *overrides]), clock=lambda: MOMENT
    )
    logs.stop()


@pytest.fixture
def lines(start, tmp_path):
    """Log, then call this for the lines written so far."""
    start()
    return lambda name="log": (tmp_path / name).read_text().splitlines()


def messages(written):
    return [line.split(" ", 5)[5] for line in written]


def test_the_format(lines):
    LOG.info("plain %d", 1)
    with logs.request("r-17"):
        LOG.warning("inside")
    LOG.debug("not at this level")
    logging.getLogger("library").warning("heard")
    logging.getLogger("library").info("not heard")
    head = f"2027-01-15T08:00:00.250Z {{}} {os.getpid()} {{}}"
    assert lines() == [
        head.format("info", "-") + " test: plain 1",
        head.format("warning", "r-17") + " test: inside",
        head.format("warning", "-") + " library: heard",
    ]


@pytest.mark.parametrize("bad", ["\n", "\r", "\x1b[2J", "\0", "\x85", "\u2028", "\u202e", "\x7f"])
def test_a_name_with_a_control_character_cannot_forge_a_line(lines, bad):
    forged = f"ada{bad}2027-01-15T08:00:00.250Z info 1 - test: root logged in"
    LOG.info("login of %s", forged)
    with logs.request(f"id{bad}x"):
        LOG.info("second")
    logs.access(f"10.0.0.1{bad}", "ada", "GET", f"/{bad}", 200, 1, 0.1)
    text = "\n".join(lines())
    assert len(lines()) == 3 and bad not in text.replace("\n", "")
    assert "login of ada\\" in text


def test_surrogates_and_other_scripts_are_written(lines):
    LOG.info("\udcff Jörg 日本")
    assert messages(lines()) == ["\\udcff Jörg 日本"]


def test_a_traceback_has_marked_lines_and_cannot_forge_one(lines):
    try:
        raise ValueError("first\n2027-01-15T08:00:00.250Z info 1 - test: forged password=hunter2")
    except ValueError:
        LOG.exception("it failed")
    found = messages(lines())
    assert found[0] == "it failed" and found[1] == "| Traceback (most recent call last):"
    assert all(message.startswith("| ") for message in found[1:])
    assert found[-1] == "| 2027-01-15T08:00:00.250Z info 1 - test: forged password=(hidden)"


@pytest.mark.parametrize(("text", "hidden"), [
    ("GET /experiments?token=abc.def-1&path=x", "GET /experiments?token=(hidden)&path=x"),
    ("?TOKEN=abc", "?TOKEN=(hidden)"),
    ("token%3Dabc", "token%3D(hidden)"),
    ("confirm-password=hunter2&x=1", "confirm-password=(hidden)&x=1"),
    ("new_password = 'two words'; more", "new_password = (hidden); more"),
    ('secret="never closed', "secret=(hidden)"),
    ('{"password": "a\\"b", "email": "x"}', '{"password": (hidden), "email": "x"}'),
    ("{'token': 'abc'}", "{'token': (hidden)}"),
    ("[('password', b'abc'), ('x', 'y')]", "[('password', (hidden)), ('x', 'y')]"),
    ("Authorization: Bearer abc.def~12345", "Authorization: Bearer (hidden)"),
    ("authorization: basic dXNlcjpwYXNz", "authorization: basic (hidden)"),
    (f"got {JWT}!", "got (hidden)!"),
    (f"got {JWT[:30]}", "got (hidden)"),
    ("https://hooks.slack.com/services/T0/B0/xyz failed", "https://hooks.slack.com/(hidden) failed"),
    ("the password: must have 8 bytes", "the password: must have 8 bytes"),
    ("a bearer of news, a basic idea", "a bearer of news, a basic idea"),
])
def test_what_looks_like_a_secret_is_blanked(lines, text, hidden):
    LOG.info(text)
    assert messages(lines()) == [hidden]


@pytest.mark.parametrize("piece", ["token", "a.", "token ", "token=", "eyJaaaaa.", "'", "bearer ", '"token":"\\'])
def test_a_made_up_line_does_not_take_long(piece):
    begun = time.process_time()
    logs.blank(piece * (logs.LONGEST // len(piece)))
    assert time.process_time() - begun < 0.1


def test_a_huge_message_is_cut(lines):
    LOG.info("x" * 300_000)
    assert messages(lines()) == ["x" * logs.LONGEST + f"... ({300_000 - logs.LONGEST} more characters)"]


def test_a_secret_that_is_cut_in_two_is_blanked_all_the_same(lines):
    LOG.info("x" * (logs.LONGEST - 20) + " " + JWT)
    assert "eyJ" not in lines()[0]


def test_the_access_log_goes_where_it_should(start, tmp_path):
    for target, names in (("", ["log"]), (f"{tmp_path}/log", ["log"]), (f"{tmp_path}/access", ["access", "log"])):
        start(f"log.access={target}")
        logs.access("10.0.0.1", "", "GET", '/x y"z?token=abc', 200, 1234, 0.0514)
        LOG.info("application")
        assert sorted(os.listdir(tmp_path)) == names
        written = {name: messages((tmp_path / name).read_text().splitlines()) for name in names}
        assert written[names[0]][0] == '10.0.0.1 - "GET /x%20y%22z?token=(hidden)" 200 1234 0.051'
        assert written["log"][-1] == "application"
        for name in names:
            os.unlink(tmp_path / name)
    start("log.access=none")
    logs.access("10.0.0.1", "", "GET", "/", 200, 1, 0.1)
    assert (tmp_path / "log").read_text() == ""
    start()
    logs.access("", "7", "GET", "/", 200, 1, 0.1)
    assert messages((tmp_path / "log").read_text().splitlines()) == ['- 7 "GET /" 200 1 0.100']


def test_a_file_moved_away_is_opened_anew(lines, tmp_path):
    LOG.info("one")
    os.rename(tmp_path / "log", tmp_path / "log.1")
    LOG.info("two")
    logs.reopen()
    LOG.info("three")
    assert messages(lines("log.1")) == ["one", "two"]
    assert messages(lines()) == ["three"]
    assert os.stat(tmp_path / "log").st_mode & 0o007 == 0


def test_a_file_that_does_not_open_again_stays(lines, tmp_path):
    os.rename(tmp_path / "log", tmp_path / "log.1")
    (tmp_path / "log").mkdir()
    logs.reopen()
    LOG.info("still here")
    assert messages(lines("log.1")) == [f"cannot reopen {tmp_path}/log: Is a directory", "still here"]


def test_files_that_do_not_open_at_the_start_are_named(start, tmp_path):
    with pytest.raises(SettingsError) as caught:
        start("log.access=/nowhere/access")
    assert str(caught.value) == "log.access: /nowhere/access cannot be opened: No such file or directory"
    with pytest.raises(SettingsError, match=f"log.file: {tmp_path} cannot be opened: Is a directory"):
        start(f"log.file={tmp_path}")


def test_the_level_can_change_while_running(lines):
    logs.level(load("", {}, ["log.level=error"]))
    LOG.warning("not now")
    logging.getLogger("library").warning("neither")
    logs.level(load("", {}, ["log.level=debug"]))
    LOG.debug("now")
    assert messages(lines()) == ["now"]


def test_nothing_is_left_open_and_no_line_comes_after_the_end(start, tmp_path):
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        start(f"log.access={tmp_path}/access")
    logs.stop()
    LOG.warning("after the end")
    assert os.listdir("/proc/self/fd") == before
    assert (tmp_path / "log").read_text() == ""


WRITER = """
import logging, sys
from ippd import logs
from ippd.settings import load
logs.start(load("", {}, ["log.file=" + sys.argv[1]]))
for number in range(500):
    logging.getLogger("ippd.test").info("%s %d %s", sys.argv[2], number, sys.argv[2] * 3000)
"""


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "log"
    running = [subprocess.Popen([sys.executable, "-c", WRITER, path, letter]) for letter in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = messages(path.read_text().splitlines())
    for letter in "abc":
        assert [m for m in found if m[0] == letter] == [f"{letter} {n} {letter * 3000}" for n in range(500)]
    assert len(found) == 1500


def test_reopening_while_threads_write_loses_nothing(start, tmp_path):
    start()

    def write(letter):
        for number in range(300):
            LOG.info("%s%d", letter, number)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for number in range(20):
        os.rename(tmp_path / "log", tmp_path / f"log.{number}")
        logs.reopen()
    for thread in threads:
        thread.join()
    found = [m for path in tmp_path.iterdir() for m in messages(path.read_text().splitlines())]
    assert sorted(found) == sorted(f"{letter}{number}" for letter in "ab" for number in range(300))


STDERR = """
import logging, os
from ippd import logs
from ippd.settings import load
logs.start(load("", {}))
logging.getLogger("ippd.test").info("to standard error\\nsame line")
logs.reopen()
logging.getLogger("ippd.test").info(%r, "too few")
"""


def test_without_a_file_the_log_is_standard_error_and_a_bad_record_stops_nobody():
    done = subprocess.run([sys.executable, "-c", STDERR % "%s %s"], capture_output=True, text=True)
    first, second = done.stderr.splitlines()
    assert done.returncode == 0 and re.fullmatch(r"[0-9T:.-]+Z info \d+ - test: to standard error\\nsame line", first)
    assert second == "ippd: cannot write to the log on standard error"


def test_a_full_disk_stops_nobody():
    script = STDERR.replace("{}))", "{}, ['log.file=/dev/full']))") % "%s"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "ippd: cannot write to the log /dev/full\n" * 2)
