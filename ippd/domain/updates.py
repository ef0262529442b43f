"""Updates of the program and of the frontend: only what was signed, tried first, put in place in one step, and undone if it fails."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ippd import VERSION, releases
from ippd.domain import frontends
from ippd.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ippd.host import account as host_account
from ippd.host import swap
from ippd.host.handover import hand_over, reload
from ippd.host.program import owning_package, program_path
from ippd.host.steps import clean
from ippd.host.swap import PREVIOUS
from ippd.permissions import Actor, permits
from ippd.wholefile import whole_file

if TYPE_CHECKING:
    from ippd.core import Core

LOG = logging.getLogger("ippd.updates")
TRIAL = ".trial-"
TRIAL_TIME = 120.0  # seconds that each trial of a new program may take


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
        return {"version": VERSION, "frontend": None if target.name == frontends.FIRST else target.name}

    @permits("version.update")
    def program(self, actor: Actor, what: str, check: bool = False, allow_older: bool = False) -> str:
        """Put a release of the program (a version, or a path) in the place of the running one; returns its version.

        The daemon, if it runs, goes over to it without losing a request; when the new one does not become ready, all is as before.
        With `check` it is only tried. Raises Forbidden for a release that is not signed, Conflict where a package manager looks after
        the program, Invalid for one that fails its trial, Unavailable when it did not become ready.
        """
        target = self._target()
        path, release = self._find(what, "program", "ippd-{}")
        new = target.with_name(f".{target.name}.{release.version}.new")
        with self._alone(), releases.opened(path) as source:
            self._mend(target)
            if not check:
                _refuse(target, release, allow_older)
            with host_account.may(f"this account may not replace {target}: let root run ippd update"):
                self._put(target, new, release, source, check)
        return release.version

    def _put(self, target: Path, new: Path, release: releases.Release, source: IO[bytes], check: bool) -> None:
        """Unpack a release to `new`, try it and, if it is not only a check, put it in place."""
        try:
            with whole_file(new, 0o755) as copy:
                releases.copy(release, source, copy)
            self._try(new, release.version)
            if not check and not swap.swap(target, new, release, self._folder):
                raise Unavailable(f"version {release.version} did not become ready: {VERSION} goes on, and is in its place again")
        finally:
            new.unlink(missing_ok=True)

    @permits("version.update")
    def back(self, actor: Actor) -> tuple[str, str]:
        """Exchange the program with the one before it; returns the version that was in place, and the one that is now.

        Raises NotFound when there is none, Conflict, Unavailable.
        """
        target = self._target()
        with self._alone():
            before = _version(target)
            if self._mend(target):  # that is the way back from it
                return before, _ask(target)
            if not target.with_name(target.name + PREVIOUS).exists():
                raise NotFound(f"there is no {target}{PREVIOUS}")
            versions = _version(target), _version(target.with_name(target.name + PREVIOUS))
            self._exchange(target)
            if not hand_over(self._folder):
                self._exchange(target)
                raise Unavailable("the program before this one did not become ready: all is as it was")
        return versions

    @permits("version.update")
    def frontend(self, actor: Actor, what: str, check: bool = False, allow_older: bool = False) -> str:
        """Put a release of the frontend (a tar archive) in the place of public.frontend; returns its version.

        With `check` it is only unpacked and looked at. Raises Forbidden for one that is not signed, Invalid for one that is no frontend,
        Conflict when public.frontend is not set.
        """
        link = self._link()
        path, release = self._find(what, "frontend", "ippd-frontend-{}.tar.gz")
        with self._alone(), releases.opened(path) as source:
            if not check and link.is_symlink():
                if link.readlink() == Path(f"{link}.versions") / release.version:
                    raise Conflict(f"version {release.version} is in its place already")
                _refuse_older(link.readlink().name, release.version, allow_older)
            self._write(link, lambda: frontends.take_in(link, release, source, check))
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
        with self._alone():
            self._write(link, lambda: frontends.point(link, before.readlink()))
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
            self._as_account(self._clear)
            yield
        finally:
            os.close(descriptor)

    def _write(self, link: Path, work: Callable[[], None]) -> None:
        """Let `work` write beside the frontend's link; when root calls, as who could exchange what it makes there before it is written."""

        def do() -> None:
            who = host_account.name()
            with host_account.may(f"{who} may not replace {link}: let root, or who owns {link.parent}, run ippd update --frontend"):
                work()

        settings: Any = self._core.settings
        account = None
        if ":" in settings.source("public.frontend"):  # the path is another account's word when the file is
            account = host_account.safe_for_root(Path(settings.file))
        account = account or host_account.safe_for_root(link.parent)
        if account:
            self._core.store.close()  # a connection must not go through a fork
        host_account.run_as(account, do)

    def _clear(self) -> None:
        for left in self._folder.glob(f"{TRIAL}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _as_account(self, work: Callable[[], None]) -> None:
        """Work in the data folder; when root calls, as the account that it belongs to, which may exchange all that lies in it."""
        account = host_account.safe_for_root(self._folder)
        if account:
            self._core.store.close()  # a connection must not go through a fork
        host_account.run_as(account, work)

    def _target(self) -> Path:
        target = program_path()
        target = target.with_name(target.name.removesuffix(PREVIOUS))  # when the new one cannot even be told to go
        package = owning_package(target)
        if package:
            raise Conflict(f"{target} belongs to the package {package}: update it with rpm or yum")
        return target

    def _find(self, what: str, kind: str, form: str) -> tuple[Path, releases.Release]:
        """The file of a release (a path, or a version) and what its signature says, which is true of the file."""
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
        with open(path, "rb") as file:
            releases.compare(release, releases.digest(file))
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
        self._as_account(lambda: self._try_over_copy(new, words))

    def _try_over_copy(self, new: Path, words: list[str]) -> None:
        folder = tempfile.mkdtemp(prefix=TRIAL, dir=self._folder)
        try:
            self._core.store.copy_to(Path(folder) / "ippd.sqlite")
            places = (f"data.directory={folder}", f"data.uploads={folder}/uploads", "data.reserve=0", f"backup.directory={folder}/backups")
            _run(new, *words, *(f"--set={place}" for place in places), "housekeeping", "checkpoint")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _mend(self, target: Path) -> bool:
        """Whether an update of the program that was killed in the middle was found, and finished or undone."""
        with host_account.may(f"an update was cut short, and this account may not mend {target}: let root run ippd update --back"):
            done = swap.mend(target, self._folder)
        if done:
            LOG.warning("%s", done)
        return bool(done)

    def _exchange(self, target: Path) -> None:
        """Exchange the program and the one before it."""
        previous, spare = target.with_name(target.name + PREVIOUS), target.with_name(f".{target.name}.spare")
        with host_account.may(f"this account may not replace {target}: let root run ippd update --back"):
            spare.unlink(missing_ok=True)
            os.link(target, spare)
            previous.rename(target)
            spare.rename(previous)


def _refuse(target: Path, release: releases.Release, older: bool) -> None:
    """Raises Conflict for a release that is in its place already or is an `older` one, Invalid for what is in place under another name."""
    now = _ask(target)  # and not VERSION: the file may be another one than this process was started from
    if _is(target, release):  # it would be its own predecessor, and there were no way back
        if now != release.version:
            raise Invalid(f"this program is not version {release.version}, but {now}")
        raise Conflict(f"version {release.version} is in its place already")
    _refuse_older(now, release.version, older)


def _refuse_older(now: str, release: str, allowed: bool) -> None:
    """Raises Conflict for a release that is older than what is in its place: a signature is good for ever, what it signs is not."""
    if not allowed and releases.older(release, now):
        raise Conflict(f"version {release} is older than {now}, which is in its place: --back goes back, --allow-older takes it anyway")


def _version(program: Path) -> str:
    """The version of a program that lies on this host, in words when it cannot say it."""
    return VERSION if program == program_path() else _ask(program)


def _ask(program: Path) -> str:
    try:
        return _run(program, "version").removeprefix("ippd ")
    except Invalid:
        return "a program that does not run"


def _run(program: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, errors="replace", timeout=TRIAL_TIME,
            env=clean() | {"PYINSTALLER_RESET_ENVIRONMENT": "1"}, check=False, stdin=subprocess.DEVNULL, start_new_session=True,
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
