#!/usr/bin/env python3
"""audit.py [dist/ippd]: checks that each ELF file of the binary can run on glibc 2.12 and Linux 2.6.32; prints a table.

Exit status 1 if a file asks for a newer glibc or kernel, has a path of its own to look for libraries in, wants an executable stack,
leaves its address tables writable or needs a library that a bare host lacks, if the binary is too big, or a version is too old.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "centos"))
from bundle import members
from elf import DT_NEEDED, DT_RPATH, DT_RUNPATH, PT_DYNAMIC, PT_GNU_RELRO, PT_GNU_STACK, Elf, is_elf, version_key

HIGHEST_GLIBC = (2, 12)
OLDEST_KERNEL = (2, 6, 32)
BIGGEST = 16 << 20
EXECUTABLE = 1  # the flag PF_X of a segment
# What glibc itself brings on every host; all else must be in the bundle.
GLIBC = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "ld-linux-x86-64.so.2"}
# How a version stands in libpython, and the oldest that will do. Up to 3.51.2 SQLite can damage a database in WAL mode ("WAL-reset").
VERSIONS = {
    "Python": (rb"\0(3\.1\d\.\d+)\0", "3.13.0"),
    "OpenSSL": (rb"OpenSSL (3\.\d+\.\d+) \d", "3.5.0"),
    "SQLite": (rb"[^\d.](3\.[3-9]\d\.\d+)\0", "3.51.3"),
}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def glibc_wanted(elf: Elf) -> str:
    """The highest glibc version that a file asks for, without its "GLIBC_"."""
    names = [version.name for version in elf.needs() if version.name.startswith("GLIBC_")]
    return max(names, key=version_key, default="GLIBC_2.0").partition("_")[2]


def problems(elf: Elf, bundled: set[str]) -> Iterator[str]:
    """A sentence for each thing that is wrong with one file."""
    wanted = glibc_wanted(elf)
    if version_key("GLIBC_" + wanted) > HIGHEST_GLIBC:
        yield f"asks for glibc {wanted}"
    for path in elf.dynamic(DT_RPATH, DT_RUNPATH):
        yield f"looks for libraries in {path}"
    stack = elf.segment(PT_GNU_STACK)
    if stack is None or stack.flags & EXECUTABLE:
        yield "wants an executable stack"
    if elf.segment(PT_DYNAMIC) and not elf.segment(PT_GNU_RELRO):
        yield "leaves its address tables writable (no RELRO)"
    for at in elf.kernel_notes():
        if elf.numbers("<III", at) > OLDEST_KERNEL:
            yield "asks for Linux " + ".".join(map(str, elf.numbers("<III", at)))
    missing = set(elf.dynamic(DT_NEEDED)) - GLIBC - bundled
    if missing:
        yield "needs " + ", ".join(sorted(missing))


def audit_files(files: dict[str, Elf]) -> int:
    """Prints a line for each file; returns how many are wrong."""
    bad = 0
    print(f"{'file':68} {'bytes':>9}  glibc  stack  RELRO  RPATH")
    for name, elf in sorted(files.items()):
        wrong = list(problems(elf, {Path(other).name for other in files}))
        stack, relro = elf.segment(PT_GNU_STACK), elf.segment(PT_GNU_RELRO)
        row = (glibc_wanted(elf), "exec" if stack is None or stack.flags & EXECUTABLE else "-", "yes" if relro else "no",
               "yes" if elf.dynamic(DT_RPATH, DT_RUNPATH) else "-")
        print(f"{name:68} {len(elf.data):9}  {row[0]:5}  {row[1]:5}  {row[2]:5}  {row[3]}")
        for sentence in wrong:
            print(f"  WRONG: {sentence}")
        bad += bool(wrong)
    return bad


def audit_versions(libpython: bytes) -> int:
    """Prints what is linked into libpython; returns how many are too old or not found."""
    bad = 0
    for name, (pattern, oldest) in VERSIONS.items():
        found = {match.decode() for match in re.findall(pattern, libpython)}
        wrong = len(found) != 1 or numbers(max(found)) < numbers(oldest)
        print(f"{name} {', '.join(sorted(found)) or 'not found'}" + (f"  WRONG: must be {oldest} or newer" if wrong else ""))
        bad += wrong
    return bad


def main(path: str = str(Path(__file__).parent.parent / "dist" / "ippd")) -> int:
    try:
        parts = {name: content for name, _, content in members(path) if is_elf(content[:6])}
    except OSError as error:
        sys.exit(f"audit.py: {path}: {error.strerror}; ./build.sh binary makes dist/ippd")
    except ValueError as error:
        sys.exit(f"audit.py: {error}; ./build.sh binary makes a file that has one: dist/ippd")
    files = {name: Elf(content) for name, content in parts.items()}
    bad = audit_files(files)
    bad += audit_versions(next((content for name, content in parts.items() if name.startswith("libpython")), b""))
    size = Path(path).stat().st_size
    print(f"{path}: {size} bytes ({size / (1 << 20):.1f} MB)" + ("  WRONG: more than 16 MB" if size > BIGGEST else ""))
    highest = max(map(glibc_wanted, files.values()), key=lambda version: version_key("_" + version))
    print(f"{len(files)} ELF files, highest glibc version asked for {highest}, {bad + (size > BIGGEST)} wrong")
    return 1 if bad or size > BIGGEST else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
