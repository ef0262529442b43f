"""Which account is at the other end of a local connection, as the kernel says."""

import socket
import struct

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
TRIES = 3  # the kernel hands the table out in pieces; a row can be missed when others come and go meanwhile
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, an IPv4 address as IPv6 (RFC 4291, 2.5.5.2)


def peer_uid(connection: socket.socket) -> int | None:
    """The uid of the process that made the other end of an accepted local connection; None when nobody knows.

    To be called right after accept(): a client that has already closed its end has no owner any more.
    """
    if connection.family == socket.AF_UNIX:
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    try:
        theirs, ours = connection.getpeername(), connection.getsockname()
    except OSError:
        return None
    return _from_tables(theirs, ours)


def _from_tables(theirs: tuple, ours: tuple) -> int | None:
    """The owner in the row whose local address is the client's and whose remote address is ours."""
    wanted = [f" {_written(theirs, wide)} {_written(ours, wide)} ".encode() for wide in (False, True)]
    for _ in range(TRIES):
        for table in TABLES:
            try:
                with open(table, "rb") as file:
                    rows = file.read()
            except OSError:
                continue
            for text in wanted:
                at = rows.find(text)
                if at >= 0:
                    return _owner(rows[at:rows.index(b"\n", at)].split())
    return None


def _owner(fields: list[bytes]) -> int | None:
    """From the fields that begin with the local address: uid and inode are the 7th and 9th.

    A closed socket that TCP still knows has inode 0 and then also uid 0, which would be root: such rows prove nothing.
    """
    uid, inode = int(fields[6]), int(fields[8])
    return uid if inode else None


def _written(address: tuple, wide: bool) -> str:
    """An address as the tables write it: 32-bit words of the machine's own byte order in hexadecimal, then the port."""
    host, port = address[0].partition("%")[0], address[1]
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        if not wide:
            packed = packed[12:] if packed.startswith(MAPPED) else packed
    else:
        packed = (MAPPED if wide else b"") + socket.inet_pton(socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
