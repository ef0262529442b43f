"""A disk that is full on old ground: a real small file system under the data, filled by uploads and by somebody else."""

from contextlib import suppress

import pytest

from ground import IPPD, let_time_pass

MB = 1 << 20
RESERVE = 4 * MB
SMALL = ("/var/lib/ippd", f"size=96m,uid={IPPD},gid={IPPD},mode=700")  # the program unpacks itself there as well


@pytest.fixture
def daemon(ground):
    """A daemon on a small disk, with a user: `daemon.token`."""
    ground.configure(data__reserve=RESERVE)
    daemon = ground.daemon(mounts=[SMALL])
    daemon.token = daemon.join()
    return daemon


def fill(path):
    """Write into a file until nothing more fits on its disk."""
    with suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(64 << 10))
    with suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(b"x")


def names(daemon):
    """What is listed: {experiment: its files}."""
    return {id: found["inputs"] + found["outputs"] for id, found in daemon.experiments(daemon.token).items()}


def command(daemon, *words):
    """A command of ippd on the same disk; it unpacks itself elsewhere."""
    return daemon.ground.ippd(*words, beside=daemon.process.pid, environ={"TMPDIR": "/tmp"})


def test_uploads_fill_the_disk_up_to_the_reserve(daemon):
    kept = daemon.submit(daemon.token, ("first.nii", bytes(MB))).json["id"]
    announced = daemon.submit(daemon.token, ("huge.nii", (200 * MB, (bytes(MB) for _ in range(200)))))
    assert announced.status == 507, announced
    # This one does not say how long it is: it is broken off when the disk is full, with what had come before.
    streamed = daemon.submit(daemon.token, ("good.nii", bytes(MB)), ("huge.nii", (bytes(MB) for _ in range(200))))
    assert streamed.status == 507 and streamed.json["error"], streamed
    assert names(daemon) == {kept: ["first.nii"]}
    assert [path.stat().st_size for path in daemon.stored()] == [MB]
    results = {"a": bytes(MB), "b": (bytes(MB) for _ in range(200))}
    refused = daemon.local.post(f"/experiments/{kept}/results", {}, [("result", *file) for file in results.items()])
    assert refused.status == 507
    assert names(daemon) == {kept: ["first.nii"]} and len(daemon.stored()) == 1
    # There is still room for one that fits.
    assert daemon.submit(daemon.token, ("fits.nii", bytes(8 * MB))).status == 200
    assert daemon.stop() == 0


def test_somebody_else_fills_the_disk(daemon):
    token = daemon.token
    old, unwanted = (daemon.submit(token, (name, bytes(MB))).json["id"] for name in ("old.nii", "unwanted.nii"))
    assert daemon.complete(("result", b"voxels")) == old
    let_time_pass(daemon, days=84)
    assert command(daemon, "housekeeping", "notice") == "notice: 1\n"
    let_time_pass(daemon, days=7)
    reserve = next(path for path in daemon.data.iterdir() if path.is_file() and path.stat().st_size == RESERVE)
    command(daemon, "housekeeping", "checkpoint")
    fill(daemon.data / "junk")
    # Log-in, deletion and expiry go on; that takes the reserve.
    for _ in range(20):
        daemon.log_in()
    assert not reserve.exists()
    refused = daemon.submit(token, ("new.nii", bytes(MB)))
    assert refused.status == 507, refused
    assert names(daemon) == {old: ["old.nii", "result"], unwanted: ["unwanted.nii"]}
    assert daemon.local.delete(f"/experiments/{unwanted}/delete").json is True
    assert command(daemon, "expire") == "expire: 2\n"
    assert names(daemon) == {old: []} and daemon.stored() == []
    # Once there is room again, all is as before.
    (daemon.data / "junk").unlink()
    command(daemon, "housekeeping", "checkpoint")
    assert reserve.stat().st_size == RESERVE
    new = daemon.submit(token, ("new.nii", bytes(MB)))
    assert new.status == 200 and names(daemon)[new.json["id"]] == ["new.nii"]
    assert daemon.stop() == 0
