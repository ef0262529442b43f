"""The audit of the binary: each kind of file that would not run on an old host, or not safely, is told. Bad input: real ELF files."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTE = 'asm(".pushsection .note.ABI-tag, \\"a\\", @note; .long 4, 16, 1; .asciz \\"GNU\\"; .long 0, 4, 18, 0; .popsection");\n'
VERSIONS = b"\0003.13.15\0OpenSSL 3.5.7 1 Jan 2026\0 3.53.4\0"  # as they stand in libpython


@pytest.fixture
def compiled(tmp_path):
    """A function: the bytes of a library that this compiler makes of nothing; `flags` are its own."""

    def compile(name, *flags, source="int nothing(void) { return 0; }\n"):
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-shared", "-nostdlib", "-fPIC", "-Wl,-z,noexecstack", "-Wl,-z,relro", "-o", tmp_path / name,
                        tmp_path / f"{name}.c", *flags], check=True)
        return (tmp_path / name).read_bytes()

    return compile


@pytest.fixture
def audit(tmp_path):
    """A function: what the audit says of a frozen program with these files, {name: bytes}: (exit status, lines)."""

    def audit(files):
        table, content = b"", b""
        for name, data in files.items():
            named = name.encode() + b"\0"
            table += struct.pack("!IIIIBc", 18 + len(named), len(content), len(data), len(data), 0, b"b") + named
            content += data
        length = len(content) + len(table) + 88
        cookie = struct.pack("!8sIIII64s", b"MEI\014\013\012\013\016", length, len(content), len(table), 313, b"libpython3.13.so.1.0")
        (tmp_path / "frozen").write_bytes(content + table + cookie)
        done = subprocess.run([sys.executable, ROOT / "packaging/audit.py", tmp_path / "frozen"], capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return audit


def wrong(lines):
    """{file: what is wrong with it}."""
    found, name = {}, ""
    for line in lines:
        if line.startswith("  WRONG: "):
            found.setdefault(name, []).append(line.removeprefix("  WRONG: "))
        name = name if line.startswith(" ") else line.split(" ")[0]
    return found


def test_each_thing_that_is_wrong_with_a_file_is_told_and_fails(compiled, audit, tmp_path):
    """Bad input: search paths, an executable stack, no RELRO, a new glibc, a new kernel, a library that a bare host lacks."""
    files = {"libpython3.13.so.1.0": compiled("libpython") + VERSIONS, "lib/good.so": compiled("good.so")}
    status, lines = audit(files)
    assert (status, wrong(lines)) == (0, {}), lines
    (tmp_path / "map").write_text("GLIBC_2.13 { global: nothing; };\n")
    compiled("new.so", "-Wl,-soname,libc.so.6", f"-Wl,--version-script={tmp_path}/map")
    compiled("other.so", "-Wl,-soname,libother.so.1")
    calls = "int nothing(void);\nint calls(void) { return nothing(); }\n"
    bad = {
        "rpath.so": compiled("rpath.so", "-Wl,--disable-new-dtags,-rpath,/opt/lib"),
        "runpath.so": compiled("runpath.so", "-Wl,--enable-new-dtags,-rpath,$ORIGIN"),
        "stack.so": compiled("stack.so", "-Wl,-z,execstack"),
        "norelro.so": compiled("norelro.so", "-Wl,-z,norelro"),
        "glibc.so": compiled("glibc.so", tmp_path / "new.so", source=calls),
        "linux.so": compiled("linux.so", source=NOTE),
        "needs.so": compiled("needs.so", "-Wl,--no-as-needed", tmp_path / "other.so"),
    }
    status, lines = audit(files | bad)
    assert wrong(lines) == {
        "rpath.so": ["looks for libraries in /opt/lib"], "runpath.so": ["looks for libraries in $ORIGIN"],
        "stack.so": ["wants an executable stack"], "norelro.so": ["leaves its address tables writable (no RELRO)"],
        "glibc.so": ["asks for glibc 2.13"], "linux.so": ["asks for Linux 4.18.0"], "needs.so": ["needs libother.so.1"]}
    assert status == 1 and lines[-1] == "10 ELF files, highest glibc version asked for 2.13, 7 wrong", "the whole is one of them"
    for name, content in bad.items():
        assert audit(files | {name: content})[0] == 1, name
    assert audit(files | {"needs.so": bad["needs.so"], "libother.so.1": files["lib/good.so"]})[0] == 0, "it is in the bundle"


def test_a_library_that_is_too_old_or_not_there(compiled, audit):
    """Bad input: a SQLite that can damage a database, and a program without a Python."""
    status, lines = audit({"libpython3.13.so.1.0": compiled("old") + VERSIONS.replace(b"3.53.4", b"3.51.2")})
    assert status == 1 and "SQLite 3.51.2  WRONG: must be 3.51.3 or newer" in lines
    status, lines = audit({"good.so": compiled("good.so")})
    assert status == 1 and "Python not found  WRONG: must be 3.13.0 or newer" in lines


@pytest.mark.parametrize("content", [None, b"#!/bin/sh\n"])
def test_what_is_no_frozen_program_is_one_sentence(tmp_path, content):
    """Bad input: a program that was not made yet, and a script."""
    if content:
        (tmp_path / "frozen").write_bytes(content)
    done = subprocess.run([sys.executable, ROOT / "packaging/audit.py", tmp_path / "frozen"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("audit.py: ") and done.stderr.count("\n") == 1
    assert "/frozen" in done.stderr and "./build.sh binary" in done.stderr
