"""Brings the data of the portal's old server over: users, groups, experiments and files; its damage is reported, never fatal."""

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ippd import fields
from ippd.domain.limits import LIMITS
from ippd.domain.portal_experiment import Experiment
from ippd.domain.portal_tables import Tables, made_uuid, moment, open_old, text, too_large
from ippd.domain.portal_uploads import check_uploads
from ippd.errors import Invalid, IppdError
from ippd.permissions import Actor, permits
from ippd.store import Row

if TYPE_CHECKING:
    from ippd.core import Core

BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
NO_PASSWORD = "!"  # matches nothing


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
        file that is no database of the old server and for a folder that cannot be read, NoSpace.
        """
        report = Report()
        check_uploads(uploads)
        with closing(open_old(database)) as old:
            tables = Tables(old, report.problems)
            users = self._users(tables, report)
            self._groups(tables, users, report)
            for row in tables.rows("experiments", "id"):
                if row["uid"] not in users:
                    report.problems.append(f"experiment {row['id']}: its user {row['uid']} is not there: left out")
                    continue
                try:
                    Experiment(self._core, tables, uploads, row, report).bring(users[row["uid"]])
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
        facts = {"uuid": made_uuid("user", email), "email": email, "password": password}
        facts["settings"] = json.dumps(settings, ensure_ascii=False)
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
