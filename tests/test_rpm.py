"""The RPMs: what is in them; installed, upgraded and removed in a root of their own with the host's own useradd and shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import program

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "packaging" / "rpm" / "build.sh"
COMMON = """
drwxr-xr-x root ippd /etc/ippd
-rw------- ippd ippd /etc/ippd/ippd.conf cn
-rw-r--r-- root root /etc/logrotate.d/ippd cn
-rwxr-xr-x root root /usr/bin/ippd
-rw-r--r-- root root /usr/share/man/man5/ippd.conf.5.gz d
-rw-r--r-- root root /usr/share/man/man8/ippd.8.gz d
drwx------ ippd ippd /var/lib/ippd
drwxr-x--- ippd ippd /var/log/ippd
"""
OWN = {"el6": """
-rw-r--r-- root root /etc/bash_completion.d/ippd
-rwxr-xr-x root root /etc/rc.d/init.d/ippd
-rw-r--r-- root root /etc/sysconfig/ippd cn
""", "el7": """
-rw-r--r-- root root /usr/lib/firewalld/services/ippd.xml
-rw-r--r-- root root /usr/lib/systemd/system/ippd-worker@.service
-rw-r--r-- root root /usr/lib/systemd/system/ippd.service
-rw-r--r-- root root /usr/lib/sysusers.d/ippd.conf
-rw-r--r-- root root /usr/lib/tmpfiles.d/ippd.conf
-rw-r--r-- root root /usr/share/bash-completion/completions/ippd
"""}
NEWER = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
import ippd
ippd.VERSION = "999.0"
from ippd.cli import main
sys.exit(main())
"""


def build(program, folder):
    done = subprocess.run([BUILD, program, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(("el6", "el7"), done.stdout.split(), strict=True))


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Both packages of the program: {"el6": path, "el7": path}."""
    return build(program.path(), tmp_path_factory.mktemp("rpms"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """Both packages of a later version."""
    program = tmp_path_factory.mktemp("newer") / "ippd"
    program.write_text(NEWER)
    program.chmod(0o755)
    return build(program, program.parent / "rpms")


def query(package, form):
    return subprocess.check_output(["rpm", "-qp", "--qf", form, package], text=True)


@pytest.mark.parametrize("kind", ["el6", "el7"])
def test_file_list_and_modes(packages, kind):
    listed = query(packages[kind], "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\\n]")
    assert sorted(line.strip() for line in listed.splitlines()) == sorted(filter(None, (COMMON + OWN[kind]).split("\n")))


@pytest.mark.parametrize("kind", ["el6", "el7"])
def test_the_program_is_packed_byte_for_byte_and_old_rpms_can_read_the_package(packages, kind, tmp_path):
    subprocess.run(f"rpm2cpio {packages[kind]} | cpio -idm --quiet", shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "usr/bin/ippd").read_bytes() == Path(program.path()).read_bytes()
    assert query(packages[kind], "%{PAYLOADCOMPRESSOR} %{PAYLOADFORMAT}") == "gzip cpio"
    needs = subprocess.check_output(["rpm", "-qp", "--requires", packages[kind]], text=True)
    # The features that rpm 4.8 of CentOS 6 has.
    assert {line.split()[0] for line in needs.splitlines() if line.startswith("rpmlib")} <= {
        "rpmlib(CompressedFileNames)", "rpmlib(PayloadFilesHavePrefix)", "rpmlib(FileDigests)", "rpmlib(PayloadIsXz)"}
    assert "file = /var/log/ippd/ippd.log" in (tmp_path / "etc/ippd/ippd.conf").read_text()
    rotate = (tmp_path / "etc/logrotate.d/ippd").read_text()
    assert ("su ippd ippd" in rotate) == ("maxsize" in rotate) == (kind == "el7"), "logrotate of CentOS 6 does not know them"


def test_log_rotation_is_understood_by_logrotate(packages, tmp_path):
    (tmp_path / "rotate").write_text((ROOT / "packaging/rpm/ippd.logrotate").read_text().replace("su ippd ippd", "su root root"))
    (tmp_path / "rotate").chmod(0o644)
    done = subprocess.run(["/usr/sbin/logrotate", "-d", "-s", tmp_path / "state", tmp_path / "rotate"], capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr


@pytest.fixture
def place(tmp_path):
    """A root with a shell and the programs that make accounts; systemctl, service and chkconfig write down how they were called."""
    if os.geteuid() != 0:
        pytest.skip("only root can install packages into a root of their own")
    for tool in ("/bin/sh", "/usr/bin/getent", "/usr/sbin/groupadd", "/usr/sbin/useradd"):
        libraries = subprocess.check_output(["ldd", tool], text=True).split()
        for path in [tool, *(word for word in libraries if word.startswith("/"))]:
            (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / path[1:])
    for tool in ("systemctl", "service", "chkconfig"):
        path = tmp_path / "usr/sbin" / tool
        path.write_text(f'#!/bin/sh\necho {tool} "$@" >>/called\n')
        path.chmod(0o755)
    for folder in ("etc", "dev"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "dev/null").touch()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    return tmp_path


def rpm(place, *words):
    (place / "called").write_text("")
    done = subprocess.run(["rpm", "--root", place, "--dbpath", "/var/lib/rpm", *words],
                          capture_output=True, text=True, timeout=120, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0 and "failed" not in done.stderr, done.stderr
    return (place / "called").read_text().splitlines()


def account(place):
    return next(line.split(":") for line in (place / "etc/passwd").read_text().splitlines() if line.startswith("ippd:"))


CALLS = {
    "el6": (["chkconfig --add ippd"], ["chkconfig --add ippd", "service ippd condrestart"],
            ["service ippd stop", "chkconfig --del ippd"]),
    "el7": (["systemctl daemon-reload", "systemctl preset ippd.service"],
            ["systemctl daemon-reload", "systemctl daemon-reload", "systemctl try-restart ippd.service"],
            ["systemctl --no-reload disable ippd.service", "systemctl stop ippd.service", "systemctl daemon-reload"]),
}


@pytest.mark.parametrize("kind", ["el6", "el7"])
def test_install_upgrade_and_remove_keep_settings_and_data(packages, newer, place, kind):
    installed, upgraded, gone = CALLS[kind]
    assert rpm(place, "-i", "--nodeps", packages[kind]) == installed
    _, _, uid, gid, _, home, shell = account(place)
    assert (home, shell) == ("/var/lib/ippd", "/sbin/nologin") and int(uid) < 1000
    stat = (place / "var/lib/ippd").stat()
    assert (str(stat.st_uid), str(stat.st_gid), stat.st_mode & 0o777) == (uid, gid, 0o700)
    config = place / "etc/ippd/ippd.conf"
    assert (str(config.stat().st_uid), config.stat().st_mode & 0o777) == (uid, 0o600)
    assert rpm(place, "-V", "--nodeps", "ippd") == []

    config.write_text("[public]\nurl = https://portal.example.org\n")
    (place / "var/lib/ippd/ippd.sqlite").write_text("data")
    assert rpm(place, "-U", "--nodeps", newer[kind]) == upgraded
    assert config.read_text() == "[public]\nurl = https://portal.example.org\n"
    assert (place / "var/lib/ippd/ippd.sqlite").read_text() == "data"
    assert (place / "usr/bin/ippd").read_text() == NEWER and account(place)[2] == uid

    assert rpm(place, "-e", "ippd") == gone
    assert (place / "var/lib/ippd/ippd.sqlite").read_text() == "data" and account(place)[2] == uid
    assert (place / "etc/ippd/ippd.conf.rpmsave").read_text() == "[public]\nurl = https://portal.example.org\n"
    assert not (place / "usr/bin/ippd").exists() and not list((place / "usr/share/man").rglob("ippd*"))
