"""Steps of an installation: each knows what it is about, whether that is so already, and how to make it so."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ippd.errors import IppdError
from ippd.wholefile import whole_file

ACCOUNT = "ippd"
PROTECTED = Path("/proc/sys/fs/protected_hardlinks")


@dataclass(frozen=True)
class Step:
    """`what` is the thing; `done` tells whether it is as it should be; `do` makes it so. Doing it twice is harmless.

    The rest are words: what happens to it, what it is called when nothing has to, and what happens when it is `there` but not right.
    """

    what: str
    done: Callable[[], bool]
    do: Callable[[], None]
    verb: str = "made"
    already: str = "is as it should be"
    mended: str = "put right"
    there: Callable[[], bool] = lambda: False

    def take(self, dry: bool) -> tuple[bool, str]:
        """Make it so, or only look. Returns whether there is something to do, and a sentence on what was, or would be, done."""
        if self.done():
            return False, f"{self.what}: {self.already}"
        verb = self.mended if self.there() else self.verb
        if not dry:
            self.do()
        return True, f"{self.what}: {'would be ' if dry else ''}{verb}"


def file(path: Path, content: bytes, mode: int, owner: str = "root", keep: bool = False) -> Step:
    """A file with this content; with `keep` one that is there already stays as it is."""

    def done() -> bool:
        return path.is_file() and (keep or (path.read_bytes() == content and _as(path, mode, owner)))

    def do() -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with whole_file(path, mode) as file:
            file.write(content)
            os.fchown(file.fileno(), *_ids(owner))

    return Step(f"file {path}", done, do, mended="replaced", there=path.exists)


def folder(path: Path, mode: int, owner: str, group: str = "") -> Step:
    """A folder of this mode that belongs to `owner`."""

    def do() -> None:
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, _ids(owner)[0], _ids(group or owner)[1])
        path.chmod(mode)

    what = f"folder {path} ({mode:o}, {owner}{f':{group}' if group else ''})"
    return Step(what, lambda: path.is_dir() and _as(path, mode, owner, group), do, there=path.exists)


def inside(path: Path) -> Step:
    """All that lies in a folder of the account belongs to it.

    Files are given away only where nobody but root can have put them: in a folder that is still root's with all in it, or where the
    kernel lets nobody link files that are not theirs. A link to a file of the host has one name again when the host has replaced that file.
    """
    ours = _is_roots(path) or _links_are_protected()  # now: the step before this one gives the folder itself away
    what = f"what is in {path} ({ACCOUNT})"
    return Step(what, lambda: not any(_foreign(path, False, ours)), lambda: _take_over(path, ours), "given to the account")


def _is_roots(path: Path) -> bool:
    """Whether a folder and all in it are root's, and no other account may write to it."""
    names = (os.path.join(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files))
    return not path.stat().st_mode & 0o022 and all(os.lstat(name).st_uid == 0 for name in (path, *names))


def _links_are_protected() -> bool:
    with suppress(OSError):  # Linux before 3.6 has no such file
        return PROTECTED.read_text(encoding="ascii").strip() == "1"
    return False


def _take_over(path: Path, ours: bool) -> None:
    left = list(_foreign(path, True, ours))
    if left:
        raise IppdError(
            f"{', '.join(left[:3])}: has another name elsewhere, is no plain file, or may be one of the host's that was linked here; "
            f"give it to {ACCOUNT}, or remove it"
        )


def _foreign(path: Path, take: bool, ours: bool) -> Iterator[str]:
    """The entries below a folder that are not the account's; with `take` they become so, and only those that may not are named.

    The account may be at work there meanwhile, with another thing in mind: no link is followed, and a file that has a second name,
    which may be one of the host's, stays as it is. Links stay as they are: whose they are changes nothing, and to give one away by its
    name could give away what has been put in its place.
    """
    ids = _ids(ACCOUNT) if _exists(pwd.getpwnam) else (-1, -1)
    for place, folders, files, descriptor in os.fwalk(os.path.realpath(path), follow_symlinks=False):
        # What the program that runs now has unpacked for itself is its own.
        folders[:] = [name for name in folders if not name.startswith("_MEI")]
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if found.st_uid == ids[0] or stat.S_ISLNK(found.st_mode):
                    continue
                if not (take and (ours or stat.S_ISDIR(found.st_mode)) and _given(name, descriptor, found.st_mode, ids, ours)):
                    yield os.path.join(place, name)


def _given(name: str, folder: int, mode: int, ids: tuple[int, int], ours: bool) -> bool:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return False
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISDIR(found.st_mode) and (not ours or not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
            return False
        os.fchown(descriptor, *ids)
        return True
    finally:
        os.close(descriptor)


def account() -> Step:
    """The account and the group that the daemon runs as; without a password, a shell or a home folder of its own."""
    home, shell = "/var/lib/ippd", next((path for path in ("/sbin/nologin", "/usr/sbin/nologin") if os.path.exists(path)), "/bin/false")

    def do() -> None:
        if which("useradd"):
            if not _exists(grp.getgrnam):
                run("groupadd", "-r", ACCOUNT)
            if not _exists(pwd.getpwnam):
                run("useradd", "-r", "-g", ACCOUNT, "-d", home, "-M", "-s", shell, "-c", "Image processing portal", ACCOUNT)
        else:  # busybox
            run("addgroup", "-S", ACCOUNT)
            run("adduser", "-S", "-D", "-H", "-h", home, "-s", shell, "-G", ACCOUNT, ACCOUNT)

    return Step(f"account {ACCOUNT}", lambda: _exists(pwd.getpwnam) and _exists(grp.getgrnam), do)


def removed(path: Path) -> Step:
    """A file that is not there."""
    gone = Step(f"file {path}", lambda: not os.path.lexists(path), lambda: path.unlink(missing_ok=True))
    return replace(gone, verb="removed", already="is not there")


def command(what: str, done: Callable[[], bool], *words: str) -> Step:
    """A command of the host."""
    return Step(what, done, lambda: run(*words))


def followed(step: Step, *words: str) -> Step:
    """The step, and then a command of the host."""

    def do() -> None:
        step.do()
        run(*words)

    return replace(step, do=do)


def run(*words: str, user: int | None = None) -> None:
    """Run a program of the host, as another user if one is given. Raises IppdError with what it says."""
    other: dict[str, Any] = {}
    if user is not None:  # who gets no terminal of root's, to type into
        other = {"user": user, "group": user, "extra_groups": [], "stdin": subprocess.DEVNULL, "start_new_session": True}
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd="/", check=False,
            env=clean() | {"PATH": places()}, **other
        )
    except OSError as error:
        raise IppdError(f"{words[0]}: {error.strerror}") from error
    if done.returncode:
        raise IppdError(f"{' '.join(words)}: {done.stdout.strip() or f'status {done.returncode}'}")


def places() -> str:
    """The folders with programs of the host: PATH, and those for programs of root, which a PATH of cron, su or sudo may leave out."""
    return f"{os.environ.get('PATH') or os.defpath}:/usr/sbin:/sbin"


def which(program: str) -> bool:
    """Whether the host has a program."""
    return shutil.which(program, path=places()) is not None


def clean() -> dict[str, str]:
    """The environment for programs of the host: without what the one-file program needs for itself."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("_PYI", "_MEI"))}
    original = environ.pop("LD_LIBRARY_PATH_ORIG", None)
    environ.pop("LD_LIBRARY_PATH", None)
    return environ | ({"LD_LIBRARY_PATH": original} if original else {})


def _exists(find: Callable[[str], object]) -> bool:
    with suppress(KeyError):
        return bool(find(ACCOUNT))
    return False


def _ids(owner: str) -> tuple[int, int]:
    found = pwd.getpwnam(owner)
    return found.pw_uid, found.pw_gid


def _as(path: Path, mode: int, owner: str, group: str = "") -> bool:
    found = path.stat()
    try:
        return found.st_mode & 0o7777 == mode and (found.st_uid, found.st_gid) == (_ids(owner)[0], _ids(group or owner)[1])
    except KeyError:  # the account is not there yet
        return False
