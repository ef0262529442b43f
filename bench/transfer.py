"""One large file: its upload and its download as a zip, against plain loops between a socket and a file."""

import os
import secrets
import shutil
import socket
import ssl
import time
from urllib.parse import urlencode

from memory import Growth
from stage import HERE, Row, free_ports, program, wait_for

BLOCK = secrets.token_bytes(256 << 10)
GIB = 1 << 30


def connect(port, certificate=None):
    """A connection to a port of loopback, with TLS if a certificate to check is given."""
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ssl.create_default_context(cafile=certificate).wrap_socket(plain, server_hostname="127.0.0.1") if certificate else plain


def send(stream, size):
    """So many bytes that do not compress."""
    for _ in range(size // len(BLOCK)):
        stream.sendall(BLOCK)


def drain(stream):
    """Read to the end; returns the number of bytes."""
    buffer, total = bytearray(256 << 10), 0
    while count := stream.recv_into(buffer):
        total += count
    return total


def upload(port, certificate, token, size):
    """Submit one file of `size` bytes; returns the seconds until the answer is there."""
    boundary = "b" * 32
    texts = {"token": token, "app": "bench", "experimentName": "large"}
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in texts.items()]
    head = "".join([*parts, f'--{boundary}\r\nContent-Disposition: form-data; name="scan"; filename="scan.nii"\r\n\r\n']).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    request = (
        f"POST /experiments/new HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {len(head) + size + len(tail)}\r\n\r\n"
    )
    with connect(port, certificate) as stream:
        begin = time.perf_counter()
        stream.sendall(request.encode() + head)
        send(stream, size)
        stream.sendall(tail)
        answer = stream.recv(4096)
        seconds = time.perf_counter() - begin
    if b" 200 " not in answer.split(b"\r\n")[0] + b" ":
        raise RuntimeError(f"the upload was answered with {answer[:300]!r}")
    return seconds


def get(port, path, certificate=None):
    """GET a path to the end of the connection; returns (seconds, seconds until the first bytes, bytes)."""
    with connect(port, certificate) as stream:
        begin = time.perf_counter()
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        total = len(stream.recv(65536))
        first = time.perf_counter() - begin
        total += drain(stream)
        return time.perf_counter() - begin, first, total


def loop_upload(port, certificate, size):
    """The same bytes to the plain loop; returns seconds."""
    with connect(port, certificate) as stream:
        begin = time.perf_counter()
        stream.sendall(b"U" + size.to_bytes(8))
        send(stream, size)
        stream.recv(1)
        return time.perf_counter() - begin


def loop_download(port, certificate):
    """The file from the plain loop; returns seconds."""
    with connect(port, certificate) as stream:
        begin = time.perf_counter()
        stream.sendall(b"D")
        drain(stream)
        return time.perf_counter() - begin


def row(what, seconds, bare, size, aim=None):
    """A row in MB per second."""
    ratio = bare / seconds
    return Row(what, f"{size / seconds / 1e6:,.0f} MB/s", f"{size / bare / 1e6:,.0f} MB/s", f"{ratio:.2f}x",
               f">= {aim}x" if aim else "", ratio >= aim if aim else None)  # fmt: skip


def growth_row(what, growth):
    """A row about memory: the aim of the daemon is that it does not grow with the file."""
    return Row(f"{what}: growth of memory", f"{growth / 1e6:,.1f} MB", aim="< 20 MB", met=growth < 20e6)


def gigabyte(stage):
    """1 GiB up (over TLS and in the clear) and down (zip of the inputs on the local listener, file over TLS)."""
    size = GIB
    while shutil.disk_usage(stage.folder).free < 5 * size:
        size //= 2
    name = f"{size >> 20:,} MiB"
    stage.submit(1)  # so that everything is loaded
    pair, daemon, rows = stage.certificate(), stage.daemon, []
    for how, port, words in (("TLS", daemon.public_port, pair), ("in the clear", daemon.local_port, ())):
        certificate = words[0] if words else None
        [bare_port] = free_ports(1)
        with program(HERE / "loops.py", str(bare_port), str(stage.folder), *words):
            wait_for(bare_port)
            bare_up = min(loop_upload(bare_port, certificate, size) for _ in range(2))
            bare_down = loop_download(bare_port, certificate)
        os.remove(stage.folder / "loop")
        with Growth(daemon.pid) as growth:
            seconds = min(upload(port, certificate, stage.token, size) for _ in range(2))
        rows += [row(f"upload of {name}, {how}", seconds, bare_up, size, 0.5), growth_row(f"upload of {name}, {how}", growth.bytes)]
        rows += downloads(stage, how, bare_down, size, name)
    return rows


def downloads(stage, how, bare, size, name):
    """The last upload down again: a zip in the clear, the file itself over TLS."""
    number = 3 if how == "TLS" else 5  # after the small one, two by two
    query = urlencode({"token": stage.token, "path": "scan.nii"})
    with Growth(stage.daemon.pid) as growth:
        if how == "TLS":
            what = f"download of {name}, {how}"
            seconds, first, total = get(stage.daemon.public_port, f"/experiments/{number}/file?{query}", stage.certificate()[0])
        else:
            what = f"zip of {name}, {how}"
            seconds, first, total = get(stage.daemon.local_port, f"/experiments/{number}/files")
    if total < size:
        raise RuntimeError(f"{what} ended after {total} bytes")
    return [row(what, seconds, bare, size), Row(f"{what}: first bytes", f"{first * 1000:,.1f} ms"), growth_row(what, growth.bytes)]
