"""Which account is at the other end of a local connection, as the kernel says."""

import errno
import socket
import struct

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1  # sock_diag(7)
TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
TRIES = 3  # the kernel hands the table out in pieces; a row can be missed when others come and go meanwhile
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, an IPv4 address as IPv6 (RFC 4291, 2.5.5.2)
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
SOCKET_ID = struct.Struct("!HH16s16s12s")  # struct inet_diag_sockid: ports, addresses, interface and cookie
ANY = bytes(4) + b"\xff" * 8  # any interface, no cookie
Owner = tuple[int, int]  # uid and inode of a socket


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
    return _trusted(_asked(theirs, ours) or _in_tables(theirs, ours))


def _trusted(owner: Owner | None) -> int | None:
    """A closed socket that TCP still knows has inode 0 and then also uid 0, which would be root: such ones prove nothing."""
    return owner[0] if owner and owner[1] else None


def _asked(theirs: tuple, ours: tuple) -> Owner | None:
    """The owner of the socket with these two ends, by netlink: its cost does not grow with the sockets of the machine.

    (0, 0) when there is no such socket; None when the kernel cannot be asked this way.
    """
    global _answers
    family = socket.AF_INET6 if ":" in theirs[0] else socket.AF_INET
    ends = _packed(theirs), _packed(ours)
    wanted = SOCKET_ID.pack(theirs[1], ours[1], *(end.ljust(16, b"\0") for end in ends), ANY)
    # What the kernel shows of an IPv6 socket that speaks IPv4.
    mapped = SOCKET_ID.pack(theirs[1], ours[1], *((MAPPED + end)[-16:] for end in ends), ANY)
    question = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + wanted
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.send(HEADER.pack(HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + question)
            answer = kernel.recv(4096)
    except OSError:
        return None
    if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
        code = -struct.unpack_from("=i", answer, HEADER.size)[0]
        return (0, 0) if _answers and code == errno.ENOENT else None  # a kernel without sock_diag says ENOENT as well
    _answers = True
    found = HEADER.size + 4  # struct inet_diag_msg: four bytes, the socket's id, three numbers, uid and inode
    if answer[found : found + 36] not in (wanted[:36], mapped[:36]):
        return 0, 0  # a listening socket at the client's port
    uid, inode = struct.unpack_from("=II", answer, found + SOCKET_ID.size + 12)
    return uid, inode


_answers = False  # whether the kernel has ever answered


def _in_tables(theirs: tuple, ours: tuple) -> Owner | None:
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
                    fields = rows[at : rows.index(b"\n", at)].split()
                    return int(fields[6]), int(fields[8])
    return None


def _packed(address: tuple) -> bytes:
    host = address[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _written(address: tuple, wide: bool) -> str:
    """An address as the tables write it: 32-bit words of the machine's own byte order in hexadecimal, then the port."""
    packed = _packed(address)
    if wide and len(packed) == 4:
        packed = MAPPED + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"
