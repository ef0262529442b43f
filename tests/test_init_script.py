"""The init script with a real daemon, in bash and in busybox's shell: every action with its LSB exit status; stale files, bad settings."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

import program

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "centos" / "ippd.init"
SHELLS = [["bash"], ["busybox", "sh"]]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def may_run(account):
    return subprocess.run(["su", "-s", "/bin/sh", account, "-c", f"{program.path()} version"], capture_output=True).returncode == 0


class Host:
    """What the script finds on a host, in a folder; `script("start")` runs it."""

    def __init__(self, folder, shell):
        self.folder, self.shell, self.local = folder, shell, free_port()
        # root's own Python may lie where no other account can reach it
        self.account = "nobody" if os.geteuid() == 0 and may_run("nobody") else subprocess.check_output(["id", "-un"], text=True).strip()
        (folder / "data").mkdir()
        subprocess.run(["chown", self.account, folder / "data"], check=True)
        (folder / "lock").mkdir()
        self.configure()
        names = {"PROGRAM": program.path(), "IPPD_CONFIG": folder / "ippd.conf", "ACCOUNT": self.account, "PIDFILE": folder / "ippd.pid",
                 "LOCKFILE": folder / "lock/ippd", "CONSOLE": folder / "data/console.log", "TMPDIR": folder / "data", "STOP_TIMEOUT": 20}
        (folder / "sysconfig").write_text("".join(f"{name}={shlex.quote(str(value))}\n" for name, value in names.items()))

    def configure(self, more=""):
        (self.folder / "ippd.conf").write_text(
            f"[data]\ndirectory = {self.folder}/data\nreserve = 0\n[public]\nlisten =\n[local]\nlisten = 127.0.0.1:{self.local}\n"
            f"allow = *\n[server]\nprocesses = 1\n{more}")

    def script(self, *action, script=SCRIPT, **account):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
        return subprocess.run([*self.shell, script, *action], capture_output=True, text=True, timeout=120,
                              env=kept | {"SYSCONFIG": str(self.folder / "sysconfig")}, **account)

    def pid(self):
        return int((self.folder / "ippd.pid").read_text())

    def answers(self):
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.local)) == 0


@pytest.fixture(params=SHELLS, ids=" ".join)
def host(request):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        made = Host(Path(folder), request.param)
        yield made
        made.script("stop")


def statuses(host, *actions):
    return [host.script(action).returncode for action in actions]


def test_a_whole_life(host):
    assert statuses(host, "status", "stop", "condrestart", "reload") == [3, 0, 0, 7] and not host.answers()
    assert host.script("start").returncode == 0 and host.answers(), "it is ready when start returns"
    first = host.pid()
    status = Path(f"/proc/{first}/status").read_text()
    assert f"Uid:\t{subprocess.check_output(['id', '-u', host.account], text=True).strip()}\t" in status
    assert statuses(host, "status", "start", "reload", "configtest", "force-reload") == [0] * 5 and host.pid() == first
    assert host.script("condrestart").returncode == 0 and host.pid() != first and host.answers()
    assert host.script("stop").returncode == 0 and not host.answers()
    assert not (host.folder / "ippd.pid").exists() and not (host.folder / "lock/ippd").exists()
    assert "    ippd user add you@example.org\n" in (host.folder / "data/console.log").read_text(), "there is no user yet"


def test_other_accounts_are_told_the_status_and_may_do_nothing_else(host):
    """Bad input: calls of an account that is neither root nor the daemon's, and a number that it may not read."""
    if os.geteuid() != 0:
        pytest.skip("only root can call as another account")
    shutil.copy(SCRIPT, host.folder / "ippd.init")  # the clone may lie where no other account can reach it

    def other(action):
        done = host.script(action, script=host.folder / "ippd.init", user=1, group=1, extra_groups=[], cwd="/")
        return done.returncode, done.stdout.replace(str(host.folder), "")

    assert other("status") == (3, "ippd: is not running\n")
    assert host.script("start").returncode == 0
    before = host.pid()
    assert (host.folder / "ippd.pid").stat().st_mode & 0o777 == 0o644
    assert other("status") == (0, f"ippd: is running ({before})\n")
    for action in ("start", "stop", "restart", "condrestart", "try-restart", "reload", "force-reload"):
        assert other(action) == (4, "ippd: only root may do this\n")
    (host.folder / "ippd.pid").chmod(0o600)
    assert other("status") == (4, "ippd: it is not known whether it runs: /ippd.pid cannot be read\n")
    assert host.script("status").returncode == 0 and host.pid() == before and host.answers()


def test_settings_that_are_wrong_neither_start_nor_end_a_daemon(host):
    host.configure("[nonsense]\nvalue = 1\n")
    refused = host.script("start")
    assert refused.returncode == 6 and "nonsense.value" in refused.stderr and host.script("configtest").returncode == 6
    host.configure()
    assert host.script("start").returncode == 0
    before = host.pid()
    host.configure("[nonsense]\nvalue = 1\n")
    assert statuses(host, "restart", "condrestart", "reload") == [6, 6, 6]
    assert host.pid() == before and host.answers()


def test_a_restart_with_an_address_that_cannot_be_used_left_no_daemon(host):
    """Bad input: a new address that is none of this machine. Only the new daemon saw it."""
    assert host.script("start").returncode == 0
    before, conf = host.pid(), host.folder / "ippd.conf"
    conf.write_text(conf.read_text().replace("[public]\nlisten =", "[public]\nlisten = 192.0.2.1:8443"))
    refused = host.script("restart")
    assert refused.returncode == 6 and "public.listen: 192.0.2.1:8443 is no address of this machine\n" in refused.stderr, refused
    assert host.pid() == before and host.answers()


@pytest.mark.parametrize("log", ["", "log.txt"], ids=["console", "file"])
def test_a_reload_kept_to_itself_what_waits_for_a_restart(host, log):
    """Bad input: a setting that a reload does not take, as addresses are; only the log said so."""
    told = f"[log]\nfile = {host.folder}/data/{log}\n" if log else ""
    host.configure(told)
    assert host.script("start").returncode == 0
    conf = host.folder / "ippd.conf"
    conf.write_text(conf.read_text().replace("processes = 1\n", "processes = 2\n"))
    done = host.script("reload")
    assert (done.returncode, done.stdout) == (0, "ippd: reloaded; these settings wait for a restart: server.processes\n"), done


def test_stop_ends_the_whole_process_group(host):
    assert host.script("start").returncode == 0
    group = os.getpgid(host.pid())
    os.kill(host.pid(), signal.SIGSTOP)  # it hears nothing any more: only KILL helps
    text = (host.folder / "sysconfig").read_text().replace("STOP_TIMEOUT=20", "STOP_TIMEOUT=1")
    (host.folder / "sysconfig").write_text(text)
    stopped = host.script("stop")
    assert stopped.returncode == 0 and "it is killed" in stopped.stdout and not host.answers()
    left = [stat for stat in Path("/proc").glob("[0-9]*/stat") if _group(stat) == str(group)]
    assert left == []
    deadline = time.monotonic() + 10
    while waiting := [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, host.folder)]:
        assert time.monotonic() < deadline, waiting


def _names(cmdline, folder):
    try:
        return f"{folder}/ippd.conf".encode() in cmdline.read_bytes()
    except OSError:
        return False


def _says(cmdline, words):
    with suppress(OSError):
        return words in cmdline.read_bytes()
    return False


def _is_of(cmdline, folder):
    with suppress(OSError):
        return f"IPPD_CONFIG={folder}/".encode() in cmdline.with_name("environ").read_bytes()
    return False


def _group(stat):
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return group if state != "Z" else None


def test_a_daemon_that_dies_at_its_start_is_told_with_its_reason_and_not_waited_for(host):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host.local = sock.getsockname()[1]
        host.configure()
        begin = time.monotonic()
        refused = host.script("start")
        assert refused.returncode == 1 and "is in use by another program" in refused.stdout, refused
    assert time.monotonic() - begin < 45, "START_TIMEOUT is a minute"
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, b"\0ready\0--wait") and _is_of(path, host.folder)]
    assert "There is no user yet" not in refused.stdout
    assert host.script("status").returncode == 3


def test_what_the_console_file_says_is_shown_without_what_a_terminal_would_obey(host):
    """Bad input: a program whose last words clear the screen, in two ways, and set the title."""
    program = host.folder / "mumbles"
    program.write_text("#!/bin/sh\n[ $1 != serve ] || printf 'sorry\\t\\033[2J\\302\\2332J\\033]0;all is well\\007\\n'; [ $1 = config ]\n")
    program.chmod(0o755)
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"PROGRAM={program}\n")
    refused = host.script("start")
    assert refused.returncode == 1 and refused.stdout.endswith("\nsorry\t?[2J??2J?]0;all is well?\n"), refused.stdout


def test_a_full_disk_kept_a_daemon_that_answers_from_its_start(host):
    """Bad input: a disk that has less room than data.reserve. Log-in and delete work all the same, so the daemon has to be up."""
    conf = host.folder / "ippd.conf"
    conf.write_text(conf.read_text().replace("reserve = 0", "reserve = 1024000GB"))
    started = host.script("start")
    assert started.returncode == 0 and "ippd: started (" in started.stdout and host.answers(), started
    assert started.stderr == "ippd: the daemon answers, but is not ready: there is no room for uploads on the disk\n"
    assert host.script("status").returncode == 0


def pretend(host, serve):
    """Put a program in ippd's place that takes any settings and does this to serve."""
    (host.folder / "pretend").write_text(f"#!/bin/sh\ncase $1 in serve) {serve} ;; ready) sleep 60 ;; esac\n")
    (host.folder / "pretend").chmod(0o755)
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"PROGRAM={host.folder}/pretend\n")


def test_the_reason_of_an_earlier_start_was_told_as_that_of_this_one(host):
    """Bad input: a console.log with the sentence of a start that failed before."""
    pretend(host, "exit 1")
    (host.folder / "data/console.log").write_text("ippd: the disk is upside down\n")
    subprocess.run(["chown", host.account, host.folder / "data/console.log"], check=True)
    refused = host.script("start")
    assert (refused.returncode, refused.stdout) == (1, f"ippd: did not start, and wrote nothing to {host.folder}/data/console.log\n")
    pretend(host, "echo the moon is full; exit 1")
    refused = host.script("start")
    assert (refused.returncode, refused.stdout) == (
        1, f"ippd: did not start; the end of {host.folder}/data/console.log:\nthe moon is full\n")


def test_no_room_to_unpack_kept_the_daemon_from_its_start(host, small_disk, tmp_path):
    """Bad input: TMPDIR on a disk of 4 MB; then a host that has no room anywhere."""
    small_disk.chmod(0o777)
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"TMPDIR={small_disk}\n")
    full = f"no room in {small_disk} to unpack the program (needs 40 MB)"
    pretend(host, "echo it unpacks in $TMPDIR")
    refused = host.script("start")
    assert refused.stderr.startswith(f"ippd: {full}: it unpacks in /"), refused
    assert refused.stdout.splitlines()[-1] == refused.stderr.splitlines()[0].partition(": ")[2].partition(": ")[2]
    # As if all disks were full: what df says of each, and a program that cannot be started.
    (tmp_path / "df").write_text("#!/bin/sh\necho none 100 100 0 100% /\n")
    (tmp_path / "df").chmod(0o755)
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"PROGRAM=/bin/false\nPATH={tmp_path}:$PATH\n")
    refused = host.script("start")
    assert (refused.returncode, refused.stdout) == (5, f"ippd: not started: {full}\n")


def test_a_console_file_that_leads_elsewhere_is_not_written_by_root(host):
    if os.geteuid() != 0:
        pytest.skip("only root could be led astray")
    (host.folder / "precious").write_text("root's\n")
    (host.folder / "precious").chmod(0o600)
    subprocess.run(["chown", "nobody", host.folder / "data"], check=True)
    (host.folder / "data/console.log").symlink_to(host.folder / "precious")
    with open(host.folder / "sysconfig", "a") as file:
        file.write("PROGRAM=/bin/true\nACCOUNT=nobody\n")  # whatever the program is: it does not come to that
    refused = host.script("start")
    assert refused.returncode == 1 and "the account nobody cannot write" in refused.stdout
    assert (host.folder / "precious").read_text() == "root's\n"


def test_what_runs_as_the_account_has_no_terminal_of_root_to_type_into(host):
    """Bad input: a program of the account's that looks for the terminal at which root calls the script."""
    if os.geteuid() != 0:
        pytest.skip("only root calls it as another account")
    curious = host.folder / "curious"
    curious.write_text("#!/bin/sh\nexec >\"$TMPDIR/said\" 2>&1\nid -un; readlink /proc/$$/fd/0; (: </dev/tty) || echo none\n")
    curious.chmod(0o755)
    subprocess.run(["chown", "nobody", host.folder / "data"], check=True)
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"PROGRAM={curious}\nACCOUNT=nobody\n")
    command = f"{shlex.join([*host.shell, str(SCRIPT)])} configtest; exit $?"
    environ = {"PATH": os.environ["PATH"], "SYSCONFIG": str(host.folder / "sysconfig")}
    subprocess.run(["script", "-qec", command, "/dev/null"], stdin=subprocess.DEVNULL, timeout=60, env=environ, check=True)
    said = (host.folder / "data/said").read_text().splitlines()
    assert said[:2] == ["nobody", "/dev/null"] and said[-1] == "none" and "No such device or address" in said[-2]


def test_a_program_that_the_account_cannot_run_is_not_blamed_on_the_configuration(host):
    closed = host.folder / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(program.path(), closed / "ippd")
    with open(host.folder / "sysconfig", "a") as file:
        file.write(f"PROGRAM={closed}/ippd\nACCOUNT=nobody\n")
    refused = host.script("start")
    assert (refused.returncode, refused.stdout) == (5, f"ippd: not started: the account nobody cannot run {closed}/ippd\n")


def test_files_that_a_crash_left_are_told_and_taken_over(host):
    (host.folder / "lock/ippd").touch()
    assert host.script("status").returncode == 2
    with subprocess.Popen(["sleep", "100"]) as other:  # the number has gone to another program
        (host.folder / "ippd.pid").write_text(f"{other.pid}\n")
        assert host.script("status").returncode == 1
        assert host.script("stop").returncode == 0 and other.poll() is None
        other.kill()
    (host.folder / "ippd.pid").write_text("no number\n")
    assert host.script("start").returncode == 0
    assert host.script("status").returncode == 0


def test_wrong_use_and_what_is_not_installed(host):
    assert statuses(host, "nonsense") == [2] and host.script().returncode == 2
    with open(host.folder / "sysconfig", "a") as file:
        file.write("PROGRAM=/nowhere/ippd\n")
    assert host.script("start").returncode == 5


def test_the_heads_that_chkconfig_and_insserv_read():
    text = SCRIPT.read_text()
    assert text.startswith("#!/bin/sh\n") and "# chkconfig: 2345 85 15\n# description: " in text
    assert text.index("### BEGIN INIT INFO\n# Provides:          ippd\n") < text.index("### END INIT INFO\n")
    assert "init.d/functions" not in text and os.access(SCRIPT, os.X_OK)
