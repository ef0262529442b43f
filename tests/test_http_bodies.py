"""Bodies: forms in any pieces, names in any script, limits that hold when they are passed, bodies that end too early."""

import io
import json

import pytest

from client import BOUNDARY, form
from ippd.errors import Invalid, TimedOut, TooLarge, UnsupportedMedia
from ippd.http.bodies import Body, Limits, json_object, parts_of

MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
URLENCODED = "application/x-www-form-urlencoded"
LIMITS = Limits({"limits.text_bytes": 1000, "limits.form_bytes": 3000, "limits.fields": 20})


class Trickle:
    """A body that comes in small pieces; counts what was taken."""

    def __init__(self, data, size):
        self.data, self.size, self.taken = io.BytesIO(data), size, 0

    def read(self, most):
        piece = self.data.read(min(most, self.size))
        self.taken += len(piece)
        return piece

    read1 = read


def parts(data, kind=MULTIPART, size=1 << 20, announced=None, limits=LIMITS):
    """All parts as (kind, name, content, file name)."""
    found = parts_of(Body(Trickle(data, size), announced), kind, limits)
    return [(p.kind, p.name, p.value if isinstance(p.value, str) else b"".join(p.value), p.filename) for p in found]


def multipart(fields=(), files=()):
    return b"".join(form(fields, files)[2])


def file_part(disposition, data=b"x"):
    """A form of one part with this Content-Disposition (bytes)."""
    return b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n--%b--\r\n" % (
        BOUNDARY.encode(), disposition, data, BOUNDARY.encode()
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1 << 20])
def test_a_form_means_the_same_in_pieces_of_any_size(size):
    tricky = b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\r\n-" + bytes(range(256))
    data = multipart([("token", "t"), ("a", ""), ("a", "é\r\nü")], [("scan", "a.nii.gz", tricky), ("scan", "b.nii", b"")])
    assert parts(data, size=size) == [
        ("param", "token", "t", None),
        ("param", "a", "", None),
        ("param", "a", "é\r\nü", None),
        ("file", "scan", tricky, "a.nii.gz"),
        ("file", "scan", b"", "b.nii"),
    ]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'name="f"; filename="scan 1.nii.gz"', "scan 1.nii.gz"),
        ('name="f"; filename="Größe – 脳.nii"'.encode(), "Größe – 脳.nii"),
        ('name="f"; filename="Größe.nii"'.encode("latin1"), "Größe.nii"),
        (b"name=\"f\"; filename=\"x\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%22%3B.nii", 'Größe ";.nii'),
        (b"name=\"f\"; filename*=utf-8'de'Gr%C3%B6%C3%9Fe.nii", "Größe.nii"),
        (b"name=\"f\"; filename*=iso-8859-1''Gr%F6%DFe.nii", "Größe.nii"),
        (b"name=\"f\"; filename=\"a; filename*=UTF-8''b\"", "a; filename*=UTF-8''b"),
        (b"name=\"f\"; filename=\"x.nii\"; filename*=UTF-8''%FF", "x.nii"),
        (b'name="f"; filename="C:\\Users\\me\\scan.nii"', "scan.nii"),
        (b'name="f"; filename="\\\\host\\share\\scan.nii"', "scan.nii"),
        (b'name="f"; filename="say %22hi%22.nii"', 'say "hi".nii'),
        (b'name="f"; filename="say \\"hi\\".nii"', 'say "hi".nii'),
        (b"name=f; filename=plain.nii", "plain.nii"),
        (b'name="f"; filename=""', "file"),
    ],
)
def test_file_names_as_clients_old_and_new_write_them(disposition, name):
    assert parts(file_part(disposition)) == [("file", "f", b"x", name)]


def test_a_file_field_without_a_chosen_file_is_no_part():
    assert parts(file_part(b'name="f"; filename=""', b"")) == []


def test_what_is_left_of_a_file_is_skipped_when_the_next_part_is_asked_for():
    data = multipart([], [("f", "a", bytes(500_000)), ("g", "b", b"next")])
    found = parts_of(Body(Trickle(data, 1000), None), MULTIPART, LIMITS)
    first = next(found)
    assert set(next(iter(first.value))) == {0}
    second = next(found)
    assert (second.name, b"".join(second.value)) == ("g", b"next")


def test_a_text_field_is_refused_when_it_passes_the_limit_and_not_after():
    body = Trickle(multipart([("big", "x" * 5_000_000)]), 4096)
    with pytest.raises(TooLarge, match="'big' may have at most 1000 bytes"):
        list(parts_of(Body(body, None), MULTIPART, LIMITS))
    assert body.taken <= 8192


@pytest.mark.parametrize(
    "data",
    [
        multipart([(f"f{i}", "x" * 900) for i in range(4)]),
        multipart([(f"f{i}", "x") for i in range(21)]),
        multipart([], [(f"f{i}", "x", b"") for i in range(21)]),
        b"x" * 100_000,
        b"\r\n" * 100_000,
        multipart([("a", "b")]) + b"x" * 100_000,
        file_part(b'name="%b"' % (b"n" * 100_000)),
        file_part(b'name="f"\r\n' + b"X-More: y\r\n" * 20),
    ],
    ids=["texts", "fields", "files", "preamble", "line ends", "epilogue", "long head", "many heads"],
)
def test_a_form_that_is_too_large_in_some_other_way(data):
    with pytest.raises(TooLarge):
        parts(data, size=4096)


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("multipart/form-data", multipart([("a", "b")]), "names no boundary"),
        (MULTIPART, multipart([("a", "b")])[:-20], "Unexpected end"),
        (MULTIPART, multipart([], [("a", "b", b"c")])[:-60], "Unexpected end"),
        (MULTIPART, b"", "Unexpected end"),
        (MULTIPART, b"--" + BOUNDARY.encode() + b"\r\nNo: disposition\r\n\r\nx", "Content-Disposition"),
        (MULTIPART, file_part(b'name="a"', b"\xff\xfe"), "'a' is not UTF-8 text"),
        (URLENCODED, b"a=%ff", "not percent-encoded UTF-8"),
        ("application/json", b"[1]", "must be an object"),
        ("application/json", b"{", "not valid JSON"),
        ("application/json", b'{"a": NaN}', "not valid JSON"),
        ("application/json", b'{"a": 1e999}', "not valid JSON"),
        ("application/json", b'{"a": "\\ud800"}', "not valid JSON"),
        ("application/json", b'{"a": {"b": 1}}', "a: this must be a text"),
        ("application/json", b'{"a":' + b"[" * 2900, "nested too deeply"),
        ("application/json", b"\xff", "not valid JSON"),
    ],
)
def test_a_broken_body_is_told_in_a_sentence(kind, data, sentence):
    with pytest.raises(Invalid, match=sentence):
        parts(data, kind)


@pytest.mark.parametrize(("kind", "data"), [("text/plain", b"a"), ("", b"a"), ("multipart/mixed; boundary=x", b"--x--")])
def test_other_bodies_are_not_read(kind, data):
    with pytest.raises(UnsupportedMedia):
        parts(data, kind)


def test_no_body_is_an_empty_form():
    assert parts(b"", "") == parts(b"", URLENCODED) == []


def test_urlencoded_and_json_forms():
    assert parts("a=1&a=2&b=&c=%C3%A9+é".encode(), URLENCODED) == [
        ("param", "a", "1", None),
        ("param", "a", "2", None),
        ("param", "b", "", None),
        ("param", "c", "é é", None),
    ]
    document = {"a": ["1", 2], "b": "", "c": "é", "d": True, "e": None, "f": 1.5}
    found = parts(json.dumps(document).encode(), "application/json; charset=utf-8")
    assert [part[1:3] for part in found] == [("a", "1"), ("a", "2"), ("b", ""), ("c", "é"), ("d", "true"), ("f", "1.5")]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (URLENCODED, b"a=" + b"x" * 1100),
        (URLENCODED, b"a=%C3%A9" * 500),
        (URLENCODED, b"&".join([b"a=1"] * 25)),
        ("application/json", json.dumps({"a": "x" * 1100}).encode()),
        ("application/json", json.dumps({"a": ["x" * 900] * 4}).encode()),
    ],
)
def test_forms_without_files_are_held_to_their_limits(kind, data):
    with pytest.raises(TooLarge):
        parts(data, kind, size=512)


def test_an_announced_length_over_the_limit_is_refused_before_the_first_byte():
    body = Trickle(b"x" * 4000, 10)
    with pytest.raises(TooLarge):
        json_object(Body(body, 4000), LIMITS)
    assert body.taken == 0


def test_a_body_that_is_shorter_than_announced_is_broken():
    with pytest.raises(Invalid, match="shorter than announced"):
        parts(multipart([("a", "b")]), announced=100_000)


@pytest.mark.parametrize(
    ("raised", "expected"), [(TimeoutError, TimedOut), (ConnectionResetError, Invalid), (ValueError("bad chunk"), Invalid)]
)
def test_what_goes_wrong_with_the_connection_is_told_as_an_error_of_the_request(raised, expected):
    class Broken:
        def read1(self, size):
            raise raised

    with pytest.raises(expected):
        list(parts_of(Body(Broken(), None), MULTIPART, LIMITS))
