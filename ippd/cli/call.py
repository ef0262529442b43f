"""One call of a command: its arguments, and the settings and the core, made when they are first asked for."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

from ippd.core import Core, open_core
from ippd.errors import NotFound, SettingsError
from ippd.host.account import Account, become, owner, take_groups
from ippd.host.account import name as account_name
from ippd.logs import visible
from ippd.settings import Settings, load, warnings

Run = Callable[["Call"], int | None]


class Call:
    """What a command gets: `arguments`, `settings` and `core`."""

    def __init__(self, run: Run, arguments: Namespace, config: str | None, overrides: Sequence[str]) -> None:
        """Takes the command's function, its arguments, and the global flags."""
        self._run, self.arguments = run, arguments
        self._config, self._overrides = config, overrides

    def run(self) -> int:
        """Run the command; returns the exit status."""
        return self._run(self) or 0

    def load(self) -> Settings:
        """Read the settings (again). Raises SettingsError."""
        return load(self._config, os.environ, self._overrides)

    @cached_property
    def settings(self) -> Settings:
        """The settings; warnings about them go to standard error."""
        settings = self.load()
        for sentence in warnings(settings):
            warn(sentence)
        return settings

    @cached_property
    def core(self) -> Core:
        """The core over the data folder, which a daemon may be using at the same time."""
        become_owner(self.settings)
        return open_core(self.settings)

    def look(self) -> Core:
        """`core` for a command that only reads. Raises NotFound when root would make the database, as root's, before there are settings."""
        folder = self.settings["data.directory"]
        nothing = not os.path.lexists(folder) or (os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "ippd.sqlite")))
        if os.geteuid() == 0 and not self.settings.file and nothing:
            raise NotFound(f"there is no database in {folder} yet: ippd install or the first start makes it")
        return self.core

    def tracing(self) -> bool:
        """Whether log.level is debug, as far as the settings could be read."""
        with suppress(SettingsError):
            return bool(self.load()["log.level"] == "debug")
        return False

    def close(self) -> None:
        """Give back what was opened."""
        if "core" in self.__dict__:
            self.core.close()


def warn(sentence: str) -> None:
    """Tell something that does not stop the command."""
    print(f"ippd: {visible(sentence)}", file=sys.stderr)


def become_owner(settings: Settings, make: bool = True) -> None:
    """When root calls, go on as the account that serves: the daemon must be able to use each file. `make`: its data folder, if missing."""
    account = _serving_account(settings, make)
    if account:
        become(account)
        _make(settings["data.directory"]) if make else None


@contextmanager
def as_owner(settings: Settings) -> Iterator[None]:
    """Like `become_owner`, and root again at the end of the block."""
    account, groups = _serving_account(settings), os.getgroups()
    if account:
        take_groups(account)
        os.setegid(account.gid)
        os.seteuid(account.uid)
    try:
        if account:
            _make(settings["data.directory"])
        yield
    finally:
        if account:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def _serving_account(settings: Settings, make: bool = True) -> Account | None:
    """The account that serves, when root calls and it is another one: who owns the data folder; before there is one, the settings file.

    Raises SettingsError when the file is another account's and names a folder of root's, or when who may change the file is not who owns
    the folder: neither what root does nor what root does as somebody must be for others to say.
    """
    if os.geteuid():
        return None
    folder, file = _owner(settings["data.directory"]), _owner(settings.file)
    if make and not (folder and folder.uid) and file and not file.uid and os.stat(settings.file).st_mode & 0o022:
        raise SettingsError(
            f"data.directory: root does not make it as {settings.file} says, which other accounts may change: chmod 640 {settings.file}"
        )
    if folder is None and file and file.uid:
        return file
    if folder and folder.uid and file and not _may_say(settings.file, folder):
        raise SettingsError(
            f"data.directory: {settings['data.directory']} belongs to account {folder.uid}, and {settings.file} may be changed by another: "
            "give both to the account that serves, or the file to root (chmod 640)"
        )
    if folder and not folder.uid and file and file.uid:
        raise SettingsError(
            f"data.directory: {settings['data.directory']} belongs to root, and {settings.file} to another account: "
            "give both to the account that serves, or both to root"
        )
    return folder if folder and folder.uid else None


def _owner(path: str) -> Account | None:
    try:
        return owner(os.stat(path))
    except FileNotFoundError:  # an empty path as well
        return None


def _may_say(file: str, account: Account) -> bool:
    """Whether what a settings file says was said by root or by the account itself, and by nobody else."""
    found = os.stat(file)
    if found.st_uid:
        return found.st_uid == account.uid
    return not found.st_mode & 0o002 and (not found.st_mode & 0o020 or found.st_gid == account.gid)


def _make(folder: str) -> None:
    """Make the data folder as the account that it is for, never as root: the account may have written its path."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        name = account_name()
        raise SettingsError(
            f"data.directory: {name} cannot make {error.filename}: {error.strerror}. Let root make it, and give it to {name}: "
            f"install -d -m 700 -o {name.rpartition(' ')[2]} {folder} (ippd install does it for /var/lib/ippd)"
        ) from error
