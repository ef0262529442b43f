"""The commands: one table, what they do beside another process, what they say when something is wrong."""

import errno
import io
import json
import os
import pty
import socket
import sys
import termios
from pathlib import Path

import pytest

import program
from ippd import VERSION, certificate, checks, daemon, schedule
from ippd.cli import main
from ippd.cli.parser import make, parse
from ippd.cli.table import COMMANDS, NOUNS
from ippd.core import open_core
from ippd.errors import SettingsError
from ippd.permissions import OPERATOR
from ippd.settings import load

PASSWORD = "correct horse battery"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Settings of these tests, for this process and for those it starts."""
    given = {"IPPD_CONFIG": "", "IPPD_DATA_DIRECTORY": f"{tmp_path}/data", "IPPD_DATA_RESERVE": "0",
             "IPPD_AUTH_BCRYPT_COST": "4", "COLUMNS": "120"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("UPLOAD_FOLDER", "ADMIN_EMAIL", "ADMIN_SLACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ippd(environment, capsys, monkeypatch):
    """Run a command, from the source in this process; gives (status, output, errors)."""

    def ippd(*words, stdin=f"{PASSWORD}\n"):
        given = stdin.encode() if isinstance(stdin, str) else stdin
        if program.BINARY:
            return program.run(*words, given=given)
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        return (main(words), *capsys.readouterr())

    return ippd


@pytest.fixture
def core(environment):
    """The core that a daemon would have open at the same time."""
    core = open_core(load())
    yield core
    core.close()


def test_every_command_and_argument_has_help():
    for command in COMMANDS:
        assert command.help.endswith(".") and command.run.__doc__, command.words
        assert command.words.partition(" ")[0] in NOUNS or " " not in command.words
        for argument in command.arguments:
            assert argument.help.endswith("."), (command.words, argument.flags)
    assert len({command.words for command in COMMANDS}) == len(COMMANDS)
    assert set(NOUNS) == {words.split()[0] for words, *_ in COMMANDS if " " in words}
    assert make().format_help().count("\n") > 10


@pytest.mark.source_only  # a process for each would take minutes, and shows nothing new
@pytest.mark.parametrize("words", [[], *(command.words.split() for command in COMMANDS)], ids=" ".join)
def test_help_is_printed_for_every_command(ippd, words):
    status, out, err = ippd(*words, "--help")
    assert (status, err) == (0, "") and out.startswith(" ".join(["usage: ippd", *words]))
    assert "--config FILE" in out and "--set NAME=VALUE" in out


@pytest.mark.source_only  # a process for each would take minutes, and shows nothing new
@pytest.mark.parametrize("words", [
    [], ["user"], ["nonsense"], ["user", "find"], ["user", "add"], ["user", "list", "--status", "x"], ["version", "x"],
    ["user", "list", "--stat", "pending"], ["group", "limit", "g", "bytes", "1"], ["housekeeping", "x"], ["--set"],
    ["user", "add", "a@b.org", "--password", "x"],
])
def test_wrong_usage_is_status_2_and_says_so(ippd, words):
    status, out, err = ippd(*words)
    assert (status, out) == (2, "") and err.startswith("usage: ippd") and "error: " in err


def test_global_flags_may_stand_anywhere(tmp_path):
    words = ["--set", "a=1", "-c", "one", "user", "--set", "b=2", "list", "--set", "c=3", "--json"]
    run, arguments, file, overrides = parse(words)
    assert (arguments.json, file, overrides) == (True, "one", ["a=1", "b=2", "c=3"])
    assert parse(["-c", "one", "user", "list", "--config", "two"])[2] == "two"
    assert parse(["version"])[2:] == (None, [])


def test_version_needs_no_settings(ippd):
    assert ippd("-c", "/nowhere", "version") == (0, f"ippd {VERSION}\n", "")
    with pytest.raises(SystemExit):
        parse(["--version"])


def test_users_from_the_first_to_the_last(ippd, core):
    assert ippd("user", "add", "Ada@Example.org") == (0, "ada@example.org is user 1\n", "")
    core.users.sign_up(OPERATOR, "bob@example.org", PASSWORD)
    status, out, _ = ippd("user", "list")
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["ID", "EMAIL", "STATUS"], ["2", "bob@example.org", "pending"], ["1", "ada@example.org", "approved"]]
    assert ippd("user", "approve", "BOB@example.org")[1] == "bob@example.org is approved\n"
    assert ippd("user", "deny", "2")[1] == "bob@example.org is denied\n"
    [denied] = json.loads(ippd("user", "list", "--status", "denied", "--json")[1])
    assert (denied["email"], denied["groups"], denied["created_at"][-1]) == ("bob@example.org", [], "Z")
    token = core.sessions.log_in(OPERATOR, "ada@example.org", PASSWORD)
    assert ippd("user", "password", "1", stdin="another one, longer")[0] == 0
    assert core.sessions.log_in(OPERATOR, "ada@example.org", "another one, longer") != token
    assert ippd("user", "remove", "ada@example.org")[0] == 0
    assert [user["id"] for user in core.users.list(OPERATOR)] == [2]


def test_json_has_no_bytes_that_a_terminal_obeys(ippd, core):
    """Bad input: a sign-up, which nobody has to be let in for, with control characters that json leaves as they are."""
    core.users.sign_up(OPERATOR, "ada@example.org", PASSWORD, {"nickname": "J\xf6\x9b2J\x7f\u202e"})
    out = ippd("user", "list", "--json")[1]
    assert '"J\xf6\\u009b2J\\u007f\\u202e"' in out and all(char.isprintable() or char == "\n" for char in out)
    assert json.loads(out)[0]["settings"]["nickname"] == "J\xf6\x9b2J\x7f\u202e"


def test_groups_from_the_first_to_the_last(ippd, core):
    core.users.add(OPERATOR, "ada@example.org", PASSWORD)
    assert ippd("group", "create", " the  lab\n") == (0, "group the lab is made, with the id 1\n", "")
    assert ippd("group", "create", "1")[1] == "group 1 is made, with the id 2\n"
    assert ippd("group", "add", "the lab", "ada@example.org")[1] == "ada@example.org is in the lab\n"
    assert ippd("group", "add", "1", "1")[1] == "ada@example.org is in 1\n"  # the name 1, not the id
    assert ippd("group", "drop", "1", "1")[1] == "ada@example.org is not in 1\n"
    assert ippd("group", "limit", "the lab", "file_bytes", "5GB")[1] == "group the lab: file_bytes is 5368709120\n"
    assert ippd("group", "limit", "the lab", "waiting_experiments", "3")[0] == 0
    assert core.limits.of(1)["file_bytes"] == 5 * 2**30 and core.limits.of(1)["waiting_experiments"] == 3
    assert ippd("group", "limit", "the lab", "file_bytes", "none")[1] == "group the lab: file_bytes is the default\n"
    assert ippd("group", "rename", "2", "other")[1] == "group 1 is now other\n"
    assert [line.split() for line in ippd("group", "list")[1].splitlines()] == [
        ["ID", "NAME", "LIMITS", "MEMBERS"], ["2", "other"],
        ["1", "the", "lab", "waiting_experiments=3", "ada@example.org"]]
    assert json.loads(ippd("group", "list", "--json")[1])[0] == {"id": 2, "name": "other", "members": [], "limits": {}}
    assert ippd("group", "remove", "the lab")[0] == 0 and ippd("group", "remove", "2")[0] == 0
    assert core.groups.list(OPERATOR) == []


@pytest.mark.source_only  # a process for each would take minutes, and shows nothing new
@pytest.mark.parametrize(("words", "sentence"), [
    (["user", "add", "ada@example.org"], "there is an account with the address ada@example.org already"),
    (["user", "add", "nonsense"], "email: this is not an e-mail address"),
    (["user", "approve", "nobody@example.org"], "there is no user nobody@example.org"),
    (["user", "deny", "99"], "there is no user 99"),
    (["user", "deny", "9" * 30], f"there is no user {'9' * 30}"),
    (["user", "deny", "\udcff"], "there is no user "),
    (["user", "remove", "$(id)"], "there is no user $(id)"),
    (["user", "remove", "x\x1b[2J"], "there is no user x [2J"),
    (["group", "create", "lab"], "there is a group lab already"),
    (["group", "create", ""], "name: Length must be between 1 and 64."),
    (["group", "remove", "no\nsuch"], "there is no group no\\nsuch"),
    (["group", "add", "lab", "2"], "there is no user 2"),
    (["group", "limit", "lab", "file_bytes", "a lot"], "file_bytes: 'a lot' is not a size such as 64KB, 10MB or 5GB"),
    (["group", "limit", "lab", "waiting_experiments", "-1"], "waiting_experiments: '-1' is less than 0"),
    (["group", "limit", "lab", "running_together", "0"], "running_together: '0' is less than 1"),
    (["group", "limit", "labb", "file_bytes", "none"], "there is no group labb"),
    (["user", "list", "--set", "log.level=loud"],
     "--set: log.level: 'loud' is not one of debug, info, warning, error"),
])
def test_a_mistake_is_one_sentence_and_status_1(ippd, core, words, sentence):
    core.users.add(OPERATOR, "ada@example.org", PASSWORD)
    core.groups.create(OPERATOR, "lab")
    assert ippd(*words) == (1, "", f"ippd: {sentence}\n")


@pytest.mark.source_only  # a process for each would take minutes, and shows nothing new
@pytest.mark.parametrize(("content", "sentence"), [
    (b"", "no password was given: {} is empty"),
    (b"\n", "no password was given: {} is empty"),
    (b"one line\nand another\n", "{} has more than one line; a password is one"),
    (b"J\xf6rg is here", "the password in {} is not UTF-8"),
    (b"x" * 5000, "{} holds more than a password"),
    (b"short", "password: a password needs at least 8 bytes"),
    (b"x" * 73, "password: a password may have at most 72 bytes (bcrypt would ignore the rest)"),
])
def test_a_password_that_is_none_is_refused(ippd, core, tmp_path, content, sentence):
    (tmp_path / "file").write_bytes(content)
    file = str(tmp_path / "file")
    add = ("user", "add", "ada@example.org")
    assert ippd(*add, stdin=content) == (1, "", f"ippd: {sentence.format('standard input')}\n")
    assert ippd(*add, "--password-file", "-", stdin=content) == (1, "", f"ippd: {sentence.format('standard input')}\n")
    assert ippd(*add, "--password-file", file) == (1, "", f"ippd: {sentence.format(file)}\n")
    assert core.users.list(OPERATOR) == []


def test_a_password_comes_from_a_file_whatever_its_line_end(ippd, core, tmp_path):
    (tmp_path / "file").write_bytes(b" a b c d e \r\n")
    assert ippd("user", "add", "ada@example.org", "--password-file", f"{tmp_path}/file", stdin=None)[0] == 0
    assert core.sessions.log_in(OPERATOR, "ada@example.org", " a b c d e ")
    missing = ippd("user", "password", "1", "--password-file", f"{tmp_path}/missing")
    assert missing == (1, "", f"ippd: {tmp_path}/missing: No such file or directory\n")
    assert ippd("user", "password", "1", stdin=None)[2] == "ippd: there is no standard input to read a password from\n"


@pytest.mark.parametrize(("typed", "status", "said"), [
    ([PASSWORD, PASSWORD], 0, "ada@example.org is user 1"),
    ([PASSWORD, "something else"], 1, "ippd: the two passwords differ; nothing was changed"),
    ([PASSWORD, "\x04"], 1, "ippd: no password was given"),
    (["\x03"], 130, "ippd: interrupted"),
])
def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(environment, typed, status, said):
    child, terminal = pty.fork()
    if not child:
        os.execv(program.words()[0], program.words("user", "add", "ada@example.org"))
    output = b""
    for text, prompt in zip(typed, (b"New password: ", b"The same again: "), strict=False):
        while not output.endswith(prompt) or termios.tcgetattr(terminal)[3] & termios.ECHO:
            output += os.read(terminal, 1000) if not output.endswith(prompt) else b""
        os.write(terminal, text.encode() + (b"" if text < " " else b"\n"))
    while True:
        try:
            output += os.read(terminal, 1000)
        except OSError:  # the other side has closed
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert output.decode().rstrip().endswith(said) and PASSWORD not in output.decode()


def test_expiry_and_housekeeping(ippd):
    assert ippd("expire") == (0, "expire: 0\n", "")
    status, out, _ = ippd("housekeeping")
    assert status == 0 and [line.split()[0] for line in out.splitlines()[1:]] == list(schedule.BY_NAME)
    for name in schedule.BY_NAME:
        status, out, err = ippd("housekeeping", name)
        assert (status, out.split()[0], err) == (0, f"{name}:", "")


def test_the_outbox_is_listed_and_tried_again(ippd, core):
    core.users.add(OPERATOR, "ada@example.org", PASSWORD)
    core.notifications.notify(OPERATOR, "ada@example.org", "hello")
    core.store.execute("UPDATE outbox SET status = 'failed', error = :e", e="no\x1b[2J such\nbox")
    status, out, _ = ippd("notifications", "list")
    assert status == 0 and "no\\x1b[2J such\\nbox" in out and "ada@example.org" in out and len(out.splitlines()) == 2
    assert ippd("notifications", "retry") == (0, "1 will be sent again; pending: 1 (mail.host is not set)\n", "")
    assert [row["status"] for row in json.loads(ippd("notifications", "list", "--json")[1])] == ["pending"]
    assert ippd("notifications", "list", "--status", "failed")[1].count("\n") == 1


def test_nothing_said_why_mails_were_pending_that_nobody_had_tried_to_send(ippd, core):
    """Bad input: no mail.host, and a number of days that is none."""
    core.notifications.add("message", to="ada@example.org", message="m")
    assert ippd("notifications", "retry")[1] == "0 will be sent again; pending: 1 (mail.host is not set)\n"
    assert ippd("notifications", "list")[1].splitlines()[1].endswith("  mail.host is not set")
    assert "mail.host" not in ippd("notifications", "list", "--set", "mail.host=localhost", "--set", "mail.from=a@b.org")[1]
    assert ippd("notifications", "drop")[1] == "0 removed; pending: 1 (mail.host is not set)\n"
    sentence = "ippd: older-than: this must be a number of days from 0 to 36500\n"
    assert ippd("notifications", "drop", "--older-than", "-1") == (1, "", sentence)
    assert ippd("notifications", "drop", "--older-than", "0") == (0, "1 removed; pending: 0\n", "")


def test_the_settings_are_printed_with_their_sources_and_without_secrets(ippd, monkeypatch, tmp_path):
    monkeypatch.setenv("IPPD_MAIL_PASSWORD", "hunter2")
    status, out, _ = ippd("config", "--set", "log.level=error")
    found = {line.split(" = ")[0]: line.split("  # ")[1] for line in out.splitlines()}
    assert status == 0 and list(found) == list(load())
    assert (found["log.level"], found["data.directory"], found["auth.lockout_time"]) == (
        "--set", "IPPD_DATA_DIRECTORY", "default")
    assert "hunter2" not in out and "mail.password = (hidden)" in out
    assert f"data.uploads = {tmp_path}/data/uploads" in out


def test_the_sample_is_a_settings_file(ippd, tmp_path):
    status, out, _ = ippd("config", "--sample")
    (tmp_path / "ippd.conf").write_text(out)
    path = f"{tmp_path}/ippd.conf"
    assert status == 0 and ippd("config", "--check", "-c", path) == (0, f"{path}: nothing is wrong\n", "")


def test_the_check_names_each_file_by_its_own_setting(ippd, tmp_path):
    path = tmp_path / "ippd.conf"
    certificate.make(["localhost"], f"{tmp_path}/cert", f"{tmp_path}/key")
    for name, key, said in (("missing", None, "cannot be read: No such file"), ("text", "no key", "is no private key in PEM form")):
        if key:
            (tmp_path / name).write_text(key)
        path.write_text(f"[public]\ncertificate = {tmp_path}/cert\nkey = {tmp_path}/{name}\n")
        status, _, errors = ippd("config", "--check", "-c", str(path))
        assert status == 1 and errors.startswith(f"ippd: {path}:3: public.key: {tmp_path}/{name} {said}"), errors
    for value, said in ((f"{tmp_path}/none/log", f"there is no folder {tmp_path}/none"), (str(tmp_path), f"{tmp_path} is a folder")):
        path.write_text(f"[log]\nfile = {value}\n")
        assert ippd("config", "--check", "-c", str(path)) == (1, "", f"ippd: {path}:2: log.file: {said}\n")


def test_what_the_account_may_not_read_was_said_to_be_missing(tmp_path, make_settings, monkeypatch):
    """Bad input: a frontend in a folder that the account cannot enter, a page that it cannot read, a settings file of root's."""
    (tmp_path / "index.html").touch()
    (tmp_path / "ippd.conf").write_text(f"[public]\nfrontend = {tmp_path}\n")
    given = load(f"{tmp_path}/ippd.conf", {}, [])
    checks.check(given)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: not str(path).endswith("index.html"))
        with pytest.raises(SettingsError, match=f"public.frontend: {tmp_path}/index.html cannot be read by the account nobody"):
            checks.check(given)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        with pytest.raises(SettingsError, match=f"public.frontend: {tmp_path}/index.html cannot be read by the account nobody"):
            checks.check(given)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: not str(path).endswith(".conf"))
        with pytest.raises(SettingsError, match=f"chown nobody: {tmp_path}/ippd.conf && chmod 600 {tmp_path}/ippd.conf"):
            checks.check(given)


def refuse(path, **more):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def test_the_check_tells_what_works_but_was_hardly_meant(ippd, tmp_path):
    path = tmp_path / "ippd.conf"
    path.write_text("[mail]\nhost = localhost\n[local]\nallow = nobody-here @no-group root\n")
    assert ippd("config", "--check", "-c", str(path)) == (0, f"{path}: the daemon can start\n", (
        f"ippd: {path}:2: mail.host: mail.from is empty, so mails come from ippd@ and the name of this host\n"
        f"ippd: {path}:4: local.allow: this host knows no account nobody-here\n"
        f"ippd: {path}:4: local.allow: this host knows no group @no-group\n"))


def test_the_check_passed_addresses_and_folders_that_the_account_cannot_use(tmp_path, make_settings, monkeypatch):
    """Bad input: a port of root's, a port of another program beside a daemon that runs, a folder in another account's folder."""
    if os.geteuid() != 0 or int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 443:
        pytest.skip("needs root, and ports that are root's")
    given = make_settings(public__listen="127.0.0.7:443", local__listen="", data__directory=tmp_path / "data", data__uploads="")
    checks.check_places(given)
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(SettingsError, match="public.listen: 127.0.0.7:443 may not be used by the account nobody"):
            checks.check_places(given)
        checks.check_places(given, ports=False)
    finally:
        os.seteuid(0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SettingsError, match="data, and the account root cannot make it: install -d -m 700 -o root /"):
        checks.check_places(given)
    (tmp_path / "data/uploads").mkdir(parents=True)
    with daemon.locked(tmp_path / "data"), socket.socket() as sock:
        sock.bind(("127.0.0.7", 443))
        with pytest.raises(SettingsError, match="127.0.0.7:443 is in use by another program"):
            checks.check_places(given)
        sock.listen()  # as the daemon itself would: it is of the same account
        checks.check_places(given)


def test_the_check_names_everything_that_is_wrong(ippd, tmp_path):
    path = tmp_path / "ippd.conf"
    path.write_text("[public]\nlisten = 99999\nfrontent = /x\n")
    assert ippd("config", "--check", "-c", str(path)) == (1, "", (
        f"ippd: {path}:3: public.frontent: there is no such setting; did you mean public.frontend?\n"
        f"ippd: {path}:2: public.listen: '99999' is not a port\n"))
    path.write_text("[public]\ncertificate = /c\nkey = /k\nfrontend = /x\n[mail]\npassword = hunter2\n")
    os.chmod(path, 0o644)
    assert ippd("config", "-c", str(path), "--check") == (1, "", (
        f"ippd: {path} holds mail.password and every account can read it; use chmod o-r\n"
        f"ippd: {path}:2: public.certificate: /c cannot be read: No such file or directory\n"
        f"ippd: {path}:4: public.frontend: there is no /x/index.html\n"))
