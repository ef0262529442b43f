"""Brings the data of the portal's old server over: users, groups, experiments and files; its damage is reported, never fatal."""

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.blobs import Batch
from ippd.domain.limits import LIMITS
from ippd.domain.portal_tables import Tables, moment, open_old, text
from ippd.domain.submission import safe_name, unique_name
from ippd.errors import Invalid, IppdError
from ippd.permissions import Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

# The same thing gets the same uuid each time: so an import that was interrupted goes on where it was.
NAMESPACE = uuid.UUID("6f0c6a52-3f0e-5d0b-9a51-0d3f5b1f7c11")
STATES = {0: "submitted", 1: "queued", 2: "completed", 3: "failed"}
FACTS = {"app": "app", "experimentName": "name", "experimentDescription": "description"}
BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
NO_PASSWORD = "!"  # matches nothing
LARGEST_ID = 10**15  # larger ones are not kept: after the largest of all, no table could give out another
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20


class Report:
    """What was brought over, what was there already, and sentences about what was damaged."""

    def __init__(self) -> None:
        self.brought: Counter[str] = Counter()
        self.known: Counter[str] = Counter()
        self.problems: list[str] = []


class Imports:
    """Imports from other servers."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._store = core.store

    @permits("portal.import")
    def portal(self, actor: Actor, database: Path, uploads: Path, progress: Callable[[str], None] = lambda what: None) -> Report:
        """Bring everything over from the old database and its upload folder, which are only read. Doing it again adds what is new.

        Users keep their passwords; ids stay where they are free. `progress` is called with each thing brought. Raises Invalid for a
        file that is no database of the old server, NoSpace.
        """
        report = Report()
        with closing(open_old(database)) as old:
            tables = Tables(old, report.problems)
            users = self._users(tables, report)
            self._groups(tables, users, report)
            for row in tables.rows("experiments", "id"):
                if row["uid"] not in users:
                    report.problems.append(f"experiment {row['id']}: its user {row['uid']} is not there: left out")
                    continue
                try:
                    _Experiment(self._core, tables, uploads, row, report).bring(users[row["uid"]])
                except (OSError, ValueError, Invalid) as error:  # ValueError: a file name that is no text
                    report.problems.append(f"experiment {row['id']}: left out: {error}")
                progress("experiment")
        return report

    def _users(self, tables: Tables, report: Report) -> dict[int, int]:
        """Old id -> new id."""
        ids: dict[int, int] = {}
        for row in tables.rows("users", "id"):
            email = fields.address(str(row["email"] or ""))
            if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
                report.problems.append(f"user {row['id']}: {email!r} is no e-mail address: left out")
                continue
            known = self._store.value("SELECT id FROM users WHERE email = :email", email=email)
            if known is not None:
                if known in ids.values():
                    report.problems.append(f"user {row['id']}: {email} is there twice: joined with the first")
                report.known["users"] += 1
                ids[row["id"]] = known
                continue
            ids[row["id"]] = self._user(tables, row, email, report)
            report.brought["users"] += 1
        return ids

    def _user(self, tables: Tables, row: Row, email: str, report: Report) -> int:
        password = row["password"].decode("ascii", "replace") if isinstance(row["password"], bytes) else str(row["password"] or "")
        if not BCRYPT.fullmatch(password):
            report.problems.append(f"user {row['id']}: {email} has no password that can be read: it must be reset")
            password = NO_PASSWORD
        settings: dict[str, str] = {}
        for setting in tables.of("user_settings", "uid", row["id"]):
            try:
                settings |= self._core.users.checked({str(setting["name"] or ""): text(setting["value"])})
            except IppdError as error:
                report.problems.append(f"user {row['id']}: {email}: the setting {setting['name']!r} is left out: {error}")
        now = moment(row["token_created"]) or self._core.clock()
        approved = str(row["approved"]) in ("1", "True", "true")
        facts = {"uuid": _uuid("user", email), "email": email, "password": password, "settings": json.dumps(settings, ensure_ascii=False)}
        with self._store.write() as store:
            id = store.insert("users", **self.kept("users", row["id"]), **facts, status="approved" if approved else "pending",
                              created_at=now, decided_at=now if approved else None)
        if too_large(row["id"]):
            report.problems.append(f"user {row['id']}: {email}: its number is too large: it is now {id}")
        return id

    def kept(self, table: str, id: Any) -> Row:
        """{"id": id} when this id was never given out here."""
        if not isinstance(id, int) or id < 1 or too_large(id) or self._store.one(f"SELECT id FROM {table} WHERE id = :id", id=id):
            return {}
        used = self._store.value("SELECT seq FROM sqlite_sequence WHERE name = :table", table=table) or 0
        return {"id": id} if id > used else {}

    def _groups(self, tables: Tables, users: dict[int, int], report: Report) -> None:
        groups: dict[int, int] = {}
        for row in tables.rows("groups", "id"):
            try:
                name = fields.check(fields.GroupName, {"name": text(row["name"])})["name"]
            except Invalid as error:
                report.problems.append(f"group {row['id']}: left out: {error}")
                continue
            known = self._store.value("SELECT id FROM groups WHERE name = :name", name=name)
            groups[row["id"]] = known if known is not None else self._store.insert("groups", name=name)
            (report.known if known is not None else report.brought)["groups"] += 1
        for row in tables.rows("user_groups", "uid"):
            if row["uid"] not in users or row["gid"] not in groups:
                report.problems.append(f"membership of user {row['uid']} in group {row['gid']}: one of them is not there: left out")
                continue
            new = self._store.execute(
                "INSERT INTO members (group_id, user_id) VALUES (:group, :user) ON CONFLICT (group_id, user_id) DO NOTHING",
                group=groups[row["gid"]], user=users[row["uid"]])
            (report.brought if new else report.known)["memberships"] += 1
        for row in tables.rows("limits", "id"):
            value = text(row["value"])
            if row["gid"] not in groups or row["name"] not in LIMITS or not re.fullmatch(r"[0-9]{1,18}", value):
                report.problems.append(f"limit {row['name']}={value} of group {row['gid']} has no meaning here: left out")
                continue
            new = self._store.execute(
                "INSERT INTO limits (group_id, name, value) VALUES (:group, :name, :value) ON CONFLICT (group_id, name) DO NOTHING",
                group=groups[row["gid"]], name=row["name"], value=int(value))
            (report.brought if new else report.known)["limits"] += 1


class _Experiment:
    """One experiment on its way: its files first, then all its rows at once."""

    def __init__(self, core: "Core", tables: Tables, uploads: Path, row: Row, report: Report) -> None:
        self._core, self._report, self._row, self._tables = core, report, row, tables
        if not (isinstance(row["id"], int) and isinstance(row["uid"], int)):
            raise Invalid("its number or its user's is no whole number")  # they become names of folders
        self._uploads = uploads
        self._folders = {kind: (str(row["uid"]), name, str(row["id"])) for kind, name in (("input", "submitted"), ("output", "completed"))}
        self._now = core.clock()

    def bring(self, owner: int) -> None:
        """Store it for the user `owner`, unless that was done before."""
        row, store = self._row, self._core.store
        key = _uuid("experiment", f"{row['id']} {row['created']}")
        if store.one("SELECT id FROM experiments WHERE uuid = :key", key=key):
            self._report.known["experiments"] += 1
            return
        facts, params, fields_of = self._settings()
        found = {kind: list(self._files(kind)) for kind in self._folders}
        status = self._status(found)
        files: list[tuple[str, str, str, Any, float]] = []
        with self._core.blobs.batch() as batch:
            for kind, names in found.items():
                files += self._store_files(batch, owner, kind, names, fields_of) if names else ()
            named = dict[str, list[str]]()
            for kind, field, name, *_ in files:
                if kind == "input":
                    named.setdefault(field, []).append(name)
            spec = json.dumps({"params": params, "files": named}, ensure_ascii=False)
            ended = max((time for kind, _, _, _, time in files if kind == "output"), default=0.0)
            with store.write():
                kept = self._core.imports.kept("experiments", row["id"])
                id = store.insert("experiments", **kept, uuid=key, user_id=owner, priority=0, restarts=0, spec=spec, **facts,
                                  **self._times(status, ended), **status)
                if id != row["id"]:
                    self._problem(f"its number is {'too large' if too_large(row['id']) else 'taken here'}: it is now {id}")
                for kind, field, name, blob, _ in files:
                    self._core.files.insert(owner, id, kind, field, name, blob)
            batch.keep()
        self._report.brought["experiments"] += 1
        self._report.brought["files"] += len(files)

    def _problem(self, sentence: str) -> None:
        self._report.problems.append(f"experiment {self._row['id']}: {sentence}")

    def _settings(self) -> tuple[Row, dict[str, str], dict[str, str]]:
        """Facts, parameters, and the field of each input file by its name."""
        label = fields.one_line(text(self._row["label"])) or None
        facts: Row = {"app": "", "name": "", "description": "", "label": label, "host": text(self._row["host"])}
        params, fields_of = dict[str, str](), dict[str, str]()
        for row in self._tables.of("experiment_settings", "eid", self._row["id"]):
            name, value = text(row["name"]), text(row["value"])
            if row["name"] is None or row["value"] is None:
                self._problem(f"the setting {row['name']!r} has no {'name' if row['name'] is None else 'value'}")
            if name in FACTS:
                facts[FACTS[name]] = fields.one_line(value) if name != "experimentDescription" else value
            elif re.search(rf"/submitted/{self._row['id']}/[^/]+$", value):
                fields_of[os.path.basename(value)] = name
            elif name:
                params[name] = value
        if not facts["app"]:
            self._problem("it does not say its app")
        return facts, params, fields_of

    @contextmanager
    def _open(self, kind: str) -> Iterator[int]:
        """The descriptor of a folder; no link below the uploads is followed: it could lead to any file of this host. Raises OSError."""
        at = os.open(self._uploads, FOLDER & ~os.O_NOFOLLOW)
        try:
            for name in self._folders[kind]:
                outer, at = at, os.open(name, FOLDER, dir_fd=at)
                os.close(outer)
            yield at
        finally:
            os.close(at)

    def _files(self, kind: str) -> Iterator[str]:
        """The names of the files in a folder."""
        folder = self._uploads.joinpath(*self._folders[kind])
        listed = set[str]()
        if kind == "input":
            listed = {os.path.basename(path) for path in self._tables.paths(self._row["id"])}
        entries = list[tuple[str, bool]]()
        try:
            with self._open(kind) as at, os.scandir(at) as found:
                entries = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in found)
        except FileNotFoundError:
            if listed or (kind == "output" and self._row["status"] == 2):
                self._problem(f"its folder {folder} is missing")
        except OSError as error:
            self._problem(f"its folder {folder} is left out, links are not followed: {error.strerror}")
        for name, is_file in entries:
            if is_file:
                listed.discard(name)
                yield name
            else:
                self._problem(f"{folder / name} is no file: left out")
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
            return {"status": "failed", "message": "its input files were missing when it was brought over"}
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

    def _store_files(
        self, batch: Batch, owner: int, kind: str, names: list[str], fields_of: dict[str, str]
    ) -> Iterator[tuple[str, str, str, Any, float]]:
        taken = set[str]()
        with self._open(kind) as at:
            for name in names:
                with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at), "rb") as source:
                    blob = batch.write(owner, iter(lambda source=source: source.read(CHUNK), b""))  # type: ignore[misc]
                    field = fields_of.get(name, "file")
                    yield kind, field, unique_name(safe_name(name), taken), blob, os.fstat(source.fileno()).st_mtime


def too_large(id: Any) -> bool:
    """Whether an id is not kept because it is too large."""
    return isinstance(id, int) and id > LARGEST_ID


def _uuid(kind: str, key: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{kind} {key}"))
