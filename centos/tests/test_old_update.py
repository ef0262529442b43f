"""A daemon on old ground goes over to a new binary: signed, tried, without a lost request; and back."""

import http.client
import threading

from ground import can_bind
from serverkit import wait_for


def signed_release(ground):
    """A release as root keeps it: another file of the same version (what follows the program's archive is nobody's)."""
    key = ground.ippd("release", "key", "/etc/ippd/release.key", user=None).split()[-1]
    program = ground.path("/usr/bin/ippd").read_bytes() + b"\n"
    ground.path("/srv").mkdir(exist_ok=True)
    ground.path("/srv/ippd-new").write_bytes(program)
    ground.path("/srv/ippd-new").chmod(0o755)
    version = ground.ippd("version").split()[-1]
    ground.ippd("release", "sign", "/srv/ippd-new", version, "--key", "/etc/ippd/release.key", user=None)
    return key, program


def new_ones(daemon, known):
    """How many serving processes there are besides the known processes."""
    return sum("serve" in name for pid, name in daemon.processes().items() if pid not in known)


def test_it_goes_over_to_a_new_program_and_back(make_ground):
    ground = make_ground("glibc-2.12-linux-2.6.32")
    ground.path("/etc/ippd").mkdir()
    key, program = signed_release(ground)
    before = ground.path("/usr/bin/ippd").read_bytes()
    ground.configure(update__key=key)
    daemon = ground.daemon()
    token = daemon.join()
    id = daemon.submit(token, ("scan.nii", b"voxels")).json["id"]
    replies, over = [], threading.Event()

    def ask():
        while not over.is_set():
            try:
                replies.append(daemon.public.get("/experiments", token=token).status)
            except (OSError, http.client.HTTPException) as error:
                replies.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for words, expected in ((("update", "/srv/ippd-new"), program), (("update", "--back"), before)):
            old = daemon.parent()
            serving = daemon.processes().keys()
            ground.ippd(*words, user=None)
            assert ground.path("/usr/bin/ippd").read_bytes() == expected
            assert wait_for(lambda known=serving: new_ones(daemon, known) == 2, 20)
            assert wait_for(lambda known=serving: not any("serve" in daemon.processes().get(pid, "") for pid in known), 20)
            assert old in daemon.processes()  # what systemd or the init script knows stays
    finally:
        over.set()
        asking.join(60)
    assert set(replies) == {200} and len(replies) > 10
    assert daemon.experiments(token)[id]["inputs"] == ["scan.nii"]
    assert daemon.stop() == 0
    assert wait_for(lambda: daemon.processes() == {}, 20) and can_bind(daemon.public)
    assert [path.name for path in ground.path("/var/lib/ippd").glob("_MEI*")] == []
