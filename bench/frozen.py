"""The binary: its size, the time to its first answer over TLS, and the memory that it uses."""

import contextlib
import http.client
import itertools
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory
from stage import Row, free_ports

BINARY = Path(__file__).resolve().parents[1] / "dist" / "ippd"
STARTS = 5
REQUESTS = 100
MB = 1 << 20


def binary(stage):
    """Rows about dist/ippd; none when it was not built."""
    if not BINARY.exists():
        print("bench: there is no dist/ippd (./build.sh binary makes it)", file=sys.stderr)
        return []
    size = BINARY.stat().st_size / MB
    seconds = statistics.median(_first_answer() for _ in range(STARTS))
    used = [_memory(processes) for processes in (1, 2, 3)]
    further = max(more - less for less, more in itertools.pairwise(used))
    return [
        Row("the binary: its size", f"{size:.1f} MB", aim="<= 16 MB", met=size <= 16),
        Row(f"exec to first TLS answer, median of {STARTS}", f"{seconds:.2f} s", aim="<= 1 s", met=seconds <= 1),
        Row(f"memory (PSS) after {REQUESTS} requests, 1 process", f"{used[0]:.1f} MB", aim="<= 60 MB", met=used[0] <= 60),
        Row("each further serving process, at most", f"{further:.1f} MB", aim="<= 25 MB", met=further <= 25),
    ]


@contextlib.contextmanager
def _running(processes):
    """The binary over an empty folder; yields (process, public port)."""
    folder = tempfile.mkdtemp(prefix="ippd-bench-")
    public, local = free_ports(2)
    sets = [f"data.directory={folder}/data", f"log.file={folder}/log", f"public.listen=127.0.0.1:{public}",
            f"local.listen=127.0.0.1:{local}", f"server.processes={processes}"]  # fmt: skip
    words = [word for one in sets for word in ("--set", one)]
    process = subprocess.Popen([str(BINARY), *words, "serve"], env=os.environ | {"TMPDIR": folder}, stderr=subprocess.DEVNULL)
    try:
        yield process, public
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _ask(port, path="/version"):
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=ssl._create_unverified_context())
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    finally:
        connection.close()


def _ask_until_answered(port):
    while True:
        try:
            return _ask(port)
        except OSError:
            time.sleep(0.005)


def _first_answer():
    """Seconds; the certificate is made in them."""
    begin = time.monotonic()
    with _running(1) as (_, port):
        _ask_until_answered(port)
        return time.monotonic() - begin


def _memory(processes):
    """MB."""
    with _running(processes) as (process, port):
        _ask_until_answered(port)
        for number in range(REQUESTS):
            _ask(port, ("/version", "/apps", "/experiments")[number % 3])
        time.sleep(1)
        return memory.used(process.pid) / MB
