"""Quotas: what a user may store and have waiting."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ippd.domain.states import WAITS
from ippd.errors import NoSpace, TooLarge, TooMany

if TYPE_CHECKING:
    from ippd.core import Core

# Each has a default in the settings (limits.NAME) and may be set per group; of several groups the best counts.
USER_LIMITS = ("files_per_experiment", "file_bytes", "user_bytes", "waiting_experiments", "running_experiments", "kept_experiments")
# This one is a group's, not a member's: how many experiments all of them together may have running.
LIMITS = (*USER_LIMITS, "running_together")
LEAST_FILE = 4096  # bytes that a file takes on a disk at least: an empty one has its place in a folder and its inode


def counted(size: int) -> int:
    """The bytes that a file of `size` bytes counts for."""
    return max(size, LEAST_FILE)


def check_room(limits: dict[str, int], room: int, wanted: int) -> None:
    """Raise NoSpace when `wanted` bytes are more than the `room` that a user has."""
    if wanted > room:
        raise NoSpace(f"this would take more than the {limits['user_bytes']} bytes that you may store: remove old experiments")


class Meter:
    """Counts the files of one submission while they come in, and breaks it off past its room: not every form says how long it is."""

    def __init__(self, limits: dict[str, int], room: int) -> None:
        self._limits, self._room, self._counted = limits, room, 0

    def file(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, of the next file. Raises NoSpace before one for which there is no room, and before the first."""
        before, size = self._counted, 0
        for chunk in itertools.chain((b"",), chunks):
            size += len(chunk)
            self._counted = before + counted(size)
            check_room(self._limits, self._room, self._counted)
            yield chunk


class Limits:
    """Answers what a user may do, and refuses what is more."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    def of(self, user: int) -> dict[str, int]:
        """The limits of a user: name -> number (bytes for the *_bytes)."""
        own = self._store.all(
            "SELECT l.name, MAX(l.value) AS value FROM limits l JOIN members m ON m.group_id = l.group_id "
            "WHERE m.user_id = :user AND l.name <> 'running_together' GROUP BY l.name",
            user=user,
        )
        return {name: self._core.settings[f"limits.{name}"] for name in USER_LIMITS} | {row["name"]: row["value"] for row in own}

    def used(self, user: int) -> int:
        """The bytes that a user's files take; each counts as one of LEAST_FILE bytes at least."""
        used = f"SELECT COALESCE(SUM(MAX(bytes, {LEAST_FILE})), 0) FROM files WHERE user_id = :user"
        return int(self._store.value(used, user=user))

    def check(self, user: int, limits: dict[str, int], wanted: int) -> int:
        """Refuse a submission of `wanted` bytes: before its first byte by the announced length, and at its end by the real one.

        Returns the bytes that the user has room for. Raises NoSpace past them and past the experiments that are kept, TooMany past
        those that may wait.
        """
        count = "SELECT COUNT(*) FROM experiments WHERE user_id = :user"
        ((waiting, kept),) = self._store.tuples(f"SELECT ({count} AND {WAITS}), ({count})", user=user)
        if waiting >= limits["waiting_experiments"]:
            raise TooMany(f"at most {limits['waiting_experiments']} experiments may wait at once", retry_after=60)
        if kept >= limits["kept_experiments"]:  # what they say stays when their files have gone
            raise NoSpace(f"at most {limits['kept_experiments']} experiments are kept: ask for old ones to be removed")
        room = limits["user_bytes"] - self.used(user)
        check_room(limits, room, wanted)
        return room

    def check_disk(self) -> None:
        """Raise NoSpace when users may add nothing: what is left is for logging in, for removing and for what goes by the clock."""
        self._core.blobs.check_rows(self._store.log_size())

    def check_params(self, params: dict[str, str]) -> None:
        """Refuse parameters that take more than `limits.params_bytes` as they are kept: they are in every listing. Raises TooLarge."""
        most = self._core.settings["limits.params_bytes"]
        if len(json.dumps(params, ensure_ascii=False).encode()) > most:
            raise TooLarge(f"the parameters of an experiment may have at most {most} bytes together")

    def check_announced(self, user: int, limits: dict[str, int], announced: int) -> int:
        """Refuse a form by its announced length in bytes, before any of it is read. Raises and returns like `check`; also TooLarge."""
        # A form is a little longer than its files: what the text of one may take is not held against them.
        files = max(0, announced - self._core.settings["limits.form_bytes"])
        if files > limits["file_bytes"] * limits["files_per_experiment"]:
            raise TooLarge(f"a file may have at most {limits['file_bytes']} bytes")
        room = self.check(user, limits, files)
        self.check_disk()
        self._core.blobs.check_room(files)
        return room
