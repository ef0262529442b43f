"""One call of a command: its arguments, and the settings and the core, made when they are first asked for."""

import os
import pwd
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

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
        become_owner(self.settings["data.directory"])
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


def become_owner(folder: str) -> None:
    """When root calls, go on as the account that owns the data folder: the daemon must be able to use each file."""
    owner = _other_owner(folder)
    if owner:
        _take_groups(owner)
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


@contextmanager
def as_owner(folder: str) -> Iterator[None]:
    """Like `become_owner`, and root again at the end of the block."""
    owner, groups = _other_owner(folder), os.getgroups()
    if owner:
        _take_groups(owner)
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        if owner:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def _other_owner(folder: str) -> os.stat_result | None:
    try:
        owner = os.stat(folder)
    except FileNotFoundError:
        return None
    return owner if os.geteuid() == 0 and owner.st_uid != 0 else None


def _take_groups(owner: os.stat_result) -> None:
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # an account without a name, as in a container
        os.setgroups([owner.st_gid])
