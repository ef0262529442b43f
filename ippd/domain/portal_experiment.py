"""One experiment of the portal's old server on its way: its files first, then all its rows at once."""

import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ippd import fields
from ippd.blobs import Batch, Blob
from ippd.domain.portal_tables import Tables, made_uuid, moment, text, too_large
from ippd.domain.portal_uploads import Folder
from ippd.domain.states import ENDED
from ippd.domain.submission import safe_name, unique_name
from ippd.errors import Invalid
from ippd.store import Row

if TYPE_CHECKING:
    from pathlib import Path

    from ippd.core import Core
    from ippd.domain.portal_import import Report

STATES = {0: "submitted", 1: "queued", 2: "completed", 3: "failed"}
FACTS = {"app": "app", "experimentName": "name", "experimentDescription": "description"}
INPUTS_MISSING = "its input files were missing when it was brought over"
Files = list[tuple[str, str, str, Blob, float]]  # kind, field, name, what was stored, time of the last change
CHUNK = 1 << 20


class Experiment:
    """A row of the old table that becomes an experiment here."""

    def __init__(self, core: "Core", tables: Tables, uploads: "Path", row: Row, report: "Report") -> None:
        self._core, self._report, self._row, self._tables = core, report, row, tables
        if not (isinstance(row["id"], int) and isinstance(row["uid"], int)):
            raise Invalid("its number or its user's is no whole number")  # they become names of folders
        names = (("input", "submitted"), ("output", "completed"))
        self._folders = {kind: Folder(uploads, str(row["uid"]), name, str(row["id"])) for kind, name in names}
        self._now = core.clock()

    def bring(self, owner: int) -> None:
        """Store it for the user `owner`; when that was done before, add the files that were not there then."""
        row, store = self._row, self._core.store
        key = made_uuid("experiment", f"{row['id']} {row['created']}")
        before = store.one("SELECT id, user_id, status, message, spec, expired_at FROM experiments WHERE uuid = :key", key=key)
        if before:
            self._report.known["experiments"] += 1
            if before["expired_at"] is None:
                self._add_missing(before)
            return
        facts, params = self._settings()
        found = {kind: list(self._files(kind)) for kind in self._folders}
        status = self._status(found)
        with self._core.blobs.batch() as batch:
            files = self._store_files(batch, owner, found, {"input": set(), "output": set()})
            spec = _spec_with({"params": params, "files": {}}, files)
            with store.write():
                kept = self._core.imports.kept("experiments", row["id"])
                id = store.insert("experiments", **kept, uuid=key, user_id=owner, priority=0, restarts=0, spec=spec, **facts,
                                  **self._times(status, _ended(files)), **status)
                if id != row["id"]:
                    self._problem(f"its number is {'too large' if too_large(row['id']) else 'taken here'}: it is now {id}")
                self._insert(owner, id, files)
            batch.keep()
        self._report.brought["experiments"] += 1

    def _add_missing(self, before: Row) -> None:
        """What was brought once and has been removed here since then is not missing."""
        store, id, owner, spec = self._core.store, before["id"], before["user_id"], json.loads(before["spec"])
        known = {"input": {name for names in spec["files"].values() for name in names}, "output": set(spec.get("brought", ()))}
        for row in store.all("SELECT kind, name FROM files WHERE experiment_id = :id", id=id):
            known[row["kind"]].add(row["name"])
        found = {kind: list(self._files(kind)) for kind in self._folders}
        with self._core.blobs.batch() as batch:
            files = self._store_files(batch, owner, found, known)
            if not files:
                return
            status = self._status(found)
            ended = self._times(status, _ended(files)).get("ended_at")
            came_late = before["message"] == INPUTS_MISSING or (before["status"] in ("submitted", "queued") and status["status"] in ENDED)
            with store.write():
                store.update("experiments", id, spec=_spec_with(spec, files))
                if came_late:  # as if they had been there at first; where it has moved on here meanwhile, it stays
                    store.execute(
                        "UPDATE experiments SET status = :status, message = :message, ended_at = :ended WHERE id = :id AND status = :was",
                        id=id, was=before["status"], ended=ended, **({"message": None} | status))
                self._insert(owner, id, files)
            batch.keep()

    def _insert(self, owner: int, id: int, files: Files) -> None:
        for kind, field, name, blob, _ in files:
            self._core.files.insert(owner, id, kind, field, name, blob)
        self._report.brought["files"] += len(files)

    def _problem(self, sentence: str) -> None:
        self._report.problems.append(f"experiment {self._row['id']}: {sentence}")

    def _settings(self) -> tuple[Row, dict[str, str]]:
        """Facts and parameters."""
        label = fields.one_line(text(self._row["label"])) or None
        facts: Row = {"app": "", "name": "", "description": "", "label": label, "host": text(self._row["host"])}
        params = dict[str, str]()
        for row in self._tables.of("experiment_settings", "eid", self._row["id"]):
            name, value = text(row["name"]), text(row["value"])
            if row["name"] is None or row["value"] is None:
                self._problem(f"the setting {row['name']!r} has no {'name' if row['name'] is None else 'value'}")
            if name in FACTS:
                facts[FACTS[name]] = fields.one_line(value) if name != "experimentDescription" else value
            elif name and not self._is_input(value):
                params[name] = value
        if not facts["app"]:
            self._problem("it does not say its app")
        return facts, params

    def _is_input(self, value: str) -> bool:
        """Whether the value of a setting is the path of an input file: the setting is its field then."""
        return re.search(rf"/submitted/{self._row['id']}/[^/]+$", value) is not None

    def _files(self, kind: str) -> Iterator[str]:
        """The names of the files in a folder."""
        folder = self._folders[kind]
        listed = set[str]()
        if kind == "input":
            listed = {os.path.basename(path) for path in self._tables.paths(self._row["id"])}
        entries = list[tuple[str, bool]]()
        try:
            entries = folder.entries()
        except FileNotFoundError:
            if listed or (kind == "output" and self._row["status"] == 2):
                self._problem(f"its folder {folder.path} is missing")
        except NotADirectoryError as error:
            self._problem(f"its folder {folder.path} is left out, links are not followed: {error.strerror}")
        for name, is_file in entries:
            if is_file:
                listed.discard(name)
                yield name
            else:
                self._problem(f"{folder.path / name} is no file: left out")
        for name in sorted(listed) if entries else ():
            self._problem(f"its input {name} is missing")

    def _status(self, found: dict[str, list[str]]) -> Row:
        """The old server forgot to note that results had come, and it took more than these four numbers."""
        old = self._row["status"]
        state = STATES.get(old, "")
        if found["output"] and state != "completed" and state != "failed":
            self._problem(f"it has results although its status is {state or old}: it is completed")
            state = "completed"
        if state == "submitted" and not found["input"] and self._tables.paths(self._row["id"]):
            return {"status": "failed", "message": INPUTS_MISSING}
        if not state:
            self._problem(f"its status {old!r} is none: it has failed")
            return {"status": "failed", "message": f"its status was {old!r} when it was brought over"}
        return {"status": state}

    def _times(self, status: Row, ended: float) -> Row:
        created = moment(self._row["created"])
        if created is None:
            self._problem(f"its time {self._row['created']!r} is none: it is now")
            created = self._now
        times = {"created_at": created, "submitted_at": created}
        if status["status"] == "queued":  # by a script of the old server, which will bring results: not to be handed out again
            times |= {"queued_at": self._now, "acknowledged_at": self._now}
        elif status["status"] != "submitted":
            times["ended_at"] = ended or created
        return times

    def _store_files(self, batch: Batch, owner: int, found: dict[str, list[str]], known: dict[str, set[str]]) -> Files:
        """Store the files that were found, but for those whose names here are `known`."""
        values = [(text(row["name"]), text(row["value"])) for row in self._tables.of("experiment_settings", "eid", self._row["id"])]
        fields_of = {os.path.basename(value): name for name, value in values if name not in FACTS and self._is_input(value)}
        files: Files = []
        for kind, names in found.items():
            taken = set[str]()
            for name in names:
                ours = unique_name(safe_name(name), taken)
                if ours in known[kind]:
                    self._report.known["files"] += 1
                    continue
                with self._folders[kind].file(name) as source:
                    blob = batch.write(owner, iter(lambda source=source: source.read(CHUNK), b""))  # type: ignore[misc]
                    files.append((kind, fields_of.get(name, "file"), ours, blob, os.fstat(source.fileno()).st_mtime))
        return files


def _spec_with(spec: Row, files: Files) -> str:
    """The spec of an experiment, with these files brought."""
    for kind, field, name, *_ in files:
        where = spec["files"].setdefault(field, []) if kind == "input" else spec.setdefault("brought", [])
        where.append(name)
    return json.dumps(spec, ensure_ascii=False)


def _ended(files: Files) -> float:
    return max((time for kind, _, _, _, time in files if kind == "output"), default=0.0)
