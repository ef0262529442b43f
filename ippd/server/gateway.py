"""WSGI between a request and an app (PEP 3333): the environ, and the answer in the app's own pieces."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from cheroot.wsgi import Gateway_10

BAD_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Gateway(Gateway_10):
    """cheroot's gateway, with exact lengths, no bodies where none belong, and streams that may wait."""

    def get_environ(self) -> dict[str, Any]:
        """PEP 3333, and ippd.listener, ippd.peer_uid, ippd.request_id and ippd.slow."""
        request, connection = self.req, self.req.conn
        environ = super().get_environ()
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # the body is decoded here; frameworks would do it again
        environ.pop("HTTP_PROXY", None)  # libraries of the app would take it for a setting of the administrator
        environ["wsgi.multiprocess"] = True
        environ["ippd.listener"] = request.server.name
        environ["ippd.peer_uid"] = connection.uid
        environ["ippd.request_id"] = request.id
        environ["ippd.slow"] = request.slow.of
        return environ

    def respond(self) -> None:
        """Call the app and write what it answers. A list is sent by the loop, anything else by this thread, slowly."""
        answer = self.req.server.app(self.env, self.start_response)
        try:
            if isinstance(answer, (list, tuple)):
                for chunk in answer:
                    self.write(chunk)
            else:
                self._stream(answer)
            if not self.started_response:
                raise RuntimeError("the app has not called start_response")
            self.req.ensure_headers_sent()
        finally:
            if hasattr(answer, "close"):
                answer.close()
        if self.remaining_bytes_out and not self.req.bodyless:
            raise ValueError(f"the answer is {self.remaining_bytes_out} bytes shorter than its Content-Length")

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Callable:
        """See PEP 3333. Raises ValueError for control characters in the head."""
        headers = list(headers)
        for name, value in [("status", status), *headers]:
            if BAD_HEADER.search(name) or BAD_HEADER.search(value):
                raise ValueError(f"a control character in {name!r} of the answer")
        if exc_info and not self.req.sent_headers:
            self.req.outheaders.clear()
            self.remaining_bytes_out = None
        return super().start_response(status, headers, exc_info)

    def write(self, chunk: bytes) -> None:
        """Add bytes to the body; the head goes before the first. Raises ValueError past the Content-Length."""
        if not self.started_response:
            raise RuntimeError("the app wrote before it called start_response")
        if not chunk:
            return
        if not isinstance(chunk, bytes):
            raise TypeError(f"an app must give bytes, not {type(chunk).__name__}")
        request = self.req
        if self.remaining_bytes_out is not None and not request.bodyless:
            if len(chunk) > self.remaining_bytes_out:
                raise ValueError("the answer is longer than its Content-Length")
            self.remaining_bytes_out -= len(chunk)
        request.ensure_headers_sent()
        if not request.bodyless:
            request.bytes_out += len(chunk)
            request.write(chunk)

    def _stream(self, answer: Iterable[bytes]) -> None:
        """Send each piece as it comes, so that the first byte goes out at once and the memory stays flat.

        An empty one says that the app has nothing yet: the head is sent all the same, and a client that has gone is noticed.
        """
        with self.req.slow:
            for chunk in answer:
                self.write(chunk)
                self.req.ensure_headers_sent()
                if self.req.bodyless:
                    return
                self.req.output.push()
