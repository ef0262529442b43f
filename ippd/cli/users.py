"""The commands `ippd user ...`."""

from ippd.cli.call import Call
from ippd.cli.passwords import new_password
from ippd.cli.show import as_json, moment, table
from ippd.fields import one_line
from ippd.permissions import OPERATOR
from ippd.store import Row


def add(call: Call) -> None:
    """Make an account that is approved at once."""
    password = new_password(call.arguments.password_file)
    id = call.core.users.add(OPERATOR, call.arguments.email, password)
    print(f"{call.core.users.find(OPERATOR, id)['email']} is user {id}")


def show(call: Call) -> None:
    """List the accounts."""
    users = call.look().users.list(OPERATOR, call.arguments.status)
    for user in users:
        user["created_at"] = moment(user["created_at"])
    if call.arguments.json:
        as_json(users)
        return
    columns = ("id", "email", "status", "created_at")
    table(("ID", "EMAIL", "STATUS", "SINCE", "GROUPS"),
          ([user[column] for column in columns] + [", ".join(user["groups"])] for user in users))


def approve(call: Call) -> None:
    """Let a user in."""
    user = find(call)
    call.core.users.approve(OPERATOR, user["id"])
    print(f"{user['email']} is approved")


def deny(call: Call) -> None:
    """Keep a user out."""
    user = find(call)
    call.core.users.deny(OPERATOR, user["id"])
    print(f"{user['email']} is denied")


def password(call: Call) -> None:
    """Set a user's password."""
    given = new_password(call.arguments.password_file)
    user = find(call)
    call.core.users.set_password(OPERATOR, user["id"], given)
    print(f"{user['email']} has a new password, and all sessions have ended")


def remove(call: Call) -> None:
    """Remove a user with everything."""
    user = find(call)
    call.core.users.remove(OPERATOR, user["id"])
    print(f"{user['email']} is removed, with all experiments and files")


def find(call: Call) -> Row:
    """The user that the argument names, by e-mail address or id. Raises NotFound."""
    return call.core.users.find(OPERATOR, one_line(call.arguments.user))
