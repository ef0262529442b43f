"""A user's side of a portal: submit, look, follow, fetch, cancel, over HTTPS with a token that is kept in a file of one's own."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from ippd.calls import Progress, Refused, Server, Upload
from ippd.errors import Invalid, IppdError, Unauthorized, Unavailable

TRIES = 6  # downloads that go on after a broken connection
PAUSE = 1.0  # seconds before the first of them; doubled each time
ENDED = ("completed", "failed", "cancelled")


def token_file() -> Path:
    """Where tokens are kept: ippd/token.json in $XDG_CONFIG_HOME, else in ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ippd" / "token.json"


def remembered() -> dict[str, Any]:
    """What the last login left: server, token and authority; empty when there was none. Raises Invalid for a file others may read."""
    path = token_file()
    try:
        if path.stat().st_mode & 0o077:
            raise Invalid(f"{path} can be read by others: remove it, or chmod 600 it, and log in again")
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def remember(server: str, token: str, authority: str | None) -> None:
    """Keep a token, readable by its owner only."""
    path = token_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(new, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump({"server": server, "token": token, "authority": authority}, file)
    os.replace(new, path)


class _Portal(Server):
    """A portal that tells how to log in again when it wants that."""

    def _refusal(self, answer: HTTPResponse) -> IppdError:
        error = super()._refusal(answer)
        return Unauthorized(f"{error}: ippd login EMAIL") if answer.status == 401 and self.token else error


class Client:
    """One user at one portal. Every method raises Refused with the portal's sentence, Unavailable when it cannot be reached."""

    def __init__(self, server: str, token: str | None = None, authority: str | None = None) -> None:
        """`server` is the portal's https address; `authority` a certificate (PEM) to trust instead of the system's."""
        if not server.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
            raise Invalid(f"{server} is not an https:// address: the password would be readable on the way")
        self._server = _Portal(server, token, authority)

    def log_in(self, email: str, password: str) -> str:
        """A token for an account. Raises Unauthorized."""
        try:
            answer = self._server.post_json("/users/auth", {"email": email, "password": password, "remember": "1"})
        except Refused as refused:
            raise Unauthorized(str(refused)) from None
        self._server.token = str(answer["token"])
        return self._server.token

    def submit(
        self,
        facts: Mapping[str, str],
        fields: Sequence[tuple[str, str]],
        files: Sequence[tuple[str, Path]],
        progress: Progress | None = None,
    ) -> int:
        """Submit an experiment: `facts` are the portal's own words (app, experimentName, ...), `fields` and `files` the app's.

        Returns its id. Raises Invalid for a file that cannot be read.
        """
        for _, path in files:
            if not os.access(path, os.R_OK) or not path.is_file():
                raise Invalid(f"{path} is not a file that can be read")
        uploads = [Upload(field, path.name, path) for field, path in files]
        return int(self._server.post_form("/experiments/new", [*facts.items(), *fields], uploads, progress)["id"])

    def list(self, status: str | None = None) -> Any:
        """The own experiments by id."""
        return self._server.get("/experiments", status=status)["experiments"]

    def show(self, id: int) -> Any:
        """One experiment."""
        return self._server.get(f"/experiments/{id}")

    def cancel(self, id: int, wait: int) -> Any:
        """Cancel an experiment, waiting so many seconds for its job to be gone; returns the portal's answer."""
        return self._server.post(f"/experiments/{id}/cancel", wait=wait)

    def act(self, id: int, word: str, **fields: str) -> Any:
        """suspend, resume or relaunch an experiment."""
        return self._server.post(f"/experiments/{id}/{word}", **fields)

    def log(self, id: int, stream: str, follow: bool) -> Iterator[bytes]:
        """What an experiment has printed, and with `follow` what it prints until it ends."""
        if not follow:
            yield from self._server.stream(f"/experiments/{id}/log", stream=stream)
            return
        offset, lost = 0, 0
        while True:
            ended = self.show(id)["status"] in ENDED
            before = offset
            try:
                for piece in self._server.stream(f"/experiments/{id}/log", stream=stream, follow=1, offset=offset):
                    offset += len(piece)
                    yield piece
                lost = 0
            except Unavailable:
                lost += 1
                if lost > TRIES:
                    raise
                time.sleep(PAUSE)
            except Refused as refused:
                if refused.status == 404 and ended:  # a script ran it: its log is an output
                    yield from self._server.stream(f"/experiments/{id}/log", stream=stream) if not offset else ()
                    return
                raise
            if ended and offset == before:
                return

    def get(self, id: int, name: str, folder: Path, progress: Progress | None = None) -> Path:
        """Bring one file of an experiment into `folder`, going on where a broken download stopped; its checksum is compared."""
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise Invalid(f"{name!r} is not a name for a file")
        target = folder / name
        for attempt in range(TRIES):
            try:
                self._server.download(f"/experiments/{id}/file", target, progress, path=name)
                return target
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError("unreachable")
