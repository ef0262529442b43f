"""Who is told of an update: only a process of the data folder's account, whatever is written into its lock."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from ippd.daemon import locked
from ippd.host.handover import hand_over, reload, running

WAITS = "import signal, time; signal.signal(signal.SIGHUP, lambda *_: exit(7)); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def held(tmp_path):
    """A function: a lock with this text that somebody holds; returns the data folder."""
    with open(tmp_path / "ippd.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def write(text):
            lock.write(text)
            lock.flush()
            return tmp_path

        yield write


@pytest.mark.parametrize("text", ["-1\n", "0\n", "1\n", "-15 -1\n", "", "all\n", "\0\n"])
def test_a_lock_that_names_no_process_is_that_of_no_daemon(held, text):
    """Groups of processes, all processes, the first process, words."""
    folder = held(text)
    assert running(folder) == 0 and hand_over(folder, 0.1)
    reload(folder)


def test_a_lock_that_is_no_file_is_not_waited_for(tmp_path):
    """A pipe with nobody at its other end; a link."""
    os.mkfifo(tmp_path / "ippd.lock")
    assert running(tmp_path) == 0
    (tmp_path / "ippd.lock").unlink()
    (tmp_path / "ippd.lock").symlink_to("/dev/zero")
    assert running(tmp_path) == 0


def test_a_daemon_did_not_start_while_somebody_looked_whether_one_runs(tmp_path):
    """Doctor, install and update take the lock for a moment to see whether it is free."""
    with open(tmp_path / "ippd.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        look = threading.Timer(0.2, fcntl.flock, (lock, fcntl.LOCK_UN))
        look.start()
        with locked(tmp_path):
            assert running(tmp_path) == os.getpid()
        look.join()


def test_of_two_that_looked_at_once_one_took_the_other_for_the_daemon(tmp_path):
    """Bad input: a lock in which a daemon that was killed has left its number."""
    (tmp_path / "ippd.lock").write_text("4711\n")
    seen, begin = [], threading.Barrier(4)

    def look():
        begin.wait()
        seen.extend(running(tmp_path) for _ in range(500))

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert seen == [0] * 2000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can signal what is not its own")
@pytest.mark.parametrize("owner", [0, 65534])
def test_root_signals_for_the_owner_of_the_folder_only(held, owner):
    """The lock names a process of root's; the folder is root's, or another account's."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        folder = held(f"{process.pid}\n")
        os.chown(folder, owner, owner)
        if owner:
            with pytest.raises(PermissionError, match="is not a process of the data folder's account"):
                reload(folder)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        else:
            reload(folder)
            assert process.wait(30) == 7
