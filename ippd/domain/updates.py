"""Updates of the program and of the frontend: only what was signed, tried first, put in place in one step, and undone if it fails."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ippd import VERSION, releases
from ippd.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ippd.host.handover import hand_over, reload
from ippd.host.program import owning_package, program_path
from ippd.host.steps import clean
from ippd.permissions import Actor, permits
from ippd.wholefile import whole_file

if TYPE_CHECKING:
    from ippd.core import Core

PREVIOUS = ".previous"
TRIAL_TIME = 120.0  # seconds that each trial of a new program may take
INDEX = "index.html"


class Updates:
    """Takes releases in."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._folder = Path(core.settings["data.directory"])

    def versions(self) -> dict[str, str | None]:
        """The versions of program and frontend; None for a frontend that was not put there by an update."""
        try:
            target = Path(os.readlink(self._core.settings["public.frontend"]))
        except OSError:
            return {"version": VERSION, "frontend": None}
        return {"version": VERSION, "frontend": target.name}

    @permits("version.update")
    def program(self, actor: Actor, what: str, check: bool = False) -> str:
        """Put a release of the program (a version, or a path) in the place of the running one; returns its version.

        The daemon, if it runs, goes over to it without losing a request; when the new one does not become ready, all is as before.
        With `check` it is only tried. Raises Forbidden for a release that is not signed, Conflict where a package manager looks after
        the program, Invalid for one that fails its trial, Unavailable when it did not become ready.
        """
        target = self._target()
        path, release = self._find(what, "program", "ippd-{}")
        new = target.with_name(f".{target.name}.{release.version}.new")
        try:
            with open(path, "rb") as source, whole_file(new, 0o755) as copy:
                releases.copy(release, source, copy)
            self._try(new, release.version)
            if check:
                return release.version
            self._swap(new, target)
        except PermissionError as error:
            raise Forbidden(f"this account may not replace {target}: let root run ippd update") from error
        finally:
            new.unlink(missing_ok=True)
        if not hand_over(self._folder):
            self._exchange(target)
            raise Unavailable(f"version {release.version} did not become ready: {VERSION} goes on, and is in its place again")
        return release.version

    @permits("version.update")
    def back(self, actor: Actor) -> None:
        """Exchange the program with the one before it. Raises NotFound when there is none, Conflict, Unavailable."""
        target = self._target()
        if not target.with_name(target.name + PREVIOUS).exists():
            raise NotFound(f"there is no {target}{PREVIOUS}")
        self._exchange(target)
        if not hand_over(self._folder):
            self._exchange(target)
            raise Unavailable("the program before this one did not become ready: all is as it was")

    @permits("version.update")
    def frontend(self, actor: Actor, what: str) -> str:
        """Put a release of the frontend (a tar archive) in the place of public.frontend; returns its version.

        Raises Forbidden for one that is not signed, Invalid for one that is no frontend, Conflict when public.frontend is not set.
        """
        link = self._core.settings["public.frontend"]
        if not link:
            raise Conflict("public.frontend is not set")
        path, release = self._find(what, "frontend", "ippd-frontend-{}.tar.gz")
        place = Path(f"{link}.versions") / release.version
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as work:
            with open(path, "rb") as source, tempfile.TemporaryFile(dir=work) as archive:
                releases.copy(release, source, archive)
                archive.seek(0)
                _unpack(archive, Path(work) / "files")
            if place.exists():
                shutil.rmtree(place)
            (Path(work) / "files").rename(place)
            if os.path.isdir(link) and not os.path.islink(link):
                os.rename(link, place.with_name("before-updates"))
            os.symlink(place, Path(work) / "link")
            os.replace(Path(work) / "link", link)
        reload(self._folder)
        return release.version

    def _target(self) -> Path:
        target = program_path()
        package = owning_package(target)
        if package:
            raise Conflict(f"{target} belongs to the package {package}: update it with rpm or yum")
        return target

    def _find(self, what: str, kind: str, form: str) -> tuple[Path, releases.Release]:
        """The file of a release and what its signature says."""
        path = Path(what)
        if "/" not in what and releases.VERSION.fullmatch(what):
            path = Path(self._core.settings["update.directory"] or self._folder / "releases") / form.format(what)
        release = releases.check(releases.read_signature(path), kind, self._core.settings["update.key"])
        if path.name == form.format(what) and release.version != what:
            raise Forbidden(f"{path} is version {release.version}")
        if not path.is_file():
            raise NotFound(f"there is no {path}")
        return path, release

    def _try(self, new: Path, version: str) -> None:
        """Run a new program with the real settings, and over a copy of the database. Raises Invalid with what it says."""
        settings: Any = self._core.settings
        given = [name for name in settings if settings.source(name) == "--set"]
        words = ["-c", settings.file, *(f"--set={name}={settings.text(name)}" for name in given)]
        if _run(new, "version") != f"ippd {version}":
            raise Invalid(f"this program is not version {version}")
        _run(new, *words, "config", "--check")
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=self._folder) as folder:
            self._core.store.copy_to(Path(folder) / "ippd.sqlite")
            places = (f"data.directory={folder}", f"data.uploads={folder}/uploads", "data.reserve=0")
            _run(new, *words, *(f"--set={place}" for place in places), "housekeeping", "checkpoint")

    def _swap(self, new: Path, target: Path) -> None:
        spare = target.with_name(f".{target.name}.spare")
        spare.unlink(missing_ok=True)
        os.link(target, spare)
        spare.rename(target.with_name(target.name + PREVIOUS))
        new.rename(target)  # one step: there is always a program

    def _exchange(self, target: Path) -> None:
        """Exchange the program and the one before it."""
        previous, spare = target.with_name(target.name + PREVIOUS), target.with_name(f".{target.name}.spare")
        spare.unlink(missing_ok=True)
        try:
            os.link(target, spare)
        except PermissionError as error:
            raise Forbidden(f"this account may not replace {target}: let root run ippd update --back") from error
        previous.rename(target)
        spare.rename(previous)


def _run(program: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, errors="replace", timeout=TRIAL_TIME,
            env=clean() | {"PYINSTALLER_RESET_ENVIRONMENT": "1"}, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Invalid(f"the new program cannot be run: {error}") from error
    if done.returncode:
        raise Invalid(f"the new program failed its trial ({' '.join(words[-2:])}): {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def _unpack(archive: Any, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Invalid(f"this archive cannot be unpacked: {error}") from error
    if not (folder / INDEX).is_file():
        raise Invalid(f"this archive has no {INDEX} at its top: it is no frontend")
