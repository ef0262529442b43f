"""The demo through each engine: a real scan, from the sign-up of a user to the checked results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import program
from workerkit import missing

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"


@pytest.mark.parametrize("name", ["local", "slurm", "gridengine"])
def test_the_main_job_runs_through_a_worker_of_each_engine(name):
    if why := missing(name):
        pytest.skip(why)
    words = [sys.executable, DEMO, "--program", program.path(), "--engine", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"experiment 1 is completed: job [0-9]+ on \S+, [0-9.]+ s of CPU, [0-9]+ MB", done.stdout)
    assert all(re.search(rf"[0-9a-f]{{64}}  {name} ", done.stdout) for name in ("mean.nii.gz", "slice.png", "stats.json"))
    assert re.search(r"^demo: completed in [0-9]+ s: ", done.stdout, re.MULTILINE)
