#!/usr/bin/env python3
"""run.py [--old-kernel] [--trace FILE] ROOT COMMAND...: runs a command inside a root that make.py made. Needs to be root.

It becomes that command (same process id, its signals). /proc is mounted for it alone. With --old-kernel, uname says what CentOS 6 says,
and each system call that came after Linux 2.6.32 fails with ENOSYS; the trace tells which were tried.
"""

import argparse
import os
import shutil
import sys

# x86-64: 298 (perf_event_open) is the last one of 2.6.32; the numbers from 335 to 423 are not used.
NEWER_CALLS = ",".join(map(str, [*range(299, 335), *range(424, 451)]))
UNAME = ("Linux", os.uname().nodename, "2.6.32-754.el6.x86_64", "#1 SMP", "x86_64", "(none)")


def old_kernel(trace: str) -> list[str]:
    """The words before a command that let it see Linux 2.6.32. --seccomp-bpf: all other calls are as fast as ever."""
    utsname = "".join(word.encode().ljust(65, b"\0").hex() for word in UNAME)
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "--signal=none", "-o", trace, "-e", f"trace=uname,{NEWER_CALLS}",
            "-e", f"inject=uname:poke_exit=@arg1={utsname}", "-e", f"inject={NEWER_CALLS}:error=ENOSYS"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root")
    parser.add_argument("--old-kernel", action="store_true")
    parser.add_argument("--trace", default="/dev/null")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    choice = parser.parse_args()
    before = old_kernel(choice.trace) if choice.old_kernel else []
    for program in ["unshare", "chroot", *before[:1]]:
        if not shutil.which(program):
            sys.exit(f"missing here: {program}")
    mount = 'mount -t proc proc "$0/proc" && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mount, choice.root, *before, "chroot", choice.root, *choice.command])


if __name__ == "__main__":
    main()
