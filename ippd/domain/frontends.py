"""A frontend is unpacked beside the link that leads to it, and the link is put onto it in one step."""

import bz2  # noqa: F401  # these three tarfile imports late: then as an account that may not be able to read them
import gzip  # noqa: F401
import lzma  # noqa: F401
import os
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

from ippd import releases
from ippd.errors import Conflict, Invalid

PREVIOUS = ".previous"
INDEX = "index.html"
FIRST = "before-updates"  # what a frontend is called that no release has brought


def take_in(link: Path, release: releases.Release, source: IO[bytes], check: bool) -> None:
    """Unpack an archive beside `link` and let the link lead to it; with `check`, only unpack it and look.

    Raises Forbidden for an archive that is not the signed one, Invalid for one that is no frontend, Conflict, OSError.
    """
    place = Path(f"{link}.versions") / release.version
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
            point(link, place)


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


def point(link: Path, place: Path) -> None:
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
