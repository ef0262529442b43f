"""The job script of examples/ against the real server: by several shells, with hostile names and values, and when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import program
from conftest import echo, join

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}
HOSTILE = ["3;id", "$(id)", "`id`", "-rf", "--out=/etc", "a\n\nb\n\n", " ", "'", '"', "\\", "\\n%s", "*", "é☃", "&|<>#", "x" * 60000]
# Writes its words, each ended by a NUL, and the names of its inputs.
SHOW = """#!/bin/sh
printf '%s\\0' "$@" >results/words
ls -A inputs >results/names
"""


@pytest.fixture
def apps(tmp_path):
    """A folder of definitions; a function that adds one: its program as the text of a script."""
    folder = tmp_path / "apps"
    folder.mkdir()

    def add(name, program=SHOW, **definition):
        script = folder / f"{name}.sh"
        script.write_text(program)
        script.chmod(0o700)
        (folder / f"{name}.json").write_text(json.dumps({"Executable": script.name} | definition))

    add("echo")
    add.folder = folder
    return add


@pytest.fixture
def job(portal, apps, tmp_path):
    """A function: run the script once; what it leaves in the temporary folder is an error."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def run(shell="dash", **environment):
        given = os.environ | {"JOB_APPS": str(apps.folder), "TMPDIR": str(scratch)} | environment
        url = f"http://127.0.0.1:{portal.local.port}"
        words = [*SHELLS[shell], EXAMPLES / "job.sh", "--once", url]
        done = subprocess.run(words, env=given, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert list(scratch.iterdir()) == []
        return done

    run.scratch = scratch
    return run


@pytest.fixture
def ada(portal):
    return join(portal.core)


def result(core, ada, number, name):
    return Path(core.files.open(ada, number, name).path).read_bytes()


@pytest.fixture(params=SHELLS)
def shell(request):
    return request.param


def test_hostile_values_stay_one_word_each(portal, ada, apps, job, shell):
    apps("echo", PARAMS={f"p{n}": f"--p{n}=" if n % 2 else f"-{n}" for n in range(len(HOSTILE))}, BINOPTS={"p0": "--on"})
    experiment = portal.core.experiments.submit(ada, echo(**{f"p{n}": text for n, text in enumerate(HOSTILE)}))
    done = job(shell)
    assert done.returncode == 0, done
    words = result(portal.core, ada, experiment["id"], "words").decode().split("\0")
    expected = [word for n, text in enumerate(HOSTILE) for word in ([f"--p{n}={text}"] if n % 2 else [f"-{n}", text])]
    assert words == [*expected, "--on", ""]


def test_hostile_file_names_arrive_as_the_queue_tells_them(portal, ada, apps, job, shell):
    apps("echo", PARAMS={"scan": "--scan="}, FILES=["scan"])
    names = ["3;id.nii.gz", "$(id).nii", "-rf", "../../x", "my scan.nii.gz", "Über мозг.nii", "a%0Ab", "x", "x"]
    token = portal.public.post("/users/auth", email="ada@example.org", password="correct horse battery").json["token"]
    reply = portal.public.post(
        "/experiments/new", {"token": token, "app": "echo", "experimentName": "$(touch x);-n"}, [("scan", name, b"1") for name in names]
    )
    assert job(shell, LC_ALL="C").returncode == 0
    [stored] = portal.core.experiments.list(ada)
    assert stored["status"] == "completed" and len(stored["inputs"]) == len(names)
    assert sorted(result(portal.core, ada, reply.json["id"], "names").decode().split()) == sorted(stored["inputs"])
    words = result(portal.core, ada, reply.json["id"], "words").decode()
    assert words == "--scan=" + ",".join(f"inputs/{name}" for name in stored["inputs"]) + "\0"


def test_hostile_names_of_results_are_uploaded(portal, ada, apps, job, shell):
    apps("echo", '#!/bin/sh\ncd results; for name in \'a"b\' \'c\\d\' \'e;f=g,h\' \'@i\' \'-j\' \'k l\'; do echo 1 >"./$name"; done\n')
    number = portal.core.experiments.submit(ada, echo())["id"]
    done = job(shell)
    assert done.returncode == 0, done
    found = portal.core.experiments.get(ada, number)
    assert found["status"] == "completed" and len(found["outputs"]) == 6
    assert {result(portal.core, ada, number, name) for name in found["outputs"]} == {b"1\n"}


def test_a_user_names_neither_files_of_the_machine_nor_where_results_go(portal, ada, apps, job):
    apps("echo", PARAMS={"scan": "--scan=", "out": "--out=", "axis": "--axis="}, DEFAULTS={"out": "$experdir/results", "axis": "z"},
         FILES=["scan"])
    first = portal.core.experiments.submit(ada, [*echo(out="/etc", axis=""), *echo(("a.nii", b"1"))[2:]])["id"]
    second = portal.core.experiments.submit(ada, echo(scan="/etc/passwd"))["id"]
    job()
    job()
    words = result(portal.core, ada, first, "words").decode().split("\0")
    assert words[0] == "--scan=inputs/a.nii" and words[2] == "--axis=z"
    assert words[1].startswith(f"--out={job.scratch}") and words[1].endswith("/results")
    failed = portal.core.experiments.get(ada, second)
    assert (failed["status"], failed["message"]) == ("failed", "the field scan must be a file")


def test_a_failure_keeps_the_exit_code_and_the_last_words(portal, ada, apps, job, shell):
    apps("echo", '#!/bin/sh\necho one\nprintf "no \\"voxels\\" & \\033[1m é" >&2\nexit 3\n')
    number = portal.core.experiments.submit(ada, echo())["id"]
    done = job(shell)
    assert done.returncode == 0
    assert "\033" not in done.stdout
    failed = portal.core.experiments.get(ada, number)
    assert (failed["status"], failed["exit_code"]) == ("failed", 3)
    assert failed["message"].startswith('no "voxels" & ') and failed["message"].endswith("é")


def test_an_app_without_results_has_failed(portal, ada, apps, job):
    apps("echo", "#!/bin/sh\n")
    number = portal.core.experiments.submit(ada, echo())["id"]
    job()
    failed = portal.core.experiments.get(ada, number)
    assert (failed["status"], failed["message"]) == ("failed", "the app made no results")


def test_what_the_app_prints_is_its_log(portal, ada, apps, job):
    apps("echo", "#!/bin/sh\necho hello\necho 1 >results/one\n")
    number = portal.core.experiments.submit(ada, echo())["id"]
    job()
    assert sorted(portal.core.experiments.get(ada, number)["outputs"]) == ["log.txt", "one"]
    assert result(portal.core, ada, number, "log.txt") == b"hello\n"


@pytest.mark.parametrize("name", ["unknown", "..", "../apps/echo", "/etc/passwd", "echo.sh", "", "list", "a\nb"])
def test_an_app_that_is_not_defined_here_fails(portal, ada, apps, job, name):
    (apps.folder / "list.json").write_text("[]")
    number = portal.core.experiments.submit(ada, echo())["id"]
    portal.core.store.execute("UPDATE experiments SET app = :name WHERE id = :id", name=name, id=number)
    assert job().returncode == 0
    failed = portal.core.experiments.get(ada, number)
    assert (failed["status"], failed["message"]) == ("failed", "there is no such app here")


def tools_without(folder, *missing):
    """A folder with links to all programs of the machine but some."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for tool in Path(place).iterdir():
            if tool.name not in missing and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


def test_without_unzip_python_unpacks(portal, ada, job, tmp_path):
    experiment = portal.core.experiments.submit(ada, echo(("Über.nii", b"1")))
    assert job(PATH=tools_without(tmp_path / "bin", "unzip")).returncode == 0
    assert result(portal.core, ada, experiment["id"], "names").decode() == "Über.nii\n"


@pytest.mark.parametrize("tool", ["curl", "jq"])
def test_a_missing_tool_is_told(job, tmp_path, tool):
    done = job(PATH=tools_without(tmp_path / "bin", tool))
    assert done.returncode == 1
    assert done.stderr == f"job.sh: the program {tool} is needed; the package of that name has it\n"


def test_one_that_ended_between_poll_and_start_is_left_alone(portal, ada, apps, job, tmp_path):
    number = portal.core.experiments.submit(ada, echo())["id"]
    tools, url = tools_without(tmp_path / "bin", "curl"), f"http://127.0.0.1:{portal.local.port}/experiments/{number}"
    curl = tmp_path / "bin" / "curl"
    fail = f"/usr/bin/curl -s -d exit_code=9 {url}/failed >&2"
    curl.write_text(f'#!/bin/sh\ncase "$*" in */running) {fail} ;; esac\nexec /usr/bin/curl "$@"\n')
    curl.chmod(0o755)
    done = job(PATH=tools)
    assert f"job.sh: experiment {number}: not ours any more\n" in done.stdout
    assert portal.core.experiments.get(ada, number)["exit_code"] == 9
    assert done.returncode == 0


def test_it_takes_one_experiment_at_a_time(portal, ada, apps, job):
    """Another script that runs beside it gets the next one."""
    url = f"http://127.0.0.1:{portal.local.port}"
    apps("echo", f"#!/bin/sh\ncurl -s {url}/experiments/queue | jq length >results/others\n")
    first, second = (portal.core.experiments.submit(ada, echo())["id"] for _ in range(2))
    assert job().returncode == 0
    assert result(portal.core, ada, first, "others") == b"1\n"
    assert portal.core.experiments.get(ada, second)["status"] == "queued"


def test_a_daemon_that_is_away_is_told(job, portal):
    port, portal.local.port = portal.local.port, 1
    done = job()
    portal.local.port = port
    assert done.returncode == 1
    assert "job.sh: the queue at http://127.0.0.1:1 cannot be polled\n" in done.stderr


def test_it_polls_until_it_is_told_to_end_and_finishes_what_it_has(portal, ada, apps, tmp_path, shell):
    going = tmp_path / "going"
    apps("echo", f"#!/bin/sh\ntouch {going}; sleep 0.5; echo 1 >results/one\n")
    given = os.environ | {"JOB_APPS": str(apps.folder), "JOB_INTERVAL": "0.1", "JOB_URL": f"http://127.0.0.1:{portal.local.port}"}
    script = subprocess.Popen([*SHELLS[shell], EXAMPLES / "job.sh"], env=given, stdout=subprocess.PIPE, text=True)
    try:
        number = portal.core.experiments.submit(ada, echo())["id"]
        end = time.monotonic() + 30
        while not going.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        script.send_signal(signal.SIGTERM)
        output, _ = script.communicate(timeout=30)
    finally:
        script.kill()
        script.wait()
    assert script.returncode == 0
    assert output.splitlines()[-1] == f"job.sh: experiment {number}: completed"
    assert portal.core.experiments.get(ada, number)["status"] == "completed"


def demo(tmp_path, path):
    """Run the demo with this PATH; what it leaves in the temporary folder is an error."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    given = os.environ | {"PATH": path, "TMPDIR": str(scratch)}
    words = [sys.executable, EXAMPLES / "demo", "--program", program.path()]
    done = subprocess.run(words, env=given, capture_output=True, text=True, timeout=120)
    assert list(scratch.iterdir()) == []
    return done


def test_the_demo_fails_with_a_reason_when_something_is_not_as_it_should_be(tmp_path):
    """Here curl, which is not one: the job script cannot reach the daemon."""
    path = tools_without(tmp_path / "bin", "curl")
    (tmp_path / "bin" / "curl").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "bin" / "curl").chmod(0o755)
    done = demo(tmp_path, path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "demo: failed: the job script ended with status 1"
    assert "the end of the daemon's log:" in done.stderr


def test_the_demo_says_which_tool_is_missing(tmp_path):
    done = demo(tmp_path, tools_without(tmp_path / "bin", "curl", "jq"))
    assert done.returncode == 1
    assert done.stdout == "demo: failed: the job script needs curl and jq; the package of that name has it\n"


def test_the_definition_of_the_demo_is_in_the_form_of_the_portal():
    [form] = json.loads((EXAMPLES / "apps" / "apps.json").read_text())
    fields = {name: field for group in form["fieldGroups"].values() for name, field in group["fields"].items()}
    backend = json.loads((EXAMPLES / "apps" / f"{form['appKey']}.json").read_text())
    assert set(backend["PARAMS"]) - set(backend["DEFAULTS"]) <= set(fields)
    assert {name for name, field in fields.items() if field["type"] == "attachment"} == set(backend["FILES"])
    assert os.access(EXAMPLES / "apps" / backend["Executable"], os.X_OK)


@pytest.mark.parametrize("executable", ["gone", "echo.json", "."])
def test_a_program_that_cannot_be_run_is_named_without_its_folder(portal, ada, apps, job, executable):
    """Bad input: no file, a file that is not executable, a folder."""
    apps("echo", Executable=executable)
    number = portal.core.experiments.submit(ada, echo())["id"]
    assert job().returncode == 0
    failed = portal.core.experiments.get(ada, number)
    assert (failed["status"], failed["exit_code"], failed["message"]) == ("failed", 127, f"the program {executable} cannot be run")


def test_the_script_of_the_readme_does_what_it_says(portal, ada, tmp_path, shell):
    """With input files, without any, and with a program that fails."""
    script = (EXAMPLES.parent / "README.md").read_text().partition("in ten lines\n\n```sh\n")[2].partition("```")[0]
    assert len(script.splitlines()) == 10
    (tmp_path / "script").write_text(script.replace("127.0.0.1:8080", f"127.0.0.1:{portal.local.port}"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "my_analysis").write_text('#!/bin/sh\n[ ! -e "$1/bad" ] || exit 5\nls "$1"\n')
    (tmp_path / "bin" / "my_analysis").chmod(0o755)
    (tmp_path / "work").mkdir()
    files = ([("a.nii", b"1"), ("b.nii", b"2")], [], [("bad", b"1")])
    ids = [portal.core.experiments.submit(ada, echo(*more))["id"] for more in files]
    given = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "work")}
    done = subprocess.run([*SHELLS[shell], tmp_path / "script"], env=given, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = [portal.core.experiments.get(ada, id) for id in ids]
    assert [(one["status"], one["exit_code"]) for one in found][1:] == [("completed", found[0]["exit_code"]), ("failed", 5)]
    assert [result(portal.core, ada, id, "result.txt") for id in ids[:2]] == [b"a.nii\nb.nii\n", b""]
    assert len(list((tmp_path / "work").iterdir())) == 1, "only the folder of what failed is left"


def test_an_unknown_flag_is_not_taken_for_an_address():
    done = subprocess.run(["sh", EXAMPLES / "job.sh", "--help"], capture_output=True, text=True, timeout=10)
    assert done.returncode == 1 and "usage: job.sh [--once]" in done.stderr
