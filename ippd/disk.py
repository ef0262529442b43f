"""The file system below the data: whether it is full, and whether it is a local one."""

import errno
import os
import re
import tempfile
from pathlib import Path

from ippd.errors import Unavailable

LEAST = 1 << 16  # bytes: more than SQLite adds at a time to what it shares between processes
MOUNTS = "/proc/self/mounts"
ESCAPED = re.compile(r"\\(040|011|012|134)")  # blank, tab, newline and backslash, as proc(5) writes them
NETWORK_FILE_SYSTEMS = set("nfs nfs4 cifs smb3 9p afs lustre gpfs beegfs fhgfs ceph glusterfs gfs2 ocfs2 fuse.sshfs fuse.glusterfs".split())


def is_full(folder: Path) -> bool:
    """Whether a file in `folder` finds no room. That is tried, because a quota is not seen in the numbers of the file system."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, LEAST)
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def size_of(path: Path) -> int:
    """The bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def refuse_network(folder: Path) -> None:
    """Raise Unavailable when `folder` lies on a network file system, where write-ahead logging breaks."""
    best, kind = "", ""
    with open(MOUNTS, encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, point, fs, *_ = line.split()
            point = ESCAPED.sub(lambda found: chr(int(found[1], 8)), point)
            inside = str(folder.resolve()) == point or str(folder.resolve()).startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, fs
    if kind in NETWORK_FILE_SYSTEMS:
        raise Unavailable(f"{folder} lies on {kind} ({best}), where SQLite's write-ahead log breaks: data.directory must be a local disk")
