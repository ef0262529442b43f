"""App definitions and submissions. Bad input: broken files, halves that clash, wrong texts, too many files, files in text fields."""

import json
import os
from pathlib import Path

import pytest

from conftest import join
from ippd.command import contained, words
from ippd.definitions import Field, parse_backend
from ippd.domain.apps import Folder, as_json
from ippd.domain.submission import Part
from ippd.errors import Invalid, NotFound
from ippd.permissions import ANONYMOUS, OPERATOR
from ippd.validation import wrong_text

SHARED = Path(__file__).resolve().parents[2] / "shared" / "definitions"
HOSTILE = ["3;id", "$(id)", "`id`", "it's \"quoted\"", "two\nlines\n", "-rf", "--", "Grüße 脳 🧠", " ", "*", "\\", "a\tb", "$HOME", "'"]
HOSTILE += ["%s\x01"]

FORM = {
    "appKey": "measure",
    "label": "Measure",
    "description": "Measures.",
    "starter": "/bin/true",
    "fieldGroups": {
        "required": {
            "label": "Required",
            "open": True,
            "fields": {
                "experimentName": {"type": "string", "label": "Name", "required": True, "min": 2, "max": 8},
                "scan": {"type": "attachment", "label": "Scan", "required": True, "min": 1, "max": 2, "validator": "/opt/check"},
            },
        },
        "optional": {
            "label": "Optional",
            "open": False,
            "fields": {
                "count": {"type": "integer", "label": "Count", "min": 1, "max": 5, "required": False},
                "weight": {"type": "float", "label": "Weight", "min": 0, "max": 0.99},
                "mode": {"type": "select", "label": "Mode", "choices": {"a": "A", "b": "B"}},
                "note": {"type": "string", "label": "Note"},
            },
        },
    },
}
BACKEND = {
    "EXECUTABLE": "bin/measure",
    "Params": {"scan": "--scan=", "count": "--count", "weight": "--weight", "note": "", "out": "--out"},
    "binopts": {"verbose": "--verbose"},
    "DEFAULTS": {"weight": "0.5", "out": "$experdir/results", "verbose": True},
    "SGEJobResources": "-l h_rt=0:10:0 -l h_vmem=2G",
    "Container": "",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "apps"
    made.mkdir()
    (made / "forms.json").write_text(json.dumps([FORM]))
    (made / "measure.json").write_text(json.dumps(BACKEND))
    return made


@pytest.fixture
def core(make_core, folder):
    return make_core(apps__directory=folder)


def parts(*files, app="measure", name="a trial", **params):
    yield Part("fact", "app", app)
    yield Part("fact", "name", name)
    for field, value in params.items():
        yield Part("param", field, value)
    for field, data in files:
        yield Part("file", field, data if not isinstance(data, bytes) else [data], "scan.nii")


def untouched():
    raise AssertionError("a byte was read")
    yield


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real definitions are not beside this checkout")
def test_all_67_real_definitions_and_their_categories_load(make_core):
    core = make_core(apps__directory=SHARED)
    assert core.apps.now().problems == []
    assert len(core.apps.list(ANONYMOUS)) == 67
    assert core.apps.now().apps["ipp_full"].backend.executable == "/opt/apps/ipp_echo.sh"
    assert "/bin/true" not in json.dumps(core.apps.list(ANONYMOUS)) and "validateimage" not in json.dumps(core.apps.list(ANONYMOUS))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real definitions are not beside this checkout")
def test_a_category_with_groups_is_only_for_their_members(make_core):
    core = make_core(apps__directory=SHARED)
    ada = join(core)
    assert len(core.apps.categories(ANONYMOUS)) == len(core.apps.categories(ada)) == 9
    core.groups.add(OPERATOR, core.groups.create(OPERATOR, "CBICA Developers"), ada.user)
    assert "development" in core.apps.categories(ada) and len(core.apps.categories(OPERATOR)) == 10


@pytest.mark.parametrize("groups", [[["x"]], "Lab", "", {"Lab": 1}, 3, None, ["Lab", 3]])
def test_a_category_whose_groups_are_no_list_of_texts_takes_no_other_down(core, folder, groups):
    """Bad input: lists in the list, a text, an object, a number, null."""
    good = {"apps": ["measure"], "groups": ["Lab"]}
    (folder / "categories.json").write_text(json.dumps({"all": {"apps": []}, "bad": {"apps": [], "groups": groups}, "lab": good}))
    assert core.apps.categories(join(core)) == {"all": {"apps": []}}
    assert core.apps.categories(OPERATOR) == {"all": {"apps": []}, "lab": good}
    assert core.apps.now().problems == [("categories.json: bad", "groups must be a list of texts")]


def test_both_halves_make_one_app_with_keys_in_any_case(core):
    app = core.apps.now().apps["measure"]
    assert app.fields["scan"].kind == "attachment" and app.files == ["forms.json", "measure.json"]
    assert (app.backend.time_limit, app.backend.memory) == (600.0, 2 << 30)
    assert app.backend.resources["gridengine"] == ("-l", "h_rt=0:10:0", "-l", "h_vmem=2G")


def test_a_rule_in_another_case_was_ignored_and_a_path_shown(core, folder):
    """Bad input: keys of groups, fields and categories in capitals, and one that is there in two spellings."""
    fields = {"count": {"Type": "integer", "REQUIRED": True, "Min": 1, "Max": 3, "Validator": "/opt/secret", "Starter": "/opt/it"},
              "mode": {"tYPE": "select", "Label": "Mode", "Choices": {"A": "a"}, "placeHolder": "x"}}  # fmt: skip
    form = {"appKey": "measure", "FieldGroups": {"Main": {"Label": "Main", "OPEN": True, "Fields": fields}}}
    (folder / "forms.json").write_text(json.dumps(form))
    (folder / "categories.json").write_text(json.dumps({"lab": {"Apps": ["measure"], "Groups": ["Lab"]}, "All": {"APPS": []}}))
    ada = join(core)
    for count in ("99", ""):
        with pytest.raises(Invalid, match="count"):
            core.experiments.submit(ada, parts(count=count))
    assert core.apps.get(ANONYMOUS, "measure")["fieldGroups"] == {"Main": {"label": "Main", "open": True, "fields": {
        "count": {"type": "integer", "required": True, "min": 1, "max": 3},
        "mode": {"type": "select", "label": "Mode", "choices": {"A": "a"}, "placeHolder": "x"}}}}  # fmt: skip
    assert core.apps.categories(ada) == {"All": {"apps": []}}
    fields["mode"]["LABEL"] = "twice"
    (folder / "forms.json").write_text(json.dumps(form))
    assert core.apps.now().problems == [("forms.json", "the field mode: the key LABEL is there twice")]


def test_one_file_may_hold_both_halves(make_core, tmp_path):
    (tmp_path / "both.json").write_text(json.dumps(FORM | BACKEND | {"TimeLimit": "90s", "Outputs": ["*.csv"], "Restarts": 0, "Cpus": 2}))
    app = make_core(apps__directory=tmp_path).apps.now().apps["measure"]
    assert (app.backend.time_limit, app.backend.outputs, app.backend.restarts, app.backend.cpus) == (90, ("*.csv",), 0, 2)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("h_rt=24::", 86400), ("s_rt=::30", 30), ("h_rt=1::1", 3601), ("h_rt=:5:", 300), ("h_rt=0:10:0", 600), ("h_rt=600", 600),
     ("'h_rt=1:0:0,h_vmem=2G'", 3600), ("h_rt=0x10", 16), ("h_rt=010", 8), ("h_rt=INFINITY", None), ("h_vmem=2G", None)],
)  # fmt: skip
def test_the_hours_of_grid_engine_are_not_read_as_seconds(words, seconds):
    assert parse_backend({"executable": "x", "sgejobresources": f"-l {words} -q all"}).time_limit == seconds


@pytest.mark.parametrize("words", ["h_rt=2:30", "h_rt=", "h_rt=1d", "h_rt=1:0:0:0", "h_rt=-5", "h_rt=08", "h_rt=1.5", "s_rt=٣::"])
def test_a_time_that_grid_engine_would_not_take_is_refused(words):
    """Bad input: two parts, four, none, a unit, a sign, a fraction, digits that are not ASCII."""
    with pytest.raises(ValueError, match=f"SGEJobResources: {words} is no time"):
        parse_backend({"executable": "x", "sgejobresources": f"-l {words}"})


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("broken.json", '{"a', "Unterminated"),
        ("number.json", "3", "not an object"),
        ("latin.json", b'{"label": "\xe9"}', "utf-8"),
        ("empty.json", "{}", "neither fieldGroups nor"),
        ("two words.json", '{"Executable": "x"}', "is not a key of an app"),
        ("twice.json", '{"Executable": "x", "EXECUTABLE": "y"}', "is there twice"),
        ("params.json", '{"PARAMS": {}}', "no Executable"),
        ("time.json", '{"Executable": "x", "TimeLimit": "soon"}', "TimeLimit"),
        ("again.json", '{"appKey": "measure", "Executable": "x"}', "in measure.json already"),
        ("kind.json", '{"appKey": "k", "fieldGroups": {"g": {"fields": {"f": {"type": "colour"}}}}}', "'colour'"),
        ("range.json", '{"appKey": "k", "fieldGroups": {"g": {"fields": {"f": {"type": "float", "min": 3, "max": 1}}}}}', "more than max"),
        ("choices.json", '{"appKey": "k", "fieldGroups": {"g": {"fields": {"f": {"type": "select"}}}}}', "without choices"),
        ("nan.json", '{"appKey": "k", "fieldGroups": {"g": {"fields": {"f": {"type": "float", "def": NaN}}}}}', "NaN is no number"),
        ("huge.json", '{"Executable": "x", "note": 1e999}', "1e999 is no number"),
        ("levels.json", '{"Executable": "x", "note": ' + "[" * 64 + "]" * 64 + "}", "more than 64 levels"),
        ("deep.json", "[" * 100000, "recursion"),
    ],
)
def test_a_bad_definition_is_told_and_takes_no_other_down(folder, name, text, reason):
    name = f"z{name}" if name == "again.json" else name
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = Folder()
    found.read(str(folder))
    assert set(found.apps) == {"measure"} or name == "empty.json"
    (problem,) = found.problems
    assert problem.file.startswith(name) and reason in problem.reason


def test_one_bad_entry_of_a_list_is_left_out_alone(folder):
    (folder / "forms.json").write_text(json.dumps([{"appKey": "-x"}, FORM, "text"]))
    found = Folder()
    found.read(str(folder))
    assert found.apps["measure"].fields and [p.file for p in found.problems] == ["forms.json: -x", "forms.json: entry 3"]


def test_the_folder_is_read_again_when_it_changes_and_only_then(core, folder):
    before = core.apps.now()
    assert core.apps.now() is before
    (folder / "forms.json").write_text(json.dumps([FORM, FORM | {"appKey": "second"}]))
    assert "second" in core.apps.now().apps
    os.replace(folder / "forms.json", folder / "away.txt")
    assert core.apps.list(ANONYMOUS) == []
    with pytest.raises(NotFound):
        core.apps.get(ANONYMOUS, "measure")


@pytest.mark.parametrize("name", [".#forms.json", "lost.json"])
def test_a_dangling_link_keeps_no_change_from_being_seen(core, folder, name):
    """Bad input: the lock that Emacs makes beside a file, and a link to a file that has gone."""
    (folder / name).symlink_to("nobody@nowhere.1234")
    assert [app["appKey"] for app in core.apps.list(ANONYMOUS)] == ["measure"]
    (folder / "forms.json").write_text(json.dumps([FORM | {"appKey": "other"}]))
    assert [app["appKey"] for app in core.apps.list(ANONYMOUS)] == ["other"]
    assert [problem.file for problem in core.apps.now().problems] == [name] * (name == "lost.json")


def test_a_folder_that_is_missing_is_told(make_core, tmp_path):
    (problem,) = make_core(apps__directory=tmp_path / "none").apps.now().problems
    assert "No such file" in problem.reason


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("count", "0", "from 1 to 5"),
        ("count", "6", "from 1 to 5"),
        ("count", "1.5", "whole number"),
        ("count", "1e9999", "whole number"),
        ("count", "٣", "whole number"),
        ("count", "1_0", "whole number"),
        ("count", " 1", "whole number"),
        ("weight", "nan", "a number"),
        ("weight", "1", "from 0 to 0.99"),
        ("weight", "0.5;id", "a number"),
        ("mode", "c", "one of a, b"),
        ("mode", "A", "one of a, b"),
        ("scan", "/etc/passwd", "a file"),
        ("other", "x", "no such field"),
        ("out", "/etc/cron.d/x", "no such field"),
        ("note", "a\0b", "NUL"),
    ],
)
def test_a_wrong_value_is_refused_before_a_file_is_read(core, field, value, sentence):
    with pytest.raises(Invalid) as refused:
        core.experiments.submit(join(core), parts(("scan", untouched()), **{field: value}))
    assert sentence in refused.value.fields[field][0] and list(refused.value.fields) == [field]


@pytest.mark.parametrize("text", ["3." + "0" * 19, "1000000000000000000e5", "3e0", "0x3", "9" * 5000, "-", "3\n"])
def test_a_long_number_with_a_point_or_an_exponent_is_no_whole_number(text):
    """Bad input: what has 20 characters and more, and the value of a whole number."""
    assert wrong_text(Field("count", "integer"), text) == "this must be a whole number"


@pytest.mark.parametrize("text", ["3", "+3", "-3", "007", "9" * 30])
def test_digits_with_or_without_a_sign_are_a_whole_number(text):
    assert wrong_text(Field("count", "integer"), text) is None


def test_all_errors_come_at_once_by_field(core):
    with pytest.raises(Invalid) as refused:
        core.experiments.submit(join(core), parts(name="x", count="9", mode="z"))
    assert set(refused.value.fields) == {"experimentName", "count", "mode", "scan"}
    assert refused.value.fields["scan"] == ["this is needed"]


@pytest.mark.parametrize(("files", "sentence"), [
    ([("scan", b"1"), ("scan", b"2"), ("scan", b"3")], "from 1 to 2 files"),
    ([("scan", b"1"), ("mask", b"2")], "no such field for files"),
    ([("count", b"1")], "no such field for files"),
])  # fmt: skip
def test_files_are_counted_and_belong_to_attachments(core, files, sentence):
    with pytest.raises(Invalid, match=sentence):
        core.experiments.submit(join(core), parts(*files))
    assert not [path for path in core.blobs.folder.rglob("*") if path.is_file()]


def test_an_optional_field_may_be_empty_as_a_browser_sends_it(core):
    ada = join(core)
    assert core.experiments.submit(ada, parts(("scan", b"1"), count="", weight="", note=""))["id"]
    assert core.experiments.submit(ada, parts(("scan", b"1"), count="5", weight="0.99", mode="b", note="3;id"))["id"]


def test_an_unknown_app_is_refused_unless_it_is_allowed(core, make_core, folder):
    with pytest.raises(Invalid, match="there is no app 'other' here"):
        core.experiments.submit(join(core), parts(app="other"))
    open_core = make_core(apps__directory=folder, apps__allow_unknown="yes")
    assert open_core.experiments.submit(join(open_core, "bob@example.org"), parts(app="other", anything="x"))["id"]


def test_without_a_folder_every_app_is_accepted(make_core):
    core = make_core()
    assert core.experiments.submit(join(core), parts(app="anything", x="1"))["id"]


def backend(core):
    return as_json(core.apps.now().apps["measure"].backend)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_one_word_whatever_stands_in_it(core, folder, value):
    made = words(backend(core), {"note": value, "count": "3", "out": "/etc/cron.d/x"}, {"scan": ["a.nii", "b.nii"]}, "/jobs/1")
    program = str(folder / "bin" / "measure")
    scans = "--scan=/jobs/1/inputs/a.nii,/jobs/1/inputs/b.nii"
    assert made == [program, scans, "--count", "3", "--weight", "0.5", value, "--out", "/jobs/1/results", "--verbose"]


@pytest.mark.parametrize("off", ["0", "no", "False", "OFF"])
def test_a_switch_that_is_off_gives_no_word(core, off):
    assert "--verbose" not in words(backend(core), {"verbose": off}, {}, "/jobs/1")


def test_a_file_that_is_needed_cannot_be_a_path_of_this_machine(core):
    half = backend(core) | {"files": ["scan"]}
    with pytest.raises(ValueError, match="scan must be a file"):
        words(half, {"scan": "/etc/shadow"}, {}, "/jobs/1")


def test_a_container_is_words_before_the_program():
    template = "docker run -v {folder}:{folder} '--user={uid}' {image}"
    assert contained(template, "an image;id", "/j {image}", ["p", "x"])[2:] == [
        "-v", "/j {image}:/j {image}", f"--user={os.getuid()}", "an image;id", "p", "x",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="names no"):
        contained("docker run", "i", "/j", [])
