"""A user's side of a portal: submit, look, follow, fetch, cancel, over HTTPS with a token that is kept in a file of one's own."""

import ipaddress
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPResponse
from pathlib import Path
from types import NoneType
from typing import Any
from urllib.parse import quote, urlsplit

from ippd.calls import Progress, Refused, Server, Upload
from ippd.errors import Invalid, IppdError, Unauthorized, Unavailable

TRIES = 6  # to go on after a broken connection, in a row
PAUSE = 1.0  # seconds before the first of them; doubled each time
NAME, LONGEST_NAME = "experimentName", 255  # characters
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
        _check_address(server)
        self._server = _Portal(server, token, authority)

    def log_in(self, email: str, password: str) -> str:
        """A token for an account. Raises Unauthorized."""
        try:
            answer = self._server.post_json("/users/auth", {"email": email, "password": password, "remember": "1"})
        except Refused as refused:
            raise Unauthorized(str(refused)) from None
        token: str = _fact(answer, "token", str)
        if not re.fullmatch("[!-~]+", token):
            raise Unavailable("the portal's answer cannot be understood: its token is none")
        self._server.token = token
        return token

    def submit(
        self,
        facts: Mapping[str, str],
        fields: Sequence[tuple[str, str]],
        files: Sequence[tuple[str, Path]],
        progress: Progress | None = None,
    ) -> int:
        """Submit an experiment: `facts` are the portal's own words (app, experimentName, ...), `fields` and `files` the app's.

        One without a name is called as its app, if that has a form. Returns its id. Raises Invalid for a file that cannot be read.
        """
        for _, path in files:
            if not os.access(path, os.R_OK) or not path.is_file():
                raise Invalid(f"{path} is not a file that can be read")
        uploads = [Upload(field, path.name, path) for field, path in files]
        if NAME not in facts and all(field != NAME for field, _ in fields):
            facts = {**facts, **self._default_name(facts["app"])}
        return _id(self._server.post_form("/experiments/new", [*facts.items(), *fields], uploads, progress))

    def _default_name(self, app: str) -> dict[str, str]:
        """The name of an experiment that was given none, as a fact: what people read in the place of the app's key. Forms want one."""
        try:
            form = self._server.get(f"/apps/{quote(app, safe='')}")
        except Refused:  # there is none with this key: the portal may take the app all the same
            return {}
        label = form.get("label") if isinstance(form, dict) else None
        return {NAME: " ".join(label.split())[:LONGEST_NAME] if isinstance(label, str) and label.strip() else app}

    def list(self, status: str | None = None) -> Any:
        """The own experiments by id."""
        return _each(self._server.get("/experiments", status=status), "experiments", dict)

    def show(self, id: int) -> Any:
        """One experiment."""
        found = self._server.get(f"/experiments/{id}")
        _fact(found, "status", str)
        return found

    def outputs(self, id: int) -> tuple[str, Sequence[str]]:
        """The status of an experiment, and the names of its results."""
        found = self.show(id)
        return found["status"], _each(found, "outputs", str)

    def cancel(self, id: int, wait: int) -> Any:
        """Cancel an experiment, waiting so many seconds for its job to be gone; returns the portal's answer: was, gone."""
        answer = self._server.post(f"/experiments/{id}/cancel", wait=wait)
        return {"was": _fact(answer, "was", str), "gone": _fact(answer, "gone", bool, NoneType)}

    def act(self, id: int, word: str) -> str:
        """suspend or resume an experiment; returns its status."""
        status: str = _fact(self._server.post(f"/experiments/{id}/{word}"), "status", str)
        return status

    def relaunch(self, id: int, params: Sequence[tuple[str, str]]) -> int:
        """Run an experiment again with these parameters, one that is there twice with both values; returns the new id."""
        return _id(self._server.post_form(f"/experiments/{id}/relaunch", params))

    def log(self, id: int, stream: str, follow: bool, again: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """What an experiment has printed, and with `follow` what it prints until it ends. When it is begun again meanwhile, `again` is
        called, and what comes then is what it prints from its new beginning on.
        """
        if not follow:
            yield from self._server.stream(f"/experiments/{id}/log", stream=stream)
            return
        offset, lost, ended, begun, restarts = 0, 0, False, False, None
        while True:
            before = offset
            try:
                found = self.show(id)
                ended = found["status"] in ENDED
                if begun and found.get("restarts") != restarts:
                    offset = before = 0
                    again()
                begun, restarts = True, found.get("restarts")
                for piece in self._server.stream(f"/experiments/{id}/log", stream=stream, follow=1, offset=offset, restarts=restarts):
                    offset += len(piece)
                    yield piece
                if ended and offset == before:
                    return
                lost = 0
            except Unavailable:
                lost += 1
                if lost > TRIES or not begun:
                    raise
                time.sleep(PAUSE * 2 ** (lost - 1))
            except Refused as refused:
                if refused.status == 404 and ended:  # a script ran it: its log is an output
                    yield from self._server.stream(f"/experiments/{id}/log", stream=stream) if not offset else ()
                    return
                raise

    def get(self, id: int, name: str, folder: Path, progress: Progress | None = None) -> Path:
        """Bring one file of an experiment into `folder`, going on where a broken download stopped; its checksum is compared.

        Raises Invalid for a name that no portal gives to a file, and when another file of this name is there.
        """
        if name != os.path.basename(name) or name[:1] in ("", ".", "-") or not name.isprintable():
            raise Invalid(f"{name!r} is not a name for a file")
        target = folder / name
        for attempt in range(TRIES):
            try:
                self._server.download(f"/experiments/{id}/file", target, progress, True, path=name)
                return target
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError("unreachable")


def _check_address(server: str) -> None:
    """Raises Invalid for an address over which a password must not be sent."""
    try:
        parts = urlsplit(server)
        host, _ = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        raise Invalid(f"{server} is not the address of a portal") from None
    if "@" in parts.netloc:
        raise Invalid("the address of a portal has no user name or password (what stands before an @) in it")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))):
        raise Invalid(f"{server} is not an https:// address: the password would be readable on the way")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _fact(answer: Any, name: str, *kinds: type) -> Any:
    """What a portal's answer says under a name. Raises Unavailable when this is nothing of these kinds."""
    value = answer.get(name) if isinstance(answer, dict) else answer
    if not isinstance(answer, dict) or name not in answer or type(value) not in kinds:
        raise Unavailable(f"the portal's answer cannot be understood: {name} is missing or is of another kind")
    return value


def _each(answer: Any, name: str, kind: type) -> Any:
    """The same for a list of things of one kind."""
    values = _fact(answer, name, list)
    for value in values:
        _fact({name: value}, name, kind)
    return values


def _id(answer: Any) -> int:
    return int(_fact(answer, "id", int))
