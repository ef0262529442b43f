"""The commands `ippd group ...`."""

from ippd.cli import users
from ippd.cli.call import Call
from ippd.cli.show import as_json, table
from ippd.errors import NotFound
from ippd.fields import one_line
from ippd.permissions import OPERATOR
from ippd.store import Row


def create(call: Call) -> None:
    """Make a group."""
    id = call.core.groups.create(OPERATOR, call.arguments.name)
    print(f"group {_find(call, str(id), keys=('id',))['name']} is made, with the id {id}")


def show(call: Call) -> None:
    """List the groups."""
    groups = call.look().groups.list(OPERATOR)
    if call.arguments.json:
        as_json(groups)
        return
    emails = {user["id"]: user["email"] for user in call.core.users.list(OPERATOR)}
    table(("ID", "NAME", "LIMITS", "MEMBERS"), (
        (group["id"], group["name"], " ".join(f"{name}={value}" for name, value in group["limits"].items()),
         " ".join(emails.get(member, str(member)) for member in group["members"]))
        for group in groups
    ))


def rename(call: Call) -> None:
    """Give a group another name."""
    group = _find(call, call.arguments.group)
    call.core.groups.rename(OPERATOR, group["id"], call.arguments.name)
    print(f"group {group['name']} is now {_find(call, str(group['id']), keys=('id',))['name']}")


def remove(call: Call) -> None:
    """Remove a group."""
    group = _find(call, call.arguments.group)
    call.core.groups.remove(OPERATOR, group["id"])
    print(f"group {group['name']} is removed")


def add(call: Call) -> None:
    """Put a user into a group."""
    group, user = _find(call, call.arguments.group), users.find(call)
    call.core.groups.add(OPERATOR, group["id"], user["id"])
    print(f"{user['email']} is in {group['name']}")


def drop(call: Call) -> None:
    """Take a user out of a group."""
    group, user = _find(call, call.arguments.group), users.find(call)
    call.core.groups.drop(OPERATOR, group["id"], user["id"])
    print(f"{user['email']} is not in {group['name']}")


def limit(call: Call) -> None:
    """Set a limit of a group, or take it away."""
    name, text = call.arguments.name, call.arguments.value
    group = _find(call, call.arguments.group)
    value = call.core.groups.limit(OPERATOR, group["id"], {name: None if text == "none" else text})[name]
    print(f"group {group['name']}: {name} is {value if value is not None else 'the default'}")


def _find(call: Call, text: str, keys: tuple[str, ...] = ("name", "id")) -> Row:
    groups = call.core.groups.list(OPERATOR)
    for key in keys:  # a name counts before an id: a group may be called 7
        for group in groups:
            if str(group[key]) == one_line(text):
                return group
    raise NotFound(f"there is no group {text}")
