"""Accounts of the host that root goes on as: what other accounts can exchange under root's hands is none of root's business."""

import errno
import json
import os
import pwd
import signal
import stat
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

from ippd import errors
from ippd.errors import Forbidden, IppdError

MOST_LINKS = 40  # on one path, as in Linux
MAY_NOT = (errno.EACCES, errno.EPERM, errno.EROFS)  # the last one is what ProtectSystem= of systemd makes of a folder


class Account(NamedTuple):
    """Numbers of an account and its group."""

    uid: int
    gid: int


def owner(found: os.stat_result) -> Account:
    """The account that a file belongs to, with the group of its own: the group of a file says who may read it, not who somebody is."""
    with suppress(KeyError):
        return Account(found.st_uid, pwd.getpwuid(found.st_uid).pw_gid)
    return Account(found.st_uid, found.st_gid)  # an account without a name, as in a container


def take_groups(account: Account) -> None:
    """Have the supplementary groups of an account, instead of root's."""
    try:
        os.initgroups(pwd.getpwuid(account.uid).pw_name, account.gid)
    except KeyError:  # an account without a name, as in a container
        os.setgroups([account.gid])


def leave_terminal() -> None:
    """Have no controlling terminal, and nothing to read on standard input.

    What runs as the account may be traced by the account, and with root's terminal in hand it can type what root's shell reads next.
    The process group stays, so Ctrl-C is heard as before. The leader of a session keeps its terminal, which ends with it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if null:
        os.close(null)
    if os.getsid(0) == os.getpid():
        return
    with suppress(OSError):  # there is none
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


def become(account: Account) -> None:
    """Root becomes the account, for good. Nothing can be asked at the terminal from then on: ask before."""
    leave_terminal()
    take_groups(account)
    os.setgid(account.gid)
    os.setuid(account.uid)


def name(uid: int | None = None) -> str:
    """What to call an account; without a number, that which this process is."""
    uid = os.geteuid() if uid is None else uid
    try:
        return f"the account {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the account with the number {uid}"


@contextmanager
def may(sentence: str) -> Iterator[None]:
    """Raise Forbidden with this sentence when what the block does with files is not for this account, or for this process, to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in MAY_NOT:
            raise
        raise Forbidden(sentence) from error


def safe_for_root(path: Path) -> Account | None:
    """Whom root must be to work in a folder: its owner, or who owns a folder or a link on the way to it.

    None when that is root, and when it is not root who asks.
    Raises Forbidden when everybody on the way is root, but other accounts may write there all the same.
    """
    if os.geteuid():
        return None
    with suppress(FileNotFoundError):
        found = os.stat(path)
        if found.st_uid:
            return owner(found)
    for place, found in _way(path):
        if found.st_uid:
            return owner(found)
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            raise Forbidden(
                f"root does not write below {place}, which other accounts may change: give it to one account, or chmod go-w {place}"
            )
    return None


def run_as(account: Account | None, function: Callable[[], None]) -> None:
    """Call the function in a process of its own that is the account for good; with None, here.

    What it raises is raised here as the same class of IppdError with the same sentence.
    """
    if account is None:
        function()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _child(account, function, reading, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            said = pipe.read()
    except BaseException:  # Ctrl-C, which a session of its own does not hear
        os.kill(child, signal.SIGINT)
        raise
    finally:
        os.waitpid(child, 0)
    try:
        name, sentence = json.loads(said)
    except ValueError:
        raise IppdError("the process that did this for the daemon's account was ended") from None
    if name:
        found = getattr(errors, str(name), IppdError)
        raise (found if isinstance(found, type) and issubclass(found, IppdError) else IppdError)(str(sentence))


def _child(account: Account, function: Callable[[], None], reading: int, writing: int) -> None:
    said = ["IppdError", "ended"]
    try:
        os.close(reading)
        os.setsid()
        become(account)
        function()
        said = ["", ""]
    except IppdError as error:
        said = [type(error).__name__, str(error)]
    except BaseException as error:  # whatever it is: the parent tells it, and this process goes no further
        said = ["IppdError", f"{type(error).__name__}: {error}"]
    finally:
        with suppress(OSError), open(writing, "wb") as pipe:
            pipe.write(json.dumps(said).encode())
        os._exit(0)


def _way(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Each folder and link from the root of the host to the path, with what lstat says; links are followed."""
    left, here, links = [part for part in os.path.abspath(path).split("/") if part], "/", 0
    yield here, os.lstat(here)
    while left:
        name = left.pop(0)
        here = os.path.normpath(os.path.join(here, name))
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return
        yield here, found
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise Forbidden(f"{path} leads through too many links")
            target = os.readlink(here)
            left = [part for part in target.split("/") if part] + left
            here = "/" if target.startswith("/") else os.path.dirname(here)
