"""The upload folder of the portal's old server: no link in it is followed, and what is not there is told from what cannot be read."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ippd.errors import Invalid

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LINKS = (errno.ELOOP, errno.ENOTDIR)  # what O_NOFOLLOW says of a link, with O_DIRECTORY


def check_uploads(uploads: Path) -> None:
    """Raise Invalid for a folder that cannot be read: each experiment would seem to have lost its files."""
    try:
        os.close(os.open(uploads, FOLDER & ~os.O_NOFOLLOW))
    except (OSError, ValueError) as error:
        raise Invalid(f"{uploads} is no upload folder that can be read: {getattr(error, 'strerror', error)}") from error


class Folder:
    """One folder of an experiment. Whatever keeps it from being read, but that it is missing or a link, raises Invalid."""

    def __init__(self, uploads: Path, *names: str) -> None:
        self._uploads, self._names = uploads, names
        self.path = uploads.joinpath(*names)

    def entries(self) -> list[tuple[str, bool]]:
        """(name, whether it is a file) of each entry, sorted. Raises FileNotFoundError, NotADirectoryError for a link on the way."""
        with self._told(self.path), self._open() as at, os.scandir(at) as found:
            return sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in found)

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """One of its files, for reading. Raises FileNotFoundError, NotADirectoryError when it has become a link."""
        with self._told(self.path / name), self._open() as at:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        with open(descriptor, "rb") as file:
            yield file

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The descriptor of the folder; a link below the uploads could lead to any file of this host. Raises OSError."""
        at = os.open(self._uploads, FOLDER & ~os.O_NOFOLLOW)
        try:
            for name in self._names:
                outer, at = at, os.open(name, FOLDER, dir_fd=at)
                os.close(outer)
            yield at
        finally:
            os.close(at)

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in LINKS:
                raise NotADirectoryError(error.errno, error.strerror, str(path)) from None
            raise Invalid(f"{path} cannot be read ({error.strerror}): import again once it can be") from error
