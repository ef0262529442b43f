"""What every test can ask for: settings over a temporary folder, a clock that is moved by hand, the core, people."""

import os
import shutil

import pytest

from ippd.core import open_core
from ippd.domain.submission import Part
from ippd.permissions import ANONYMOUS, OPERATOR, Actor
from ippd.settings import load
from serving import Portal

PASSWORD = "correct horse battery"
# Programs that the tests of a module (or a single test) run, with the Debian package of each. Where one is missing they are skipped,
# with this reason; .ci/run installs them all, and takes a skipped test for a failure.
PROGRAMS = {
    "test_admin_browser": {"chromium": "chromium", "chromedriver": "chromium-driver"},
    "test_certificate": {"openssl": "openssl", "curl": "curl"},
    "test_http_access": {"curl": "curl"},
    "test_init_script": {"busybox": "busybox-static"},
    "test_install": {"unshare": "util-linux"},
    "test_job_script": {"curl": "curl", "jq": "jq", "unzip": "unzip", "busybox": "busybox-static"},
    "test_manual": {"groff": "groff-base"},
    "test_rpm": {"rpmbuild": "rpm", "cpio": "cpio", "logrotate": "logrotate"},
    "test_server_bodies": {"curl": "curl"},
    "test_systemd_unit": {"systemd-analyze": "systemd"},
    "test_a_program_that_belongs_to_a_package_is_left_to_its_manager": {"rpmbuild": "rpm"},
}
PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def pytest_collection_modifyitems(items):
    for item in items:
        wanted = PROGRAMS.get(item.module.__name__, {}) | PROGRAMS.get(item.originalname, {})
        missing = [package for program, package in wanted.items() if not shutil.which(program, path=PLACES)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs a program: apt-get install {' '.join(missing)}"))


class Clock:
    """Seconds since 1970 that stand still until they are moved."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now

    def forward(self, seconds=0.0, minutes=0.0, hours=0.0, days=0.0):
        self.now += seconds + 60 * minutes + 3600 * hours + 86400 * days


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_settings(tmp_path):
    """A function: settings over the temporary folder, with overrides as keyword `group__name="text"`."""

    def make(**overrides):
        given = {"data.directory": str(tmp_path / "data"), "data.reserve": "1MB", "auth.bcrypt_cost": "4"}
        given |= {name.replace("__", "."): str(value) for name, value in overrides.items()}
        return load("", {}, [f"{name}={value}" for name, value in given.items()])

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


def echo(*files, app="echo", **params):
    """The parts of a submission: `files` are (name, bytes), all in the field `scan`."""
    parts = [Part("fact", "app", app), Part("fact", "name", "a trial")]
    parts += [Part("param", name, value) for name, value in params.items()]
    return parts + [Part("file", "scan", [data], name) for name, data in files]


@pytest.fixture
def make_portal(make_core):
    """A function: the portal on two loopback ports, over settings as `make_settings` takes them."""
    portals = []

    def make(families=None, **overrides):
        portals.append(Portal(make_core(**overrides), *([families] if families else [])))
        return portals[-1]

    yield make
    for portal in portals:
        portal.stop()


@pytest.fixture
def portal(make_portal):
    return make_portal(notify__admin_email="admin@example.org", public__url="https://portal.example.org")
