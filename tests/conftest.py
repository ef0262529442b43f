"""What every test can ask for: settings over a temporary folder, a clock that is moved by hand, the core, people."""

import os
import shutil
import signal
import subprocess

import pytest

import program
from daemons import NOW, Daemon, Daemons
from ippd.core import open_core
from ippd.doctor import examine
from ippd.domain.submission import Part
from ippd.permissions import ANONYMOUS, OPERATOR, SYSTEM, Actor
from ippd.settings import load
from selection import SERVES, starts_ippd
from serving import Frozen, Threaded

PASSWORD = "correct horse battery"
# Programs that the tests of a module (or a single test) run, with the Debian package of each. Where one is missing they are skipped,
# with this reason; .ci/run installs them all, and takes a skipped test for a failure.
PROGRAMS = {
    "test_admin_browser": {"chromium": "chromium", "chromedriver": "chromium-driver"},
    "test_audit": {"gcc": "gcc"},
    "test_certificate": {"openssl": "openssl", "curl": "curl"},
    "test_http_access": {"curl": "curl"},
    "test_init_script": {"busybox": "busybox-static"},
    "test_install": {"unshare": "util-linux"},
    "test_job_script": {"curl": "curl", "jq": "jq", "unzip": "unzip", "busybox": "busybox-static"},
    "test_manual": {"groff": "groff-base"},
    "test_rpm": {"rpmbuild": "rpm", "cpio": "cpio", "logrotate": "logrotate"},
    "test_server_bodies": {"curl": "curl"},
    "test_systemd_unit": {"systemd-analyze": "systemd"},
    "test_worker_containers": {"podman": "podman", "runc": "runc", "busybox": "busybox-static"},
    "test_worker_unit": {"systemd-analyze": "systemd"},
    "test_a_full_disk_is_seen_where_sqlite_calls_it_an_io_error": {"unshare": "util-linux", "mount": "mount"},
    "test_a_program_that_belongs_to_a_package_is_left_to_its_manager": {"rpmbuild": "rpm"},
}
PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def pytest_addoption(parser):
    parser.addoption("--binary", metavar="PATH", help="run the tests that start ippd, and let them start this program")


def pytest_configure(config):
    config.addinivalue_line("markers", "source_only: looks into the server or the commands; it cannot be pointed at the binary")
    config.addinivalue_line("markers", "binary_only: is about the binary itself")
    # In the background of a shell both are ignored, and programs would inherit that: a test that interrupts one would wait for ever.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if config.option.binary:
        program.BINARY = os.path.abspath(config.option.binary)
        if not os.path.isfile(program.BINARY):
            raise pytest.UsageError(f"--binary: there is no {program.BINARY}")
        if not shutil.which("cc"):
            raise pytest.UsageError("--binary: this needs a compiler: apt-get install gcc libc6-dev")


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if (starts_ippd(item) if program.BINARY else not item.get_closest_marker("binary_only"))]
    for item in items:
        wanted = PROGRAMS.get(item.module.__name__, {}) | PROGRAMS.get(item.originalname, {})
        missing = [package for program, package in wanted.items() if not shutil.which(program, path=PLACES)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs a program: apt-get install {' '.join(missing)}"))


class Clock:
    """Seconds since 1970 that stand still until they are moved; `show` is told of each move."""

    def __init__(self):
        self.now = NOW
        self.show = lambda now: None

    def __call__(self):
        return self.now

    def forward(self, seconds=0.0, minutes=0.0, hours=0.0, days=0.0):
        self.now += seconds + 60 * minutes + 3600 * hours + 86400 * days
        self.show(self.now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def daemons(tmp_path_factory):
    """The daemons of the binary that wait for a test."""
    made = Daemons(lambda: tmp_path_factory.mktemp("daemon"))
    yield made
    made.stop()


@pytest.fixture
def daemon(daemons, tmp_path, clock):
    """A function: the daemon of the binary for this test, with these settings; its data folder is the test's own then."""
    taken = []

    def take(given):
        if not taken:
            taken.append(daemons.take(given))
            (tmp_path / "data").symlink_to(taken[0].data)
        elif taken[-1].given != given:  # other settings than at first, over the same data
            taken[-1].stop()
            taken.append(Daemon(taken[0].folder, given))
        taken[-1].show(clock())
        clock.show = taken[-1].show
        return taken[-1]

    yield take
    if taken:
        other = any(str(tmp_path) in text for text in taken[-1].given.values())
        daemons.give_back(taken[-1], again=len(taken) == 1 and not other)


@pytest.fixture
def make_settings(request, tmp_path):
    """A function: settings over the temporary folder, with overrides as keyword `group__name="text"`."""

    def make(**overrides):
        given = {"data.reserve": "1MB", "auth.bcrypt_cost": "4"}
        given |= {name.replace("__", "."): str(value) for name, value in overrides.items()}
        if program.BINARY and SERVES in request.fixturenames and not (tmp_path / "data").exists():
            request.getfixturevalue("daemon")(given)
        return load("", {}, [f"{name}={value}" for name, value in ({"data.directory": tmp_path / "data"} | given).items()])

    return make


@pytest.fixture
def make_core(make_settings, clock):
    """A function: the core over such settings; closed at the end."""
    cores = []

    def make(**overrides):
        cores.append(open_core(make_settings(**overrides), clock))
        return cores[-1]

    yield make
    for core in cores:
        core.close()


@pytest.fixture
def core(make_core):
    return make_core(notify__admin_email="admin@example.org", public__url="https://portal.example.org")


def join(core, email="ada@example.org"):
    """Make an approved account and log it in; returns its actor."""
    core.users.add(OPERATOR, email, PASSWORD)
    return core.sessions.actor(core.sessions.log_in(ANONYMOUS, email, PASSWORD))


@pytest.fixture
def ada(core):
    return join(core)


@pytest.fixture
def bob(core):
    return join(core, "bob@example.org")


@pytest.fixture
def script():
    """A job script on the local listener."""
    return Actor("local", name="script")


@pytest.fixture
def make_disk(tmp_path):
    """A function: a folder on a disk of so many MB, mounted with these options besides."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    places = []

    def make(size, *options):
        places.append(tmp_path / f"disk{len(places) or ''}")
        places[-1].mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}m", *options)), "none", places[-1]], check=True)
        return places[-1]

    yield make
    for place in places:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def small_disk(make_disk):
    """A folder on a disk of 4 MB."""
    return make_disk(4)


@pytest.fixture
def look(clock):
    """A function: what the check `name` finds with these settings: [(level, sentence)]."""

    def look(settings, name):
        return [(found["level"], found["found"]) for found in examine(settings, clock()) if found["name"] == name]

    return look


@pytest.fixture
def settings(make_settings, tmp_path):
    def make(**more):
        return make_settings(**{"public__listen": "", "local__listen": "", "local__socket": tmp_path / "none.sock"} | more)

    return make


def silence(core, seconds):
    """Let time pass in which no worker is heard of, with the looks of the schedule; returns how many claims were taken back."""
    taken = core.leases.lapse(SYSTEM)
    while seconds > 0:
        core.clock.forward(seconds=min(15, seconds))
        seconds -= 15
        taken += core.leases.lapse(SYSTEM)
    return taken


def echo(*files, app="echo", **params):
    """The parts of a submission: `files` are (name, bytes), all in the field `scan`."""
    parts = [Part("fact", "app", app), Part("fact", "name", "a trial")]
    parts += [Part("param", name, value) for name, value in params.items()]
    return parts + [Part("file", "scan", [data], name) for name, data in files]


@pytest.fixture
def served_core(request):
    """A function: the portal over a core, on two loopback ports."""
    portals = []

    def begin(core, *families):
        if program.BINARY:
            given = {name: core.settings.text(name) for name in core.settings if core.settings.source(name) == "--set"}
            del given["data.directory"]
            portals.append(Frozen(core, request.getfixturevalue("daemon")(given)))
        else:
            portals.append(Threaded(core, *families))
        return portals[-1]

    yield begin
    for portal in portals:
        portal.stop()


@pytest.fixture
def make_portal(make_core, served_core):
    """A function: the portal over settings as `make_settings` takes them."""
    return lambda families=None, **overrides: served_core(make_core(**overrides), *([families] if families else []))


@pytest.fixture
def portal(make_portal):
    return make_portal(notify__admin_email="admin@example.org", public__url="https://portal.example.org")
