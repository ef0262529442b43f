"""ippd install and uninstall, in a mount namespace with folders of its own for what they change: real accounts, real files."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import program
from ippd import releases

ROOT = Path(__file__).resolve().parents[1]
CHANGED = ("/etc", "/usr/local/bin", "/usr/local/share")  # copied first
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
        binds += opened(tmp_path, sys.base_prefix, ROOT)
        clean = "rm -rf /etc/ippd /etc/init.d/ippd; ! id ippd >/dev/null 2>&1 || userdel ippd\n"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("IPPD_")}
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "bash", "-euc",
                               f"{binds}{clean}ippd={shlex.quote(program.path())}\n{script}"],
                              capture_output=True, text=True, timeout=120, env=environ, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def opened(tmp_path, *places):
    """Shell commands by which every account can reach these folders, whatever lies above them: an installation from source needs that."""
    behind = {}
    for place in map(Path, places):
        closed = next((path for path in reversed(place.parents) if not path.stat().st_mode & 0o001), None)
        behind.setdefault(closed, []).append(place)
    behind.pop(None, None)
    lines = []
    for closed, found in behind.items():
        new = f"{tmp_path}/open{closed}"
        lines.append(f"mkdir -p {new} && mount -t tmpfs -o mode=755 none {new}")
        lines += [f"mkdir -p {tmp_path}/open{place} && mount --rbind {place} {tmp_path}/open{place}" for place in found]
        lines.append(f"mount --rbind {new} {closed}")
    return "".join(f"{line}\n" for line in lines)


def part(lines, name):
    """The lines between `name` and the next `--`."""
    begin = lines.index(f"-- {name}") + 1
    end = next((number for number in range(begin, len(lines)) if lines[number].startswith("-- ")), len(lines))
    return lines[begin:end]


def test_a_dry_run_changes_nothing(host):
    lines = host("find /etc /var/lib /usr/local/bin >/tmp/before.$$; $ippd install --dry-run; $ippd uninstall --dry-run\n"
                 "find /etc /var/lib /usr/local/bin | diff /tmp/before.$$ -; rm /tmp/before.$$")
    assert "account ippd: would be made" in lines and "file /usr/local/bin/ippd: would be made" in lines
    assert "file /usr/local/bin/ippd: is not there" in lines and lines[-1] == "Would be kept: nothing is there"


def test_a_backup_is_put_back_on_a_new_host_as_the_readme_says(host, tmp_path):
    """Bad input: a host that has lost /var/lib/ippd, and one where `ippd install` has made an empty database. Neither named the way out."""
    lines = host(f"""
mkdir -p /etc/init.d
$ippd install >/dev/null; echo correct horse battery | ippd user add ada@example.org --password-file -
ippd backup {tmp_path}/b.tar >/dev/null
rm -rf /var/lib/ippd
echo "-- lost"; ippd restore {tmp_path}/b.tar 2>&1 || :
echo "-- new"; $ippd install >/dev/null; ippd restore {tmp_path}/b.tar 2>&1 || :
echo "-- overwritten"; ippd restore --overwrite {tmp_path}/b.tar; ippd user list
""")
    assert part(lines, "lost") == [
        "ippd: data.directory: the account ippd cannot make /var/lib/ippd: Permission denied. Let root make it, and give it to the account "
        "ippd: install -d -m 700 -o ippd /var/lib/ippd (ippd install does it for /var/lib/ippd)"]
    (said,) = part(lines, "new")
    assert said.startswith("ippd: there is data already (/var/lib/ippd/ippd.sqlite, "), said
    assert said.endswith("): ippd restore --overwrite FILE replaces it, and all else")
    assert "ada@example.org" in part(lines, "overwritten")[-1]
    assert "ippd restore --overwrite /" in (ROOT / "README.md").read_text()


def test_a_dry_run_of_an_account_that_sees_little_stopped_at_the_first_folder(host):
    """Bad input: `ippd install --dry-run` of an account that may not look into /var/lib/ippd, nor read the settings."""
    lines = host("mkdir -p /etc/init.d; $ippd install >/dev/null; rm /etc/init.d/ippd\n"
                 "setpriv --reuid=65534 --regid=65534 --clear-groups /usr/local/bin/ippd install --dry-run")
    assert "what is in /var/lib/ippd (ippd): only root can see" in lines and "database and secrets: only root can see" in lines
    assert "file /etc/init.d/ippd: would be made" in lines and "account ippd: is as it should be" in lines


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
    assert all(line.endswith(": made") for line in part(lines, "first")[:-1]), part(lines, "first")
    assert part(lines, "account")[0] == "ippd" and "nologin" in part(lines, "account")[1]
    assert part(lines, "modes") == [
        "drwx------ ippd ippd /var/lib/ippd", "drwxr-x--- ippd ippd /var/log/ippd", "drwxr-xr-x root ippd /etc/ippd",
        "-rwxr-xr-x root root /usr/local/bin/ippd", "-rw------- ippd ippd /etc/ippd/ippd.conf", "-rwxr-xr-x root root /etc/init.d/ippd",
        "-rw------- ippd ippd /var/lib/ippd/ippd.sqlite", "-rw-r--r-- ippd ippd /var/lib/ippd/certificate.pem",
        "-rw------- ippd ippd /var/lib/ippd/key.pem"]
    assert part(lines, "config") == [
        "/etc/ippd/ippd.conf: nothing is wrong", "PROGRAM=/usr/local/bin/ippd", next(line for line in lines if line[:1] == "S")]
    assert all(line.endswith(": is as it should be") for line in part(lines, "second")[:-1]), part(lines, "second")
    third = part(lines, "third")
    assert [line for line in third if not line.endswith(": is as it should be")][:2] == [
        "folder /var/lib/ippd (700, ippd): put right", "file /usr/local/bin/ippd: replaced"]
    assert third[-2:] == ["# mine", "drwx------"]
    away = part(lines, "away")
    assert away[0] == "the daemon: does not run" and "file /usr/local/bin/ippd: removed" in away
    assert away[-1] == "Kept: /var/lib/ippd, /var/log/ippd, /etc/ippd, /etc/sysconfig/ippd, the account ippd"
    assert part(lines, "left") == ["/etc/ippd/ippd.conf", "/var/lib/ippd/ippd.sqlite", "ippd"]


def test_programs_of_root_are_found_where_the_path_leaves_their_folders_out(host):
    """Bad input: the PATH of cron or of a plain su, without /usr/sbin and /sbin, where useradd and update-rc.d (or chkconfig) lie."""
    lines = host("""
mkdir -p /etc/init.d; export PATH=/usr/bin:/bin
echo "-- made"; $ippd install; id -un ippd; ls /etc/rc2.d | grep ippd
echo "-- away"; $ippd uninstall; ls /etc/rc2.d | grep ippd || :
""")
    made, away = part(lines, "made"), part(lines, "away")
    assert {"account ippd: made", "start at boot: made", "ippd"} <= set(made) and made[-1].endswith("ippd") and made[-1][:1] == "S"
    assert "start at boot: removed" in away and away[-1].startswith("Kept: ")


def test_a_host_with_systemd_gets_the_unit(host):
    lines = host("rm -rf /etc/init.d\n$ippd install\ngrep ExecStart /etc/systemd/system/ippd.service\ntest ! -e /etc/init.d/ippd")
    assert "file /etc/systemd/system/ippd.service: made" in lines and lines[-1] == "ExecStart=/usr/local/bin/ippd serve"


def test_only_root_may_install(host):
    code = 'import os, sys; from ippd.cli import main; os.seteuid(65534); sys.exit(main(["install"]))'
    lines = host(f"{sys.executable} -c {shlex.quote(code)} 2>&1 || echo refused")
    assert lines[-1] == "refused" and "only root can do this" in lines[-2]


def test_a_program_that_the_account_could_not_run_is_refused_before_anything_is_made(host, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "ippd").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                                 "from ippd.cli import main\nsys.exit(main())\n")
    (closed / "ippd").chmod(0o755)
    lines = host(f"{closed}/ippd install 2>&1 || echo refused; ls -d /etc/ippd /var/lib/ippd 2>&1 || :; id -un ippd 2>&1 || :")
    assert lines[1] == "refused" and f"{closed}/ippd cannot be run by other accounts than root" in lines[0]
    assert all("o such" in line for line in lines[2:]), lines


def test_a_command_of_root_before_the_first_start_makes_the_folder_for_the_account_that_will_serve(host):
    lines = host("""
$ippd install >/dev/null; mkdir /var/lib/big; sed -i 's|^#directory = /var/lib/ippd|directory = /var/lib/big/ippd|' /etc/ippd/ippd.conf
ippd user list 2>&1 || ls /var/lib/big; chown ippd:ippd /var/lib/big
ippd user list >/dev/null; stat -c '%A %U %G %n' /var/lib/big/ippd /var/lib/big/ippd/ippd.sqlite
rm -r /var/lib/big/ippd; chown root:root /var/lib/big; mkdir /var/lib/big/ippd; chmod 755 /var/lib/big/ippd
ippd user list 2>&1 || stat -c '%A %U' /var/lib/big/ippd; ls /var/lib/big/ippd
""")
    assert "the account ippd cannot make /var/lib/big/ippd: Permission denied" in lines.pop(0), "nor does root"
    assert lines[:2] == ["drwx------ ippd ippd /var/lib/big/ippd", "-rw------- ippd ippd /var/lib/big/ippd/ippd.sqlite"]
    assert "/var/lib/big/ippd belongs to root, and /etc/ippd/ippd.conf to another account" in lines[2]
    assert lines[3:] == ["drwxr-xr-x root"], "root does nothing in a folder that another account has named"


def test_a_data_folder_that_root_made_by_a_command_is_given_to_the_account(host):
    lines = host("""
mkdir -p /etc/init.d /etc/bash_completion.d
$ippd user add ada@example.org --password-file - <<<'correct horse battery' >/dev/null
echo precious >/var/lib/precious; ln /var/lib/precious /var/lib/ippd/uploads/second-name
ln -s /var/lib/precious /var/lib/ippd/uploads/link
echo "-- refused"; $ippd install 2>&1 || echo refused
rm /var/lib/ippd/uploads/second-name
echo "-- dry"; $ippd install --dry-run | grep -e /var/lib -e database -e certificate
echo "-- taken"; $ippd install | grep -e /var/lib -e database -e certificate
echo "-- owners"; find /var/lib/ippd ! -user ippd; find /var/lib/ippd ! -group ippd; stat -c %U /var/lib/precious
echo "-- made"; ls /var/lib/ippd
echo "-- starts"; timeout 60 su -s /bin/sh ippd -c 'test -w /var/lib/ippd/uploads/incoming && cat /var/lib/ippd/secret' | wc -c
echo "-- again"; $ippd install | grep -v "is as it should be"
""")
    refused = part(lines, "refused")
    # (Which of the two streams comes first is not said.)
    assert refused[-1] == "refused" and any("/uploads/second-name: has another name elsewhere" in line for line in refused), refused
    assert part(lines, "dry") == ["folder /var/lib/ippd (700, ippd): is as it should be",
                                  "what is in /var/lib/ippd (ippd): is as it should be",
                                  "database and secrets: is as it should be", "certificate: would be made"]
    assert part(lines, "taken")[2:] == ["database and secrets: is as it should be", "certificate: made"]
    assert part(lines, "owners") == ["/var/lib/ippd/uploads/link", "/var/lib/ippd/uploads/link", "root"], "nor was the link followed"
    assert {"certificate.pem", "key.pem", "secret", "ippd.sqlite"} <= set(part(lines, "made"))
    assert part(lines, "starts") == ["64"] and len(part(lines, "again")) == 1


def test_a_file_of_the_host_that_the_account_has_linked_is_not_given_to_it(host, tmp_path):
    """Bad input: on a kernel that lets everybody link all files, a link to one of root's that root has replaced since: it has one name."""
    (tmp_path / "unprotected").write_text("0\n")
    lines = host(f"""
mkdir -p /etc/init.d; $ippd install >/dev/null
echo precious >/var/lib/precious; chmod 600 /var/lib/precious; ln /var/lib/precious /var/lib/ippd/uploads/mine
echo newer >/var/lib/newer; mv /var/lib/newer /var/lib/precious
mount --bind {tmp_path}/unprotected /proc/sys/fs/protected_hardlinks
echo "-- refused"; $ippd install 2>&1 || echo refused
echo "-- owner"; stat -c '%U %h' /var/lib/ippd/uploads/mine
rm /var/lib/ippd/uploads/mine; chown -R root /var/lib/ippd
echo "-- closed"; $ippd install | grep "what is in"; find /var/lib/ippd ! -user ippd
""")
    refused = part(lines, "refused")
    assert refused[-1] == "refused" and any("/uploads/mine: has another name elsewhere, is no plain" in line for line in refused), refused
    assert part(lines, "owner") == ["root 1"]
    assert part(lines, "closed") == ["what is in /var/lib/ippd (ippd): given to the account"], "there only root can have put anything"


def test_looking_before_anything_was_made_makes_nothing(host):
    lines = host("""
for what in user group notifications; do $ippd $what list 2>&1 || echo refused; done; find /var/lib/ippd 2>&1 || :
""")
    said = "ippd: there is no database in /var/lib/ippd yet: ippd install or the first start makes it"
    assert lines[:6] == [said, "refused"] * 3 and "No such file" in lines[6], lines


RELEASE = """#!{python}
import sys
sys.path.insert(0, {root!r})
import ippd
ippd.VERSION = "9.0"
from ippd.cli import main
sys.exit(main())
"""


def test_root_tries_a_release_where_another_account_serves(host, tmp_path):
    (tmp_path / "trial").write_text(RELEASE.format(python=sys.executable, root=str(ROOT)))
    (tmp_path / "trial").chmod(0o755)
    secret, public = releases.new_key()
    (tmp_path / "trial.sig").write_text(releases.sign(tmp_path / "trial", "program", "9.0", secret))
    lines = host(f"""
$ippd install >/dev/null; stat -c '%a %U' /etc/ippd/ippd.conf
IPPD_UPDATE_KEY={public} ippd update --check {tmp_path}/trial 2>&1 || echo refused
find /var/lib/ippd ! -user ippd; find /var/lib/ippd -name '.trial*'
""")
    assert lines == ["600 ippd", "9.0 passed its trial"]


def test_the_manual_and_the_completion_are_installed_and_taken_away(host):
    lines = host("""
mkdir -p /etc/init.d /etc/bash_completion.d; rm -rf /usr/local/share/man
umask 077; $ippd install >/dev/null
stat -c '%A %U %n' /usr/local/share/man/man8 /usr/local/share/man/man8/ippd.8 /etc/bash_completion.d/ippd
head -n 1 /usr/local/share/man/man5/ippd.conf.5; bash -n /etc/bash_completion.d/ippd
$ippd uninstall | grep -e man/ -e completion
find /usr/local/share/man /etc/bash_completion.d -name 'ippd*'
""")
    assert lines[:3] == ["drwxr-xr-x root /usr/local/share/man/man8", "-rw-r--r-- root /usr/local/share/man/man8/ippd.8",
                         "-rw-r--r-- root /etc/bash_completion.d/ippd"]
    assert lines[3].startswith(".TH IPPD.CONF 5")
    assert lines[4:] == [f"file {path}: removed" for path in ("/usr/local/share/man/man8/ippd.8", "/usr/local/share/man/man5/ippd.conf.5",
                                                              "/etc/bash_completion.d/ippd")]


def test_root_does_not_believe_a_key_that_the_daemon_may_have_chosen(host):
    lines = host("""
$ippd install >/dev/null; ls -l /etc/ippd/ippd.conf | cut -c 1-10,15-24
cd /var/lib; echo program >release; echo signature >release.sig
printf '[update]\\nkey = AAAA\\n' >/etc/ippd/ippd.conf; ippd update ./release 2>&1 || echo refused
chown root /etc/ippd/ippd.conf; chmod 640 /etc/ippd/ippd.conf; ippd update ./release 2>&1 || echo refused
""")
    assert lines[0].startswith("-rw-------") and "ippd" in lines[0]
    assert "root does not believe update.key in /etc/ippd/ippd.conf" in lines[1] and "chown root /etc/ippd/ippd.conf" in lines[1]
    assert lines[2:] == ["refused", "ippd: this is no signature of a release", "refused"]
