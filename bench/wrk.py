"""Runs the load generator wrk and reads what it prints."""

import re
import shutil
import subprocess
import sys
from typing import NamedTuple

UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}


class Load(NamedTuple):
    """Requests per second, the 50th and 99th percentile of the latency in ms, and how many answers were not 2xx or never came."""

    rate: float
    p50: float
    p99: float
    errors: int


def check():
    """Leave with a sentence when wrk is missing."""
    if not shutil.which("wrk"):
        sys.exit("bench: the program wrk is needed (on Debian: apt-get install wrk)")


def command(url, connections, seconds, script=None):
    """The words that load `url`; `script` is a Lua file for wrk."""
    threads = min(2, connections)
    words = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    return [*words, *(["-s", script] if script else []), url]


def run(url, connections, seconds, script=None):
    """Load `url` over kept connections for so many seconds."""
    done = subprocess.run(command(url, connections, seconds, script), capture_output=True, text=True, check=True)
    return read(done.stdout)


def read(text):
    """The figures in wrk's output."""

    def percentile(number):
        value, unit = re.search(rf"^\s+{number}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE).groups()
        return float(value) * UNITS[unit]

    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = int(bad[1]) if bad else 0
    errors += sum(map(int, broken.groups())) if broken else 0
    return Load(float(re.search(r"^Requests/sec:\s+([\d.]+)$", text, re.MULTILINE)[1]), percentile(50), percentile(99), errors)


def post(folder, name, body, kind):
    """Write a Lua script that posts these bytes each time; returns its path."""
    data, script = folder / f"{name}.body", folder / f"{name}.lua"
    data.write_bytes(body)
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{kind}"\n'
        f'local file = io.open("{data}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
    )
    return str(script)
