"""`ippd worker --engine local` on old ground. Bad input: words that a shell takes for syntax, kill -9, a wiped /tmp."""

import hashlib
import json
import os
import select
import signal

import pytest

from ground import kill, session
from serverkit import wait_for
from test_faults import wipe

HOSTILE = ["3;id", "$(id)", "it's \"quoted\"", "two\nlines\n", "-rf", "Grüße 脳 🧠", " a ", "*", "\\"]
FOLDER = "/var/lib/ippd-worker"
# Runs on busybox alone: notes that it ran and what it was given, then does what its first word says.
ACT = f"""#!/bin/sh
echo "$IPPD_JOB" >>{FOLDER}/runs
printf '%s\\0' "$@" >results/words
env >results/environment
uname -r >results/kernel
(cd inputs && sha256sum -- *) >results/sums
case $1 in
    wait) echo waiting; while [ ! -e {FOLDER}/go ]; do sleep 0.1; done ;;
    fail) echo "it went wrong" >&2; exit 7 ;;
esac
"""


class Worker:
    """A worker inside, as a service would run it."""

    def __init__(self, daemon):
        sets = (f"worker.url=http://127.0.0.1:{daemon.local.port}", "worker.interval=0.2s")
        words = [word for one in sets for word in ("--set", one)]
        self.process = daemon.ground.start("ippd", *words, "worker", "--as-root", "--engine", "local")

    def processes(self):
        return session(self.process.pid)

    def kill(self):
        """End all its processes at once; its jobs are none of them."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.end()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def end(self):
        """Wait until nothing of it is left, and end what is."""
        if not wait_for(lambda: not self.processes(), 20):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self.process.stderr.close()


@pytest.fixture
def daemon(ground):
    """A daemon with one app, a folder for its worker, and a user: `daemon.token`."""
    ground.put_data_elsewhere()
    ground.folder(FOLDER)
    ground.configure(apps__directory="/etc/ippd/apps")
    apps = ground.path("/etc/ippd/apps")
    apps.mkdir()
    params = {f"word{number}": "" for number in range(len(HOSTILE))}
    (apps / "act.json").write_text(json.dumps({"Executable": "act.sh", "PARAMS": params, "FILES": ["scan"], "Memory": "1GB"}))
    (apps / "act.sh").write_text(ACT)
    (apps / "act.sh").chmod(0o755)
    daemon = ground.daemon()
    daemon.token = daemon.join()
    return daemon


@pytest.fixture
def start_worker(daemon):
    """A function: start a worker."""
    workers = []

    def start():
        workers.append(Worker(daemon))
        return workers[-1]

    yield start
    daemon.ground.path(f"{FOLDER}/go").touch()
    for worker in workers:
        if worker.processes():
            worker.kill()


def submit(daemon, *words, files=()):
    fields = {f"word{number}": word for number, word in enumerate(words)}
    reply = daemon.submit(daemon.token, *files, app="act", **fields)
    assert reply.status == 200, reply
    return reply.json["id"]


def until(daemon, id, *states):
    """Wait until an experiment is in one of these states; returns it."""
    found = {}

    def there():
        found.update(daemon.experiments(daemon.token)[id])
        return found["status"] in states

    assert wait_for(there, 60), found
    return found


def result(daemon, id, name):
    reply = daemon.public.get(f"/experiments/{id}/file", token=daemon.token, path=name)
    assert reply.status == 200, reply
    return reply.body


def runs(daemon, id):
    """How often the program of an experiment was begun."""
    return daemon.ground.path(f"{FOLDER}/runs").read_text().count(f"ippd-{id}-")


def test_the_worker_runs_a_job_after_tmp_was_wiped(daemon, start_worker):
    worker = start_worker()
    assert select.select([worker.process.stderr], [], [], 60)[0]  # it says what it works with
    wipe(daemon.ground.path("/tmp"))
    scan = os.urandom(300_000)
    good, bad = submit(daemon, *HOSTILE, files=[("Gehirn 脳.nii", scan)]), submit(daemon, "fail")
    done = until(daemon, good, "completed", "failed")
    assert done["status"] == "completed", done
    assert result(daemon, good, "words").split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert result(daemon, good, "sums").split()[0].decode() == hashlib.sha256(scan).hexdigest()
    assert result(daemon, good, "kernel").startswith(b"2.6.32") == daemon.ground.old_kernel
    # Nothing of the unpacked program reaches a job: it would take those libraries for its own.
    environment = result(daemon, good, "environment")
    assert b"_MEI" not in environment and b"LD_LIBRARY_PATH" not in environment and b"IPPD_JOB=" in environment
    assert done["usage"]["engine"] == "local" and done["usage"]["ended_at"] >= done["usage"]["started_at"]
    failed = until(daemon, bad, "completed", "failed")
    assert (failed["status"], failed["exit_code"], failed["message"]) == ("failed", 7, "it went wrong")
    assert worker.stop() == 0
    assert daemon.stop() == 0


def test_a_killed_worker_forgets_nothing_and_runs_nothing_twice(daemon, start_worker):
    first = start_worker()
    id = submit(daemon, "wait", files=[("scan.nii", b"voxels")])
    until(daemon, id, "running")
    assert wait_for(lambda: daemon.public.get(f"/experiments/{id}/log", token=daemon.token).body == b"waiting\n", 60)
    first.kill()
    second = start_worker()
    other = submit(daemon, "wait", files=[("scan.nii", b"voxels")])
    until(daemon, other, "running")
    # This time only the process is killed that unpacked the program: the other one ends, the jobs go on.
    kill(second.process.pid, signal.SIGKILL)
    assert wait_for(lambda: not second.processes(), 20)
    start_worker()
    cancelled = daemon.public.post(f"/experiments/{other}/cancel", {"token": daemon.token, "wait": "30"})
    assert cancelled.json == {"status": "cancelled", "was": "running", "gone": True}
    daemon.ground.path(f"{FOLDER}/go").touch()
    done = until(daemon, id, "completed", "failed")
    assert done["status"] == "completed", done
    assert (runs(daemon, id), runs(daemon, other)) == (1, 1)
    assert result(daemon, id, "log.txt") == b"waiting\n"
