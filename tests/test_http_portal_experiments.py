"""Experiments on the wire, as the frontend submits and lists them."""

import pytest

from conftest import echo
from ippd.permissions import OPERATOR, Actor

SCRIPT = Actor("local", name="script")
FIELDS = [
    ("app", "echo"),
    ("experimentName", "A first\ntrial"),
    ("experimentDescription", "Two\nlines"),
    ("smoothing", "4"),
    ("comment", ""),
    ("host", "cubic"),
]


def submit(portal, token, *files, fields=FIELDS, prefix="/api"):
    """Submit with `files` as (field, name, data); the id."""
    reply = portal.public.post(f"{prefix}/experiments/new", [("token", token), *fields], files)
    assert reply.status == 200 and reply.json["status"] == "submitted", reply
    return reply.json["id"]


def listed(portal, token, **query):
    return portal.public.get("/experiments", token=token, **query).json["experiments"]


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_what_is_submitted_is_listed_as_the_frontend_reads_it(portal, prefix):
    token = portal.user()
    fields = [*FIELDS[:-1], ("label", "pilot"), FIELDS[-1]]
    id = submit(portal, token, ("scan", "scan 1.nii.gz", b"one"), ("mask", "", b""), fields=fields, prefix=prefix)
    [experiment] = portal.public.get(f"{prefix}/experiments", token=token).json["experiments"]
    wanted = {
        "id": id,
        "label": "pilot",
        "created": "2027-01-15 08:00:00",
        "status": "submitted",
        "app": "echo",
        "experimentName": "A first trial",
        "experimentDescription": "Two\nlines",
        "inputs": ["scan_1.nii.gz"],
        "outputs": [],
        "params": {"smoothing": "4", "comment": "", "scan": "scan_1.nii.gz"},
    }
    assert {key: experiment[key] for key in wanted} == wanted
    assert portal.public.get(f"{prefix}/experiments/{id}", token=token).json == experiment


def test_a_form_without_files_and_json_are_submissions_too(portal):
    token = portal.user()
    assert portal.public.post("/experiments/new", token=token, app="echo", level=3).json["status"] == "submitted"
    reply = portal.public.post("/experiments/new", json={"app": "echo", "level": 3}, headers={"Authorization": f"Bearer {token}"})
    assert reply.json["status"] == "submitted"
    assert [experiment["params"] for experiment in listed(portal, token)] == [{"level": "3"}, {"level": "3"}]
    assert listed(portal, token)[0]["label"] is None


def test_several_files_in_one_field_all_survive_and_equal_names_stay_apart(portal):
    token = portal.user()
    files = [("scan", "a.nii.gz", b"1"), ("scan", "a.nii.gz", b"2"), ("other", "a.nii.gz", b"3"), ("scan", "b c.nii", b"4")]
    id = submit(portal, token, *files)
    [experiment] = listed(portal, token)
    assert experiment["inputs"] == ["a.nii.gz", "a-2.nii.gz", "a-3.nii.gz", "b_c.nii"]
    assert experiment["params"]["scan"] == "a.nii.gz,a-2.nii.gz,b_c.nii"
    assert experiment["params"]["other"] == "a-3.nii.gz"
    for name, data in zip(experiment["inputs"], (b"1", b"2", b"3", b"4"), strict=True):
        assert portal.public.get(f"/experiments/{id}/file", token=token, path=name).body == data


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("3;id", "3_id"),
        ("$(id).nii", "__id_.nii"),
        ("-rf", "rf"),
        ("..%0A", ""),
        ("../../etc/passwd", "passwd"),
        (".hidden", "hidden"),
        ("Größe.nii.gz", "Größe.nii.gz"),
        ("`id`|x&y>z", "_id__x_y_z"),
        ("a%0Ab", "ab"),
    ],
)
def test_a_name_that_breaks_shell_scripts_is_made_harmless(portal, sent, kept):
    token = portal.user()
    submit(portal, token, ("scan", sent, b"x"))
    [name] = listed(portal, token)[0]["inputs"]
    assert name == (kept or "file")


def test_a_thousand_files_in_one_field(portal):
    token = portal.user()
    id = submit(portal, token, *[("scan", f"slice-{i}.dcm", b"%d" % i) for i in range(1000)])
    [experiment] = listed(portal, token)
    assert len(experiment["inputs"]) == 1000
    assert portal.public.get(f"/experiments/{id}/file", token=token, path="slice-999.dcm").body == b"999"


def test_a_submission_that_is_not_good_changes_nothing(portal):
    token = portal.user()
    for fields in ([], [("app", "x;id")], [("app", "echo"), ("host", "a b")]):
        reply = portal.public.post("/experiments/new", [("token", token), *fields], [("scan", "a.nii", b"x")])
        assert reply.status == 400 and reply.json["error"]
    assert listed(portal, token) == []
    assert list(portal.core.blobs.folder.glob("[0-9]*/*")) == []


def test_listing_can_be_paged_and_is_whole_by_default(portal):
    token = portal.user()
    ids = [submit(portal, token) for _ in range(5)]
    portal.public.post(f"/experiments/{ids[1]}/cancel", token=token)
    assert [experiment["id"] for experiment in listed(portal, token)] == ids
    assert [experiment["id"] for experiment in listed(portal, token, limit=2, offset=1)] == ids[1:3]
    assert [experiment["id"] for experiment in listed(portal, token, status="cancelled")] == [ids[1]]
    assert listed(portal, token, limit=0) == listed(portal, token, offset=99) == []
    for query in ({"limit": "x"}, {"limit": "-1"}, {"offset": "1e3"}, {"status": "lost"}, {"limit": "9" * 30}):
        assert list(portal.public.get("/experiments", token=token, **query).json) == ["error", "fields"]
        assert portal.public.get("/experiments", headers={"Authorization": f"Bearer {token}"}, **query).status == 400


def test_a_list_that_is_longer_than_one_answer_should_be_is_whole_and_sent_while_it_is_made(portal):
    token = portal.user()
    ada = portal.core.sessions.actor(token)
    ids = [portal.core.experiments.submit(ada, echo(comment="x" * 10_000))["id"] for _ in range(300)]
    reply = portal.public.get("/experiments", token=token)
    assert [experiment["id"] for experiment in reply.json["experiments"]] == ids
    assert reply.headers["transfer-encoding"] == "chunked"
    for limit, offset in ((200, 0), (128, 0), (129, 5), (1000, 250), (0, 0), (5, 1000)):
        some = portal.public.get("/experiments", token=token, limit=limit, offset=offset).json["experiments"]
        assert [experiment["id"] for experiment in some] == ids[offset : offset + limit], (limit, offset)


def test_parameters_that_would_fill_every_listing_are_refused(portal):
    token = portal.user()
    # A control character takes six bytes as it is kept.
    for fields in ([(f"field{number}", "x" * 60_000) for number in range(2)], [("comment", "\x01" * 12_000)]):
        reply = portal.public.post("/experiments/new", [("token", token), ("app", "echo"), *fields], files=[])
        assert reply.status == 413 and "at most 65536 bytes together" in reply.json["error"]
    id = portal.public.post("/experiments/new", [("token", token), ("app", "echo"), ("comment", "x" * 60_000)], files=[]).json["id"]
    assert portal.public.post(f"/experiments/{id}/relaunch", [("token", token), ("further", "x" * 60_000)]).status == 413
    assert len(listed(portal, token)) == 1


def test_experiments_of_others_are_not_there(portal):
    ada, bob = portal.user(), portal.user("bob@example.org")
    id = submit(portal, ada, ("scan", "a.nii", b"x"))
    assert listed(portal, bob) == []
    for path in (f"/experiments/{id}", f"/experiments/{id}/file?path=a.nii", f"/experiments/{id}/log"):
        reply = portal.public.get(path, headers={"Authorization": f"Bearer {bob}"})
        assert reply.status == 404 and "error" in reply.json
    assert portal.public.post(f"/experiments/{id}/cancel", token=bob).status == 404
    assert listed(portal, ada)[0]["status"] == "submitted"


def test_nobody_reads_without_a_token(portal):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"x"))
    for path in (f"/experiments/{id}", f"/experiments/{id}/file?path=a.nii", f"/experiments/{id}/log"):
        for query in ("", "token=x"):
            assert portal.public.get(path + ("&" if "?" in path else "?") + query).status == 401


@pytest.mark.parametrize("path", ["", "a", "../a.nii", "/etc/passwd", "a.nii/", "inputs/a.nii", "a.nii\0", "%2e%2e", "ö"])
def test_a_file_that_is_not_there_is_404(portal, path):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"x"))
    reply = portal.public.get(f"/experiments/{id}/file", token=token, path=path)
    assert reply.status == 404 and "error" in reply.json


def test_cancel_is_the_owners_and_ends_it(portal):
    token = portal.user()
    id = submit(portal, token)
    reply = portal.public.post(f"/api/experiments/{id}/cancel", token=token)
    assert reply.json == {"status": "cancelled", "was": "submitted", "gone": True}
    reply = portal.public.post(f"/experiments/{id}/cancel", token=token)
    assert reply.status == 409 and "cancelled" in reply.json["error"]
    assert listed(portal, token)[0]["status"] == "cancelled"
    assert portal.local.get("/experiments/queue").json == []


def test_the_log_is_the_output_of_that_name(portal):
    token = portal.user()
    id = submit(portal, token, ("scan", "log.txt", b"an input"))
    reply = portal.public.get(f"/experiments/{id}/log", token=token)
    assert (reply.status, reply.json) == (404, {"error": f"experiment {id} has no log (an output named log.txt)"})
    portal.local.post(f"/experiments/{id}/results", files=[("file", "log.txt", "fertig: größer\n".encode())])
    reply = portal.public.get(f"/experiments/{id}/log", token=token)
    assert (reply.status, reply.body.decode(), reply.headers["content-type"]) == (200, "fertig: größer\n", "text/plain; charset=utf-8")


def test_results_come_before_inputs_of_the_same_name(portal):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"in"))
    portal.local.post(f"/experiments/{id}/results", files=[("file", "a.nii", b"out")])
    assert portal.public.get(f"/experiments/{id}/file", token=token, path="a.nii").body == b"out"


def test_every_state_lists_with_all_that_the_frontend_needs(portal):
    token = portal.user()
    ids = [submit(portal, token, ("scan", "a.nii", b"x")) for _ in range(6)]
    portal.public.post(f"/experiments/{ids[1]}/cancel", token=token)
    for id in ids[2:5]:
        portal.local.post(f"/experiments/{id}/running")
    portal.local.post(f"/experiments/{ids[3]}/failed", exit_code=3, message="out of memory")
    portal.local.post(f"/experiments/{ids[4]}/results", files=[("file", "out.zip", b"x")])
    portal.local.get("/experiments/queue")
    found = listed(portal, token)
    assert [experiment["status"] for experiment in found] == ["queued", "cancelled", "running", "failed", "completed", "queued"]
    assert (found[3]["exit_code"], found[3]["message"]) == (3, "out of memory")
    for experiment in found:
        assert experiment["inputs"] == ["a.nii"] and isinstance(experiment["outputs"], list)
        assert all(isinstance(value, str) for value in experiment["params"].values())


def test_after_expiry_an_experiment_lists_without_its_files(portal, clock):
    token = portal.user()
    id = submit(portal, token, ("scan", "a.nii", b"x"))
    portal.local.post(f"/experiments/{id}/results", files=[("file", "out.zip", b"x")])
    clock.forward(days=90)
    portal.core.housekeeping.notice_expiry(OPERATOR)
    clock.forward(days=8)
    portal.core.housekeeping.expire_files(OPERATOR)
    token = portal.public.post("/users/auth", email="ada@example.org", password="correct horse battery").json["token"]
    [experiment] = listed(portal, token)
    assert (experiment["inputs"], experiment["outputs"], experiment["status"]) == ([], [], "completed")
    assert experiment["params"]["scan"] == "a.nii"
    assert portal.public.get(f"/experiments/{id}/file", token=token, path="out.zip").status == 404
