"""Settings: types, sources, and what is said about each mistake."""

import os
import socket

import pytest

from ippd import ini, settings
from ippd import setting_types as types
from ippd.errors import ERRORS, Invalid, SettingsError
from ippd.settings import BY_NAME, SETTINGS, load, sample, warnings


@pytest.fixture
def write(tmp_path):
    """Write a settings file and return its path."""

    def write(content, name="ippd.conf"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def problems(path="", environ=None, overrides=()):
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {}, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_every_row_has_a_help_sentence_and_a_default_of_its_type():
    for row in SETTINGS:
        assert row.help.endswith(".") and len(row.help) > 10 and "\n" not in row.help, row.name
        row.type(row.default)
        assert row.name.count(".") == 1, row.name


def test_names_and_variables_are_there_once():
    variables = [row.variable for row in SETTINGS] + [row.env for row in SETTINGS if row.env]
    assert len(set(variables)) == len(variables) and len(BY_NAME) == len(SETTINGS)
    assert BY_NAME["public.listen"].variable == "IPPD_PUBLIC_LISTEN"


def test_defaults_of_an_empty_start():
    found = load("", {})
    assert list(found) == [row.name for row in SETTINGS] and len(found) == len(SETTINGS)
    assert found["public.listen"] == (("0.0.0.0", 8443),)
    assert found["local.listen"] == (("127.0.0.1", 8080), ("::1", 8080))
    assert found["queue.claim_timeout"] == 600 and found["limits.file_bytes"] == 50 * 2**30
    assert found["data.uploads"] == "/var/lib/ippd/uploads"
    assert {found.source(name) for name in found} == {"default"}
    with pytest.raises(KeyError):
        found["public.lisen"]


def test_the_sample_parses_back_to_the_defaults(write):
    defaults = load("", {})
    assert dict(load(write(sample()), {})) == dict(defaults)
    switched_on = "".join(
        line[1:] if line[0] == "#" and line[1:2].isalpha() else line for line in sample().splitlines(keepends=True)
    )
    path = write(switched_on)
    found = load(path, {})
    assert dict(found) == dict(defaults)
    assert all(found.source(name).startswith(f"{path}:") for name in found)


def test_each_source_is_stronger_than_the_one_before_and_says_its_name(write):
    path = write("# comment\n[data]\nuploads = /file\n")
    environ = {"UPLOAD_FOLDER": "/old"}
    assert (load("", {})["data.uploads"], load("", {}).source("data.uploads")) == ("/var/lib/ippd/uploads", "default")
    found = load(path, {})
    assert (found["data.uploads"], found.source("data.uploads")) == ("/file", f"{path}:3")
    found = load(path, environ)
    assert (found["data.uploads"], found.source("data.uploads")) == ("/old", "UPLOAD_FOLDER")
    environ["IPPD_DATA_UPLOADS"] = "/new"
    found = load(path, environ)
    assert (found["data.uploads"], found.source("data.uploads")) == ("/new", "IPPD_DATA_UPLOADS")
    found = load(path, environ, ["data.uploads=/one", "data.uploads = /two"])
    assert (found["data.uploads"], found.source("data.uploads")) == ("/two", "--set")


def test_the_old_variables_keep_their_meaning(tmp_path):
    found = load("", {"UPLOAD_FOLDER": "/srv/up", "ADMIN_EMAIL": "root@example.org",
                      "ADMIN_SLACK": "https://hooks.slack.com/services/T/B/x"})
    assert found["data.uploads"] == "/srv/up" and found["notify.admin_email"] == "root@example.org"
    assert found["notify.admin_slack"].endswith("/T/B/x") and found.shown("notify.admin_slack") == "(hidden)"
    assert load("", {"ADMIN_EMAIL": ""}).source("notify.admin_email") == "default"


def test_the_file_comes_from_the_variable_unless_a_flag_names_one(write):
    one, two = write("[log]\nlevel = debug\n", "one.conf"), write("[log]\nlevel = error\n", "two.conf")
    assert load(None, {"IPPD_CONFIG": one})["log.level"] == "debug"
    assert load(two, {"IPPD_CONFIG": one})["log.level"] == "error"
    assert load(None, {"IPPD_CONFIG": ""}).file == ""


def test_a_percent_sign_a_hash_and_quotes_are_just_text(write):
    found = load(write("[mail]\npassword = 50%(x)s #1 ;\"q\" = %\nusername = \n"), {})
    assert found["mail.password"] == '50%(x)s #1 ;"q" = %'
    assert found["mail.username"] == ""


def test_blanks_windows_line_ends_and_a_byte_order_mark_do_no_harm(write):
    path = write(b"\xef\xbb\xbf[ log ]\r\n  level=error  \r\n\r\n; note\r\n[log]\r\n\tfile = /x\r\n")
    found = load(path, {})
    assert (found["log.level"], found["log.file"], found.source("log.file")) == ("error", "/x", f"{path}:6")


def test_all_mistakes_of_a_file_are_told_with_their_line(write):
    path = write("""level = info
[public]
listen = 99999
lisen = 127.0.0.1:1
Listen = 127.0.0.1:2
listen = 127.0.0.1:3
[nonsense]
x = 1
[mail
host = nothing can be said about this line
[mail] ; x
[mail]
port = 25 # the port
hunter2
= 3
""")
    assert problems(path) == [
        f"{path}:1: 'level' stands in no section; put [section] above it",
        f"{path}:4: public.lisen: there is no such setting; did you mean public.listen?",
        f"{path}:5: public.Listen: there is no such setting; did you mean public.listen?",
        f"{path}:6: public.listen: is set twice, first in line 3",
        f"{path}:8: nonsense.x: there is no such setting",
        f"{path}:9: '[mail' is not a section; write [name] and nothing after it",
        f"{path}:11: '[mail] ; x' is not a section; write [name] and nothing after it",
        f"{path}:14: this line is neither [section] nor name = value",
        f"{path}:15: this line is neither [section] nor name = value",
        f"{path}:3: public.listen: '99999' is not a port",
        f"{path}:13: mail.port: '25 # the port' is not a whole number (a comment needs its own line)",
    ]


def test_mistakes_in_the_environment_and_in_flags_name_them():
    assert problems("", {"IPPD_PUBLIC_LISTN": "x", "IPPD_LOG_LEVEL": "loud", "ADMIN_EMAIL": "me", "IPPDX": "y"},
                    ["log.level", "log.levl=info", "server.threads=0"]) == [
        "IPPD_PUBLIC_LISTN: there is no such setting; did you mean IPPD_PUBLIC_LISTEN?",
        "--set: 'log.level' is not name=value",
        "--set: log.levl: there is no such setting; did you mean log.level?",
        "ADMIN_EMAIL: notify.admin_email: 'me' is not an e-mail address",
        "IPPD_LOG_LEVEL: log.level: 'loud' is not one of debug, info, warning, error",
        "--set: server.threads: '0' is not between 1 and 1000",
    ]


def test_a_variable_of_another_program_that_began_with_our_name_stopped_every_command():
    """Bad input: names without a section, of a section that is none, and of a section without a name; those of jobs and of the build."""
    others = ("IPPD_JOB", "IPPD_BUILD_CACHE", "IPPD_BINARY", "IPPD_SEED", "IPPD_CONFIG", "IPPD_", "IPPD", "IPPD_PUBLIC", "IPPD_PUBLICITY_X")
    found = load("", dict.fromkeys(others, ""))
    assert {found.source(name) for name in found} == {"default"}
    assert problems("", dict.fromkeys((*others, "IPPD_APPS_NONSENSE"), "")) == ["IPPD_APPS_NONSENSE: there is no such setting"]


def test_a_bad_secret_is_refused_without_being_repeated():
    found = problems("", {"IPPD_MAIL_PASSWORD": "hunter2\x07", "ADMIN_SLACK": "ftp://hooks/T/B/hunter2"})
    assert found == ["ADMIN_SLACK: notify.admin_slack: the value is not a URL (https://host/...)",
                     "IPPD_MAIL_PASSWORD: mail.password: the value has a control character"]


def test_settings_that_need_each_other(write):
    assert problems("", {}, ["public.certificate=/c"]) == ["--set: public.certificate: needs public.key as well"]
    path = write("[public]\nkey = /k\n")
    assert problems(path) == [f"{path}:2: public.key: needs public.certificate as well"]
    assert problems("", {}, ["public.listen=", "local.listen="]) == [
        "--set: public.listen: there is no address at all to listen on"]
    assert load("", {}, ["public.listen=", "local.listen=", "local.socket=/run/x"])["public.listen"] == ()


def test_a_file_that_is_no_settings_file_is_named(write, tmp_path):
    missing = str(tmp_path / "missing.conf")
    assert problems(missing) == [f"{missing}: cannot be read: No such file or directory"]
    assert problems(str(tmp_path)) == [f"{tmp_path}: cannot be read: Is a directory"]
    latin = write(b"[mail]\nfrom = a@b\nusername = J\xf6rg\n")
    assert problems(latin) == [f"{latin}: line 3 is not UTF-8"]
    huge = write(b"#" * (ini.LONGEST + 1))
    assert problems(huge) == [f"{huge}: is larger than 1 MB, which is no settings file"]
    nul = write(b"[mail]\nusername = a\0b\n")
    assert problems(nul) == [f"{nul}:2: mail.username: 'a\\x00b' has a control character"]


def test_a_file_that_does_not_open_is_named(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert problems(path) == [f"{path}: cannot be read: No such device or address"]


def test_a_file_that_is_not_there_by_default_is_no_mistake(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "DEFAULT_FILE", str(tmp_path / "ippd.conf"))
    assert load(None, {}).file == ""
    (tmp_path / "ippd.conf").write_text("[log]\nlevel = error\n")
    assert load(None, {}).source("log.level") == f"{tmp_path}/ippd.conf:2"


def test_a_file_with_a_password_that_all_can_read_is_warned_about(write):
    path = write("[mail]\npassword = hunter2\n")
    os.chmod(path, 0o644)
    assert warnings(load(path, {})) == [
        f"{path} holds mail.password and every account can read it; use chmod o-r"]
    os.chmod(path, 0o640)
    assert warnings(load(path, {})) == []
    path = write("[mail]\npassword =\n")
    os.chmod(path, 0o644)
    assert warnings(load(path, {"IPPD_MAIL_PASSWORD": "x"})) == []


def test_a_secret_on_the_command_line_is_warned_of():
    assert warnings(load("", {}, ["mail.password=x", "notify.admin_slack="])) == [
        "mail.password was given with --set, and every account can read command lines; use the file or IPPD_MAIL_PASSWORD"]


def test_a_reload_takes_the_live_settings_and_names_those_that_wait():
    old = load("", {}, ["log.level=info"])
    new = load("", {"IPPD_MAIL_HOST": "mail.example.org"}, ["log.level=debug", "server.threads=9"])
    assert old.take(new) == (["mail.host", "log.level"], ["server.threads"])
    assert (old["log.level"], old["server.threads"], old["mail.host"]) == ("debug", 2, "mail.example.org")
    assert (old.source("mail.host"), old.source("server.threads")) == ("IPPD_MAIL_HOST", "default")
    assert old.take(old) == ([], [])


def test_a_secret_is_not_shown():
    found = load("", {"IPPD_MAIL_PASSWORD": "hunter2", "IPPD_MAIL_USERNAME": "me"})
    assert (found.shown("mail.password"), found.shown("mail.username")) == ("(hidden)", "me")
    assert load("", {}).shown("mail.password") == ""
    assert "hunter2" not in repr(found)


GOOD = [
    (types.seconds, "10", 10.0), (types.seconds, "10s", 10.0), (types.seconds, "1.5 m", 90.0),
    (types.seconds, "24h", 86400.0), (types.seconds, "7d", 604800.0), (types.seconds, "0", 0.0),
    (types.size, "100", 100), (types.size, "64KB", 65536), (types.size, "64 kb", 65536), (types.size, "1.5M", 1572864),
    (types.size, "5GiB", 5 * 2**30), (types.size, "0", 0), (types.size, "2TB", 2**41), (types.size, "7B", 7),
    (types.listens, "[::1]:8080  0.0.0.0:0 0.0.0.0:0", (("::1", 8080), ("0.0.0.0", 0), ("0.0.0.0", 0))),
    (types.local_listens, "localhost:80 127.9.9.9:1", (("127.0.0.1", 80), ("127.9.9.9", 1))),
    (types.words, "a, @b\tc,", ("a", "@b", "c")), (types.words, "", ()),
    (types.url, "https://x.org:8443/p/", "https://x.org:8443/p"), (types.url, "", ""),
    (types.email, "jörg@exämple.org", "jörg@exämple.org"), (types.email, "", ""),
    (types.host, "mail.example.org", "mail.example.org"), (types.host, "::1", "::1"), (types.host, "", ""),
    (types.log_target, "none", "none"), (types.path, "", ""), (types.path, "/a/../b/", "/b"),
    (types.between(0), str(types.LARGEST), types.LARGEST), (types.between(-5, 5), "-5", -5),
]


@pytest.mark.parametrize(("type", "text", "value"), GOOD)
def test_a_good_value(type, text, value):
    assert type(text) == value


BAD = [
    (types.seconds, "", "'' is not a time"), (types.seconds, "10x", "not a time"), (types.seconds, "-1", "not a time"),
    (types.seconds, "1e5", "not a time"), (types.seconds, "nan", "not a time"), (types.seconds, "inf", "not a time"),
    (types.seconds, "٣s", "not a time"), (types.seconds, "99999999d", "longer than 100 years"),
    (types.some_seconds, "0s", "no time at all"),
    (types.size, "5 PB", "not a size"), (types.size, "1.5", "not a size"), (types.size, "-1", "not a size"),
    (types.size, "9999999TB", "too large"), (types.some_bytes, "0KB", "no room"),
    (types.between(1, 9), "1_0", "not a whole number"), (types.between(1, 9), "10", "not between 1 and 9"),
    (types.between(1, 9), "٣", "not a whole number"), (types.between(0), "-1", "less than 0"),
    (types.between(0), "9" * 20, "not a whole number"), (types.between(0), " 1", "not a whole number"),
    (types.listen, "8443", "has no address; write 0.0.0.0:8443"),
    (types.listen, "1.2.3.4:65536", "'65536' is not a port"),
    (types.listen, "1.2.3.4:", "'' is not a port"), (types.listen, "::1:80", "'::1' is not an IP address; write"),
    (types.listen, "[1.2.3.4]:80", "not an IP address"), (types.listen, "portal.org:80", "not an IP address"),
    (types.listen, ":80", "'' is not an IP address"), (types.listen, "1.2.3.4:+80", "'+80' is not a port"),
    (types.listen, "[::1:80", "not an IP address"),
    (types.listens, "127.0.0.1:1 127.0.0.1:1", "'127.0.0.1:1' is there twice"),
    (types.local_listens, "0.0.0.0:80", "'0.0.0.0' is not a loopback address"),
    (types.local_listens, "127.0.0.1:80 [::]:80", "'::' is not a loopback address"),
    (types.local_listens, "[::ffff:127.0.0.1]:80", "not a loopback address"),
    (types.local_listens, "128.0.0.1:80", "not a loopback address"),
    (types.choice("a", "b"), "A", "'A' is not one of a, b"),
    (types.url, "portal.org", "not a URL"), (types.url, "javascript://x", "not a URL"),
    (types.url, "https://", "not a URL"),
    (types.url, "https://[x", "not a URL"), (types.url, "https://x:99999", "not a URL"),
    (types.url, "https://a b/", "not a URL"), (types.url, "https://u:p@x/", "must not have a user"),
    (types.url, "https://x/?a=1", "a query"),
    (types.email, "me", "not an e-mail"), (types.email, "a@b, c@d", "not an e-mail"), (types.email, "a@b\n", "control"),
    (types.email, "A <a@b>", "not an e-mail"),
    (types.host, "a b", "not the name of a host"), (types.host, "-x", "not the name"),
    (types.host, "x\n", "not the name"),
    (types.host, "a..b", "between its dots are 1 to 63 letters"), (types.host, "..", "1 to 63"), (types.host, "a" * 64, "1 to 63"),
    (types.path, "/a\nb", "control character"), (types.socket_path, "/" + "x" * 107, "longer than the 107 bytes"),
    (types.words, "a \udcff", "not UTF-8"), (types.text, "\x1b[31m", "control character"),
]


@pytest.mark.parametrize(("type", "text", "reason"), BAD)
def test_a_bad_value_says_why(type, text, reason):
    with pytest.raises(ValueError) as caught:
        type(text)
    assert reason in str(caught.value)


def test_every_error_has_a_stable_code_a_status_and_a_sentence():
    assert {code: error.status for code, error in ERRORS.items()} == {
        "error": 500, "invalid": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404,
        "method_not_allowed": 405, "timed_out": 408, "conflict": 409, "too_large": 413, "unsupported_media": 415,
        "bad_range": 416, "misdirected": 421, "too_many": 429, "unavailable": 503, "no_space": 507, "settings": 500,
    }
    for code, error in ERRORS.items():
        assert error.code == code and str(error()) == error.sentence and error.sentence.endswith(".")
        assert str(error("Other.")) == "Other." and issubclass(error, Exception)
    assert str(Invalid(fields={"email": ["is no address"], "name": ["is empty", "is odd"]})) == (
        "email: is no address; name: is empty, is odd")
    assert ERRORS["too_many"](retry_after=3).retry_after == 3
