"""The commands `ippd backup` and `ippd restore`."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ippd.cli.call import Call, as_owner, become_owner, warn
from ippd.cli.show import moment
from ippd.daemon import locked
from ippd.domain import restore as restoring
from ippd.domain.archive import Progress
from ippd.errors import Forbidden
from ippd.host.account import safe_for_root
from ippd.permissions import OPERATOR
from ippd.wholefile import whole_file

WIDTH = 40
REDRAW = 0.2  # seconds between two pictures of the bar


def backup(call: Call) -> int:
    """Make a backup, or verify one; 1 when files were damaged before it was made."""
    path = Path(call.arguments.file)
    if call.arguments.verify:
        with open(path, "rb") as file, bar("verify", path.stat().st_size) as progress:
            verified = restoring.verify(file, progress)
        return _told(verified.damage, f"{path}: all is as it was written on {moment(verified.facts['created_at'])}, "
                     f"{verified.facts['files']} files")
    _go_where(path, call)
    # The file belongs to whoever calls; what is read belongs to the daemon.
    with whole_file(path, replace=False) as file, as_owner(call.settings):
        with bar("backup", call.core.backups.size(OPERATOR)) as progress:
            made = call.core.backups.make(OPERATOR, file, progress)
        size = file.tell()
    return _told(made.damage, f"{path}: {made.files} files and the database, {size} bytes")


def _go_where(path: Path, call: Call) -> None:
    """Root goes on as the account that serves to write below a folder of that account, which may put a link in the place of any of them.

    Raises Forbidden for a folder of a third account: it would get the secrets.
    """
    account = safe_for_root(path.absolute().parent)
    if account is None:
        return
    become_owner(call.settings)
    if os.geteuid() != account.uid:
        raise Forbidden(
            f"root makes no backup below {path.absolute().parent}, where the account {account.uid} may exchange folders: "
            "name a folder that only root may change"
        )


def restore(call: Call) -> int:
    """Put a backup back."""
    settings = call.settings
    path = Path(call.arguments.file)
    folder, uploads = Path(settings["data.directory"]), Path(settings["data.uploads"])
    with open(path, "rb") as file, bar("restore", path.stat().st_size) as progress:
        become_owner(settings)  # who reads the backup need not be who owns the data
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder):  # not while a daemon runs
            verified = restoring.restore(file, folder, uploads, call.arguments.overwrite, progress)
    return _told(verified.damage, f"{folder}: as it was on {moment(verified.facts['created_at'])}, {verified.facts['files']} files")


def _told(damage: list[str], sentence: str) -> int:
    print(sentence)
    for one in damage:
        warn(f"damaged before the backup was made: {one}")
    return 1 if damage else 0


@contextmanager
def bar(what: str, total: int) -> Iterator[Progress]:
    """A progress bar for about `total` bytes, on a terminal only."""
    done, shown = 0, 0.0

    def draw(part: float, end: str = "") -> None:
        filled = int(WIDTH * part)
        print(f"\r{what} [{'#' * filled}{'.' * (WIDTH - filled)}] {100 * part:3.0f} %", end=end, file=sys.stderr, flush=True)

    def progress(size: int) -> None:
        nonlocal done, shown
        done += size
        if time.monotonic() - shown > REDRAW:
            shown = time.monotonic()
            draw(min(1.0, done / max(1, total)))

    if not sys.stderr.isatty():
        yield lambda size: None
        return
    yield progress
    draw(1.0, "\n")
