"""What engines print, taken apart. Bad input: unknown states, ended twins, broken XML, words that a shell would take for syntax."""

import os
import subprocess
import time

import pytest

from ippd.runners import ENGINES, files, gridengine, local, slurm
from ippd.runners.launcher import LAUNCHER
from ippd.runners.tools import ENDED, LOST, OVERTIME, RUNNING, STOPPED, SUSPENDED, WAITING, EngineError, Job, call, environment, requests

XML = """<?xml version='1.0'?><job_info><queue_info>
<job_list state="running"><JB_job_number>7</JB_job_number><JB_name>ippd-1-ab</JB_name><state>{}</state></job_list>
</queue_info><job_info><job_list state="pending"><JB_job_number>8</JB_job_number><JB_name>ippd-2-cd</JB_name><state>qw</state></job_list>
</job_info></job_info>"""


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_each_engine_has_all_functions(engine):
    assert all(callable(getattr(engine, name)) for name in ("submit", "look", "cancel", "suspend", "resume", "clean", "books"))
    assert isinstance(engine.PROGRAMS, tuple) and engine.NAME in ENGINES and engine.GRACE > 0 and engine.LATE >= 0


@pytest.mark.parametrize(
    ("word", "state"),
    [("PENDING", WAITING), ("RUNNING", RUNNING), ("COMPLETING", RUNNING), ("CANCELLED by 0", STOPPED), ("TIMEOUT", OVERTIME),
     ("NODE_FAIL", LOST), ("COMPLETED", ENDED), ("CANCELLED+", STOPPED), ("A_NEW_STATE", RUNNING), ("", RUNNING)],
)  # fmt: skip
def test_slurm_states(word, state):
    assert slurm.parse([f"12|ippd-1-ab|{word}|None"])["ippd-1-ab"].state == state


def test_of_two_jobs_with_one_name_the_live_one_counts():
    assert slurm.parse(["12|n|COMPLETED|None", "13|n|RUNNING|None", "14|n|CANCELLED|None"])["n"].id == "13"


@pytest.mark.parametrize(("letters", "state"), [("r", RUNNING), ("t", RUNNING), ("dr", RUNNING), ("s", SUSPENDED), ("hqw", WAITING),
                                                ("Eqw", "refused"), ("S", SUSPENDED), ("Rr", RUNNING)])  # fmt: skip
def test_grid_engine_states(letters, state):
    seen = gridengine.parse(XML.format(letters))
    assert seen["ippd-1-ab"].state == state and seen["ippd-2-cd"][:3] == (WAITING, "8", "qw")


def test_grid_engine_output_that_is_no_xml_is_an_error():
    with pytest.raises(EngineError):
        gridengine.parse("error: commlib error")


@pytest.mark.parametrize(("failed", "state"), [("0", ENDED), ("37  : qmaster enforced h_rt limit", OVERTIME),
                                               ("100 : assumedly after job", STOPPED), ("19  : before job", LOST)])  # fmt: skip
def test_grid_engine_accounting(failed, state):
    records = f"=====\nfailed       0\n=====\njobnumber    9   \nfailed       {failed}    \nexit_status  137     \n"
    assert gridengine.parse_books(records).state == state
    assert gridengine.parse_books("nothing") is None


@pytest.mark.parametrize(
    ("lines", "facts"),
    [  # Son of Grid Engine 8.1, then SGE 6.2, Univa, and what a node that failed leaves
        ("start_time Sun Nov 22 07:55:50 2026\nend_time Sun Nov 22 07:55:51 2026\nru_maxrss 87.836KB\ncpu 0.074s\n"
         "exit_status 137 (Killed)",
         {"exit_code": 137, "cpu_seconds": 0.074, "peak_bytes": 87836 << 10, "started_at": 0.0, "ended_at": 1.0}),
        ("ru_maxrss 87836\ncpu 12\nexit_status 3", {"exit_code": 3, "cpu_seconds": 12.0, "peak_bytes": 87836 << 10}),
        ("start_time 11/22/2026 07:55:50.123\nend_time 11/22/2026 07:55:52\nru_maxrss 1.5MB", {
            "peak_bytes": 1_500_000 << 10, "started_at": 0.0, "ended_at": 2.0,
        }),
        ("start_time -/-\nend_time -/-\nru_maxrss 0.000B\ncpu ?", {}),
    ],
)  # fmt: skip
def test_grid_engine_facts(lines, facts):
    begin = time.mktime((2026, 11, 22, 7, 55, 50, 0, 0, -1))
    found = dict(gridengine.parse_books(f"=====\nhostname n1   \nfailed 0 \n{lines}\n").facts)
    assert found.pop("node") == "n1"
    assert found == {name: value + begin if name.endswith("_at") else value for name, value in facts.items()}


def test_slurm_books():
    seen = slurm.parse_books([
        "7|a|FAILED|0:9|n1|00:02.247||1795334007|1795334009", "7.batch|batch|CANCELLED|0:9|n1|00:00.247|96944K|1|2",
        "7.extern|extern|COMPLETED|0:0|n1|00:00||1|2", "8|b|COMPLETED|0:0|n1|1-02:03:04||Unknown|Unknown", "8.0|x|?|?|?|?|1.5G|?|?",
        "9|c|RUNNING|0:0|n1|00:00:00||5|Unknown", "10|b|RUNNING|0:0|n2|x||5|", "11|d|NODE_FAIL|1:0|n1", "", "12.batch|odd",
    ])  # fmt: skip
    assert seen["a"] == (ENDED, "7", "FAILED", {"node": "n1", "cpu_seconds": 2.247, "started_at": 1795334007.0, "ended_at": 1795334009.0,
                                                "exit_code": 137, "peak_bytes": 96944 << 10})  # fmt: skip
    assert (seen["b"].id, seen["b"].state) == ("10", RUNNING), "of two with one name the live one counts"
    assert seen["c"].facts == {"node": "n1", "cpu_seconds": 0.0, "started_at": 5.0}
    assert seen["d"] == (LOST, "11", "NODE_FAIL", {"node": "n1", "exit_code": 1})


def test_what_an_app_asks_for_becomes_words(make_job):
    own, said = {"memory": "-l h_vmem={memory_per_cpu}M"}, gridengine.SAID
    assert requests(make_job("x"), own, said) == []
    big = {"cpus": 4, "memory": 1 << 30, "gpus": 2, "site": {"cpus": "-pe 'a b' {cpus}", "gpus": "-l gpu={gpus},{other}"}}
    assert requests(make_job("x", **big), own, said) == ["-pe", "a b", "4", "-l", "h_vmem=256M", "-l", "gpu=2,{other}"]
    own_words = ("-pe", "mpi", "8", "-l", "mem_free=2G,gpu=1")
    assert requests(make_job("x", words=own_words, **big), own, said) == [], "its own words are stronger"
    with pytest.raises(EngineError, match="worker.cpus does not say"):
        requests(make_job("x", cpus=2), own, said)


def test_a_command_that_fails_or_hangs_is_an_error_with_what_it_said():
    with pytest.raises(EngineError, match="sh: no such queue"):
        call(["sh", "-c", "echo no such queue >&2; exit 3"])
    with pytest.raises(EngineError, match="did not answer"):
        call(["sleep", "9"], timeout=0.1)
    with pytest.raises(EngineError, match="No such file"):
        call(["no-such-program"])


def test_secrets_of_the_worker_do_not_reach_jobs(monkeypatch):
    monkeypatch.setenv("IPPD_MAIL_PASSWORD", "x")
    monkeypatch.setenv("TMPDIR", "/where/the/program/unpacks/itself")
    assert not {"IPPD_MAIL_PASSWORD", "TMPDIR"} & set(environment()) and "PATH" in environment()


@pytest.fixture
def make_job(tmp_path):
    def make(*words, **facts):
        folder = tmp_path / f"ippd-1-{len(list(tmp_path.iterdir())):x}"
        for part in ("words", "work"):
            (folder / part).mkdir(parents=True)
        for number, word in enumerate(words):
            (folder / "words" / str(number)).write_bytes(os.fsencode(word))
        (folder / "job.sh").write_text(LAUNCHER)
        return Job(folder.name, folder, **facts)

    return make


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.02)


HOSTILE = ["3;id", "$(id)", "it's \"q\"", "two\nlines\n\n", "-rf", "--", "Grüße 脳", "", " ", "*", "\\", "a\tb", "$HOME", "`id`"]


def test_the_launcher_gives_words_exactly_and_writes_down_the_end(make_job):
    job = make_job("/bin/sh", "-c", 'printf "%s\\0" "$@"; exit 7', "x", *HOSTILE)
    assert subprocess.run(["/bin/sh", job.folder / "job.sh", job.folder], check=False).returncode == 7
    assert (job.folder / "stdout.txt").read_bytes().split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert files.text(job.folder / "exit") == "7" and (job.folder / "node").read_text().strip() == os.uname().nodename


def test_a_second_job_of_one_name_does_nothing(make_job):
    job = make_job("/bin/sh", "-c", "echo ran >>times-run")
    for _ in range(2):
        subprocess.run(["/bin/sh", job.folder / "job.sh", job.folder], check=False)
    assert (job.folder / "work" / "times-run").read_text() == "ran\n"


HIDDEN = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done'"


def alive(pid):
    stat = local._stat(int(pid))
    return bool(stat) and stat[0] not in "ZX"


def end(job):
    """Cancel a local job as the worker does, round after round."""

    def gone():
        local.cancel(job)
        seen = local.look([job]).get(job.name)
        return seen is None or seen.state == LOST

    until(gone, 30)
    local.clean(job)


@pytest.mark.parametrize("how", ["setsid", "env -i setsid", "env -i setsid setsid -f", "(env -i setsid -f"])
def test_a_cancelled_local_job_leaves_no_process_wherever_it_hid(make_job, how, monkeypatch):
    """Bad input: programs that ignore SIGTERM, in sessions, environments and below parents of their own."""
    if how.startswith("env") and not local.REAPS:
        how = "setsid"
    monkeypatch.setattr(local, "PATIENCE", 0.5)
    more = ")" if how.startswith("(") else ""
    job = make_job("/bin/sh", "-c", f"{how} {HIDDEN} {more} & sleep 100")
    local.submit(job)
    until(lambda: (job.folder / "stdout.txt").exists() and (job.folder / "stdout.txt").read_text())
    hidden = (job.folder / "stdout.txt").read_text()
    assert local.look([job])[job.name].state == RUNNING and alive(hidden)
    end(job)
    until(lambda: not alive(hidden) and local._all(job) == [])


@pytest.mark.skipif(not local.REAPS, reason="this kernel is older than Linux 3.4")
def test_what_an_ended_local_job_left_behind_is_gone_before_its_end_is_written(make_job):
    """Bad input: a program that ends, and leaves one without a trace of its name."""
    job = make_job("/bin/sh", "-c", f"env -i setsid {HIDDEN} >hidden & until [ -s hidden ]; do sleep 0.1; done; exit 3")
    local.submit(job)
    until(lambda: (job.folder / "exit").exists(), 30)
    assert not alive((job.folder / "work" / "hidden").read_text()) and files.text(job.folder / "exit") == "3"


# As a container's: without the job's name, it waits for a program that has it, and then has 3 s of work with what that leaves.
HELPER = """env -u IPPD_JOB setsid sh -c '(trap "" TERM; IPPD_JOB=%s; export IPPD_JOB; exec sleep 100) & wait; sleep 3; echo tidy >tidy' &
echo begun; sleep 100"""


@pytest.mark.skipif(not local.REAPS, reason="this kernel is older than Linux 3.4")
def test_the_helper_of_a_container_that_had_to_be_killed_may_put_it_away(make_job):
    """Bad input: a program that ignores SIGTERM below a helper; both were killed at once, and podman kept a container that was none."""
    job = make_job("/bin/sh", "-c", 'eval "$(printf "$0" "$IPPD_JOB")"', HELPER)
    local.submit(job)
    until(lambda: files.text(job.folder / "stdout.txt") == "begun" and len(local._all(job)) > 3)
    end(job)
    assert files.text(job.folder / "work" / "tidy") == "tidy" and local._all(job) == []


def test_what_a_killed_local_job_left_behind_is_killed(make_job):
    job = make_job("/bin/sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & sleep 100")
    local.submit(job)
    until(lambda: len(local._all(job)) > 2)
    os.kill(local._process(job.folder), 9)
    local.clean(job)
    until(lambda: local._all(job) == [])


@pytest.mark.parametrize("written", ["{pid} {start}", "-1 0", "abc 1", "99999999999999999999 1", "1 0", ""])
def test_a_job_that_names_another_process_as_its_own_harms_none(make_job, written):
    """Bad input: the worker itself, all processes, no number, init, nothing."""
    job = make_job("true")
    (job.folder / "pid").write_text(written.format(pid=os.getpid(), start=local._stat(os.getpid())[19]))
    local.suspend(job)  # would stop this test
    assert local._all(job) == [] and local._process(job.folder) is None


def test_another_program_of_the_account_is_not_taken_for_the_job(make_job):
    """Bad input: the number and the right start time of a process that was not started for the job."""
    job = make_job("true")
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as other:
        (job.folder / "pid").write_text(f"{other.pid} {local._stat(other.pid)[19]}")
        local.clean(job)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd"), lambda path: path.write_bytes(b"")])
def test_what_is_no_small_file_reads_as_nothing(tmp_path, make):
    """Bad input: a pipe that nobody writes into, a folder, a link, an empty file."""
    make(tmp_path / "exit")
    assert files.text(tmp_path / "exit") == "" and files.size(tmp_path / "exit") == 0


def test_of_a_large_file_only_the_beginning_is_read(tmp_path):
    (tmp_path / "exit").write_bytes(b"7" * 100_000)
    assert len(files.text(tmp_path / "exit")) == files.SMALL


@pytest.mark.parametrize("words", ["nan", "inf", "-1", "1e300", "abc", "", "1 2"])
def test_what_is_no_time_is_none(words):
    """Bad input: numbers that no clock shows, and words."""
    assert files.number(words) is None and files.number("12.5") == 12.5


def test_a_local_job_is_suspended_and_resumed(make_job):
    job = make_job("/bin/sh", "-c", "sleep 0.3; echo done")
    local.submit(job)
    until(lambda: job.name in local.look([job]) and (job.folder / "pid").exists())
    local.suspend(job)
    until(lambda: local.look([job])[job.name].state == SUSPENDED)
    local.resume(job)
    until(lambda: (job.folder / "exit").exists())


def test_a_process_id_that_was_given_out_again_is_not_taken_for_the_job(make_job):
    job = make_job("true")
    (job.folder / "pid").write_text(f"{os.getpid()} 1\n")
    assert local.look([job])[job.name].state == LOST and os.getpid() not in local._all(job)


def test_a_local_job_has_no_more_memory_than_it_may(make_job):
    job = make_job("python3", "-c", "x = bytearray(800 << 20)", memory=400 << 20)
    local.submit(job)
    until(lambda: (job.folder / "exit").exists())
    assert b"MemoryError" in (job.folder / "stderr.txt").read_bytes()
