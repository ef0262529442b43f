"""Downloads: Range, ETag and file names as RFC 9110 and 6266 have them; zips that stream and announce their length."""

import hashlib
import io
import os
import zipfile
from urllib.parse import quote

import pytest

from conftest import PASSWORD, echo, join
from ippd.domain.files import Stored
from ippd.http.files import zip_answer
from ippd.permissions import ANONYMOUS

DATA = bytes(range(256)) * 4000
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'
SIZE = len(DATA)


@pytest.fixture
def download(portal):
    """A function: GET (or HEAD) of Ada's file scan.nii with these headers."""
    ada = join(portal.core)
    token = portal.core.sessions.log_in(ANONYMOUS, "ada@example.org", PASSWORD)
    id = portal.core.experiments.submit(ada, echo(("scan.nii", DATA), ("empty.nii", b""), ("Größe 1.nii", b"x")))["id"]

    def get(method="GET", name="scan.nii", **headers):
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        return portal.public.request(method, f"/experiments/{id}/file?token={token}&path={quote(name)}", headers=headers)

    return get


def test_a_download_is_the_bytes_with_a_quoted_sha256_etag_as_an_attachment(download):
    reply = download()
    assert (reply.status, reply.body) == (200, DATA)
    assert reply.headers["etag"] == ETAG
    assert reply.headers["content-length"] == str(SIZE)
    assert reply.headers["content-disposition"] == "attachment; filename=\"scan.nii\"; filename*=UTF-8''scan.nii"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["accept-ranges"] == "bytes"


def test_a_name_in_any_script_survives_the_download(download):
    reply = download(name="Größe_1.nii")
    assert reply.headers["content-disposition"] == "attachment; filename=\"Gr__e_1.nii\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe_1.nii"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        ("bytes = 5 - 9", 5, 10),
        ("bytes=1000000-", 1_000_000, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
        ("bytes=-3", SIZE - 3, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
        ("BYTES=300000-900000", 300_000, 900_001),
    ],
)
def test_a_range_is_answered_with_that_part(download, asked, start, stop):
    reply = download(Range=asked)
    assert (reply.status, reply.body) == (206, DATA[start:stop])
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert reply.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=0-1,5-9", "lines=1-2", "bytes=a-b", "bytes=-", "bytes=", "bytes=1-2-3"])
def test_a_range_that_is_broken_or_of_another_kind_is_ignored(download, asked):
    reply = download(Range=asked)
    assert (reply.status, len(reply.body)) == (200, SIZE)


@pytest.mark.parametrize(("name", "asked", "size"), [
    ("scan.nii", f"bytes={SIZE}-", SIZE), ("scan.nii", "bytes=-0", SIZE), ("empty.nii", "bytes=0-", 0), ("empty.nii", "bytes=-1", 0),
])  # fmt: skip
def test_a_range_outside_the_file_is_416_with_its_size(download, name, asked, size):
    reply = download(name=name, Range=asked)
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{size}"
    assert "error" in reply.json


def test_if_range_resumes_only_the_file_that_was_begun(download):
    assert download(Range="bytes=5-", If_Range=ETAG).status == 206
    for other in ('"other"', f"W/{ETAG}", "Sun, 22 Nov 2026 04:00:00 GMT"):
        reply = download(Range="bytes=5-", If_Range=other)
        assert (reply.status, len(reply.body)) == (200, SIZE)


def test_a_copy_that_is_still_good_is_not_sent_again(download):
    for known in (ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"):
        reply = download(If_None_Match=known, Range="bytes=0-1")
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", ETAG)
    assert download(If_None_Match='"other"').status == 200


def test_head_tells_what_get_would_and_sends_nothing(download):
    reply = download("HEAD", Range="bytes=0-1")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", str(SIZE))


def test_a_file_that_was_removed_is_404_in_a_sentence(download, portal):
    for path in portal.core.blobs.folder.glob("[0-9]*/*"):
        path.unlink()
    reply = download()
    assert (reply.status, reply.json) == (404, {"error": "this file has been removed"})


def zipped(files):
    answer = zip_answer("7.zip", files)
    return answer, b"".join(answer.body)


def stored(path, name, data):
    path.write_bytes(data)
    return Stored(path, name, len(data), hashlib.sha256(data).hexdigest(), 0.0)


def test_a_zip_holds_the_files_under_their_plain_names_and_its_length_is_announced(tmp_path):
    members = {"scan.nii.gz": os.urandom(700_000), "Größe_脳.nii": b"x", "empty": b"", "big": bytes(3_000_000)}
    answer, data = zipped([stored(tmp_path / str(i), name, content) for i, (name, content) in enumerate(members.items())])
    assert int(answer.headers["Content-Length"]) == len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_zip_of_a_thousand_small_files_is_sent_in_few_pieces(tmp_path):
    files = [stored(tmp_path / str(i), f"slice-{i}.dcm", bytes(100)) for i in range(1000)]
    answer = zip_answer("7.zip", files)
    pieces = list(answer.body)
    assert len(pieces) < 10
    assert int(answer.headers["Content-Length"]) == sum(map(len, pieces))


def test_a_zip_of_a_file_over_4_gib_is_zip64_and_begins_at_once(tmp_path):
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(5 << 30)
    answer = zip_answer("7.zip", [Stored(path, "huge.nii", 5 << 30, "", 0.0), stored(tmp_path / "b", "b.nii", b"x")])
    length = int(answer.headers["Content-Length"])
    # 30+8 head, 20 for the sizes, 24 behind the data; 30+5+16 and 1; 46+8+28-8 and 46+5+12 in the directory; 56+20+22 at the end.
    assert length == (5 << 30) + (38 + 20 + 24) + (35 + 1 + 16) + (54 + 20) + (51 + 12) + 98
    body = iter(answer.body)
    assert next(body)[:6] == b"PK\x03\x04\x2d\x00"  # "version needed to extract" is 4.5
    answer.close()


def test_a_zip_with_a_missing_file_is_told_before_it_begins(portal):
    ada = join(portal.core)
    id = portal.core.experiments.submit(ada, echo(("scan.nii", b"x")))["id"]
    for path in portal.core.blobs.folder.glob("[0-9]*/*"):
        path.unlink()
    reply = portal.local.get(f"/experiments/{id}/files")
    assert (reply.status, reply.json) == (404, {"error": "the file scan.nii has been removed"})


def test_the_zip_of_the_inputs_unpacks_to_what_was_sent(portal, tmp_path):
    ada = join(portal.core)
    id = portal.core.experiments.submit(ada, echo(("scan 1.nii.gz", DATA), ("Größe.nii", b"x")))["id"]
    reply = portal.local.get(f"/experiments/{id}/files")
    assert reply.headers["content-type"] == "application/zip"
    assert reply.headers["content-length"] == str(len(reply.body))
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        archive.extractall(tmp_path)
    assert (tmp_path / "scan_1.nii.gz").read_bytes() == DATA
    assert (tmp_path / "Größe.nii").read_bytes() == b"x"
