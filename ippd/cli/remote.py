"""The commands of a portal's users: `ippd submit`, `ippd list`, `ippd log -f`, ... They need no settings and no data folder."""

import codecs
import getpass
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ippd import client
from ippd.calls import Refused
from ippd.cli.call import Call
from ippd.cli.passwords import new_password
from ippd.cli.show import as_json, moment, table
from ippd.client import Client
from ippd.errors import Invalid
from ippd.logs import visible

BAR = 30  # characters
# The flags of ippd submit: by the portal's words for them, with the shorter ones that it has when it refuses one.
FLAGS = {
    "experimentName": ("--name", "name"), "experimentDescription": ("--description", "description"), "host": ("--host", "host"),
    "run-priority": ("--priority", "priority"), "run-parents": ("--after", "parents"), "run-time-limit": ("--time-limit", "time_limit"),
}  # fmt: skip
ENDS = {"completed": "is completed", "failed": "has failed", "cancelled": "was cancelled"}


def _portal(call: Call) -> tuple[str, str | None, str | None]:
    """Address, token and authority of the portal that is asked for, else of that of the last login, which knows the other two."""
    kept = client.remembered()
    server = (call.arguments.server or kept.get("server") or "").rstrip("/")
    if not server:
        raise Invalid("which portal? Give --server https://... once")
    kept = kept if kept.get("server") == server else {}
    return server, kept.get("token"), str(Path(call.arguments.ca).resolve()) if call.arguments.ca else kept.get("authority")


def _client(call: Call) -> Client:
    """The client of the portal that is asked for, or of the last login; asks for address and password when nothing is known."""
    server, token, authority = _portal(call)
    if token:
        return Client(server, token, authority)
    if not sys.stdin.isatty():
        raise Invalid(f"you are not logged in at {server}: ippd login --server {server} EMAIL")
    made = Client(server, None, authority)
    print(f"Logging in at {server}", file=sys.stderr)
    client.remember(server, made.log_in(input("E-mail: "), getpass.getpass("Password: ")), authority)
    return made


def login(call: Call) -> None:
    """Log in and keep the token."""
    server, _, authority = _portal(call)
    made = Client(server, None, authority)  # first: nobody shall type a password for an address or an authority that is none
    given = call.arguments.password_file
    password = getpass.getpass("Password: ") if given is None and sys.stdin.isatty() else new_password(given)
    client.remember(server, made.log_in(call.arguments.email, password), authority)
    print(f"logged in at {server}; the token is in {client.token_file()}")


def submit(call: Call) -> None:
    """Submit an experiment."""
    fields, files = parse_fields(call.arguments.fields)
    given = call.arguments
    facts = {
        "app": given.app, "experimentName": given.name, "experimentDescription": given.description, "host": given.host,
        "run-priority": given.priority, "run-parents": given.after, "run-time-limit": given.time_limit,
    }  # fmt: skip
    facts = {name: str(value) for name, value in facts.items() if value is not None}
    portal = _client(call)
    try:
        print(portal.submit(facts, fields, files, _bar("upload") if files else None))
    except Refused as refused:
        words = {word: flag for name, (flag, short) in FLAGS.items() for word in ((name, short) if name in facts else (name,))}
        flags = {word: flag for word, flag in words.items() if all(word != field for field, _ in fields)}  # those are the app's
        raise Refused(_in_flags(str(refused), flags), refused.status) from None


def _in_flags(sentence: str, flags: Mapping[str, str]) -> str:
    """A portal's sentence (`field: reason; field: reason`) with the flags of a command in the place of its words for them."""
    return re.sub(r"(?:^|(?<=; ))[A-Za-z_]+(?=: )", lambda found: flags.get(found.group(), found.group()), sentence)


def parse_fields(words: list[str]) -> tuple[list[tuple[str, str]], list[tuple[str, Path]]]:
    """FIELD=VALUE and FIELD=@FILE apart. Raises Invalid for anything else."""
    fields, files = [], []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Invalid(f"{word!r} is neither FIELD=VALUE nor FIELD=@FILE")
        if value.startswith("@"):
            files.append((name, Path(value[1:])))
        else:
            fields.append((name, value))
    return fields, files


def show_list(call: Call) -> None:
    """List the own experiments."""
    found = _client(call).list(call.arguments.status)
    if call.arguments.json:
        return as_json(found)
    columns = {"ID": "id", "CREATED": "created", "STATUS": "status", "APP": "app", "NAME": "experimentName", "MESSAGE": "message"}
    table(list(columns), ([("" if e.get(column) is None else e[column]) for column in columns.values()] for e in found))


def show(call: Call) -> None:
    """Show one experiment."""
    found = _client(call).show(call.arguments.id)
    if call.arguments.json:
        return as_json(found)
    facts = {name: value for name, value in found.items() if name != "usage"} | _used(found.get("usage") or {})
    table(("WHAT", "VALUE"), ((name, _text(value)) for name, value in facts.items() if value not in (None, "", [], {})))


def _used(usage: dict[str, Any]) -> dict[str, str]:
    """What a run has used, in words."""
    shown: dict[str, Callable[[Any], str]] = {"engine": str, "job": str, "node": str, "started_at": _moment, "ended_at": _moment,
             "cpu_seconds": lambda seconds: f"{seconds:.1f} s", "peak_bytes": lambda size: f"{size / 2**20:.0f} MB"}  # fmt: skip
    words = {"started_at": "started", "ended_at": "ended", "cpu_seconds": "processor time", "peak_bytes": "peak memory"}
    return {words.get(name, name): show(usage[name]) for name, show in shown.items() if usage.get(name) is not None}


def _moment(seconds: float) -> str:
    return moment(seconds).replace("T", " ").rstrip("Z")  # as the portal writes times


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items() if item is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def log(call: Call) -> None:
    """Print what an experiment prints; at a terminal without what would be a command to it."""
    stream = "stderr" if call.arguments.stderr else "stdout"
    id = call.arguments.id
    pieces = _client(call).log(id, stream, call.arguments.follow, lambda: print(f"ippd: experiment {id} is begun again", file=sys.stderr))
    if sys.stdout.isatty():
        for text in _harmless(pieces):
            print(text, end="", flush=True)
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _harmless(pieces: Iterable[bytes]) -> Iterator[str]:
    """The text of the bytes; what is neither printable nor a line break or tab becomes visible."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for piece in pieces:
        yield _plain(decoder.decode(piece))
    yield _plain(decoder.decode(b"", final=True))


def _plain(text: str) -> str:
    return re.sub(r"[^\n\t]+", lambda found: visible(found.group()), text)


def get(call: Call) -> None:
    """Bring the results of an experiment."""
    portal, folder = _client(call), Path(call.arguments.to)
    names = call.arguments.names
    if not names:
        status, names = portal.outputs(call.arguments.id)
        if not names:
            why = f"{ENDS[status]} and has no results" if status in ENDS else f"is {status} and has no results yet"
            raise Invalid(f"experiment {call.arguments.id} {why}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = str(portal.get(call.arguments.id, name, folder, _bar(name)))
        print(visible(path) if sys.stdout.isatty() else path)


def cancel(call: Call) -> int:
    """Cancel an experiment, and say what that did; the exit status is 1 while its job may still run."""
    answer = _client(call).cancel(call.arguments.id, 30)
    ends = {True: "nothing of it runs any more", False: "its job has not been seen to end yet", None: "its job script finds out by itself"}
    print(f"experiment {call.arguments.id} was {visible(answer['was'])} and is cancelled: {ends[answer['gone']]}")
    return int(answer["gone"] is False)


def suspend(call: Call) -> None:
    """Hold an experiment."""
    _asked(call, "suspend", "suspended")


def resume(call: Call) -> None:
    """Let it go on."""
    _asked(call, "resume", "running")


def _asked(call: Call, word: str, wanted: str) -> None:
    status, id = visible(_client(call).act(call.arguments.id, word)), call.arguments.id
    later = "" if status in (wanted, "submitted") else f"; its worker was asked to change that, and ippd show {id} tells what came of it"
    print(f"experiment {id} is {status}{later}")


def relaunch(call: Call) -> None:
    """Run an experiment again with other parameters."""
    fields, files = parse_fields(call.arguments.fields)
    if files:
        raise Invalid("the files of an experiment stay as they were: submit a new one for others")
    print(_client(call).relaunch(call.arguments.id, fields))


def _bar(what: str) -> Any:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def draw(done: int, total: int) -> None:
        share = done / total if total else 1.0
        end = "\n" if done >= total else ""
        print(f"\r{what[:40]} [{'#' * int(BAR * share):{BAR}}] {100 * share:3.0f} %", end=end, file=sys.stderr, flush=True)

    return draw
