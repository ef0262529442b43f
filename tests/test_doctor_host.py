"""ippd doctor on the host: listeners, limits, who may call, mail; with real daemons, sockets and servers.

Bad input: another daemon's ports, dead sockets, settings that let everybody in, mail servers that are not there.
"""

import _ctypes
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext

import pytest

import program
from ippd.daemon import locked
from ippd.doctor import FAIL, OK, WARN, host
from mailservers import Inbox, smtp_server
from test_init_script import free_port


def serving(portal):
    """The data folder is held for the portal, as a daemon does."""
    return nullcontext() if program.BINARY else locked(portal.core.store.path.parent)


def command(given, *words):
    """The command line of ippd with these settings."""
    return program.words(*(f"--set={name}={value}" for name, value in given.items()), *words)


def environ(folder):
    """The environment of a command without settings of its own, which unpacks itself, if it has to, in a folder that no cleaner knows."""
    return {"IPPD_CONFIG": "", "PATH": os.environ["PATH"], "TMPDIR": str(folder)}


def doctor(given, *words, folder="/tmp"):
    """What `ippd doctor` finds with these settings: (exit status, findings)."""
    done = subprocess.run(command(given, "doctor", "--json", *words), capture_output=True, text=True, env=environ(folder))
    return done.returncode, json.loads(done.stdout)


@pytest.mark.source_only  # the binary holds the folder of these settings from the beginning
def test_ports_that_are_free_taken_or_served(make_portal, make_settings, look):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        taken = sock.getsockname()[1]
        given = make_settings(public__listen="", local__listen=f"127.0.0.1:{taken}")
        (found,) = look(given, "ports")
        assert found[0] == FAIL and "cannot be used: Address already in use" in found[1]
    assert look(given, "ports") == [(WARN, f"local.listen: 127.0.0.1 port {taken} is free: the daemon does not run")]
    portal = make_portal()
    given = make_settings(public__listen="", local__listen=f"127.0.0.1:{portal.local.port}")
    with serving(portal):
        assert look(given, "ports") == [(OK, "the daemon is ready")]
        more = make_settings(public__listen="", local__listen=f"127.0.0.1:{portal.local.port} 127.0.0.2:{portal.local.port}")
        assert look(more, "ports") == [(OK, f"local.listen: 127.0.0.1 port {portal.local.port} answers"),
                                       (WARN, f"local.listen: the daemon runs, but not on 127.0.0.2 port {portal.local.port}")]


def test_a_daemon_of_another_data_folder_that_has_the_ports_is_not_taken_for_this_one(make_portal, make_settings, look, tmp_path):
    """Bad input: the ports of a daemon that is ready, but serves from another data folder."""
    portal = make_portal()
    given = make_settings(data__directory=tmp_path / "other", public__listen="", local__listen=f"127.0.0.1:{portal.local.port}")
    with serving(portal):
        assert look(given, "ports") == [
            (FAIL, f"local.listen: 127.0.0.1 port {portal.local.port} cannot be used: Address already in use; "
                   f"no daemon runs over {tmp_path}/other")]


def test_a_daemon_that_answers_but_is_not_ready(make_portal, make_settings, look):
    """Bad input: a disk that is smaller than the reserve."""
    portal = make_portal(data__reserve="1024000GB")
    with serving(portal):
        (found,) = look(make_settings(public__listen="", local__listen=f"127.0.0.1:{portal.local.port}"), "ports")
    assert found[0] == WARN and found[1].startswith("the daemon runs but is not ready: ") and "no room" in found[1]


def test_a_folder_in_which_the_program_cannot_unpack_itself(settings, look, make_disk, monkeypatch):
    """Bad input: a disk without room for the program, and one that allows no programs."""
    for options, said in (((), "has less than 64 MB free"), (("size=100m", "noexec"), "forbids programs (noexec)")):
        where = make_disk(4, *options)
        monkeypatch.setattr(tempfile, "tempdir", str(where))
        assert look(settings(), "unpack folder") == [(FAIL, f"{where} {said}")]


def test_the_folder_of_the_one_who_asks_was_looked_at_and_not_that_of_the_service(settings, look, make_disk, monkeypatch, tmp_path):
    """Bad input: a service whose folder has no room, asked about by an account whose own has."""
    full, script, sysconfig, unit = make_disk(4), tmp_path / "init", tmp_path / "sysconfig", tmp_path / "unit"
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(host, "STARTS", (script, sysconfig, unit))
    assert look(settings(), "unpack folder") != [(FAIL, f"{full} has less than 64 MB free")]
    script.write_text("PROGRAM=/usr/bin/ippd\nTMPDIR=/tmp\n")
    for path, line in ((sysconfig, f"#TMPDIR=/tmp\nTMPDIR='{full}'\n"), (unit, f"[Service]\nEnvironment=TMPDIR={full}\n")):
        path.write_text(line)
        assert look(settings(), "unpack folder") == [(FAIL, f"{full} has less than 64 MB free")]
        path.unlink()


def test_a_listener_that_is_only_a_unix_socket_is_looked_at_too(core, settings, look, tmp_path):
    """Bad input: no socket, one that a killed daemon left, a plain file, a folder that is not there, another program's."""
    path = tmp_path / "none.sock"
    assert look(settings(), "ports") == [(WARN, f"local.socket: {path} is free: the daemon does not run")]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        (found,) = look(settings(), "ports")
        assert found[0] == FAIL and f"{path} cannot be used: Address already in use; no daemon runs over" in found[1]
    assert look(settings(), "ports") == [(WARN, f"local.socket: {path} is free: the daemon does not run")]
    path.unlink()
    path.touch()
    assert "cannot be used: it is there and no socket" in look(settings(), "ports")[0][1]
    assert "gone is not there" in look(settings(local__socket=tmp_path / "gone/sock"), "ports")[0][1]


def test_open_files_and_the_local_listener(core, settings, look):
    assert look(settings(server__connections=10**9), "file limits")[0][0] == WARN
    assert look(settings(local__allow="* nobody-here @no-group"), "local listener") == [
        (WARN, "local.allow names what is not on this host: nobody-here, @no-group"),
        (WARN, "every account of this host may use the local listener")]


def test_a_mail_server_that_is_not_there(core, settings, look):
    assert look(settings(), "mail")[0] == (WARN, "mail.host is empty: mail stays in the outbox")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        given = settings(mail__host="127.0.0.1", mail__port=sock.getsockname()[1], mail__timeout="2s")
        assert look(given, "mail")[0][0] == FAIL


def test_a_mail_server_that_answers_and_takes_a_message(core, settings, look):
    inbox = Inbox()
    with smtp_server(inbox) as port:
        given = {"mail.host": "127.0.0.1", "mail.port": port, "mail.from": "portal@example.org"}
        assert look(settings(**given), "mail") == [
            (OK, "127.0.0.1 answers (ippd doctor --mail you@example.org sends a message)")]
        _, found = doctor(given | {"data.directory": core.store.path.parent}, "--mail", "ada@example.org")
    assert (found[-1]["name"], found[-1]["level"]) == ("test mail", OK)
    (message,) = inbox.messages
    assert (message["Subject"], message["To"], message["From"]) == ("Test of ippd doctor", "ada@example.org", "portal@example.org")


def test_the_exit_status_of_a_host_on_which_all_is_well_and_of_one_that_could_be_better(tmp_path):
    """Bad input: nothing; then no backups by the clock. (An old SQLite is a warning of its own, which only the binary is free of.)"""
    with smtp_server(Inbox()) as mail:
        given = {"data.directory": tmp_path / "data", "public.listen": "", "local.listen": f"127.0.0.1:{free_port()}",
                 "backup.directory": tmp_path / "backups", "mail.host": "127.0.0.1", "mail.port": mail, "mail.from": "portal@example.org"}
        with subprocess.Popen(command(given, "serve"), env=environ(tmp_path), stderr=subprocess.DEVNULL) as daemon:
            try:
                for words in (("ready", "--wait", "60"), ("housekeeping", "backup")):
                    subprocess.run(command(given, *words), env=environ(tmp_path), check=True)
                status, found = doctor(given, folder=tmp_path)
                without = doctor(given | {"backup.directory": ""}, folder=tmp_path)
            finally:
                daemon.terminate()
    others = [row for row in found if row["level"] != OK and not row["found"].startswith("SQLite ")]
    assert others == [] and status == (3 if any(row["found"].startswith("SQLite ") for row in found) else 0)
    assert without[0] == 3 and [row["name"] for row in without[1] if row["level"] == WARN][-1] == "backups"


def test_who_may_use_the_local_listener(core, settings, look):
    assert look(settings(), "local listener") == [(OK, "the local listener is for root and the daemon's account, and nobody else")]
    assert look(settings(local__allow="daemon @root"), "local listener") == [
        (OK, "the local listener is for root and the daemon's account, daemon, @root")]


def test_who_may_run_experiments(core, settings, look):
    """Bad input: a setting that lets every account of the host take experiments, and a name that is not on the host."""
    every = (WARN, "every account of this host may take experiments at the local listener, and read what users have sent")
    assert look(settings(local__workers="*"), "local listener") == [
        (OK, "the local listener is for root and the daemon's account"), every]
    assert look(settings(local__allow="daemon", local__workers="@root nobody-here"), "local listener") == [
        (WARN, "local.workers names what is not on this host: nobody-here"),
        (OK, "the local listener is for root and the daemon's account, daemon"),
        (OK, "to run experiments, and no more, the local listener is also for @root, nobody-here")]


def test_where_the_daemon_not_this_command_has_unpacked_itself(core, settings, look):
    """A process that holds the lock and has a library mapped out of an unpack folder in /tmp, as a one-file program has."""
    with tempfile.TemporaryDirectory(prefix="_MEI", dir="/tmp") as unpacked:
        shutil.copy(_ctypes.__file__, unpacked)
        code = (f"import ctypes, fcntl, os, time; ctypes.CDLL({unpacked!r} + '/{os.path.basename(_ctypes.__file__)}')\n"
                f"file = open({str(core.store.path.parent)!r} + '/ippd.lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
                "print(os.getpid(), file=file, flush=True); print('held', flush=True); time.sleep(1000)")
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"held\n"
            assert look(settings(), "unpack folder") == [(WARN, "the daemon has unpacked itself in /tmp")]
            resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (100, 100))
            assert look(settings(), "file limits") == [(WARN, "a process may open 100 files, server.connections needs 2500")]
            holder.kill()
    assert look(settings(), "unpack folder")[0][0] == OK


def test_a_test_mail_that_is_not_taken_is_one_of_the_findings(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sets = (f"data.directory={tmp_path}/data", "public.listen=127.0.0.1:0", "mail.host=127.0.0.1", f"mail.port={sock.getsockname()[1]}")
        run = program.words(*(f"--set={one}" for one in sets), "doctor", "--json", "--mail", "you@example.org")
        done = subprocess.run(run, capture_output=True, text=True, env={"IPPD_CONFIG": "", "PATH": os.environ["PATH"]})
    last = json.loads(done.stdout)[-1]
    assert done.returncode == 1 and (last["name"], last["level"]) == ("test mail", FAIL) and "Connection refused" in last["found"], last
