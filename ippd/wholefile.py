"""Files that are there whole or not at all: written under another name, flushed, renamed."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ippd.blobs import flush_folder

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(path: Path, mode: int = 0o600, replace: bool = True) -> Iterator[BinaryIO]:
    """A new file to write to, that has the name `path` (and is on the disk) only after the block has ended without an exception.

    An existing file is replaced in one step; with `replace=False` it raises FileExistsError instead, before the block and at its end.
    """
    if not replace and path.exists():
        raise FileExistsError(17, "is there already", str(path))
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:  # nobody knows the partial name: what is wrong is the folder
        raise OSError(error.errno, error.strerror, str(path.parent)) from None
    try:
        with open(descriptor, "w+b") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            partial.rename(path)
        else:
            os.link(partial, path)
            partial.unlink()
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:  # a write knows no name
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    flush_folder(path.parent)
