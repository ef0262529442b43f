"""Puts a new program in the place of the running one; what was cut short in the middle is finished or undone by whoever comes next."""

import json
import os
from contextlib import suppress
from pathlib import Path

from ippd.blobs import flush_folder
from ippd.host.handover import hand_over, running
from ippd.releases import Release, digest
from ippd.wholefile import whole_file

PREVIOUS = ".previous"


def marker(target: Path) -> Path:
    """The file beside a program that is there while an update of it is under way."""
    return target.with_name(f".{target.name}.updating")


def swap(target: Path, new: Path, release: Release, folder: Path) -> bool:
    """Put `new` in place and let the daemon over `folder` go over to it; False when that failed: then all is as it was."""
    previous = target.with_name(target.name + PREVIOUS)
    older, spare = (target.with_name(f".{target.name}.{what}") for what in ("older", "spare"))
    for path, name in ((previous, older), (target, spare)):
        name.unlink(missing_ok=True)
        if path.exists():
            os.link(path, name)
    said = {"version": release.version, "size": release.size, "sha256": release.sha256, "daemon": running(folder)}
    with whole_file(marker(target), 0o644) as file:
        file.write(json.dumps(said).encode())
    spare.rename(previous)
    new.rename(target)  # one step: there is always a program
    flush_folder(target.parent)
    if hand_over(folder):
        older.unlink(missing_ok=True)
        _forget(target)
        return True
    _undo(target, in_place=True)
    return False


def mend(target: Path, folder: Path) -> str:
    """Finish or undo an update that was killed in the middle; returns what was done as a sentence, empty when nothing had to be.

    It is finished when another daemon runs than at its beginning: that one has come up with the new program. Else nothing says that the
    new program comes up, and the one before it is put back.
    """
    try:
        said = json.loads(marker(target).read_text(encoding="ascii"))
        version, like, daemon = said["version"], (said["size"], said["sha256"]), said["daemon"]
    except FileNotFoundError:
        return ""
    with open(target, "rb") as file:
        in_place = digest(file) == like
    if in_place and running(folder) not in (0, daemon):
        target.with_name(f".{target.name}.older").unlink(missing_ok=True)
        _forget(target)
        return f"an update to version {version} was cut short, and has come to its end: the daemon runs with it"
    _undo(target, in_place)
    return f"an update to version {version} was cut short, and has been undone: the program before it is in its place again"


def _undo(target: Path, in_place: bool) -> None:
    """The program before is in its place again, and the one before that is the one to go back to. What is done already does no harm."""
    previous = target.with_name(target.name + PREVIOUS)
    older, spare = (target.with_name(f".{target.name}.{what}") for what in ("older", "spare"))
    if in_place and previous.exists():
        previous.rename(target)
    with suppress(FileNotFoundError):
        if previous.samefile(target):  # killed between the two renames
            previous.unlink()
    if older.exists():
        older.replace(previous)
    for left in (older, spare):  # two names of one file stay after a rename
        left.unlink(missing_ok=True)
    _forget(target)


def _forget(target: Path) -> None:
    """The update is at its end, and stays so: after a power cut its marker would have it undone."""
    flush_folder(target.parent)  # what was renamed comes first
    marker(target).unlink()
    flush_folder(target.parent)
