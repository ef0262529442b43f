"""The one table of commands: the parser, --help and the manual come from it."""

from ippd.cli import backup, config, groups, house, manual, service, users
from ippd.cli.call import Call
from ippd.cli.rows import Command, argument
from ippd.domain.limits import LIMITS
from ippd.domain.notifications import STATUSES as NOTIFICATION_STATUSES
from ippd.domain.users import STATUSES as USER_STATUSES
from ippd.schedule import SCHEDULE
from ippd.settings import DEFAULT_FILE

GLOBAL = (
    (("-c", "--config"), "FILE", "store", f"Settings file (else IPPD_CONFIG, else {DEFAULT_FILE} if it exists)."),
    (("--set",), "NAME=VALUE", "append", "A setting, stronger than file and environment; may be repeated."),
)

EMAIL = argument("email", metavar="EMAIL", help="The address the person logs in with.")
USER = argument("user", metavar="USER", help="E-mail address or id of a user.")
GROUP = argument("group", metavar="GROUP", help="Name or id of a group.")
NAME = argument("name", metavar="NAME", help="Name of the new group.")
JSON = argument("--json", action="store_true", help="Print JSON.")
PASSWORD_FILE = argument(
    "--password-file", metavar="FILE",
    help="Read the password from this file (- is standard input) instead of asking for it.",
)

# Words that other commands begin with.
NOUNS = {
    "user": "Accounts of the portal.",
    "group": "Groups of users and their limits.",
    "notifications": "The outbox of mails and Slack messages.",
}


def _manual(call: Call) -> None:
    """Print a page of the manual."""
    print(manual.page(call.arguments.page, COMMANDS, GLOBAL), end="")


COMMANDS: tuple[Command, ...] = (
    Command("serve", "Run the daemon in the foreground, until SIGTERM.", service.serve),
    Command("config", "Print each setting with where it came from.", config.show, (
        argument("--sample", action="store_true", help="Print a commented settings file instead."),
        argument("--check", action="store_true", help="Only say what is wrong; exit status 0 when nothing is."),
    )),
    Command("user add", "Make an account that is approved at once.", users.add, (EMAIL, PASSWORD_FILE)),
    Command("user list", "List the accounts, newest first.", users.show, (
        argument("--status", choices=USER_STATUSES, help="Only those of this status."), JSON,
    )),
    Command("user approve", "Let a user in.", users.approve, (USER,)),
    Command("user deny", "Keep a user out and end their sessions.", users.deny, (USER,)),
    Command("user password", "Set a user's password and end their sessions.", users.password, (USER, PASSWORD_FILE)),
    Command("user remove", "Remove a user with all experiments and files.", users.remove, (USER,)),
    Command("group create", "Make a group.", groups.create, (NAME,)),
    Command("group list", "List the groups with their members and limits.", groups.show, (JSON,)),
    Command("group rename", "Give a group another name.", groups.rename, (
        GROUP, argument("name", metavar="NEW", help="Its new name."),
    )),
    Command("group remove", "Remove a group; its members stay users.", groups.remove, (GROUP,)),
    Command("group add", "Put a user into a group.", groups.add, (GROUP, USER)),
    Command("group drop", "Take a user out of a group.", groups.drop, (GROUP, USER)),
    Command("group limit", "Set a limit of a group's members, or take it away.", groups.limit, (
        GROUP,
        argument("name", metavar="NAME", choices=LIMITS, help=f"One of {', '.join(LIMITS)}."),
        argument("value", metavar="VALUE", help="A number, a size (5GB) for bytes, or none to take it away."),
    )),
    Command("expire", "Remove the files of experiments that are past files.retention_days.", house.expire),
    Command("housekeeping", "Run a job of the schedule now; without a name, list them.", house.housekeeping, (
        argument("job", metavar="NAME", nargs="?", choices=[job.name for job in SCHEDULE], help="Name of the job."),
    )),
    Command("notifications list", "List the newest notifications with what became of them.", house.notifications, (
        argument("--status", choices=NOTIFICATION_STATUSES, help="Only those of this status."), JSON,
    )),
    Command("notifications retry", "Send the failed notifications again.", house.retry),
    Command("backup", "Make a backup of the database, the files and the secrets, while the daemon serves.", backup.backup, (
        argument("file", metavar="FILE", help="The file to write; it must not be there yet."),
        argument("--verify", action="store_true", help="Read FILE instead, and compare all of it."),
    )),
    Command("restore", "Put a backup back, after all of it has been verified; the daemon must not run.", backup.restore, (
        argument("file", metavar="FILE", help="The backup."),
        argument("--overwrite", action="store_true", help="Replace the database and all files that are there."),
    )),
    Command("import-portal", "Bring users, groups, experiments and files of the old portal server over; may be repeated.",
            house.import_portal, (
        argument("database", metavar="OLD.sqlite", help="The old server's database; it is only read."),
        argument("uploads", metavar="OLD_UPLOADS", help="Its upload folder, with a folder for each user."),
    )),
    Command("ready", "Ask the daemon whether it can do its work; exit status 0 when it can.", service.ready, (
        argument("--wait", metavar="SECONDS", type=float, default=0.0, help="Ask again until then."),
    )),
    Command("manual", "Print a page of the manual (man -l shows it), or the completion for bash.", _manual, (
        argument("page", metavar="PAGE", choices=tuple(manual.PAGES), help=f"One of {', '.join(manual.PAGES)}."),
    )),
    Command("version", "Print the version.", service.version),
)
