"""The systemd unit: what systemd says of it, what systemd 219 knows; readiness and watchdog over a real NOTIFY_SOCKET."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

import program
from ippd import watchdog

UNIT = Path(__file__).parent.parent / "systemd" / "ippd.service"
# The directives of systemd 219 that we use: a newer one would be ignored with a line in the log there, and protect nothing.
KNOWN_219 = """
    Description Documentation After Type NotifyAccess ExecStart ExecReload User Group UMask KillMode TimeoutStartSec
    TimeoutStopSec WatchdogSec Restart RestartSec LimitNOFILE Environment RuntimeDirectory RuntimeDirectoryMode WorkingDirectory
    NoNewPrivileges CapabilityBoundingSet PrivateDevices PrivateTmp ProtectSystem ProtectHome RestrictAddressFamilies
    SystemCallArchitectures WantedBy
"""


def test_systemd_finds_nothing_wrong_with_it(tmp_path):
    unit = tmp_path / "ippd.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/ippd", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_219_knows_each_line_of_it():
    text = UNIT.read_text()
    assert set(re.findall(r"^([A-Za-z]+)=", text, re.M)) <= set(KNOWN_219.split())
    assert not re.search(r"^ProtectSystem=strict", text, re.M), "strict came with 232"


@pytest.mark.parametrize(("environ", "seconds"), [
    ({}, 0.0), ({"WATCHDOG_USEC": "60000000"}, 0.0), ({"WATCHDOG_USEC": "60000000", "NOTIFY_SOCKET": "/x"}, 20.0),
    ({"WATCHDOG_USEC": "soon", "NOTIFY_SOCKET": "/x"}, 0.0), ({"WATCHDOG_USEC": "1", "NOTIFY_SOCKET": ""}, 0.0),
])
def test_the_time_between_two_signs_of_life(environ, seconds):
    assert watchdog.seconds(environ) == seconds


@pytest.fixture
def manager(tmp_path):
    """systemd's side of the socket; `hear()` waits for the next message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(60)
        yield sock


@pytest.fixture
def daemon(request, manager, tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
    environ |= {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "600000", "IPPD_CONFIG": "", "IPPD_LOCAL_LISTEN": "127.0.0.1:0",
                "IPPD_PUBLIC_LISTEN": "127.0.0.1:0", "IPPD_DATA_DIRECTORY": str(tmp_path / "data"), "IPPD_DATA_RESERVE": "0",
                "IPPD_SERVER_PROCESSES": "1", "IPPD_SERVER_DRAIN_TIMEOUT": "2s"} | getattr(request, "param", {})
    process = subprocess.Popen(program.words("serve"), env=environ, start_new_session=True)
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    process.terminate()
    process.wait(30)


def hear(manager, *wanted):
    """The next message that is one of these."""
    while True:
        text = manager.recv(1000).decode()
        if text in wanted:
            return text


def is_silent(manager):
    """Whether nothing comes for two seconds; what was sent before may still be there."""
    manager.settimeout(2)
    try:
        for _ in range(5):
            manager.recv(1000)
    except TimeoutError:
        return True
    finally:
        manager.settimeout(60)
    return False


def serving(daemon):
    return next(pid for pid, name in program.children_of(program.pid_of(daemon)).items() if name.startswith("ippd: serve"))


def test_ready_signs_of_life_and_the_end(daemon, manager):
    assert hear(manager, "READY=1", "WATCHDOG=1") in ("READY=1", "WATCHDOG=1")
    assert hear(manager, "WATCHDOG=1")
    daemon.terminate()
    assert hear(manager, "STOPPING=1")
    assert daemon.wait(30) == 0


def test_a_daemon_that_does_not_answer_gives_no_sign_of_life(daemon, manager):
    assert hear(manager, "WATCHDOG=1")
    hung = serving(daemon)
    os.kill(hung, signal.SIGSTOP)
    assert is_silent(manager)
    os.kill(hung, signal.SIGCONT)
    assert hear(manager, "WATCHDOG=1")


def test_a_daemon_that_could_not_read_its_database_gave_signs_of_life(daemon, manager, tmp_path):
    assert hear(manager, "WATCHDOG=1")
    with closing(sqlite3.connect(tmp_path / "data/ippd.sqlite", timeout=30, isolation_level=None)) as database:
        database.execute("ALTER TABLE meta RENAME TO gone")
        assert is_silent(manager)
        database.execute("ALTER TABLE gone RENAME TO meta")
        assert hear(manager, "WATCHDOG=1")


@pytest.mark.parametrize("daemon", [{"IPPD_DATA_RESERVE": "1000000GB", "IPPD_BACKUP_DIRECTORY": "/proc/nowhere"}], indirect=True)
def test_what_a_new_start_would_not_mend_does_not_silence_the_daemon(daemon, manager, tmp_path):
    """Bad input: a disk without room, a folder of backups that cannot be made, a database in which somebody else writes without an end,
    and one that is damaged."""
    assert hear(manager, "WATCHDOG=1")
    path = tmp_path / "data/ippd.sqlite"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE meta SET value = value")
        assert not is_silent(manager)
        database.execute("ROLLBACK")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.DatabaseError, match="malformed"):
        database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    assert not is_silent(manager)
