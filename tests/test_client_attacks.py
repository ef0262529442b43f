"""A user's commands against a portal that means harm.

Bad input: addresses that only look harmless, forged names, links and other files in the way, answers of another kind or without end,
commands to the terminal.
"""

import http.server
import json
import os
import pty
import threading

import pytest

import program
from ippd.calls import LARGEST, Server
from ippd.client import Client
from ippd.errors import Invalid, Unavailable

ESCAPE = "\x1b]0;gone\x07\x1b[2J"


class Evil:
    """A portal that gives any answer: `answers` are bodies (bytes, or a function that writes to the stream) by path."""

    def __init__(self):
        evil, self.answers, self.headers, self.asked = self, {}, {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                evil.asked.append(dict(self.headers))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = evil.answers.get(self.path.partition("?")[0], b"{}")
                self.send_response(200)
                headers = {} if callable(body) else {"Content-Length": str(len(body))}
                for name, value in (headers | evil.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if callable(body):
                    body(self.wfile)
                else:
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *words):
                """Nothing is printed."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def says(self, path, value):
        self.answers[path] = json.dumps(value).encode()


@pytest.fixture
def evil(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IPPD_CONFIG", "")
    made = Evil()
    (tmp_path / "config" / "ippd").mkdir(parents=True)
    kept = tmp_path / "config" / "ippd" / "token.json"
    kept.write_text(json.dumps({"server": made.url, "token": "t", "authority": None}))
    kept.chmod(0o600)
    yield made
    made.server.shutdown()
    made.server.server_close()


def at_a_terminal(*words):
    """What a command prints at a terminal."""
    child, terminal = pty.fork()
    if not child:
        os.execv(program.words()[0], program.words(*words))
    printed = b""
    try:
        while piece := os.read(terminal, 4096):
            printed += piece
    except OSError:  # the terminal is closed
        pass
    os.waitpid(child, 0)
    os.close(terminal)
    return printed.decode()


@pytest.mark.parametrize("address", [
    "http://localhost@127.0.0.2:18500", "http://127.0.0.1@portal.example.org", "http://127.0.0.1.nip.io", "http://localhost.example.org",
    "http://[::1]@x", "https://ada:secret@portal.example.org", "http://127.0.0.1:x", "https://", "https://" + "a" * 70 + ".org", "ftp://localhost",
])  # fmt: skip
def test_an_address_that_only_looks_harmless_is_refused_and_tells_no_secret(address):
    with pytest.raises(Invalid) as refused:
        Client(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["http://localhost:1", "http://127.0.0.1:1/x", "http://[::1]:1", "https://portal.example.org"])
def test_the_own_host_and_https_are_good_addresses(address):
    assert Client(address)


@pytest.mark.parametrize("outputs", ["str", None, 7, [None], [7], [".bashrc"], ["a\0b"], ["\ud800"], ["a" + ESCAPE], [["a"]]])
def test_names_of_results_that_are_none_make_no_file(evil, tmp_path, outputs):
    evil.says("/experiments/1", {"status": "completed", "outputs": outputs})
    status, printed, errors = program.run("get", 1, "--to", tmp_path / "out")
    assert (status, printed) == (1, "") and "unexpected" not in errors and "\x1b" not in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("there", ["file", "folder", "link", "dangling"])
def test_another_file_of_this_name_stays_as_it_is(evil, tmp_path, there):
    evil.answers["/experiments/1/file"] = b"evil"
    (tmp_path / "mine").write_bytes(b"mine")
    target = tmp_path / "a"
    {"file": lambda: target.write_bytes(b"mine"), "folder": target.mkdir,
     "link": lambda: target.symlink_to(tmp_path / "mine"), "dangling": lambda: target.symlink_to(tmp_path / "none")}[there]()  # fmt: skip
    with pytest.raises(Invalid, match="is there already and is another file"):
        Client(evil.url).get(1, "a", tmp_path)
    assert (tmp_path / "mine").read_bytes() == b"mine" and not (tmp_path / "none").exists()
    assert target.is_dir() or target.is_symlink() or target.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["a.part", "a.part.etag"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_link_or_pipe_in_the_place_of_a_part_is_not_written_through(evil, tmp_path, name, kind):
    evil.answers["/experiments/1/file"] = b"evil"
    (tmp_path / "mine").write_bytes(b"mine")
    other = tmp_path / name
    {"link": lambda: other.symlink_to("mine"), "dangling": lambda: other.symlink_to("none"), "pipe": lambda: os.mkfifo(other)}[kind]()
    with pytest.raises(Invalid, match="is not a file of a download"):
        Client(evil.url).get(1, "a", tmp_path)
    if kind != "pipe":  # what replaces files does not follow a link either
        with pytest.raises(OSError):
            Server(evil.url).download("/experiments/1/file", tmp_path / "a")
    assert (tmp_path / "mine").read_bytes() == b"mine" and not (tmp_path / "none").exists()


def test_a_file_that_is_called_like_a_part_is_not_overwritten(evil, tmp_path):
    evil.answers["/experiments/1/file"] = b"evil"
    (tmp_path / "a.part").write_bytes(b"mine")
    with pytest.raises(Invalid, match="is not from a download"):
        Client(evil.url).get(1, "a", tmp_path)
    assert (tmp_path / "a.part").read_bytes() == b"mine"


def test_the_text_of_a_foreign_etag_file_is_not_sent(evil, tmp_path):
    evil.answers["/experiments/1/file"] = b"whole"
    (tmp_path / "a.part").write_bytes(b"part")
    (tmp_path / "a.part.etag").write_bytes(b"two\nlines \xff")
    assert Client(evil.url).get(1, "a", tmp_path).read_bytes() == b"whole" and "If-Range" not in evil.asked[-1]


def test_a_length_that_is_no_number_is_no_mistake(evil, tmp_path):
    evil.answers["/experiments/1/file"], evil.headers = b"all", {"Content-Length": "many"}
    assert Client(evil.url).get(1, "a", tmp_path).read_bytes() == b"all"


def endless(stream):
    try:
        while True:
            stream.write(b" " * (1 << 20))
    except OSError:  # the client has gone
        pass


def test_an_answer_without_end_is_not_read_to_its_end(evil):
    evil.answers["/experiments/1"] = endless
    with pytest.raises(Unavailable, match=f"more than {LARGEST >> 20} MB"):
        Client(evil.url).show(1)


def test_a_long_answer_below_the_limit_is_read_and_its_connection_kept(evil):
    evil.answers["/x"] = b'{"a": 1}' + b" " * (1 << 20)
    server = Server(evil.url)
    assert [server.get("/x"), server.get("/x")] == [{"a": 1}] * 2


@pytest.mark.parametrize(("words", "path", "answer"), [
    (("cancel", 1), "/experiments/1/cancel", {"was": "running", "gone": 7}), (("cancel", 1), "/experiments/1/cancel", {"gone": True}),
    (("cancel", 1), "/experiments/1/cancel", [1]), (("suspend", 1), "/experiments/1/suspend", {"status": 7}),
    (("resume", 1), "/experiments/1/resume", None), (("relaunch", 1), "/experiments/1/relaunch", {"id": ESCAPE}),
    (("submit", "echo"), "/experiments/new", {}), (("list",), "/experiments", {"experiments": [7]}), (("show", 1), "/experiments/1", []),
    (("log", "-f", 1), "/experiments/1", {}),
])  # fmt: skip
def test_an_answer_of_another_kind_is_told_in_words(evil, words, path, answer):
    evil.says(path, answer)
    status, printed, errors = program.run(*words)
    assert (status, printed) == (1, "") and errors.startswith("ippd: the portal's answer cannot be understood")


def test_brackets_without_end_are_told_in_words(evil):
    evil.answers["/experiments/1"] = b"[" * 200_000
    with pytest.raises(Unavailable, match="cannot be read"):
        Client(evil.url).show(1)


@pytest.mark.parametrize("token", [None, 7, "", "a\r\nX: y"])
def test_a_token_that_is_none_is_not_taken(evil, token):
    evil.says("/users/auth", {"token": token})
    with pytest.raises(Unavailable, match="cannot be understood"):
        Client(evil.url).log_in("ada@example.org", "a password")


def test_what_a_job_prints_is_no_command_to_the_terminal(evil):
    said = f"häh\t{ESCAPE}\x9b\r\n".encode()
    evil.answers["/experiments/1/log"] = said + b"\xff\xc3"
    printed = at_a_terminal("log", "1")
    assert "häh" in printed and "\\x1b]0;gone\\x07\\x1b[2J\\x9b\\r" in printed and printed.endswith("\\xff\\xc3") and "\x1b" not in printed
    evil.answers["/experiments/1/log"] = said
    assert program.run("log", 1) == (0, said.decode(), "")  # as it is, where no terminal reads it


def test_answers_are_no_commands_to_the_terminal(evil):
    evil.says("/experiments/1/cancel", {"was": ESCAPE, "gone": True})
    evil.says("/experiments/1/suspend", {"status": ESCAPE})
    for word in ("cancel", "suspend"):
        status, printed, _ = program.run(word, 1)
        assert status == 0 and "\\x1b]0;gone" in printed and "\x1b" not in printed


def test_following_a_log_ended_when_the_daemon_was_started_again(evil, monkeypatch):
    """Bad input: nothing behind the head of an answer: twice, at once, for ever."""
    monkeypatch.setattr("ippd.client.PAUSE", 0.001)
    running, completed = (json.dumps({"status": status}).encode() for status in ("running", "completed"))
    states, pieces = [running, running, b"", b"", running, completed], [b"one ", b"two ", b"three", b""]

    def cut(wfile):
        wfile.write(states.pop(0) if states else b"")

    evil.answers["/experiments/1"] = cut
    evil.answers["/experiments/1/log"] = lambda wfile: wfile.write(pieces.pop(0))
    assert b"".join(Client(evil.url).log(1, "stdout", True)) == b"one two three" and (states, pieces) == ([], [])
    evil.asked.clear()
    with pytest.raises(Unavailable):
        list(Client(evil.url).log(1, "stdout", True))
    assert len(evil.asked) == 1, "a portal that has never been there is not waited for"
    states[:], pieces[:] = [running], [b"one"]
    with pytest.raises(Unavailable):
        list(Client(evil.url).log(1, "stdout", True))
    assert len(evil.asked) == 1 + 2 + 7
