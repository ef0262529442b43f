"""One call of a command: its arguments, and the settings and the core, made when they are first asked for."""

import os
import pwd
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import NamedTuple

from ippd.core import Core, open_core
from ippd.errors import SettingsError
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
    print(f"ippd: {sentence}", file=sys.stderr)


class Account(NamedTuple):
    """Numbers of an account and its group."""

    uid: int
    gid: int


def become_owner(settings: Settings, make: bool = True) -> None:
    """When root calls, go on as the account that serves: the daemon must be able to use each file. `make`: its data folder, if missing."""
    account = _serving_account(settings)
    if account:
        _make(settings["data.directory"], account) if make else None
        _take_groups(account)
        os.setgid(account.gid)
        os.setuid(account.uid)


@contextmanager
def as_owner(settings: Settings) -> Iterator[None]:
    """Like `become_owner`, and root again at the end of the block."""
    account, groups = _serving_account(settings), os.getgroups()
    if account:
        _make(settings["data.directory"], account)
        _take_groups(account)
        os.setegid(account.gid)
        os.seteuid(account.uid)
    try:
        yield
    finally:
        if account:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def _serving_account(settings: Settings) -> Account | None:
    """The account that serves, when root calls and it is another one: who owns the data folder; before there is one, the settings file.

    Raises SettingsError when the file is another account's and names a folder of root's: what root does must not be for others to say.
    """
    if os.geteuid():
        return None
    folder, file = _owner(settings["data.directory"]), _owner(settings.file)
    if folder is None and file and file.uid:
        with suppress(KeyError):
            return Account(file.uid, pwd.getpwuid(file.uid).pw_gid)
        return file
    if folder and not folder.uid and file and file.uid:
        raise SettingsError(
            f"data.directory: {settings['data.directory']} belongs to root, and {settings.file} to another account: "
            "give both to the account that serves, or both to root"
        )
    return folder if folder and folder.uid else None


def _owner(path: str) -> Account | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:  # an empty path as well
        return None
    return Account(found.st_uid, found.st_gid)


def _make(folder: str, account: Account) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o700)
        os.chown(folder, *account)


def _take_groups(account: Account) -> None:
    try:
        os.initgroups(pwd.getpwuid(account.uid).pw_name, account.gid)
    except KeyError:  # an account without a name, as in a container
        os.setgroups([account.gid])
