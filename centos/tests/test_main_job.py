"""The main job on old ground: sign-up, approval, login, submission, job script, results, download, notification, expiry."""

import hashlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

from ground import ADA, ADMINISTRATOR, PASSWORD, let_time_pass
from mailservers import Inbox, make_certificate, smtp_server
from serverkit import wait_for

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
SCAN, NOTE = secrets.token_bytes(3 << 20), b"a few words"


def mail(inbox, address, *words):
    """Wait for a message to an address with these words in it."""

    def there():
        texts = [f"{message['Subject']}\n{message.get_content()}" for message in inbox.messages if message["To"] == address]
        return any(all(word in text for word in words) for text in texts)

    assert wait_for(there, 60), (address, words, [(m["To"], m["Subject"]) for m in inbox.messages])


def sign_up_and_log_in(daemon, inbox):
    """An account, let in by command after the administrator has heard of it; returns the token of a login over TLS."""
    assert daemon.public.post("/users/new", email=ADA, password=PASSWORD).json is True
    mail(inbox, ADMINISTRATOR, ADA)
    assert daemon.public.post("/users/auth", email=ADA, password=PASSWORD).json["token"] is None
    daemon.ground.ippd("user", "approve", ADA)
    mail(inbox, ADA, "approved")
    # This one looks at the certificate that the daemon made for itself, with no tool of the host.
    connection = http.client.HTTPSConnection("localhost", daemon.public.port, timeout=30, context=daemon.trusting())
    form = urlencode({"email": ADA, "password": PASSWORD})
    connection.request("POST", "/users/auth", form, {"Content-Type": "application/x-www-form-urlencoded"})
    assert connection.sock.version() == "TLSv1.3"
    token = json.load(connection.getresponse())["token"]
    connection.close()
    assert token
    return token


def run_inside(daemon):
    """The job script that needs busybox alone, inside the root."""
    shutil.copy(HERE / "job.sh", daemon.ground.path("/usr/bin/job.sh"))
    return daemon.ground.run("job.sh", f"http://127.0.0.1:{daemon.local.port}", environ={"HOME": daemon.ground.data})


def run_outside(daemon, folder):
    """The job script of the examples, beside the root: it needs curl and jq."""
    folder.mkdir()
    (folder / "echo.json").write_text('{"Executable": "echo.sh", "PARAMS": {"scan": "--scan"}, "FILES": ["scan"]}')
    (folder / "echo.sh").write_text('#!/bin/sh\ncp "$2" results/copy\n')
    (folder / "echo.sh").chmod(0o755)
    words = ["sh", EXAMPLES / "job.sh", "--once", f"http://127.0.0.1:{daemon.local.port}"]
    return subprocess.run(words, env=os.environ | {"JOB_APPS": str(folder)}, capture_output=True, text=True, timeout=120)


def download(daemon, token, id, name):
    reply = daemon.public.get(f"/experiments/{id}/file", token=token, path=name)
    assert reply.status == 200 and reply.headers["etag"] == f'"{hashlib.sha256(reply.body).hexdigest()}"'
    return reply.body


def submit_run_and_download(daemon, token, inbox, folder):
    """Two experiments, the first by a script inside, the second by one outside; returns their ids."""
    first = daemon.submit(token, ("Gehirn 脳.nii", SCAN), ("note", NOTE)).json["id"]
    assert daemon.experiments(token)[first]["status"] == "submitted"
    done = run_inside(daemon)
    assert (done.returncode, done.stdout) == (0, f"{first} completed\n"), done
    listed = daemon.experiments(token)[first]
    assert (listed["status"], sorted(listed["outputs"])) == ("completed", ["all.bin", "kernel.txt", "sums.txt"])
    sums = dict(reversed(line.split(None, 1)) for line in download(daemon, token, first, "sums.txt").decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in zip(listed["inputs"], (SCAN, NOTE), strict=True)}
    assert download(daemon, token, first, "all.bin") in (SCAN + NOTE, NOTE + SCAN)
    assert download(daemon, token, first, "kernel.txt").startswith(b"2.6.32") == daemon.ground.old_kernel
    mail(inbox, ADA, f"xperiment {first}", "completed")
    second = daemon.submit(token, ("scan.nii", SCAN)).json["id"]
    done = run_outside(daemon, folder)
    assert done.returncode == 0, done
    assert download(daemon, token, second, "copy") == SCAN
    mail(inbox, ADA, f"xperiment {second}", "completed")
    return first, second


def let_expire(daemon, token, inbox, ids):
    """The owner is told, and later the files are gone, in the list and on the disk."""
    ground = daemon.ground
    assert len(daemon.stored()) == 7
    let_time_pass(daemon, days=84)
    assert ground.ippd("housekeeping", "notice") == "notice: 2\n"
    mail(inbox, ADA, f"xperiment {ids[0]}", "7 days")
    assert ground.ippd("expire") == "expire: 0\n"
    let_time_pass(daemon, days=7)
    assert ground.ippd("expire") == "expire: 7\n"
    for id in ids:
        listed = daemon.experiments(token)[id]
        assert (listed["status"], listed["inputs"], listed["outputs"]) == ("completed", [], [])
    assert daemon.public.get(f"/experiments/{ids[0]}/file", token=token, path="all.bin").status == 404
    assert daemon.stored() == []


def main_job(daemon, inbox, folder):
    """All of it, on a daemon that runs."""
    token = sign_up_and_log_in(daemon, inbox)
    ids = submit_run_and_download(daemon, token, inbox, folder)
    let_expire(daemon, token, inbox, ids)


def settings(inbox):
    return {"mail__host": "127.0.0.1", "mail__port": inbox.port, "mail__from": "portal@example.org", "notify__interval": "1s",
            "notify__admin_email": ADMINISTRATOR, "public__url": "https://portal.example.org"}  # fmt: skip


def test_the_main_job(ground, inbox, tmp_path):
    ground.configure(**settings(inbox))
    daemon = ground.daemon()
    main_job(daemon, inbox, tmp_path / "apps")
    assert daemon.stop() == 0
    assert daemon.processes() == {} and daemon.complaints() == []
    left = {path.name for path in ground.path("/var/lib/ippd").iterdir()}
    assert not {name for name in left if name.startswith("_MEI")} and "ippd.sqlite" in left
    assert [*ground.path("/tmp").iterdir(), *ground.path("/var/tmp").iterdir()] == []


def test_mail_over_tls_goes_only_where_the_host_trusts_the_certificate(make_ground, tmp_path):
    """The host's own list of authorities counts, where CentOS keeps it; the binary brings none."""
    ground, inbox = make_ground("glibc-2.12-linux-2.6.32"), Inbox()
    certificate, context = make_certificate(tmp_path)
    with smtp_server(inbox, tls_context=context, require_starttls=True) as inbox.port:
        ground.configure(mail__security="starttls", **settings(inbox))
        daemon = ground.daemon()
        assert daemon.public.post("/users/new", email=ADA, password=PASSWORD).json is True
        assert wait_for(lambda: "certificate verify failed" in ground.ippd("notifications", "list"), 60)
        assert inbox.messages == []
        ground.path("/etc/pki/tls").mkdir(parents=True)
        shutil.copy(certificate, ground.path("/etc/pki/tls/cert.pem"))
        assert daemon.public.post("/users/new", email="bob@example.org", password=PASSWORD).json is True
        assert wait_for(lambda: inbox.messages, 60)
