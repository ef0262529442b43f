"""Who is told of an update: only a process of the data folder's account, whatever is written into its lock."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

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
