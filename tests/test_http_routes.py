"""Routes and errors: what exists on which listener, what answers when nothing does, and that no fault shows its inside.

Bad input: paths, ids and methods that are none, forged headers. The families are made up for these tests.
"""

import logging

import pytest

from ippd.errors import IppdError, Unavailable
from ippd.http import Answer, Family, json_answer, make_app
from ippd.permissions import ANONYMOUS

pytestmark = pytest.mark.source_only


def told(request, error):
    return json_answer({"told by": request.family.name, "error": str(error)}, error.status)


def family(name="one", prefixes="/one"):
    made = Family(name, prefixes, lambda request: ANONYMOUS, told)

    @made.get("/things/{id}")
    def thing(request, id):
        return id

    @made.get("/things/{id}/{word}")
    def word(request, id, word):
        return [id, word]

    @made.get("/things/all")
    def everything(request):
        return []

    @made.get("/secret", local=True)
    def secret(request):
        return "local"

    @made.get("/change", changes=True)
    @made.post("/change")
    def change(request):
        return request.form

    @made.get("/fault")
    def fault(request):
        raise ZeroDivisionError("the inside of the program")

    @made.get("/late-fault")
    def late_fault(request):
        def body():
            yield from ()
            raise ZeroDivisionError("the inside of the program")

        return Answer(200, {}, body())

    @made.get("/busy")
    def busy(request):
        raise Unavailable("come back", retry_after=2.4)

    return made


@pytest.fixture
def served(make_portal):
    return make_portal([family(), family("two", ("/two", "/api/two"))])


def test_places_in_a_path_and_every_prefix_of_a_family(served):
    assert served.public.get("/one/things/7").json == 7
    assert served.public.get("/one/things/007").json == 7
    assert served.public.get("/one/things/all").json == []
    assert served.public.get("/api/two/things/7/x%20y").json == [7, "x y"]


@pytest.mark.parametrize(
    "id", ["..", "-1", "1e3", "1.0", "%D9%A1", "%EF%BC%91", "+1", "1%20", "%201", "1%0A", "9" * 20, "1%00", "new", "1%ff"]
)
def test_an_id_that_is_no_whole_number_is_404_in_json(served, id):
    reply = served.public.get(f"/one/things/{id}")
    assert (reply.status, reply.json["told by"]) == (404, "one")


def test_a_path_that_only_looks_like_a_route_is_404(served):
    for path in ("/one/things/7/", "/one/things//7", "/./one/things/7", "/one/change%0A", "/one/cha%ffnge", "/ONE/change", "/"):
        assert served.public.get(path).status == 404, path
    assert served.public.get("//one/things/7").status in (400, 404)


def test_a_local_route_does_not_exist_on_the_public_listener_whatever_headers_say(served):
    forged = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost", "Forwarded": "for=127.0.0.1", "X-Real-IP": "::1"}
    for headers in ({}, forged, {"Host": "localhost"}):
        assert served.public.get("/one/secret", headers=headers).status == 404
    assert served.public.request("OPTIONS", "/one/secret").status == 404
    assert served.local.get("/one/secret").json == "local"


def test_the_other_method_of_a_path_is_405_and_names_those_there_are(served):
    reply = served.public.post("/one/things/7")
    assert (reply.status, reply.headers["allow"], reply.json["told by"]) == (405, "GET, HEAD, OPTIONS", "one")
    assert served.public.request("BREW", "/one/things/7").status == 405


def test_head_is_get_without_the_body_but_never_changes_anything(served):
    reply = served.public.request("HEAD", "/one/things/7")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "1")
    reply = served.public.request("HEAD", "/one/change")
    assert (reply.status, reply.body) == (405, b"")


def test_errors_are_told_by_the_family_with_the_longest_matching_prefix(served):
    assert served.public.get("/two/nothing").json["told by"] == "two"
    assert served.public.get("/api/two/nothing").json["told by"] == "two"
    assert served.public.get("/twofold").status == 404


@pytest.mark.parametrize("path", ["/one/fault", "/one/late-fault"])
def test_a_fault_of_the_program_is_500_without_its_inside(served, path, caplog):
    with caplog.at_level(logging.ERROR):
        reply = served.public.get(path)
    assert (reply.status, reply.json["error"]) == (500, IppdError.sentence)
    assert b"Zero" not in reply.body and b"Traceback" not in reply.body
    assert reply.headers["content-type"] == "application/json"
    assert "ZeroDivisionError: the inside of the program" in caplog.text


def test_a_family_that_cannot_tell_an_error_is_no_excuse_for_html(make_portal, caplog):
    broken = Family("broken", "/broken", lambda request: ANONYMOUS, lambda request, error: 1 / 0)
    broken.get("/busy")(lambda request: 1 / 0)
    served = make_portal([broken])
    for path, status in (("/broken/busy", 500), ("/broken/nothing", 404)):
        reply = served.public.get(path)
        assert (reply.status, list(reply.json)) == (status, ["error"])
    assert "the family broken cannot tell its errors" in caplog.text


def test_a_fault_is_logged_with_the_id_that_the_client_was_told(served, caplog):
    with caplog.at_level(logging.ERROR):
        reply = served.public.get("/one/fault")
    assert reply.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_retry_after_is_in_whole_seconds(served):
    reply = served.public.get("/one/busy")
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")


def test_two_families_on_the_same_method_and_path_stop_the_start(core):
    clash = Family("clash", "", lambda request: ANONYMOUS, told)
    clash.get("/one/things/{other}")(lambda request, other: None)
    with pytest.raises(ValueError, match=r"GET /one/things/\{other\} is in the families one and clash"):
        make_app([family(), clash], core, core.settings, "public")


def test_one_family_serves_two_applications_in_one_process(core):
    shared = family()
    assert make_app([shared], core, core.settings, "public") is not make_app([shared], core, core.settings, "local")
