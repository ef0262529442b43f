"""The commands `ippd update` and `ippd release ...`."""

import os
from pathlib import Path

from ippd import VERSION, releases
from ippd.cli.call import Call, as_owner
from ippd.errors import Invalid
from ippd.permissions import OPERATOR
from ippd.wholefile import whole_file


def update(call: Call) -> None:
    """Put a release in place, try one, or go back."""
    arguments = call.arguments
    if arguments.back == bool(arguments.release):
        raise Invalid("name a release, or say --back")
    if arguments.back and arguments.check:
        raise Invalid("--back does not go with --check")
    release = os.path.abspath(arguments.release) if os.path.isfile(arguments.release or "") else arguments.release
    how = arguments.check, arguments.allow_older
    with as_owner(call.settings):
        updates = call.core.updates  # the database is opened as its owner; the program belongs to whoever calls
    if arguments.frontend:
        version = updates.frontend_back(OPERATOR) if arguments.back else updates.frontend(OPERATOR, release, *how)
        print(f"{version} is a frontend" if arguments.check else f"the frontend is now {version}")
    elif arguments.back:
        before, now = updates.back(OPERATOR)
        print(f"{before} has been replaced by {now}")
    else:
        version = updates.program(OPERATOR, release, *how)
        print(f"{version} passed its trial" if arguments.check else f"{VERSION} has been replaced by {version}")


def key(call: Call) -> None:
    """Make a pair of keys: the secret one into a file, the public one printed."""
    secret, _ = releases.new_key()
    with whole_file(Path(call.arguments.file), 0o600, replace=False) as file:
        file.write(f"{secret}\n".encode())
    public(call)


def public(call: Call) -> None:
    """Print the public half of a key."""
    print(f"[update]\nkey = {releases.public_half(_secret(call.arguments.file))}")


def sign(call: Call) -> None:
    """Write FILE.sig."""
    path = Path(call.arguments.file)
    signature = releases.sign(path, call.arguments.kind, call.arguments.version, _secret(call.arguments.key))
    with whole_file(path.with_name(f"{path.name}.sig"), 0o644) as file:
        file.write(signature.encode())
    print(f"{path}.sig: {call.arguments.kind} {call.arguments.version}")


def _secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except UnicodeDecodeError:
        return ""  # no key either
