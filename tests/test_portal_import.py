"""Coming from the old server: what is brought over, twice, and what of its known damage is told. Bad input is most of this file."""

import os
import sqlite3
import tempfile
from pathlib import Path

import bcrypt
import pytest

from conftest import echo
from ippd.errors import Invalid, NoSpace, Unauthorized
from ippd.permissions import ANONYMOUS, OPERATOR

OLD = """
CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, email TEXT, password TEXT, token TEXT, token_created TIMESTAMP,
                    approved BOOLEAN DEFAULT 0);
CREATE TABLE user_settings (uid INTEGER, name TEXT, value TEXT);
CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE user_groups (uid INTEGER, gid INTEGER);
CREATE TABLE experiments (id INTEGER PRIMARY KEY, uid INTEGER, label TEXT, host TEXT, status INTEGER, created TIMESTAMP);
CREATE TABLE experiment_settings (eid INTEGER, name TEXT, value TEXT);
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT);
CREATE TABLE experiment_files (eid INTEGER, fid INTEGER);
CREATE TABLE limits (id INTEGER PRIMARY KEY, gid INTEGER, name TEXT, value TEXT);
"""
PASSWORD = b"an old password"
NOBODY = 65534


@pytest.fixture
def tmp_path():
    """A folder that other accounts reach too."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def old(tmp_path):
    """The old server: its database, with `add(table, *values)`, and its upload folder."""
    class Old:
        database, uploads = tmp_path / "old.sqlite", tmp_path / "old"

        def add(self, table, *values):
            self.connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)
            self.connection.commit()

        def put(self, user, kind, experiment, name, data):
            path = self.uploads / str(user) / kind / str(experiment) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return path

    old = Old()
    old.connection = sqlite3.connect(old.database)
    old.connection.executescript(OLD)
    yield old
    old.connection.close()


@pytest.fixture
def portal(old):
    """An old server in good order: two users, a group with a limit, four experiments."""
    digest = bcrypt.hashpw(PASSWORD, bcrypt.gensalt(4))
    old.add("users", 3, "Ada@Example.org", digest, "t", "2020-05-01 10:00:00", 1)  # the old server stores the hash as bytes
    old.add("users", 4, "bob@example.org", digest.decode(), None, "2020-05-02", 0)
    old.add("user_settings", 3, "institution", "Analytical Society")
    old.add("user_settings", 3, "notification_type", "email")
    old.add("groups", 1, "researchers")
    old.add("user_groups", 3, 1)
    old.add("limits", 1, 1, "user_bytes", "100000")
    experiment(old, 7, 2, "2020-06-01 12:00:00", [("scan", "scan 1.nii.gz", b"scan")])
    old.put(3, "completed", 7, "7.zip", b"results")
    experiment(old, 8, 0, "2020-06-02 12:00:00", [("scan", "b.nii", b"b")])
    experiment(old, 9, 1, "2020-06-03 12:00:00", [("scan", "c.nii", b"c")])
    experiment(old, 11, 3, "2020-06-04 12:00:00", [])
    return old


def experiment(old, id, status, created, files, user=3):
    old.add("experiments", id, user, "a label", "cubic", status, created)
    for name, value in (("app", "echo"), ("experimentName", "a trial"), ("experimentDescription", "long"), ("text", "t")):
        old.add("experiment_settings", id, name, value)
    for field, name, data in files:
        old.put(user, "submitted", id, name, data)
        path = f"/old/server/uploads/{user}/submitted/{id}/{name}"
        old.add("files", None, path)
        old.add("experiment_files", id, old.connection.execute("SELECT MAX(id) FROM files").fetchone()[0])
        old.add("experiment_settings", id, field, path)


def bring(core, old):
    return core.imports.portal(OPERATOR, old.database, old.uploads)


def test_everything_comes_over_and_old_passwords_work_on(core, portal):
    report = bring(core, portal)
    assert report.problems == []
    assert report.brought == {"users": 2, "groups": 1, "memberships": 1, "limits": 1, "experiments": 4, "files": 4}
    ada = core.sessions.actor(core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD.decode()))
    assert ada.user == 3 and core.limits.of(3)["user_bytes"] == 100_000 and core.groups.names(ada) == ["researchers"]
    assert core.users.find(OPERATOR, 3)["settings"] == {"institution": "Analytical Society", "notification_type": "email"}
    assert core.users.find(OPERATOR, "bob@example.org")["status"] == "pending"
    first, second, third, fourth = core.experiments.list(ada)
    assert [e["id"] for e in (first, second, third, fourth)] == [7, 8, 9, 11]
    assert [e["status"] for e in (first, second, third, fourth)] == ["completed", "submitted", "queued", "failed"]
    assert (first["app"], first["name"], first["description"], first["label"], first["host"]) == (
        "echo", "a trial", "long", "a label", "cubic")
    assert first["params"] == {"text": "t", "scan": "scan_1.nii.gz"} and first["created_at"] == 1591012800
    assert first["inputs"] == ["scan_1.nii.gz"] and first["outputs"] == ["7.zip"]
    assert core.files.open(ada, 7, "7.zip").path.read_bytes() == b"results"
    assert core.notifications.list(OPERATOR) == [], "nobody is written to because of it"


def test_what_waited_there_waits_here_and_what_a_script_had_taken_is_not_handed_out_again(core, portal, clock, script):
    bring(core, portal)
    clock.forward(hours=1)
    core.queue.requeue_unacknowledged(OPERATOR)
    (item,) = core.queue.claim(script)
    assert item["id"] == 8 and item["files"] == {"scan": ["b.nii"]}


def test_a_second_import_brings_only_what_is_new(core, portal):
    bring(core, portal)
    experiment(portal, 12, 2, "2020-07-01 12:00:00", [])
    portal.put(3, "completed", 12, "12.zip", b"more")
    core.users.set_password(OPERATOR, 3, "a newer password")
    again = bring(core, portal)
    assert again.brought == {"experiments": 1, "files": 1} and again.known["experiments"] == 4 and again.known["users"] == 2
    with pytest.raises(Unauthorized):
        core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD.decode())


def test_an_import_that_was_killed_goes_on_where_it_was(core, portal, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(what, seen=[]):  # noqa: B006
        seen.append(what)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        core.imports.portal(OPERATOR, portal.database, portal.uploads, kill)
    rest = bring(core, portal)
    assert rest.brought["experiments"] == 2 and rest.known["experiments"] == 2 and rest.problems == []
    assert len([path for path in core.blobs.folder.rglob("*") if path.is_file()]) == 4


def test_ids_that_are_taken_here_are_given_anew_and_said(core, portal, ada):
    for _ in range(8):
        core.experiments.submit(ada, echo(("x", b"x")))
    report = bring(core, portal)  # ada@example.org is here already, as user 1
    assert report.problems == [
        f"experiment {old}: its number is taken here: it is now {new}" for old, new in ((7, 9), (8, 10), (9, 11), (11, 12))]
    assert report.known["users"] == 1 and len(core.experiments.list(ada)) == 12


DAMAGE = [
    (("users", 5, "ADA@example.org ", b"x", None, None, 1), "user 5: ada@example.org is there twice"),
    (("users", 5, None, b"x", None, None, 1), "user 5: '' is no e-mail address: left out"),
    (("users", 5, "carol@example.org", "plain", None, None, 1), "carol@example.org has no password that can be read"),
    (("users", 5, "carol@example.org", None, None, None, None), "carol@example.org has no password that can be read"),
    (("user_settings", 4, None, "x"), "user 4: bob@example.org: the setting None is left out"),
    (("user_settings", 4, "slack_webhook", "http://127.0.0.1/"), "the setting 'slack_webhook' is left out"),
    (("groups", 2, None), "group 2: left out"),
    (("user_groups", 3, 99), "membership of user 3 in group 99"),
    (("user_groups", 99, 1), "membership of user 99 in group 1"),
    (("limits", 2, 1, "files", "50"), "limit files=50 of group 1 has no meaning here"),
    (("limits", 2, 1, "user_bytes", "-1"), "limit user_bytes=-1 of group 1 has no meaning here"),
    (("experiments", 20, 99, None, None, 2, "2020-01-01 00:00:00"), "experiment 20: its user 99 is not there"),
    (("experiments", 20, 3, None, None, 2, "2020-01-01 00:00:00"), "completed/20 is missing"),
    (("experiments", 20, 3, None, None, 17, "2020-01-01 00:00:00"), "experiment 20: its status 17 is none: it has failed"),
    (("experiments", 20, 3, None, None, None, "2020-01-01 00:00:00"), "experiment 20: its status None is none"),
    (("experiments", 20, 3, None, None, 0, "yesterday"), "experiment 20: its time 'yesterday' is none"),
    (("experiment_settings", 7, None, "x"), "experiment 7: the setting None has no name"),
    (("experiment_settings", 7, "extra", None), "experiment 7: the setting 'extra' has no value"),
]


@pytest.mark.parametrize(("row", "sentence"), DAMAGE)
def test_damage_is_told_and_all_else_comes_over(core, portal, row, sentence):
    portal.add(*row)
    report = bring(core, portal)
    assert any(sentence in problem for problem in report.problems), report.problems
    assert report.brought["users"] >= 2 and report.brought["experiments"] >= 4
    core.experiments.list(OPERATOR)


def test_rows_that_are_there_twice_come_over_once(core, portal):
    portal.add("user_groups", 3, 1)
    portal.add("experiment_settings", 7, "text", "t")
    portal.add("experiment_files", 7, 1)
    report = bring(core, portal)
    assert report.problems == [] and report.brought["memberships"] == 1 and report.brought["files"] == 4


def test_results_that_the_old_server_forgot_to_note_complete_the_experiment(core, portal):
    portal.put(3, "completed", 9, "9.zip", b"results")
    report = bring(core, portal)
    assert report.problems == ["experiment 9: it has results although its status is queued: it is completed"]
    assert core.experiments.get(OPERATOR, 9)["outputs"] == ["9.zip"]


def test_inputs_that_are_missing_are_told_and_what_waited_for_them_has_failed(core, portal):
    (portal.uploads / "3/submitted/8/b.nii").unlink()
    (portal.uploads / "3/submitted/8").rmdir()
    portal.put(3, "submitted", 7, "another.nii", b"x")
    (portal.uploads / "3/submitted/7/scan 1.nii.gz").unlink()
    os.symlink("/etc/passwd", portal.uploads / "3/submitted/7/link")
    report = bring(core, portal)
    assert [problem.split(": ", 1)[1] for problem in report.problems] == [
        f"{portal.uploads}/3/submitted/7/link is no file: left out", "its input scan 1.nii.gz is missing",
        f"its folder {portal.uploads}/3/submitted/8 is missing"]
    assert core.experiments.get(OPERATOR, 7)["inputs"] == ["another.nii"]
    assert core.experiments.get(OPERATOR, 8)["status"] == "failed"


@pytest.mark.parametrize("table", ["user_settings", "groups", "user_groups", "experiment_settings", "files", "experiment_files", "limits"])
def test_an_old_server_without_a_table_comes_over_all_the_same(core, portal, table):
    portal.connection.executescript(f"DROP TABLE {table}")
    assert bring(core, portal).brought["experiments"] == 4


def test_a_file_that_is_no_old_database_is_refused(core, portal, tmp_path):
    (tmp_path / "text").write_text("this is no database " * 100)
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path, core.store.path.with_name("secret")):
        with pytest.raises(Invalid, match="no database of the old server"):
            core.imports.portal(OPERATOR, path, portal.uploads)


def test_the_old_data_is_left_as_it_is(core, portal):
    before = portal.database.read_bytes(), sorted(portal.uploads.rglob("*"))
    bring(core, portal)
    assert (portal.database.read_bytes(), sorted(portal.uploads.rglob("*"))) == before


def loose(old):
    """Make the ids of experiments anything, as in a table that somebody has altered."""
    old.connection.executescript("""
        CREATE TABLE altered (id, uid, label TEXT, host TEXT, status INTEGER, created TIMESTAMP);
        INSERT INTO altered SELECT * FROM experiments; DROP TABLE experiments; ALTER TABLE altered RENAME TO experiments""")


@pytest.mark.parametrize("id", ["{elsewhere}", "../../../elsewhere", "(((((", "a\0", "", None, 7.5, b"7", "7"])
def test_an_experiment_whose_id_is_no_whole_number_is_left_out_and_said(core, portal, tmp_path, id):
    """Among them: paths that lead out of the uploads, a broken pattern, a name no file can have."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_text("not to be read")
    loose(portal)
    portal.add("experiments", id.format(elsewhere=tmp_path / "elsewhere") if isinstance(id, str) else id, 3, None, None, 0, "2020-01-01")
    report = bring(core, portal)
    assert ["its number or its user's is no whole number" in problem for problem in report.problems] == [True]
    assert report.brought["experiments"] == 4 and report.brought["files"] == 4


def test_an_experiment_whose_user_has_a_path_for_a_number_is_left_out_and_said(core, portal, tmp_path):
    portal.connection.executescript("""
        CREATE TABLE altered (id, email, password, token, token_created, approved);
        INSERT INTO altered SELECT * FROM users; DROP TABLE users; ALTER TABLE altered RENAME TO users""")
    loose(portal)
    (tmp_path / "elsewhere/submitted/50").mkdir(parents=True)
    (tmp_path / "elsewhere/submitted/50/secret").write_text("not to be read")
    portal.add("users", "../elsewhere", "eve@example.org", None, None, None, 1)
    portal.add("experiments", 50, "../elsewhere", None, None, 0, "2020-01-01")
    report = bring(core, portal)
    assert "experiment 50: left out: its number or its user's is no whole number" in report.problems
    assert report.brought["files"] == 4


@pytest.mark.parametrize("link", ["3", "3/submitted", "3/submitted/50", "3/completed/50"])
def test_folders_of_the_uploads_that_are_links_are_not_followed(core, portal, tmp_path, link):
    where = portal.uploads / link
    elsewhere = tmp_path / "elsewhere"
    if where.exists():
        where.rename(elsewhere)
    for folder in (elsewhere, elsewhere / "50", elsewhere / "submitted/50"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "secret").write_text("not to be read")
    os.symlink(elsewhere, where)
    portal.add("experiments", 50, 3, None, None, 0, "2020-01-01")
    report = bring(core, portal)
    assert any(problem.startswith("experiment 50: its folder ") and "links are not followed" in problem for problem in report.problems)
    assert core.experiments.get(OPERATOR, 50)["inputs"] == core.experiments.get(OPERATOR, 50)["outputs"] == []


def test_a_file_name_that_is_no_text_stops_nothing(core, portal):
    """Bad input: a byte that is no UTF-8."""
    portal.put(3, "submitted", 7, os.fsdecode(b"scan\xff.nii"), b"x")
    assert bring(core, portal).brought["experiments"] == 4


@pytest.mark.parametrize("id", [2**63 - 1, 10**15 + 1])
def test_ids_after_which_no_other_could_be_given_out_are_not_kept(core, portal, id):
    portal.add("users", id, "carol@example.org", None, None, None, 1)
    portal.add("experiments", id, 3, None, None, 3, "2020-01-01")
    report = bring(core, portal)
    assert f"user {id}: carol@example.org: its number is too large: it is now 5" in report.problems
    assert f"experiment {id}: its number is too large: it is now 12" in report.problems
    ada = core.sessions.actor(core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD.decode()))
    assert core.experiments.submit(ada, echo(("x", b"x")))["id"] == 13
    core.users.add(OPERATOR, "dora@example.org", "long enough!")
    assert core.users.find(OPERATOR, "dora@example.org")["id"] == 6


def test_a_table_that_has_no_number_left_says_so_and_not_only_the_disk(core, portal):
    """Bad input: a database that was brought over before large ids were refused."""
    core.store.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('users', :last)", last=2**63 - 1)
    with pytest.raises(NoSpace, match="no number left"):
        core.users.add(OPERATOR, "dora@example.org", "long enough!")


@pytest.mark.parametrize("uploads", ["missing", "file", "loop", "a\0b", "long" * 1000])
def test_uploads_that_are_no_folder_are_refused_before_anything_is_brought(core, portal, tmp_path, uploads):
    """Bad input: a path that was mistyped, that is a file, that leads to itself, that no folder can have."""
    (tmp_path / "file").touch()
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(Invalid, match="is no upload folder that can be read"):
        core.imports.portal(OPERATOR, portal.database, tmp_path / uploads)
    assert core.experiments.list(OPERATOR) == [] and core.store.value("SELECT COUNT(*) FROM users") == 0
    assert bring(core, portal).brought["files"] == 4


def test_files_that_were_not_found_the_first_time_are_added_the_second_time(core, portal, tmp_path):
    """Bad input: another folder than that of the uploads. What waited for its inputs waits again, what has results is completed."""
    portal.put(3, "completed", 9, "9.zip", b"results")
    (tmp_path / "another").mkdir()
    first = core.imports.portal(OPERATOR, portal.database, tmp_path / "another")
    assert (first.brought["experiments"], first.brought["files"]) == (4, 0) and len(first.problems) == 4
    assert [e["status"] for e in core.experiments.list(OPERATOR)] == ["completed", "failed", "queued", "failed"]
    second = bring(core, portal)
    assert (second.known["experiments"], second.brought["experiments"], second.brought["files"]) == (4, 0, 5)
    assert second.problems == ["experiment 9: it has results although its status is queued: it is completed"]
    found = core.experiments.list(OPERATOR)
    assert [e["status"] for e in found] == ["completed", "submitted", "completed", "failed"]
    assert [e["inputs"] + e["outputs"] for e in found] == [["scan_1.nii.gz", "7.zip"], ["b.nii"], ["c.nii", "9.zip"], []]
    assert found[0]["params"] == {"text": "t", "scan": "scan_1.nii.gz"} and found[1]["message"] is None
    assert core.files.open(OPERATOR, 7, "7.zip").path.read_bytes() == b"results"
    third = bring(core, portal)
    assert third.problems == [] and third.brought["files"] == 0 and third.known["files"] == 5


def test_a_second_import_leaves_what_has_moved_on_here_and_what_was_removed_here(core, portal, tmp_path, clock):
    """Bad input: files that come late to an experiment that was cancelled; that expired, or that somebody removed."""
    (tmp_path / "another").mkdir()
    core.imports.portal(OPERATOR, portal.database, tmp_path / "another")
    core.experiments.cancel(OPERATOR, 9)
    core.store.update("experiments", 7, expired_at=clock())
    portal.put(3, "completed", 9, "9.zip", b"results")
    bring(core, portal)
    assert core.experiments.get(OPERATOR, 9)["status"] == "cancelled" and core.experiments.get(OPERATOR, 9)["outputs"] == ["9.zip"]
    assert core.experiments.get(OPERATOR, 7)["outputs"] == []
    for path in [row["path"] for row in core.store.all("SELECT path FROM files WHERE experiment_id = 9")]:
        core.files.delete(OPERATOR, path)
    assert bring(core, portal).brought["files"] == 0 and core.experiments.get(OPERATOR, 9)["outputs"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
@pytest.mark.parametrize("closed", ["3/completed/7", "3/submitted", "3/submitted/7/scan 1.nii.gz"])
def test_what_the_account_may_not_read_is_left_out_and_brought_once_it_can_be(core, portal, tmp_path, closed):
    """Bad input: a folder, one on the way to it, and a file that belong to root, in an import as another account."""
    for path in (core.store.path.parent, *core.store.path.parent.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for path in (portal.database, portal.uploads, *portal.uploads.rglob("*")):
        path.chmod(0o755)
    (portal.uploads / closed).chmod(0o700)

    def bring_as_nobody():
        os.seteuid(NOBODY)
        try:
            return bring(core, portal)
        finally:
            os.seteuid(0)

    first = bring_as_nobody()
    left_out = [problem for problem in first.problems if problem.startswith("experiment 7: left out: ")]
    assert len(left_out) == 1 and left_out[0].endswith(" cannot be read (Permission denied): import again once it can be")
    assert not any("links are not followed" in problem for problem in first.problems)
    (portal.uploads / closed).chmod(0o755)
    second = bring_as_nobody()
    assert {problem.partition(": ")[2] for problem in second.problems} <= {"its number is taken here: it is now 12"}
    assert first.brought["experiments"] + second.brought["experiments"] == 4
    assert sorted(path.read_bytes() for path in (core.blobs.folder / "3").iterdir()) == [b"b", b"c", b"results", b"scan"]
