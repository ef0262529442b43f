"""ippd install and uninstall, in a mount namespace with folders of its own for what they change: real accounts, real files."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = os.environ.get("IPPD_BINARY") or str(Path(sys.executable).with_name("ippd"))
CHANGED = ("/etc", "/usr/local/bin")  # copied first
HIDDEN = ("/var/lib", "/var/log")  # empty


@pytest.fixture
def host(tmp_path):
    """A function: run a shell script on a host that has nothing of ippd; returns its output, a list of lines."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace and install")

    def run(script):
        binds = "".join(f"mkdir -p {tmp_path}{place} && cp -a {place}/. {tmp_path}{place}/ && mount --bind {tmp_path}{place} {place}\n"
                        for place in CHANGED)
        binds += "".join(f"mkdir -p {tmp_path}{place} && mount --bind {tmp_path}{place} {place}\n" for place in HIDDEN)
        clean = "rm -rf /etc/ippd /etc/init.d/ippd; ! id ippd >/dev/null 2>&1 || userdel ippd\n"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "bash", "-euc",
                               f"{binds}{clean}ippd={shlex.quote(PROGRAM)}\n{script}"],
                              capture_output=True, text=True, timeout=120, env=environ, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def part(lines, name):
    """The lines between `name` and the next `--`."""
    begin = lines.index(f"-- {name}") + 1
    end = next((number for number in range(begin, len(lines)) if lines[number].startswith("-- ")), len(lines))
    return lines[begin:end]


def test_a_dry_run_changes_nothing(host):
    lines = host("find /etc /var/lib /usr/local/bin >/tmp/before.$$; $ippd install --dry-run; $ippd uninstall --dry-run\n"
                 "find /etc /var/lib /usr/local/bin | diff /tmp/before.$$ -; rm /tmp/before.$$")
    assert "account ippd: would be made" in lines and "file /usr/local/bin/ippd: would be made" in lines


def test_installed_twice_changed_and_taken_away_on_a_host_with_init_scripts(host):
    lines = host("""
mkdir -p /etc/init.d /etc/logrotate.d
echo "-- first"; $ippd install
echo "-- account"; id -un ippd; getent passwd ippd
echo "-- modes"; stat -c '%A %U %G %n' /var/lib/ippd /var/log/ippd /etc/ippd /usr/local/bin/ippd /etc/ippd/ippd.conf /etc/init.d/ippd \
    /var/lib/ippd/ippd.sqlite /var/lib/ippd/certificate.pem /var/lib/ippd/key.pem
echo "-- config"; /usr/local/bin/ippd config --check; grep PROGRAM= /etc/init.d/ippd; ls /etc/rc2.d | grep ippd
echo "-- second"; $ippd install
echo '# mine' >>/etc/ippd/ippd.conf; chmod 644 /var/lib/ippd/key.pem; chmod 755 /var/lib/ippd; : >/usr/local/bin/ippd
echo "-- third"; $ippd install
tail -n 1 /etc/ippd/ippd.conf; stat -c '%A' /var/lib/ippd; cmp $ippd /usr/local/bin/ippd
echo "-- away"; $ippd uninstall
echo "-- left"; ls /usr/local/bin/ippd /etc/init.d/ippd /etc/logrotate.d/ippd /var/lib/ippd/ippd.sqlite /etc/ippd/ippd.conf 2>/dev/null || :
id -un ippd; ls /etc/rc2.d | grep ippd || :
""")
    assert all(line.endswith(": made") for line in part(lines, "first")[:11]), part(lines, "first")
    assert part(lines, "account")[0] == "ippd" and "nologin" in part(lines, "account")[1]
    assert part(lines, "modes") == [
        "drwx------ ippd ippd /var/lib/ippd", "drwxr-x--- ippd ippd /var/log/ippd", "drwxr-x--- root ippd /etc/ippd",
        "-rwxr-xr-x root root /usr/local/bin/ippd", "-rw------- ippd ippd /etc/ippd/ippd.conf", "-rwxr-xr-x root root /etc/init.d/ippd",
        "-rw------- ippd ippd /var/lib/ippd/ippd.sqlite", "-rw-r--r-- ippd ippd /var/lib/ippd/certificate.pem",
        "-rw------- ippd ippd /var/lib/ippd/key.pem"]
    assert part(lines, "config") == [
        "/etc/ippd/ippd.conf: nothing is wrong", "PROGRAM=/usr/local/bin/ippd", next(line for line in lines if line[:1] == "S")]
    assert all(line.endswith(": is as it should be") for line in part(lines, "second")[:11]), part(lines, "second")
    third = part(lines, "third")
    assert [line for line in third if line.endswith(": made")] == ["folder /var/lib/ippd: made", "file /usr/local/bin/ippd: made"]
    assert third[-2:] == ["# mine", "drwx------"]
    assert "file /usr/local/bin/ippd: removed" in part(lines, "away")
    assert part(lines, "left") == ["/etc/ippd/ippd.conf", "/var/lib/ippd/ippd.sqlite", "ippd"]


def test_a_host_with_systemd_gets_the_unit(host):
    lines = host("rm -rf /etc/init.d\n$ippd install\ngrep ExecStart /etc/systemd/system/ippd.service\ntest ! -e /etc/init.d/ippd")
    assert "file /etc/systemd/system/ippd.service: made" in lines and lines[-1] == "ExecStart=/usr/local/bin/ippd serve"


def test_only_root_may_install(host):
    code = 'import os, sys; from ippd.cli import main; os.seteuid(65534); sys.exit(main(["install"]))'
    lines = host(f"{sys.executable} -c {shlex.quote(code)} 2>&1 || echo refused")
    assert lines[-1] == "refused" and "only root can do this" in lines[-2]
