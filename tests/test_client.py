"""A user's commands against a real portal over TLS. Bad input: no login, open token files, broken downloads, forged names, wrong words."""

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

import program
from ippd.cli import main
from ippd.client import Client, remembered, token_file
from ippd.domain.submission import Part
from ippd.errors import Invalid, Unavailable
from ippd.permissions import OPERATOR
from serving import PASSWORD


@pytest.fixture
def portal(make_portal, tmp_path):
    (tmp_path / "apps").mkdir()
    return make_portal(apps__directory=tmp_path / "apps", apps__allow_unknown="yes")


@pytest.fixture
def ippd(portal, tmp_path, monkeypatch, capsysbinary):
    """Run a command as a user of the portal; gives (status, output, errors)."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IPPD_CONFIG", "")

    def ippd(*words):
        if program.BINARY:
            return program.run(*words)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        capsysbinary.readouterr()
        status = main([str(word) for word in words])
        printed = capsysbinary.readouterr()
        return status, printed.out.decode(), printed.err.decode()

    ippd.url = f"https://localhost:{portal.public.port}"
    ippd.authority = str(portal.core.certificate_path())
    return ippd


@pytest.fixture
def ada(ippd, portal, tmp_path):
    token = portal.user()
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    status, said, _ = ippd("login", "ada@example.org", "--server", ippd.url, "--ca", ippd.authority, "--password-file", password)
    assert status == 0 and "logged in" in said
    return portal.core.sessions.actor(token)


def results(portal, id, *files):
    portal.core.queue.claim(OPERATOR)
    portal.core.files.add_results(OPERATOR, id, [Part("file", "file", [data], name) for name, data in files])


def begun(portal, id):
    """A worker has begun an experiment: as after a claim, which it gets only for apps with a definition."""
    sql = "UPDATE experiments SET status = 'running', claim = 'x', claimed_by = 'w', lease = 60 WHERE id = :id"
    portal.core.store.execute(sql, id=int(id))


def test_from_a_submission_to_its_results(ippd, ada, portal, tmp_path):
    (tmp_path / "scan 1.nii").write_bytes(b"voxels")
    status, id, _ = ippd("submit", "echo", "text=3;id", "sign==", f"scan=@{tmp_path}/scan 1.nii", "--name", "a trial", "--priority", "-1")
    assert status == 0
    experiment = portal.core.experiments.get(ada, int(id))
    assert experiment["params"] == {"text": "3;id", "sign": "=", "scan": "scan_1.nii"} and experiment["priority"] == -1
    results(portal, int(id), ("a.txt", b"result"), ("log.txt", b"said\n"))
    assert "completed" in ippd("list")[1] and "a trial" in ippd("show", id.strip())[1]
    status, said, _ = ippd("get", id.strip(), "--to", tmp_path / "out")
    assert status == 0 and (tmp_path / "out" / "a.txt").read_bytes() == b"result" and len(os.listdir(tmp_path / "out")) == 2
    assert ippd("log", id.strip())[1] == "said\n" and ippd("log", "-f", id.strip())[1] == "said\n"


def test_a_silent_program_is_no_error_of_the_log(ippd, ada, portal):
    """Bad input: a program that has printed nothing so far, and one that printed nothing until it was completed."""
    id = ippd("submit", "echo")[1].strip()
    begun(portal, id)
    assert ippd("log", id) == (0, "", "")
    told = [Part("param", "claim", "x"), Part("param", "usage", '{"job": "1"}'), Part("file", "f", [b"x"], "a.txt")]
    portal.core.files.add_results(OPERATOR, int(id), told)
    assert ippd("log", id) == ippd("log", "-f", id) == (0, "", "")


def test_following_begins_anew_when_the_experiment_does(ippd, ada, portal):
    """Bad input: a first run of five lines, a second one of eight: the last three of it came after the five of the first."""
    id = ippd("submit", "echo")[1].strip()
    core, number = portal.core, int(id)
    begun(portal, id)
    lines = [f"line {line}\n".encode() for line in range(8)]
    core.outputs.append(OPERATOR, number, "stdout", 0, lines[:5])

    def second():
        core.leases.give_back(OPERATOR, number, "x")
        core.outputs.append(OPERATOR, number, "stdout", 0, lines)

    begin, end = threading.Timer(1.5, second), threading.Timer(4, core.experiments.fail, (OPERATOR, number))
    begin.start()
    end.start()
    status, said, errors = ippd("log", "-f", id)
    assert (status, said.encode()) == (0, b"".join(lines[:5] + lines)) and errors == f"ippd: experiment {id} is begun again\n"


def test_cancelling_says_what_it_did(ippd, ada):
    id = ippd("submit", "echo")[1].strip()
    status, said, _ = ippd("cancel", id)
    assert status == 0 and "was submitted and is cancelled: nothing of it runs any more" in said
    status, _, errors = ippd("cancel", id)
    assert status == 1 and f"experiment {id} is cancelled already" in errors


def test_why_there_are_no_results_is_told(ippd, ada, portal, tmp_path):
    def get():
        return ippd("get", id, "--to", tmp_path / "out")

    id = ippd("submit", "echo")[1].strip()
    assert get() == (1, "", f"ippd: experiment {id} is submitted and has no results yet\n")
    portal.core.queue.claim(OPERATOR)
    portal.core.experiments.fail(OPERATOR, int(id), "3")
    assert get() == (1, "", f"ippd: experiment {id} has failed and has no results\n")
    id = ippd("submit", "echo")[1].strip()
    ippd("cancel", id)
    assert get() == (1, "", f"ippd: experiment {id} was cancelled and has no results\n") and not (tmp_path / "out").exists()


def test_holding_going_on_and_running_again(ippd, ada, portal):
    id = ippd("submit", "echo", "text=a")[1].strip()
    assert ippd("suspend", id)[1] == f"experiment {id} is suspended\n" and ippd("resume", id)[1] == f"experiment {id} is submitted\n"
    new = ippd("relaunch", id, "text=b")[1]
    assert portal.core.experiments.get(ada, int(new))["params"] == {"text": "b"}
    assert ippd("relaunch", id, "scan=@x")[0] == 1


def test_a_parameter_that_was_given_twice_was_sent_once_when_running_again(ippd, ada, portal):
    """Bad input: none at all, and a name and values that a form has to bend."""
    id = ippd("submit", "echo", "a=1", "a=2")[1].strip()

    def params(*words):
        status, new, errors = ippd("relaunch", id, *words)
        assert status == 0, errors
        return portal.core.experiments.get(ada, int(new))["params"]

    assert params("a=3", "a=4", "b=&=;", 'c"d=é') == {"a": "3,4", "b": "&=;", 'c"d': "é"}
    assert params() == {"a": "1,2"}


def test_the_token_is_readable_by_its_owner_only_and_used_only_then(ippd, ada):
    assert token_file().stat().st_mode & 0o777 == 0o600 and PASSWORD not in token_file().read_text()
    token_file().chmod(0o644)
    with pytest.raises(Invalid, match="can be read by others"):
        remembered()
    assert ippd("list")[0] == 1


def test_the_token_of_one_portal_is_not_given_to_another(ippd, ada):
    status, _, errors = ippd("list", "--server", "https://other.example.org")
    assert status == 1 and "you are not logged in at https://other.example.org" in errors


@pytest.mark.parametrize("words", [("list",), ("submit", "echo"), ("get", "1")])
def test_without_a_login_one_is_told_how(ippd, words):
    status, _, errors = ippd(*words, "--server", "https://localhost:9")
    assert status == 1 and "ippd login --server" in errors


def test_a_wrong_password_is_told(ippd, portal, tmp_path):
    portal.user()
    (tmp_path / "password").write_text("wrong wrong wrong")
    words = ("login", "ada@example.org", "--server", ippd.url, "--ca", ippd.authority)
    status, _, errors = ippd(*words, "--password-file", tmp_path / "password")
    assert status == 1 and "password" in errors and not token_file().exists()


def test_a_second_login_had_forgotten_the_authority(ippd, ada, tmp_path, monkeypatch):
    """Bad input: none; the second login names neither portal nor certificate, and the third a certificate from where it stands."""
    words = ("login", "ada@example.org", "--password-file", tmp_path / "password")
    assert ippd(*words) == (0, f"logged in at {ippd.url}; the token is in {token_file()}\n", "") and ippd("list")[0] == 0
    assert ippd(*words, "--server", f"{ippd.url}/")[0] == 0 and remembered()["authority"] == os.path.realpath(ippd.authority)
    monkeypatch.chdir(Path(ippd.authority).parent)
    assert ippd(*words, "--ca", Path(ippd.authority).name)[0] == 0 and remembered()["authority"] == os.path.realpath(ippd.authority)
    status, _, errors = ippd(*words, "--server", ippd.url.replace("localhost", "127.0.0.1"))
    assert status == 1 and "self-signed certificate" in errors, "it was given for another portal"


@pytest.mark.parametrize(("words", "sentence"), [
    (("http://portal.example.org",), "http://portal.example.org is not an https:// address"),
    (("portal.example.org",), "portal.example.org is not an https:// address"),
    (("https://portal.example.org", "--ca", "/no/such"), "/no/such: No such file or directory"),
    (("https://portal.example.org", "--ca", "/etc/passwd"), "/etc/passwd holds no certificate (PEM)"),
])
def test_a_password_was_asked_for_before_what_is_wrong_was_told(ippd, words, sentence):
    """Bad input: an address without TLS, one without a scheme, certificates that are none; and no password to read."""
    status, _, errors = ippd("login", "ada@example.org", "--server", *words)
    assert status == 1 and errors.startswith(f"ippd: {sentence}")


def test_a_password_never_goes_over_plain_http():
    with pytest.raises(Invalid, match="not an https"):
        Client("http://portal.example.org")


def test_a_certificate_that_is_not_trusted_is_refused(ippd):
    with pytest.raises(Unavailable, match="certificate"):
        Client(ippd.url).log_in("ada@example.org", PASSWORD)


@pytest.mark.parametrize("word", ["text", "=x", "scan=@/no/such/file", "scan=@/tmp"])
def test_wrong_words_are_told_before_anything_is_sent(ippd, ada, portal, word):
    status, _, errors = ippd("submit", "echo", word)
    assert status == 1 and errors.startswith("ippd: ") and portal.core.experiments.list(ada) == []


def test_a_download_goes_on_where_it_stopped(ippd, ada, portal, tmp_path):
    id = ippd("submit", "echo")[1].strip()
    data = os.urandom(1 << 20)
    results(portal, int(id), ("big.bin", data))
    sha = portal.core.files.open(ada, int(id), "big.bin").sha256
    (tmp_path / "big.bin.part").write_bytes(data[: 900 << 10])
    (tmp_path / "big.bin.part.etag").write_text(sha)
    assert ippd("get", id, "--to", tmp_path)[0] == 0 and (tmp_path / "big.bin").read_bytes() == data
    assert portal.requests_done(1)[-1]["bytes"] < 200 << 10


def test_a_broken_part_is_found_by_its_checksum_and_brought_anew(ippd, ada, portal, tmp_path, monkeypatch):
    monkeypatch.setattr("ippd.client.PAUSE", 0)
    id = ippd("submit", "echo")[1].strip()
    results(portal, int(id), ("a.bin", b"0123456789"))
    (tmp_path / "a.bin.part").write_bytes(b"0123X")
    (tmp_path / "a.bin.part.etag").write_text(portal.core.files.open(ada, int(id), "a.bin").sha256)
    assert ippd("get", id, "--to", tmp_path)[0] == 0 and (tmp_path / "a.bin").read_bytes() == b"0123456789"
    assert sorted(path.name for path in tmp_path.glob("a.bin*")) == ["a.bin"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "", ".bashrc", "-rf", "a\x1b[2Jb", "a\0b", "a\ud800", "a\u202eb"])
def test_a_forged_name_never_leaves_the_folder(ippd, tmp_path, name):
    with pytest.raises(Invalid):
        Client(ippd.url).get(1, name, tmp_path)


def test_fields_and_names_may_stand_behind_a_flag(ippd, ada, portal, tmp_path):
    id = ippd("submit", "echo", "--name", "late", "text=a", "--priority", "-2", "more=b")[1].strip()
    assert portal.core.experiments.get(ada, int(id))["params"] == {"text": "a", "more": "b"}
    results(portal, int(id), ("a.txt", b"a"), ("b.txt", b"b"))
    assert ippd("get", id, "--to", tmp_path / "out", "b.txt")[1] == f"{tmp_path}/out/b.txt\n"
    for words in (("submit", "echo", "--nmae", "x"), ("list", "x"), ("submit", "echo", "--name", "x", "a=b", "-x")):
        status, _, errors = ippd(*words)
        assert status == 2 and "unrecognized arguments: " in errors


def test_why_a_large_upload_is_refused_is_told(ippd, ada, tmp_path):
    with open(tmp_path / "scan.nii", "wb") as scan:
        scan.truncate(300 << 20)
    status, _, errors = ippd("submit", "echo", f"scan=@{tmp_path}/scan.nii", "--priority", "5")
    assert (status, errors) == (1, "ippd: --priority: this must be a whole number from -1000 to 0\n")


NAMED = {"experimentName": {"type": "string", "required": True, "max": 12}, "note": {"type": "string", "required": True}}


@pytest.mark.parametrize(("key", "label", "name"), [
    ("mean_volume", "Mean \n volume", "Mean volume"), ("mean_volume", "", "mean_volume"), ("mean_volume", None, "mean_volume"),
])  # fmt: skip
def test_a_name_that_was_not_given_was_an_error_in_words_of_the_form(ippd, ada, portal, tmp_path, key, label, name):
    """Bad input: no --name for an app that wants one; labels that are two lines, empty and missing."""
    form = {"appKey": key, "fieldGroups": {"g": {"fields": NAMED}}} | ({} if label is None else {"label": label})
    (tmp_path / "apps" / "form.json").write_text(json.dumps(form))
    status, id, errors = ippd("submit", key, "note=a")
    assert (status, errors) == (0, "") and portal.core.experiments.get(ada, int(id))["name"] == name
    for words in (("--name", "mine"), ("experimentName=mine",)):
        assert portal.core.experiments.get(ada, int(ippd("submit", key, "note=a", *words)[1]))["name"] == "mine"
    assert portal.core.experiments.get(ada, int(ippd("submit", "formless")[1]))["name"] == ""


@pytest.mark.parametrize(("words", "sentence"), [
    ((), "--name: this must be at most 12 characters; note: this is needed"),
    (("--name", "x" * 13), "--name: this must be at most 12 characters"),
    (("experimentName=" + "x" * 13,), "experimentName: this must be at most 12 characters"),
    (("--name", "n", "note=a", "--description", "x" * 10001), "--description: "),
    (("--name", "n", "--time-limit", "0", "note=a"), "--time-limit: "), (("--name", "n", "note=a", "--host", "$(id)"), "--host: "),
    (("--name", "n", "note=a", "--after", "7"), "--after: there is no experiment 7"),
])  # fmt: skip
def test_what_is_wrong_with_a_flag_is_told_by_its_name(ippd, ada, portal, tmp_path, words, sentence):
    """Bad input: a default name that is too long for the form, a wrong flag for each fact, and a field in the place of one."""
    form = {"appKey": "long", "label": "A very long label", "fieldGroups": {"g": {"fields": NAMED}}}
    (tmp_path / "apps" / "form.json").write_text(json.dumps(form))
    status, _, errors = ippd("submit", "long", *words)
    assert status == 1 and errors.startswith(f"ippd: {sentence}")
    assert portal.core.experiments.list(ada) == []


def test_what_is_there_already_is_not_brought_again(ippd, ada, portal, tmp_path):
    id = ippd("submit", "echo")[1].strip()
    results(portal, int(id), ("a.bin", b"0123456789"))
    assert ippd("get", id, "--to", tmp_path)[0] == 0
    before = (tmp_path / "a.bin").stat().st_ino
    assert ippd("get", id, "--to", tmp_path)[0] == 0 and (tmp_path / "a.bin").stat().st_ino == before
    (tmp_path / "a.bin").write_bytes(b"0123456780")
    status, _, errors = ippd("get", id, "--to", tmp_path)
    assert status == 1 and "is there already and is another file" in errors and (tmp_path / "a.bin").read_bytes() == b"0123456780"
    assert sorted(path.name for path in tmp_path.glob("a.bin*")) == ["a.bin"]


def test_a_login_that_is_over_is_told_with_what_to_do(ippd, ada, portal):
    portal.core.users.set_password(OPERATOR, ada.user, "another " + PASSWORD)
    status, _, errors = ippd("list")
    assert status == 1 and errors.endswith(": ippd login EMAIL\n")


@pytest.mark.parametrize(("words", "sentence"), [
    (("--ca", "/no/such"), "/no/such: No such file or directory"), (("--ca", "/etc/passwd"), "/etc/passwd holds no certificate (PEM)"),
    ((), "is not one to trust: self-signed certificate (if its operator has given you the certificate: --ca FILE)"),
])
def test_a_certificate_that_is_none_or_unknown_is_told_in_words(ippd, tmp_path, words, sentence):
    (tmp_path / "password").write_text(PASSWORD)
    status, _, errors = ippd("login", "ada@example.org", "--server", ippd.url, "--password-file", tmp_path / "password", *words)
    assert status == 1 and sentence in errors and len(errors.splitlines()) == 1


def test_a_portal_that_is_away_and_a_password_that_is_missing_are_told_in_words(ippd, tmp_path):
    (tmp_path / "password").write_text(PASSWORD)
    words = ("login", "ada@example.org", "--password-file", tmp_path / "password", "--server")
    assert ippd(*words, "https://127.0.0.1:9")[2] == "ippd: 127.0.0.1:9 cannot be reached: Connection refused\n"
    assert ippd(*words[:2], "--server", ippd.url)[2] == "ippd: no password was given: standard input is empty\n"
