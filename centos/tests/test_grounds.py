"""The grounds are as old as they claim: programs and system calls of a later time are refused there."""

import os
import subprocess
from pathlib import Path

import pytest

# Each ends with status 0 where what it needs is there: functions with the glibc that brought them, and a call of Linux 3.17.
PROGRAMS = {
    "GLIBC_2.14": "int setns(int, int); int main(void) { return setns(-1, 0) != -1; }",
    "GLIBC_2.16": "unsigned long getauxval(unsigned long); int main(void) { return getauxval(6) < 4096; }",
    "GLIBC_2.17": 'char *secure_getenv(const char *); int main(void) { return secure_getenv("PATH") == 0; }',
    "getrandom": "long syscall(long, ...); int main(void) { char some[8]; return syscall(318, some, 8, 0) != 8; }",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs, made by the old compiler: {name: path}."""
    folder, compiler = tmp_path_factory.mktemp("programs"), Path(os.environ["TOOLCHAIN"]) / "bin" / "gcc"
    for name, source in PROGRAMS.items():
        (folder / f"{name}.c").write_text(source)
        words = [compiler, folder / f"{name}.c", "-o", folder / name]
        subprocess.run(words, check=True, env=os.environ | {"BUILD": str(folder)})
    return {name: folder / name for name in PROGRAMS}


def run(ground, program):
    """Run a program inside; what came of it."""
    target = ground.path("/usr/bin") / program.name
    target.write_bytes(program.read_bytes())
    target.chmod(0o755)
    return ground.run(f"/usr/bin/{program.name}")


@pytest.mark.parametrize("version", [name for name in PROGRAMS if name != "getrandom"])
def test_a_program_for_a_newer_glibc_is_refused_by_the_loader(make_ground, programs, version):
    assert run(make_ground("glibc-2.17"), programs[version]).returncode == 0
    refused = run(make_ground("glibc-2.12"), programs[version])
    assert refused.returncode == 1 and f"version `{version}' not found" in refused.stderr


def test_the_old_kernel_says_so_and_lacks_what_came_later(make_ground, programs):
    new, old = make_ground("glibc-2.12"), make_ground("glibc-2.12-linux-2.6.32")
    assert run(new, programs["getrandom"]).returncode == 0 and run(old, programs["getrandom"]).returncode == 1
    assert "getrandom" in old.trace.read_text() and "ENOSYS" in old.trace.read_text()
    assert new.run("uname", "-r").stdout.strip() == os.uname().release
    assert old.run("uname", "-r").stdout.strip() == "2.6.32-754.el6.x86_64"


def test_nothing_is_there_but_glibc_busybox_and_the_binary(ground):
    files = {path.name for path in ground.root.rglob("*") if path.is_file() and not path.is_symlink()}
    libraries = {name for name in files if ".so" in name}
    assert libraries and all((ground.root / "lib64" / name).is_file() for name in libraries)
    assert files - libraries == {"busybox", "ippd", "passwd", "group", "hosts", "nsswitch.conf"}
