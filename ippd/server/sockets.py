"""Listening sockets, made once by the parent and shared by all serving processes."""

import errno
import os
import socket
import stat

from ippd.errors import SettingsError

BACKLOG = 512  # connections that wait for accept(); the kernel takes at most net.core.somaxconn


def bind_tcp(host: str, port: int, setting: str) -> socket.socket:
    """Listen on an address (port 0: any). Raises SettingsError, which names the setting.

    No TCP_DEFER_ACCEPT: a silent client would stay in the kernel's queue, where BACKLOG of them keep all others out;
    once accepted it costs next to nothing, and the cap per address holds.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"{setting}: {shown} cannot be used: {error.strerror or error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # so that 0.0.0.0 and [::] go together
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise SettingsError(f"{setting}: {shown} {_reason(error)}") from error
    made.setblocking(False)  # a sibling may be faster; accept() must not wait then
    return made


def bind_unix(path: str, setting: str) -> socket.socket:
    """Listen on a unix socket that every account can reach: who calls is asked of the kernel. Raises SettingsError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o111)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise SettingsError(f"{setting}: {path} {_reason(error)}") from error
    made.setblocking(False)
    return made


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that did not end well. Raises OSError when it is in use or no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "is there and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "is in use")


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is in use by another program"
    if error.errno == errno.EADDRNOTAVAIL:
        return "is no address of this machine"
    if error.errno == errno.EACCES:
        return "may not be used by this account"
    return f"cannot be used: {error.strerror or error}"
