"""`./build.sh demo`: one experiment through a daemon of its own, from sign-up to result, over the real interfaces."""

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nibabel
from daemon import IPPD, Daemon
from engine import ENGINES, Engine
from inbox import Inbox
from portal import Failure

HERE = Path(__file__).resolve().parent
JOB_SCRIPT = HERE.parent / "job.sh"
KEPT = HERE.parents[1] / "build" / "demo"
SCAN = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
OWNER, ADMINISTRATOR = "ada@demo.example", "admin@demo.example"
RESULTS = ["mean.nii.gz", "slice.png", "stats.json"]
BEGIN = time.monotonic()


def say(text):
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - BEGIN:5.1f} s] {text}", flush=True)


def expect(condition, otherwise):
    """Raise Failure with the sentence `otherwise` unless the condition holds."""
    if not condition:
        raise Failure(otherwise)


class Demo:
    """The four steps, on a running daemon."""

    def __init__(self, daemon, portal, inbox, engine=None):
        self.daemon, self.portal, self.inbox, self.engine = daemon, portal, inbox, engine
        self.password = secrets.token_urlsafe(12)

    def mail(self, address, *words):
        """Wait for a message with these words; raises Failure when it does not come."""
        expect(self.inbox.wait(address, words), f"no mail to {address} about {' '.join(words)!r} has arrived")

    def log_in(self):
        """The answer to a login with the right password."""
        return self.portal.post("/api/users/auth", remember="", email=OWNER, password=self.password).json()

    def sign_up(self):
        """Step 1: an account, approved by command after the administrator has been told by mail."""
        say(f"1. sign up as {OWNER} over HTTPS")
        answer = self.portal.post(
            "/api/users/new", remember="", email=OWNER, password=self.password, confirm__password=self.password,
            setting__fname="Ada", setting__lname="Lovelace", setting__institution="Analytical Engines",
            setting__intention="to try it", setting__referral="", setting__nih="no",
        ).json()
        expect(answer is True, f"the sign-up was answered with {answer!r}")
        self.mail(ADMINISTRATOR, OWNER, "ippd user approve")
        refused = self.log_in()
        expect(refused["token"] is None and refused["error"], f"a login before the approval got {refused!r}")
        say(f"   a login now is refused: {refused['error']}")
        say(f"   ippd user approve {OWNER}: {self.daemon.command('user', 'approve', OWNER)}")
        self.mail(OWNER, "approved")

    def submit(self):
        """Step 2: log in and submit a real scan; returns the token and the experiment's number."""
        token = self.log_in()["token"]
        expect(token, "the login was refused after the approval")
        say(f"2. logged in; submit {SCAN.name} ({SCAN.stat().st_size:,} bytes) to the app mean_volume")
        fields = {
            "token": token, "app": "mean_volume", "experimentName": "Demo", "experimentDescription": "a real fMRI scan",
            "axis": "axial", "foreground": "1", "host": "localhost",
        }
        answer = self.portal.upload("/api/experiments/new", fields, [("image", SCAN.name, SCAN.read_bytes())]).json()
        expect(answer.get("status") == "submitted", f"the submission was answered with {answer!r}")
        say(f"   experiment {answer['id']} is {answer['status']}")
        return token, answer["id"]

    def run_job(self):
        """Step 3: the job script, as an operator would start it; returns {file: sha256} of what it uploaded."""
        say(f"3. {JOB_SCRIPT.name} --once {self.daemon.local}")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where python3 finds nibabel
        done = subprocess.run(
            ["sh", JOB_SCRIPT, "--once", self.daemon.local], env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )
        for line in done.stdout.splitlines():
            say(f"   {line}")
        expect(done.returncode == 0, f"the job script ended with status {done.returncode}")
        uploaded = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (.+)$", done.stdout, re.MULTILINE)}
        expect(sorted(uploaded) == RESULTS, f"the job script uploaded {sorted(uploaded)}")
        return uploaded

    def run_worker(self, token, number):
        """Step 3 with an engine: `ippd worker` until the experiment has ended; returns {file: sha256} of the results it had."""
        say(f"3. ippd worker --engine {self.engine.name}")
        with self.daemon.worker(self.engine):
            end = time.monotonic() + 120
            while True:
                experiment = self.portal.get(f"/api/experiments/{number}", token=token).json()
                if experiment["status"] in ("completed", "failed") or time.monotonic() > end:
                    break
                time.sleep(0.2)
        used = experiment.get("usage") or {}
        said = f"job {used.get('job')} on {used.get('node')}, {used.get('cpu_seconds')} s of CPU, {(used.get('peak_bytes') or 0) >> 20} MB"
        say(f"   experiment {number} is {experiment['status']}: {said}")
        expect(experiment["status"] == "completed", f"experiment {number} is {experiment['status']}: {experiment['message']}")
        replies = {name: self.portal.get(f"/api/experiments/{number}/file", token=token, path=name) for name in experiment["outputs"]}
        return {name: reply.headers["etag"].strip('"') for name, reply in replies.items()}

    def download(self, token, number, uploaded):
        """Step 4: the owner is told, sees the experiment as completed and downloads the results; returns {file: bytes}."""
        self.mail(OWNER, f"Experiment {number}", "completed")
        listing = self.portal.get("/api/experiments", token=token).json()
        experiment = next((found for found in listing["experiments"] if found["id"] == number), None)
        expect(experiment, f"experiment {number} is not in the list")
        expect(experiment["status"] == "completed", f"experiment {number} is {experiment['status']}")
        expect(sorted(experiment["outputs"]) == RESULTS, f"experiment {number} has the outputs {experiment['outputs']}")
        say(f"4. experiment {number} is {experiment['status']}; the owner downloads")
        results = {}
        for name in RESULTS:
            reply = self.portal.get(f"/api/experiments/{number}/file", token=token, path=name)
            expect(reply.status == 200, f"the download of {name} was answered with {reply.status}")
            digest = hashlib.sha256(reply.body).hexdigest()
            say(f"   {digest}  {name} ({len(reply.body):,} bytes)")
            expect(digest == uploaded[name], f"{name} is not what the job script uploaded ({uploaded[name]})")
            results[name] = reply.body
        return results

    def check(self, results):
        """The results are what the analysis of this very scan gives."""
        shape = nibabel.load(SCAN).shape
        mean = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(results["mean.nii.gz"])))
        expect(mean.shape == shape[:3], f"the mean volume has the shape {mean.shape}, the scan {shape}")
        statistics = json.loads(results["stats.json"])
        expect(tuple(statistics["shape"]) == shape, f"the statistics are about the shape {statistics['shape']}")
        expect(results["slice.png"].startswith(b"\x89PNG\r\n\x1a\n"), "the picture is not a PNG file")
        say(f"   mean {statistics['mean']:.1f}, deviation {statistics['std']:.1f}, {statistics['voxels']:,} voxels")

    def run(self):
        """All four steps; returns the file to look at, which stays."""
        self.sign_up()
        token, number = self.submit()
        results = self.download(token, number, self.run_worker(token, number) if self.engine else self.run_job())
        self.check(results)
        KEPT.mkdir(parents=True, exist_ok=True)
        for name, content in results.items():
            (KEPT / name).write_bytes(content)
        return KEPT / "slice.png"


def keep(demo):
    """Tell where everything is and wait for Ctrl-C."""
    daemon = demo.daemon
    print(f"""
The daemon goes on until Ctrl-C. Mails to anybody are shown here.
  portal      {daemon.public}  (certificate: {daemon.data}/certificate.pem)
  login       {OWNER} with the password {demo.password}
  job script  PATH={Path(sys.executable).parent}:$PATH {JOB_SCRIPT} {daemon.local}
  panel       {daemon.local}/admin/users
  commands    {daemon.program} -c {daemon.config} user list
  log         {daemon.log}""", flush=True)
    threading.Event().wait()


def main():
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="./build.sh demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the daemon running until Ctrl-C and print where it is")
    parser.add_argument("--engine", choices=ENGINES, help="run it by ippd worker in this engine (slurm, gridengine: as root)")
    parser.add_argument("--program", type=Path, default=IPPD, metavar="FILE", help="the ippd to run, such as dist/ippd")
    given = parser.parse_args()
    missing = [tool for tool in ("curl", "jq") if not shutil.which(tool)]
    if missing:
        print(f"demo: failed: the job script needs {' and '.join(missing)}; the package of that name has it")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleaned up
    folder = Path(tempfile.mkdtemp(prefix="ippd-demo-"))
    try:
        with contextlib.ExitStack() as begun:
            last = play(folder, begun, given)
        print(last)
        return 0
    except KeyboardInterrupt:
        print("\nstopped")
        return 0 if given.keep else 130
    except Exception as failure:  # whatever it is, the last line says so
        log = folder / "ippd.log"
        lines = log.read_text(errors="replace").splitlines()[-30:] if log.exists() else ["(the daemon was not started)"]
        print("the end of the daemon's log:", *lines, sep="\n  ", file=sys.stderr, flush=True)
        reason = str(failure) if isinstance(failure, Failure) else f"{type(failure).__name__}: {failure}"
        print(f"demo: failed: {reason}", flush=True)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(folder, begun, given):
    """Start what is needed, run the steps, stop the daemon; returns the last line. `begun` ends what was started."""
    inbox = Inbox(lambda line: say(f"   {line}"))
    begun.callback(inbox.close)
    engine = Engine(given.engine, folder) if given.engine else None
    if engine:
        begun.callback(engine.stop)
    daemon = Daemon(
        folder, given.program.resolve(), mail__host="127.0.0.1", mail__port=inbox.port, mail__from="ippd@demo.example",
        notify__admin_email=ADMINISTRATOR, notify__interval="1s", **(engine.settings if engine else {}),
    )
    begun.callback(daemon.stop)
    say(f"start the daemon in {folder}")
    demo = Demo(daemon, daemon.start(), inbox, engine)
    say(f"   {daemon.public} (TLS) and {daemon.local} answer")
    result = demo.run()
    last = f"demo: completed in {time.monotonic() - BEGIN:.0f} s: {os.path.relpath(result)}"
    if given.keep:
        print(last)
        keep(demo)
    status = daemon.stop()
    expect(status == 0, f"the daemon ended with status {status}")
    return last


if __name__ == "__main__":
    sys.exit(main())
