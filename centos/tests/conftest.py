"""The grounds that every test runs on. They are made anew for each test: what one breaks no other sees."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ground import Ground
from mailservers import Inbox, smtp_server

TOP = Path(__file__).resolve().parents[2]
GROUNDS = {"glibc-2.17": (), "glibc-2.12": ("--glibc-2.12",), "glibc-2.12-linux-2.6.32": ("--glibc-2.12",)}


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """A function: the root of a ground, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("roots")
    made = {}

    def root(options):
        if options not in made:
            made[options] = folder / f"root{len(made)}"
            subprocess.run([sys.executable, TOP / "centos/root/make.py", made[options], *options], check=True)
            shutil.copy(os.environ.get("IPPD_BINARY", TOP / "dist" / "ippd"), made[options] / "usr/bin/ippd")
        return made[options]

    yield root
    for path in made.values():
        shutil.rmtree(path)


@pytest.fixture
def make_ground(roots, tmp_path):
    """A function: a ground of its own, by one of the names of GROUNDS."""
    made = []

    def make(name):
        copy = tmp_path / f"root{len(made)}"
        subprocess.run(["cp", "--archive", roots(GROUNDS[name]), copy], check=True)
        made.append(Ground(copy, name.endswith("2.6.32")))
        return made[-1]

    yield make
    for ground in made:
        ground.close()


@pytest.fixture(params=GROUNDS)
def ground(request, make_ground):
    """Each of the grounds."""
    return make_ground(request.param)


@pytest.fixture
def inbox():
    """A real mail server: `messages`, and the `port` that it listens on."""
    inbox = Inbox()
    with smtp_server(inbox) as port:
        inbox.port = port
        yield inbox
