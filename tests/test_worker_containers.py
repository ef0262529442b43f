"""Apps in containers of a real podman, through each engine. Bad input: words that a shell takes for syntax, a job that will not end."""

import json
import shutil
import subprocess

import pytest

from test_worker import HOSTILE
from workerkit import rig_over, running

PROGRAM = """#!/bin/sh
printf '%s\\0' "$@" >results/words
cat /etc/image inputs/* >results/inputs
trap '' TERM
while [ "$1" = wait ]; do echo waiting; sleep 1; done
[ "$1" != fail ] || exit "$2"
"""


@pytest.fixture(scope="module", params=["local", "slurm", "gridengine"])
def engine(request):
    with running(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """The words of a podman with a store of its own, in which there is the image `tiny`: a busybox and one program."""
    folder = tmp_path_factory.mktemp("podman")
    image = folder / "image"
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (image / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), image / "bin")
    for name in ("sh", "cat", "sleep"):
        (image / "bin" / name).symlink_to("busybox")
    (image / "etc" / "image").write_text("in a container\n")
    (image / "program").write_text(PROGRAM)
    (image / "program").chmod(0o755)
    words = ["podman", f"--root={folder}/store", f"--runroot={folder}/run", "--runtime=runc", "--cgroup-manager=cgroupfs",
             "--storage-driver=vfs", "--events-backend=none"]  # fmt: skip
    packed = subprocess.run(["tar", "-C", image, "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run([*words, "import", "-", "tiny"], input=packed, check=True, capture_output=True)
    return words


@pytest.fixture
def rig(make_portal, engine, tmp_path, podman):
    with rig_over(make_portal, engine, tmp_path) as made:
        params = {f"word{number}": "" for number in range(20)}
        definition = {"Executable": "/program", "PARAMS": params, "FILES": ["scan"], "Container": "tiny"}
        (tmp_path / "apps" / "tiny.json").write_text(json.dumps(definition))
        # What a container may have is set here: where root is not quite root it may not raise its limits.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        run = ["run", "--rm", "--network=none", "--env=IPPD_JOB", "--volume={folder}:{folder}", "--workdir={folder}", *limits, "{image}"]
        made.container = " ".join([*podman, *run])
        yield made


def containers(podman):
    return subprocess.run([*podman, "ps", "--quiet"], check=True, capture_output=True, text=True).stdout.split()


def test_words_files_and_exit_codes_go_into_a_container_and_come_out(rig, podman):
    good = rig.submit(rig.ada, *HOSTILE, app="tiny", files=[("scan 1.nii", b"voxels")])
    bad = rig.submit(rig.ada, "fail", "7", app="tiny", files=[("a", b"")])
    rig.until(rig.worker(worker__container=rig.container), lambda: rig.status(good)() and rig.status(bad)())
    assert rig.get(good)["status"] == "completed", rig.get(good)["message"]
    assert rig.read(good, "words").split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert rig.read(good, "inputs") == b"in a container\nvoxels"
    assert (rig.get(bad)["status"], rig.get(bad)["exit_code"]) == ("failed", 7)
    assert containers(podman) == []


@pytest.mark.parametrize("engine", ["local"], indirect=True)
def test_a_container_of_a_cancelled_job_is_gone_when_that_is_said(rig, podman):
    id = rig.submit(rig.ada, "wait", app="tiny", files=[("a", b"")])
    worker = rig.worker(worker__container=rig.container)
    rig.until(worker, lambda: rig.core.outputs.open(rig.ada, id).size > 0)
    assert len(containers(podman)) == 1
    rig.core.experiments.cancel(rig.ada, id)
    rig.until(worker, lambda: rig.core.experiments.gone(rig.ada, id))
    assert containers(podman) == []
