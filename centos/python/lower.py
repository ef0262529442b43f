#!/usr/bin/env python3
"""lower.py PATH...: makes ELF files ask for no symbol version above glibc 2.12, in place, or fails and says why it cannot.

A few functions got a new version after 2.12 although a caller of ours cannot tell the old one from it; those are rebound.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from elf import Elf, elf_files, version_key

HIGHEST = (2, 12)
KERNEL = (2, 6, 32)
OLD = "GLIBC_2.2.5"  # the first version of all on x86-64
# memcpy 2.14: the same function; the old version is merely memmove, for programs that copied overlapping ranges.
# posix_spawn 2.15: the new version no longer runs a file without "#!" through the shell.
CALL_COMPATIBLE = {"memcpy", "posix_spawn", "posix_spawnp"}


def lower(elf: Elf) -> list[str]:
    """Rebinds what can be; returns a sentence for each version that cannot."""
    problems = []
    for version in list(elf.needs()):
        if not version.name.startswith("GLIBC_") or version_key(version.name) <= HIGHEST:
            continue
        stuck = sorted({symbol.name for symbol in elf.symbols(version.number)} - CALL_COMPATIBLE)
        old = elf.find_text(OLD)
        if stuck or old is None:
            problems.append(f"needs {version.library} {version.name} for {', '.join(stuck) or 'no symbol we know'}")
        else:
            elf.rename(version, old)
    # The old compiler's start files say "Linux 5.16.9", the kernel it was made with; nothing in them needs that.
    for at in elf.kernel_notes():
        if elf.numbers("<III", at) > KERNEL:
            elf.put("<III", at, *KERNEL)
    return problems


def main(tops: list[str]) -> int:
    bad = 0
    for path in (path for top in tops for path in elf_files(top)):
        with open(path, "r+b") as file:
            before = file.read()
            elf = Elf(before)
            for problem in lower(elf):
                bad = 1
                print(f"{path} {problem}", file=sys.stderr)
            if elf.data != before:
                file.seek(0)
                file.write(elf.data)
                print(f"{path}: lowered")
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
