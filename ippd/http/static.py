"""A built browser frontend served as it lies in a folder, so that it needs no second server."""

import hashlib
import os
import threading
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from ippd.http.answers import Answer
from ippd.http.files import FileBody, matches

if TYPE_CHECKING:
    from ippd.http.request import Request

# Not the machine's own table: it differs from one to the next, and with `nosniff` a wrong type breaks the page.
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
INDEX = "index.html"


class Frontend:
    """The folder of public.frontend."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(folder)
        self._etags: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def answer(self, request: "Request") -> Answer | None:
        """The file at the request's path; index.html for another path that a browser wants to show as a page; None for neither."""
        file = self._find(request.path)
        if file is None and "text/html" in (request.header("Accept") or ""):
            file = self._find(f"/{INDEX}")
        return None if file is None else self._send(request, file)

    def _find(self, path: str) -> str | None:
        """The file of a path: inside the folder also after following links, and not hidden."""
        names = (path + INDEX if path == "/" else path).strip("/").split("/")
        if any(not name or name.startswith(".") or "\\" in name or "\0" in name for name in names):
            return None
        file = os.path.realpath(os.path.join(self._root, *names))
        return file if file.startswith(self._root + os.sep) and os.path.isfile(file) else None

    def _send(self, request: "Request", name: str) -> Answer | None:
        try:
            file = FileIO(name)
        except OSError:
            return None
        state = os.fstat(file.fileno())
        etag = self._etag(name, state)
        headers = {
            "Content-Type": TYPES.get(Path(name).suffix.lower(), "application/octet-stream"),
            "Content-Length": str(state.st_size),
            "Cache-Control": "no-cache",  # the names of some builds do not change with their content: ask, with the ETag
            "Content-Security-Policy": "frame-ancestors 'self'",  # the page's own needs are not known here
            "ETag": etag,
        }
        if matches(request.header("If-None-Match"), etag):
            file.close()
            del headers["Content-Length"]
            return Answer(304, headers)
        return Answer(200, headers, FileBody(file, 0, state.st_size))

    def _etag(self, name: str, state: os.stat_result) -> str:
        """The quoted SHA-256 of a file, kept until the file changes."""
        key = (name, state.st_mtime_ns, state.st_size)
        if key not in self._etags:
            with open(name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            with self._lock:
                self._etags = {k: v for k, v in self._etags.items() if k[0] != name} | {key: f'"{digest}"'}
        return self._etags[key]
