"""What a job has made: its result files, what it printed, what it used."""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ippd.calls import Upload
from ippd.runners import files
from ippd.worker.journal import Entry

LAST = 4096  # bytes at the end of a text where the last line is looked for
CHILDREN = re.compile(r"(\d{1,9})m(\d{1,9}(?:\.\d{1,9})?)s")


def results(entry: Entry) -> list[Upload]:
    """The files to bring back: those that the app's Outputs name (below its folder), else all in results/, else all but the inputs.

    What the program printed comes with them as log.txt and errors.txt. Links are left out: they could lead anywhere.
    """
    work = entry.path("work")
    patterns = entry.item["backend"]["outputs"]
    found = [path for path in _files(work) if path.relative_to(work).parts[0] != "inputs"]
    if patterns:
        found = [path for path in found if any(fnmatch.fnmatchcase(str(path.relative_to(work)), pattern) for pattern in patterns)]
    else:
        found = [path for path in found if path.relative_to(work).parts[0] == "results"] or found
    uploads = [Upload("file", _name(path.relative_to(work)), path) for path in found]
    taken = {upload.name for upload in uploads}
    for name, printed in (("log.txt", "stdout.txt"), ("errors.txt", "stderr.txt")):
        path = entry.path(printed)
        if name not in taken and files.size(path):
            uploads.append(Upload("file", name, path))
    return uploads


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _name(path: Path) -> str:
    parts = path.parts[1:] if path.parts[0] == "results" and len(path.parts) > 1 else path.parts
    return "_".join(parts)


def usage(entry: Entry, engine: str) -> dict[str, Any]:
    """What is known of the job's run, from its own folder, else from the engine's books; what is not known is None."""
    seconds = [60 * int(minutes) + float(rest) for minutes, rest in CHILDREN.findall(entry.text("times"))]
    peak = entry.text("peak").splitlines()
    found = {
        "engine": engine,
        "job": entry.engine_id or None,
        "node": entry.text("node").split("\n")[0][:255] or None,
        "started_at": files.number(entry.text("start")),
        "ended_at": files.number(entry.text("end")),
        "cpu_seconds": round(sum(seconds), 3) if seconds else None,
        "peak_bytes": int(peak[-1]) * 1024 if peak and re.fullmatch("[0-9]{1,15}", peak[-1]) else None,
    }
    return {name: entry.books.get(name) if value is None else value for name, value in found.items()}


def reason(entry: Entry, status: int) -> str:
    """Why a program failed, in words: its last line on standard error, else its status."""
    for name in ("stderr.txt", "stdout.txt", "engine.txt"):
        try:
            with files.opened(entry.path(name)) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LAST))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            continue
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if last:
            program = entry.item["backend"]["executable"]  # where it lies is not the user's business
            last = last.removeprefix("/usr/bin/time: ").replace(program, os.path.basename(program))
            return "".join(letter if letter.isprintable() else " " for letter in last)[:300]
    return end(status)


def end(status: int) -> str:
    """What an exit status says."""
    return f"the program was killed by signal {status - 128}" if status > 128 else f"the program ended with status {status}"
