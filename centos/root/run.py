#!/usr/bin/env python3
"""run.py [OPTIONS] ROOT COMMAND...: runs a command inside a root that make.py made. Needs to be root.

It becomes that command (same process id, its signals). /proc is mounted for it alone. With --old-kernel, uname says what CentOS 6 says,
and each system call that came after Linux 2.6.32 fails with ENOSYS; the trace tells which were tried.
"""

import argparse
import os
import shutil
import sys

# x86-64: 298 (perf_event_open) is the last one of 2.6.32; the numbers from 335 to 423 are not used, strace knows none above 450.
NEWER_CALLS = ",".join(map(str, [*range(299, 335), *range(424, 451)]))
UNAME = ("Linux", os.uname().nodename, "2.6.32-754.el6.x86_64", "#1 SMP", "x86_64", "(none)")
# Arguments: the root, then pairs of a folder in it and mount options, "--", the command.
MOUNT = """
mount -t proc proc "$0/proc" || exit
while [ "$1" != -- ]; do mount -t tmpfs -o "$2" tmpfs "$0$1" || exit; shift 2; done
shift
exec "$@"
"""


def old_kernel(trace: str) -> list[str]:
    """The words before a command that let it see Linux 2.6.32.

    --seccomp-bpf: all other calls are as fast as ever. -DDD: strace has a session of its own, so that a signal to all processes of the
    command leaves it alone.
    """
    utsname = "".join(word.encode().ljust(65, b"\0").hex() for word in UNAME)
    return ["strace", "-DDD", "-f", "--seccomp-bpf", "-qq", "--signal=none", "-o", trace, "-e", f"trace=uname,{NEWER_CALLS}",
            "-e", f"inject=uname:poke_exit=@arg1={utsname}", "-e", f"inject={NEWER_CALLS}:error=ENOSYS"]


def words(choice: argparse.Namespace) -> list[str]:
    """The whole command line."""
    account = [f"--userspec={choice.user}:{choice.user}", "--groups="] if choice.user else []
    inside = [*(old_kernel(choice.trace) if choice.old_kernel else []), "chroot", *account, choice.root, *choice.command]
    if choice.beside:
        return ["nsenter", f"--mount=/proc/{choice.beside}/ns/mnt", *inside]
    mounts = [word for folder, options in choice.tmpfs for word in (folder, options)]
    return ["unshare", "--mount", "sh", "-c", MOUNT, choice.root, *mounts, "--", *inside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root")
    parser.add_argument("--old-kernel", action="store_true")
    parser.add_argument("--trace", default="/dev/null", help="file for what --old-kernel has refused")
    parser.add_argument("--user", help="number of the account and group; without it root")
    parser.add_argument("--tmpfs", nargs=2, action="append", default=[], metavar=("FOLDER", "OPTIONS"),
                        help="mount an empty file system, for the command alone: --tmpfs /tmp noexec")
    parser.add_argument("--beside", metavar="PID", help="see the mounts of this process instead of making any")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    choice = parser.parse_args()
    command = words(choice)
    for program in {command[0], "chroot"} | ({"strace"} if choice.old_kernel else set()):
        if not shutil.which(program):
            sys.exit(f"missing here: {program}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
