#!/usr/bin/env python3
"""make.py FOLDER [--glibc-2.12]: makes a root with nothing but a real glibc and busybox, to run the binary in. Needs to be root.

The glibc is 2.17 (CentOS 7), the one that the old compiler brings. With --glibc-2.12 its libraries no longer define any version above
2.12 (CentOS 6): the loader refuses whatever the real one would refuse, with its words ("version `GLIBC_2.14' not found").
"""

import argparse
import os
import re
import shutil
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "python"))
from elf import Elf
from lower import CALL_COMPATIBLE, KERNEL, OLD, lower

LIBRARIES = "libc.so.6 ld-linux-x86-64.so.2 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libutil.so.1 libcrypt.so.1 \
libresolv.so.2 libnss_files.so.2 libnss_dns.so.2".split()
ABOVE_2_12 = re.compile(r"GLIBC_[29]\.(1[3-7])")
PROGRAMS = "sh ash cat chmod chown cp cut date df echo env find grep head id kill ls mkdir mktemp mount mv nc ps pwd rm sed setsid \
sha256sum sleep sort stat su sync tail touch tr true uname umount unzip wc wget which whoami".split()
FOLDERS = "bin dev/shm etc home lib64 opt proc root sbin tmp usr/bin usr/sbin var/lib var/log var/run var/tmp".split()
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nippd:x:990:990::/var/lib/ippd:/bin/sh\nada:x:1000:1000::/home:/bin/sh\n",
    "etc/group": "root:x:0:\nippd:x:990:\nada:x:1000:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def forget_newer_versions(elf: Elf) -> None:
    """Renames each version from 2.13 to 2.17, offered or needed, to one that nothing asks for: 9.13 to 9.17."""
    assert elf.strings
    for version in [*elf.offers(), *elf.needs()]:
        if newer := ABOVE_2_12.fullmatch(version.name):
            offset = elf.numbers("<I", version.name_at)[0]
            start = elf.strings.offset + offset
            elf.data[start : start + len(version.name)] = f"GLIBC_9.{newer[1]}".encode()
            elf.rename(version, offset)


def bring_back_old_symbols(libc: Elf) -> None:
    """Offers memcpy and its like as the versions that every glibc has; the compiler's own was built without them."""
    oldest = next(version.number for version in libc.offers() if version.name == OLD)
    for symbol in libc.symbols():
        if symbol.name in CALL_COMPATIBLE:
            libc.put("<H", symbol.version_at, oldest)


def accept_old_kernels(elf: Elf) -> None:
    """Sets the kernel that a library wants from the compiler's 5.16.9 to 2.6.32, in its note and where the loader compares."""
    for at in elf.kernel_notes():
        elf.put("<III", at, *KERNEL)
    elf.data = elf.data.replace(struct.pack("<I", 0x051009), struct.pack("<I", 0x020620))
    elf.data = elf.data.replace(struct.pack("<I", 0x051008), struct.pack("<I", 0x02061F))


def library(source: Path, like_2_12: bool) -> bytes:
    """One library of the glibc as the root shall have it."""
    elf = Elf(source.read_bytes())
    if source.name == "libc.so.6":
        bring_back_old_symbols(elf)
    else:
        lower(elf)  # what else the libraries ask of each other, they go on offering each other
    if like_2_12:
        forget_newer_versions(elf)
    accept_old_kernels(elf)
    return bytes(elf.data)


def make(root: Path, glibc: Path, like_2_12: bool) -> None:
    """Fills a new folder."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "lib").symlink_to("lib64")
    for folder in ("tmp", "var/tmp", "dev/shm"):
        (root / folder).chmod(0o1777)
    for name in LIBRARIES:
        target = root / "lib64" / name
        target.write_bytes(library(glibc / name, like_2_12))
        target.chmod(0o755)
    shutil.copy(shutil.which("busybox") or sys.exit("missing here: apt-get install busybox-static"), root / "bin/busybox")
    for program in PROGRAMS:
        (root / "bin" / program).symlink_to("busybox")
    for path, text in FILES.items():
        (root / path).write_text(text)
    for name, (major, minor) in DEVICES.items():
        os.mknod(root / "dev" / name, 0o20666, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--glibc-2.12", dest="like_2_12", action="store_true")
    parser.add_argument("--toolchain", type=Path, default=os.environ.get("TOOLCHAIN"), help="its folder in the build cache")
    choice = parser.parse_args()
    if choice.folder.exists():
        sys.exit(f"{choice.folder} is there already")
    make(choice.folder, choice.toolchain / "x86_64-linux-gnu/x86_64-linux-gnu/sysroot/lib", choice.like_2_12)


if __name__ == "__main__":
    main()
