"""What befalls a daemon on old ground: cleaners of temporary files, mount options, and signals at bad moments."""

import os
import shutil
import signal

from ground import can_bind, kill
from serverkit import wait_for
from test_main_job import main_job, settings

MB = 1 << 20


def unpacked(ground, folder):
    """The folders in which programs have unpacked themselves."""
    return sorted(path.name for path in ground.path(folder).glob("_MEI*"))


def wipe(folder):
    """What a cleaner of temporary files does at last."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_tmp_is_wiped_while_it_runs(ground, inbox, tmp_path):
    ground.put_data_elsewhere()
    ground.configure(**settings(inbox))
    daemon = ground.daemon()
    assert len(unpacked(ground, "/tmp")) == 1
    wipe(ground.path("/tmp"))
    main_job(daemon, inbox, tmp_path / "apps")  # with sessions, bcrypt, TLS, multipart, zip, mail, expiry: all that could load late
    for path in ("/admin/users", "/admin/groups", "/readyz", "/apps", "/version"):
        assert daemon.local.get(path).status == 200, path
    assert daemon.local.get("/no/such/page").status == 404
    # What is started later, out of the parent's memory, has all as well.
    victim = next(pid for pid, name in daemon.processes().items() if name == "ippd: serve 1")
    kill(victim, signal.SIGKILL)
    assert wait_for(lambda: "ippd: serve 1" in {name for pid, name in daemon.processes().items() if pid != victim}, 20)
    kill(daemon.parent(), signal.SIGHUP)
    assert wait_for(lambda: "reloaded: " in daemon.log, 20)
    assert all(daemon.log_in() for _ in range(10))
    assert daemon.stop() == 0
    assert [line for line in daemon.complaints() if f"process {victim}) was killed by signal 9; it is replaced" not in line] == []


def test_tmp_is_noexec(ground, inbox, tmp_path):
    ground.put_data_elsewhere()
    ground.configure(**settings(inbox))
    daemon = ground.daemon(mounts=[("/tmp", "noexec")])
    assert len(unpacked(ground, "/var/tmp")) == 1
    main_job(daemon, inbox, tmp_path / "apps")
    assert daemon.stop() == 0 and unpacked(ground, "/var/tmp") == []


def test_nowhere_to_unpack_is_told_in_a_sentence(ground):
    ground.put_data_elsewhere()
    ground.configure()
    noexec = [("/tmp", "noexec"), ("/var/tmp", "noexec")]
    refused = ground.run("ippd", "version", mounts=noexec)
    assert refused.returncode != 0 and "Name one: TMPDIR=/some/folder" in refused.stderr
    done = ground.run("ippd", "version", mounts=noexec, environ={"TMPDIR": ground.data})
    assert (done.returncode, done.stderr) == (0, "")
    assert ground.run("ippd", "version", mounts=noexec, environ={"TMPDIR": "/tmp"}).returncode != 0


def check_next_start(ground, token, id):
    """It starts without a word, has what there was, and has removed what the killed one could not."""
    daemon = ground.daemon()
    assert daemon.complaints() == []
    assert daemon.experiments(token)[id]["status"] == "submitted"
    (folder,) = unpacked(ground, "/var/lib/ippd")
    assert int(folder[4:12], 16) == daemon.process.pid
    assert daemon.stop() == 0 and daemon.processes() == {} and unpacked(ground, "/var/lib/ippd") == []


def test_the_first_process_is_killed(ground):
    """The one that systemd knows, which unpacked the program: it cannot tell its child anything any more."""
    ground.configure()
    daemon = ground.daemon()
    token = daemon.join()
    id = daemon.submit(token, ("scan.nii", b"voxels")).json["id"]
    finish = daemon.upload(token, MB)
    kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait(20)
    assert wait_for(lambda: can_bind(daemon.public) and can_bind(daemon.local), 20)
    assert finish().status == 200  # what was under way is finished even then
    assert wait_for(lambda: daemon.processes() == {}, 20), daemon.processes()
    assert len(unpacked(ground, "/var/lib/ippd")) == 1
    check_next_start(ground, token, id)


def test_the_parent_of_the_serving_processes_is_killed(ground):
    """Then the first process ends at once and removes what it unpacked, while an upload is still under way."""
    ground.configure()
    daemon = ground.daemon()
    token = daemon.join()
    id = daemon.submit(token, ("scan.nii", b"voxels")).json["id"]
    finish = daemon.upload(token, MB)
    kill(daemon.parent(), signal.SIGKILL)
    daemon.process.wait(20)
    assert wait_for(lambda: unpacked(ground, "/var/lib/ippd") == [], 20)
    assert finish().status == 200
    assert wait_for(lambda: daemon.processes() == {}, 20), daemon.processes()
    assert can_bind(daemon.public) and can_bind(daemon.local)
    check_next_start(ground, token, id)


def test_term_twice_a_millisecond_apart_drains(ground):
    """As systemd does it: to each process that it finds; and the first one hands it on."""
    ground.configure()
    daemon = ground.daemon()
    token = daemon.join()
    finish = daemon.upload(token, 4 * MB)
    for pid in (daemon.process.pid, daemon.parent()):
        kill(pid, signal.SIGTERM, signal.SIGTERM)
    assert wait_for(lambda: can_bind(daemon.public), 20)
    assert daemon.process.poll() is None
    reply = finish()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert daemon.process.wait(60) == 0
    assert daemon.processes() == {} and daemon.complaints() == [] and unpacked(ground, "/var/lib/ippd") == []
    check_next_start(ground, token, reply.json["id"])


def test_all_processes_are_killed_at_once_and_another_ones_unpacked_files_stay(ground):
    """The sweep at start leaves what a living program has unpacked, also one whose name only looks like ours."""
    ground.configure()
    first = ground.daemon()
    first.kill()
    (dead,) = unpacked(ground, "/var/lib/ippd")
    for name in (f"_MEI{os.getpid():08x}abcdef", "_MEIxyz", "_MEI00000001abcde"):
        ground.folder(f"/var/lib/ippd/{name}")
    second = ground.daemon()
    left = unpacked(ground, "/var/lib/ippd")
    assert dead not in left and len(left) == 4
    assert second.stop() == 0
