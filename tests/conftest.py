"""What every test can ask for: settings over a temporary folder, a clock that is moved by hand, the core, people."""

import pytest

from ippd.core import open_core
from ippd.domain.submission import Part
from ippd.permissions import ANONYMOUS, OPERATOR, Actor
from ippd.settings import load
from serving import Portal

PASSWORD = "correct horse battery"


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
