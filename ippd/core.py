"""The core: puts the domain together over one store, one upload folder and one clock."""

import os
import pwd
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ippd import certificate
from ippd.blobs import Blobs, private_text
from ippd.domain.apps import Apps
from ippd.domain.attempts import Attempts
from ippd.domain.backup import Backups, before_migration
from ippd.domain.experiments import Experiments
from ippd.domain.files import Files
from ippd.domain.groups import Groups
from ippd.domain.housekeeping import Housekeeping
from ippd.domain.leases import Leases
from ippd.domain.limits import Limits
from ippd.domain.notifications import Notifications
from ippd.domain.output import Outputs
from ippd.domain.passwords import Passwords
from ippd.domain.portal_import import Imports
from ippd.domain.queue import Queue
from ippd.domain.restore import UNDER_WAY
from ippd.domain.runs import Runs
from ippd.domain.sessions import Sessions
from ippd.domain.updates import Updates
from ippd.domain.users import Users
from ippd.errors import IppdError, NoSpace, SettingsError, Unavailable
from ippd.schema import MIGRATIONS
from ippd.store import Store


class Core:
    """Everything ippd knows and can do, for any edge: `core.experiments.submit(actor, parts)`.

    `settings` may be replaced while it runs (those settings that can change); `secret` signs tokens.
    """

    def __init__(self, settings: Mapping[str, Any], store: Store, blobs: Blobs, clock: Callable[[], float] = time.time) -> None:
        self.settings, self.store, self.blobs, self.clock = settings, store, blobs, clock
        self.secret = private_text(Path(settings["data.directory"]) / "secret", lambda: secrets.token_hex(32))
        self.passwords = Passwords(settings["auth.bcrypt_cost"], settings["auth.waiting_hashes"])
        self.attempts = Attempts(self)
        self.limits = Limits(self)
        self.groups = Groups(self)
        self.users = Users(self)
        self.sessions = Sessions(self)
        self.files = Files(self)
        self.experiments = Experiments(self)
        self.apps = Apps(self)
        self.queue = Queue(self)
        self.leases = Leases(self)
        self.runs = Runs(self)
        self.outputs = Outputs(self)
        self.notifications = Notifications(self)
        self.housekeeping = Housekeeping(self)
        self.backups = Backups(self)
        self.imports = Imports(self)
        self.updates = Updates(self)

    def certificate_path(self) -> Path:
        """The certificate of the public listener: the one of the settings, else the self-made one."""
        return Path(certificate.pair(self.settings)[0])

    def key_path(self) -> Path:
        """The private key that belongs to `certificate_path`."""
        return Path(certificate.pair(self.settings)[1])

    def check_alive(self) -> None:
        """Read from the store. Raises what a new start of the daemon could mend, and nothing else.

        A full disk, somebody's lock, a read-only file system or a damaged database would be met again: `ready` tells these.
        """
        try:
            self._read()
        except (NoSpace, Unavailable) as error:
            if "unable to open" in str(error):  # no descriptor is left, for one
                raise IppdError("the database cannot be opened") from error

    def _read(self) -> None:
        self.store.one("SELECT value FROM meta WHERE name = 'schema'")

    def ready(self) -> list[str]:
        """What keeps the daemon from doing its work now, as sentences; empty when all is well."""
        problems = []
        try:
            self._read()
        except IppdError as error:
            problems.append(str(error))
        try:
            self.limits.check_disk()
        except NoSpace:
            problems.append("there is no room for uploads on the disk")
        return problems

    def close(self) -> None:
        """Close the store's connections."""
        self.store.close()


def open_core(settings: Mapping[str, Any], clock: Callable[[], float] = time.time) -> Core:
    """The core over the data folder of the settings: makes folders (0700) and secrets (0600), migrates the database.

    Raises SettingsError when the folder cannot be made or belongs to somebody else, Unavailable for a database that is too new or
    half restored.
    """
    folder = Path(settings["data.directory"])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner != os.geteuid():  # who owns a folder can put another secret into it
            raise SettingsError(f"data.directory: {folder} belongs to {_name(owner)}, and this is {_name(os.geteuid())}")
        folder.chmod(0o700)
        blobs = Blobs(Path(settings["data.uploads"] or folder / "uploads"), settings["data.reserve"], folder / "reserve")
        blobs.prepare()
    except OSError as error:
        raise SettingsError(f"data.directory: {error.filename or folder}: {error.strerror}") from error
    if (folder / UNDER_WAY).exists():
        raise Unavailable(f"a restore into {folder} did not come to its end: run it again")
    database = folder / "ippd.sqlite"
    os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    store = Store(database, on_full=blobs.release_reserve, make_room=blobs.make_room)
    if 0 < store.version() < len(MIGRATIONS):
        before_migration(store, Path(settings["backup.directory"] or folder / "backups"), settings["backup.keep"], clock)
    store.migrate()
    return Core(settings, store, blobs, clock)


def _name(uid: int) -> str:
    try:
        return f"the account {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the account with the number {uid}"
