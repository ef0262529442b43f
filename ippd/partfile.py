"""What a download has of a file before it is whole: NAME.part, and beside it, in NAME.part.etag, which version of the file it is."""

import os
import re
from pathlib import Path
from typing import IO

from ippd.errors import Invalid


def etag_file(part: Path) -> Path:
    """Where the ETag of a part is kept."""
    return part.with_name(part.name + ".etag")


def check_own(part: Path) -> None:
    """Raises Invalid when a part, or the file of its ETag, is there and cannot be from a download."""
    known = etag_file(part)
    for path in (part, known):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise Invalid(f"{path} is not a file of a download: move it away")
    if part.exists() and not known.exists():
        raise Invalid(f"{part} is there already and is not from a download: move it away")


def begun(part: Path) -> tuple[int, str]:
    """How many bytes of a part are there, and its ETag; (0, "") when the download cannot go on."""
    known = etag_file(part)
    if not part.is_file() or not known.is_file():
        return 0, ""
    with open(known, "rb") as file:
        etag = file.read(200).decode("latin-1")
    return (part.stat().st_size, etag) if re.fullmatch("[!#-~]+", etag) else (0, "")


def opened(part: Path, etag: str, append: bool) -> IO[bytes]:
    """A part to be written to, from its end or anew, once its ETag is kept. Raises OSError, also when one of the two is a link."""
    with _opened(etag_file(part), os.O_TRUNC) as file:
        file.write(etag.encode())
    return _opened(part, os.O_APPEND if append else os.O_TRUNC)


def _opened(path: Path, flags: int) -> IO[bytes]:
    flags |= os.O_WRONLY | os.O_NOFOLLOW | (0 if path.exists() else os.O_CREAT | os.O_EXCL)
    return os.fdopen(os.open(path, flags, 0o666), "wb")
