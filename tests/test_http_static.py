"""The frontend's folder: its files, index.html for its own paths, and nothing of the machine around it."""

import hashlib

import pytest

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
INDEX = b"<!doctype html><title>Portal</title>"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "frontend"
    (root / "static").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "index.html").write_bytes(INDEX)
    (root / "static" / "main.1a2b.js").write_bytes(b"run()")
    (root / "static" / "style.css").write_bytes(b"a{}")
    (root / "static" / "DATA.BIN").write_bytes(b"\0")
    (root / ".env").write_text("SECRET=1")
    (root / ".git" / "config").write_text("secret")
    (tmp_path / "outside.txt").write_text("outside")
    (tmp_path / "frontend-2").mkdir()
    (tmp_path / "frontend-2" / "x.txt").write_text("outside")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "linked").symlink_to(tmp_path / "frontend-2")
    (root / "inside.js").symlink_to(root / "static" / "main.1a2b.js")
    return root


@pytest.fixture
def site(make_portal, folder):
    return make_portal(public__frontend=folder)


def test_files_come_with_their_type_and_etag(site):
    reply = site.public.get("/static/main.1a2b.js")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"run()", "text/javascript; charset=utf-8")
    assert reply.headers["etag"] == f'"{hashlib.sha256(b"run()").hexdigest()}"'
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src" not in reply.headers["content-security-policy"]
    assert site.public.get("/static/style.css").headers["content-type"] == "text/css; charset=utf-8"
    assert site.public.get("/static/DATA.BIN").headers["content-type"] == "application/octet-stream"
    assert site.public.get("/inside.js").body == b"run()"


def test_a_known_file_is_not_sent_again_until_it_changes(site, folder):
    etag = site.public.get("/static/style.css").headers["etag"]
    reply = site.public.get("/static/style.css", headers={"If-None-Match": etag})
    assert (reply.status, reply.body) == (304, b"")
    (folder / "static" / "style.css").write_bytes(b"b{color:red}")
    reply = site.public.get("/static/style.css", headers={"If-None-Match": etag})
    assert (reply.status, reply.body) == (200, b"b{color:red}")


def test_head_of_a_file(site):
    reply = site.public.request("HEAD", "/static/style.css")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "3")


def test_the_frontends_own_paths_are_its_index_for_browsers_only(site):
    for path in ("/", "/login", "/some/page/7"):
        reply = site.public.get(path, headers=PAGE)
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, INDEX, "text/html; charset=utf-8")
    assert site.public.get("/").body == INDEX
    for reply in (site.public.get("/login"), site.public.request("POST", "/login", headers=PAGE), site.public.get("/api/x", headers=PAGE)):
        assert (reply.status, reply.json) == (404, {"error": "there is no such path here"})


@pytest.mark.parametrize("path", ["/users/list", "/experiments/queue", "/experiments/7/files", "/files/old", "/users/approve/1"])
def test_a_local_route_is_no_page_of_the_frontend(site, path):
    for prefix in ("", "/api"):
        reply = site.public.get(prefix + path, headers=PAGE)
        assert reply.status in (404, 405) and "error" in reply.json


def test_routes_win_over_files(site, folder):
    (folder / "version").write_text("a file")
    assert "version" in site.public.get("/version", headers=PAGE).json


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/static/../../outside.txt",
        "/..%2foutside.txt",
        "/..%5coutside.txt",
        "//etc/passwd",
        "/static//style.css",
        "/link.txt",
        "/linked/x.txt",
        "/../frontend-2/x.txt",
        "/.env",
        "/.git/config",
        "/static/%00",
        "/static",
        "/static/",
    ],
)
def test_nothing_outside_or_hidden_is_served(site, path):
    reply = site.public.get(path)
    assert reply.status in (400, 404), path
    assert b"outside" not in reply.body and b"SECRET" not in reply.body


def test_without_the_setting_there_is_no_frontend(portal):
    assert portal.public.get("/", headers=PAGE).status == 404


def test_there_is_never_a_frontend_on_the_local_listener(site):
    assert site.local.get("/index.html", headers=PAGE).status == 404
    for path in ("/", "/admin", "/admin/"):  # there the panel begins
        reply = site.local.get(path, headers=PAGE)
        assert (reply.status, reply.headers["location"], reply.body) == (302, "/admin/users", b""), path
