"""Short requests: reads, polls, logins and small submissions, each against a bare server that answers the same bytes."""

import os
import secrets
import threading
import time
from urllib.parse import urlencode

import bcrypt
import wrk
from stage import EMAIL, PASSWORD, Row, compared, latency

FORM = "application/x-www-form-urlencoded"


def versus(stage, url, body, connections, script=None, tls=True):
    """Load the daemon and a bare server in turn, twice; returns the better run of each."""
    runs = {"ippd": [], "bare": []}
    with stage.bare(body, tls) as bare:
        for _ in range(2):
            runs["bare"].append(wrk.run(bare, connections, stage.seconds, script))
            runs["ippd"].append(wrk.run(url, connections, stage.seconds, script))
    for load in runs["ippd"]:
        if load.errors:
            raise RuntimeError(f"{url}: {load.errors} answers were not good")
    return max(runs["ippd"]), max(runs["bare"])


def reads(stage):
    """GET of a constant, of a list of 100, of one experiment, and the poll of an idle queue."""
    stage.submit(100)
    stage.portal.get("/version").json()
    token = urlencode({"token": stage.token})
    cases = [
        ("GET /version", "/version", 2.0),
        ("GET /experiments, 100 of them", f"/experiments?{token}", 0.4),
        ("GET /experiments/ID", f"/experiments/1?{token}", 1.0),
    ]
    rows, tails = [], []
    for what, path, aim in cases:
        body = stage.portal.get(path).body
        ippd, bare = versus(stage, stage.public + path, body, 8)
        rows.append(compared(f"{what}, 8 connections", ippd.rate, bare.rate, aim))
        ippd, bare = versus(stage, stage.public + path, body, 16)
        tails.append(latency(f"{what}, 16 connections: p99", ippd.p99, bare.p99, 50))
    wrk.run(stage.local + "/experiments/queue", 1, 1)  # takes all that waits
    ippd, bare = versus(stage, stage.local + "/experiments/queue", b"[]", 8, tls=False)
    rows.append(compared("GET /experiments/queue, idle, 8 connections", ippd.rate, bare.rate, 1.0))
    return rows + tails


def logins(stage):
    """POST /users/auth, which is one bcrypt hash each; and how a storm of them disturbs others."""
    body = urlencode({"email": EMAIL, "password": PASSWORD, "remember": ""}).encode()
    script = wrk.post(stage.folder, "login", body, FORM)
    answer = stage.portal.request("POST", "/users/auth", body, {"Content-Type": FORM}).body
    ippd, bare = versus(stage, f"{stage.public}/users/auth", answer, 8, script)
    rows = [
        compared("POST /users/auth, 8 connections", ippd.rate, bare.rate),
        compared("the same (bare: only the bcrypt hashes, a thread per core)", ippd.rate, hashes(stage.seconds)),
    ]
    quiet = wrk.run(f"{stage.public}/version", 4, stage.seconds)
    storm = threading.Thread(target=wrk.run, args=(f"{stage.public}/users/auth", 16, stage.seconds + 2, script))
    storm.start()
    busy = wrk.run(f"{stage.public}/version", 4, stage.seconds)
    storm.join()
    rows.append(latency("GET /version, 4 connections: p99 in quiet", quiet.p99))
    rows.append(latency("GET /version, 4 connections: p99 in a storm of logins (16)", busy.p99))
    return rows


def hashes(seconds):
    """How many bcrypt hashes per second this machine makes at the daemon's cost, which is all that a login can get."""
    made, end = [], time.monotonic() + seconds

    def work():
        while time.monotonic() < end:
            made.append(bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)))

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count())]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(made) / (time.monotonic() - begin)


def submissions(stage):
    """POST /experiments/new with a file of 1 MB."""
    boundary = secrets.token_hex(16)
    fields = {"token": stage.token, "app": "bench", "experimentName": "bench"}
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="scan"; filename="scan.nii.gz"\r\n\r\n'
    body = "".join([*parts, head]).encode() + secrets.token_bytes(10**6) + f"\r\n--{boundary}--\r\n".encode()
    script = wrk.post(stage.folder, "submission", body, f"multipart/form-data; boundary={boundary}")
    rows = []
    for connections in (1, 8):
        ippd, bare = versus(stage, f"{stage.public}/experiments/new", b'{"id": 1, "status": "submitted"}', connections, script)
        what = f"POST /experiments/new, 1 MB, {connections} connection{'s' * (connections > 1)}"
        rows.append(compared(f"{what} (bare: thrown away)", ippd.rate, bare.rate))
        rows.append(Row(f"{what}: p99", f"{ippd.p99:,.1f} ms", f"{bare.p99:,.1f} ms"))
    return rows
