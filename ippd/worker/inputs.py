"""What a job needs before it is submitted: its input files, whole, and its command as a list of words."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ippd import command
from ippd.calls import Damaged, Server
from ippd.runners.launcher import LAUNCHER
from ippd.worker.journal import Entry

TRIES = 3  # times that an input may arrive broken


def bring(server: Server, entry: Entry) -> bool:
    """Bring the inputs that are not there yet; returns whether all are whole now. Raises ValueError for one that never will be."""
    for file in entry.item["inputs"]:
        name = file["name"]
        if name != os.path.basename(name) or name.startswith("."):
            raise ValueError(f"an input has the impossible name {name!r}")
        path = entry.path("work") / "inputs" / name
        if _is_whole(path, file):
            continue
        with suppress(Damaged):  # else it would be brought for ever
            server.download(f"/experiments/{entry.id}/file", path, path=name, claim=entry.claim)
        if not _is_whole(path, file):
            path.unlink(missing_ok=True)
            entry.tries += 1
            if entry.tries >= TRIES:
                raise ValueError(f"the input {name} arrives with a wrong checksum")
            entry.save()
            return False
    return True


def prepare(entry: Entry, container: str) -> None:
    """Write the words of the command and the job's script; `container` are the words before a program in one.

    Raises ValueError when the command cannot be made.
    """
    item, folder = entry.item, str(entry.path("work"))
    words = command.words(item["backend"], item["params"], item["files"], folder)
    if item["backend"]["container"]:
        words = command.contained(container, item["backend"]["container"], folder, words)
    for number, word in enumerate(words):
        (entry.path("words") / str(number)).write_bytes(word.encode("utf-8", "surrogateescape"))
    entry.path("path").write_text(os.environ.get("PATH", os.defpath))  # engines differ in what they pass on
    entry.path("job.sh").write_text(LAUNCHER)
    entry.path("job.sh").chmod(0o700)


def _is_whole(path: Path, file: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file["sha256"]
