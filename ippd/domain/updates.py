"""Updates of the program and of the frontend: only what was signed, tried first, put in place in one step, and undone if it fails."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
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
TRIAL = ".trial-"
TRIAL_TIME = 120.0  # seconds that each trial of a new program may take
INDEX = "index.html"
FIRST = "before-updates"  # what a frontend is called that no release has brought


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
        return {"version": VERSION, "frontend": None if target.name == FIRST else target.name}

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
        with self._alone(), open(path, "rb") as source:
            if not check and _is(target, release):  # or it would be its own predecessor, and there were no way back
                raise Conflict(f"version {release.version} is in its place already")
            try:
                with whole_file(new, 0o755) as copy:
                    releases.copy(release, source, copy)
                self._try(new, release.version)
                if not check:
                    self._replace(target, new, release.version)
            except PermissionError as error:
                raise Forbidden(f"this account may not replace {target}: let root run ippd update") from error
            finally:
                new.unlink(missing_ok=True)
        return release.version

    @permits("version.update")
    def back(self, actor: Actor) -> None:
        """Exchange the program with the one before it. Raises NotFound when there is none, Conflict, Unavailable."""
        target = self._target()
        if not target.with_name(target.name + PREVIOUS).exists():
            raise NotFound(f"there is no {target}{PREVIOUS}")
        with self._alone():
            self._exchange(target)
            if not hand_over(self._folder):
                self._exchange(target)
                raise Unavailable("the program before this one did not become ready: all is as it was")

    @permits("version.update")
    def frontend(self, actor: Actor, what: str, check: bool = False) -> str:
        """Put a release of the frontend (a tar archive) in the place of public.frontend; returns its version.

        With `check` it is only unpacked and looked at. Raises Forbidden for one that is not signed, Invalid for one that is no frontend,
        Conflict when public.frontend is not set.
        """
        link = self._link()
        path, release = self._find(what, "frontend", "ippd-frontend-{}.tar.gz")
        place = Path(f"{link}.versions") / release.version
        with self._alone(), self._writing(link), open(path, "rb") as source:
            if not check and link.is_symlink() and link.readlink() == place:
                raise Conflict(f"version {release.version} is in its place already")
            if not place.parent.exists():
                place.parent.mkdir()
                place.parent.chmod(0o755)  # whatever the umask is: the daemon must be able to read it
            with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as work:
                with tempfile.TemporaryFile(dir=work) as archive:
                    releases.copy(release, source, archive)
                    archive.seek(0)
                    _unpack(archive, Path(work) / "files")
                if not check:
                    if place.exists():
                        place.rename(Path(work) / "old")
                    (Path(work) / "files").rename(place)
                    _point(link, place)
        if not check:
            reload(self._folder)
        return release.version

    @permits("version.update")
    def frontend_back(self, actor: Actor) -> str:
        """Exchange the frontend with the one before it; returns its version. Raises NotFound when there is none, Conflict."""
        link = self._link()
        before = Path(f"{link}.versions") / PREVIOUS
        if not before.exists():
            raise NotFound(f"there is no frontend before {link}")
        with self._alone(), self._writing(link):
            _point(link, before.readlink())
        reload(self._folder)
        return link.readlink().name

    def _link(self) -> Path:
        link = self._core.settings["public.frontend"]
        if not link:
            raise Conflict("public.frontend is not set")
        return Path(link)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One update at a time. What one that was killed in the middle has left goes away."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise Conflict("another update is under way") from None
            for left in self._folder.glob(f"{TRIAL}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _writing(self, link: Path) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise Forbidden(f"this account may not replace {link}: let root run ippd update --frontend") from error

    def _target(self) -> Path:
        target = program_path()
        target = target.with_name(target.name.removesuffix(PREVIOUS))  # when the new one cannot even be told to go
        package = owning_package(target)
        if package:
            raise Conflict(f"{target} belongs to the package {package}: update it with rpm or yum")
        return target

    def _find(self, what: str, kind: str, form: str) -> tuple[Path, releases.Release]:
        """The file of a release (a path, or a version) and what its signature says."""
        if "/" in what:
            path = Path(what)
        elif releases.VERSION.fullmatch(what):
            path = Path(self._core.settings["update.directory"] or self._folder / "releases") / form.format(what)
        else:
            raise Invalid("a release is named by its version or by its path")
        if not path.is_file():
            raise NotFound(f"there is no {path}")
        release = releases.check(releases.read_signature(path), kind, self._key())
        if "/" not in what and release.version != what:
            raise Forbidden(f"{path} is version {release.version}")
        return path, release

    def _key(self) -> str:
        """update.key. What root is to believe must not be for another account to choose."""
        settings: Any = self._core.settings
        key: str = settings["update.key"]
        if key and os.geteuid() == 0 and ":" in settings.source("update.key"):
            found = os.stat(settings.file)
            if found.st_uid or found.st_mode & 0o022:
                raise Forbidden(
                    f"root does not believe update.key in {settings.file}, which another account may change: "
                    f"chown root {settings.file} && chmod 640 {settings.file} (and leave it the group of the daemon)"
                )
        return key

    def _try(self, new: Path, version: str) -> None:
        """Run a new program with the real settings, and over a copy of the database. Raises Invalid with what it says."""
        settings: Any = self._core.settings
        given = [name for name in settings if settings.source(name) == "--set"]
        words = ["-c", settings.file, *(f"--set={name}={settings.text(name)}" for name in given)]
        if _run(new, "version") != f"ippd {version}":
            raise Invalid(f"this program is not version {version}")
        _run(new, *words, "config", "--check")
        with tempfile.TemporaryDirectory(prefix=TRIAL, dir=self._folder) as folder:
            self._core.store.copy_to(Path(folder) / "ippd.sqlite")
            places = (f"data.directory={folder}", f"data.uploads={folder}/uploads", "data.reserve=0")
            _run(new, *words, *(f"--set={place}" for place in places), "housekeeping", "checkpoint")

    def _replace(self, target: Path, new: Path, version: str) -> None:
        """Put `new` in place and let the daemon go over to it. Raises Unavailable; then all is as it was, the one before included."""
        previous = target.with_name(target.name + PREVIOUS)
        older, spare = (target.with_name(f".{target.name}.{what}") for what in ("older", "spare"))
        for path, name in ((previous, older), (target, spare)):
            name.unlink(missing_ok=True)
            if path.exists():
                os.link(path, name)
        spare.rename(previous)
        new.rename(target)  # one step: there is always a program
        if hand_over(self._folder):
            older.unlink(missing_ok=True)
            return
        previous.rename(target)
        if older.exists():
            older.rename(previous)
        raise Unavailable(f"version {version} did not become ready: {VERSION} goes on, and is in its place again")

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
        reason = done.stderr.strip()[-500:] or f"status {done.returncode}"
        raise Invalid(f"the new program failed its trial ({' '.join(words[-2:])}): {reason}")
    return done.stdout.strip()


def _is(path: Path, release: releases.Release) -> bool:
    try:
        with open(path, "rb") as file:
            return releases.digest(file) == (release.size, release.sha256)
    except OSError:
        return False


def _unpack(archive: Any, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Invalid(f"this archive cannot be unpacked: {error}") from error
    if not (folder / INDEX).is_file():
        raise Invalid(f"this archive has no {INDEX} at its top: it is no frontend")
    for place, _, names in os.walk(folder):  # whoever unpacks them, and whatever the archive says: the daemon must be able to read them
        os.chmod(place, 0o755)
        for name in names:
            if not os.path.islink(os.path.join(place, name)):
                os.chmod(os.path.join(place, name), 0o644)


def _point(link: Path, place: Path) -> None:
    """Make the link lead to another folder in one step; `.previous` leads to where it has led."""
    versions = Path(f"{link}.versions")
    if link.is_dir() and not link.is_symlink():
        before = versions / FIRST
        if before.exists():
            raise Conflict(f"{link} is a folder, and {before}, where it would go, is there already: move it away")
        link.rename(before)
    else:
        before = link.readlink() if link.is_symlink() else place
    for name, target in ((versions / PREVIOUS, before), (link, place)):
        new = versions / ".link"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.rename(name)
