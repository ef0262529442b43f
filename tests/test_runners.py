"""What engines print, taken apart. Bad input: unknown states, ended twins, broken XML, words that a shell would take for syntax."""

import os
import subprocess
import time

import pytest

from ippd.runners import ENGINES, gridengine, local, slurm
from ippd.runners.launcher import LAUNCHER
from ippd.runners.tools import ENDED, LOST, OVERTIME, RUNNING, STOPPED, SUSPENDED, WAITING, EngineError, Job, call, environment

XML = """<?xml version='1.0'?><job_info><queue_info>
<job_list state="running"><JB_job_number>7</JB_job_number><JB_name>ippd-1-ab</JB_name><state>{}</state></job_list>
</queue_info><job_info><job_list state="pending"><JB_job_number>8</JB_job_number><JB_name>ippd-2-cd</JB_name><state>qw</state></job_list>
</job_info></job_info>"""


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_each_engine_has_all_functions(engine):
    assert all(callable(getattr(engine, name)) for name in ("submit", "look", "cancel", "suspend", "resume", "clean"))
    assert engine.NAME in ENGINES and engine.GRACE > 0


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
    assert seen["ippd-1-ab"].state == state and seen["ippd-2-cd"] == (WAITING, "8", "qw")


def test_grid_engine_output_that_is_no_xml_is_an_error():
    with pytest.raises(EngineError):
        gridengine.parse("error: commlib error")


@pytest.mark.parametrize(("failed", "state"), [("0", ENDED), ("37  : qmaster enforced h_rt limit", OVERTIME),
                                               ("100 : assumedly after job", STOPPED), ("19  : before job", LOST)])  # fmt: skip
def test_grid_engine_accounting(failed, state):
    records = f"=====\nfailed       0\n=====\njobnumber    9   \nfailed       {failed}    \nexit_status  137     \n"
    assert gridengine.parse_accounting(records).state == state
    assert gridengine.parse_accounting("nothing") is None


def test_a_command_that_fails_or_hangs_is_an_error_with_what_it_said():
    with pytest.raises(EngineError, match="sh: no such queue"):
        call(["sh", "-c", "echo no such queue >&2; exit 3"])
    with pytest.raises(EngineError, match="did not answer"):
        call(["sleep", "9"], timeout=0.1)
    with pytest.raises(EngineError, match="No such file"):
        call(["no-such-program"])


def test_secrets_of_the_worker_do_not_reach_jobs(monkeypatch):
    monkeypatch.setenv("IPPD_MAIL_PASSWORD", "x")
    assert "IPPD_MAIL_PASSWORD" not in environment() and "PATH" in environment()


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
    assert (job.folder / "exit").read_text() == "7\n" and (job.folder / "node").read_text().strip() == os.uname().nodename


def test_a_second_job_of_one_name_does_nothing(make_job):
    job = make_job("/bin/sh", "-c", "echo ran >>times-run")
    for _ in range(2):
        subprocess.run(["/bin/sh", job.folder / "job.sh", job.folder], check=False)
    assert (job.folder / "work" / "times-run").read_text() == "ran\n"


def test_a_cancelled_local_job_leaves_no_process_wherever_it_hid(make_job):
    hidden = "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $! ; wait"
    job = make_job("/bin/sh", "-c", hidden)
    local.submit(job)
    until(lambda: (job.folder / "stdout.txt").exists() and (job.folder / "stdout.txt").read_text())
    assert local.look([job])[job.name].state == RUNNING
    local.cancel(job)
    os.utime(job.folder / "asked", (time.time() - 60,) * 2)
    local.cancel(job)
    until(lambda: local._all(job) == [])
    until(lambda: local.look([job])[job.name].state == LOST)


def test_what_an_ended_local_job_left_behind_is_killed(make_job):
    job = make_job("/bin/sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & exit 0")
    local.submit(job)
    until(lambda: (job.folder / "exit").exists())
    assert local._all(job)
    local.clean(job)
    until(lambda: local._all(job) == [])


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
