"""The one table of commands: the parser, --help and the manual come from it."""

from ippd.cli import apps, backup, config, doctor, groups, house, install, manual, remote, service, update, users
from ippd.cli.call import Call
from ippd.cli.rows import Command, argument
from ippd.domain.limits import LIMITS
from ippd.domain.notifications import STATUSES as NOTIFICATION_STATUSES
from ippd.domain.states import STATES
from ippd.domain.users import STATUSES as USER_STATUSES
from ippd.releases import KINDS
from ippd.runners import ENGINES
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
DRY_RUN = argument("--dry-run", action="store_true", help="Only say what would be done.")
PASSWORD_FILE = argument(
    "--password-file", metavar="FILE",
    help="Read the password from this file (- is standard input) instead of asking for it.",
)

SERVER = argument("--server", metavar="URL", help="Address of the portal; without it that of the last login.")
AUTHORITY = argument("--ca", metavar="FILE", help="Certificate (PEM) to trust, for a portal with one of its own making.")
REMOTE = (SERVER, AUTHORITY)
ID = argument("id", metavar="ID", type=int, help="Id of an experiment.")
FIELDS = argument("fields", metavar="FIELD=VALUE", nargs="*", help="Fields of the app; FIELD=@FILE sends a file, and may be repeated.")

# Words that other commands begin with.
NOUNS = {
    "app": "Definitions of the programs that can be run.",
    "user": "Accounts of the portal.",
    "group": "Groups of users and their limits.",
    "release": "Releases and the keys that they are signed with.",
    "notifications": "The outbox of mails and Slack messages.",
}


def _manual(call: Call) -> None:
    """Print a page of the manual."""
    print(manual.page(call.arguments.page, COMMANDS, GLOBAL), end="")


def _install(call: Call) -> None:
    """Install the program with its manual."""
    install.install(call, lambda name: manual.page(name, COMMANDS, GLOBAL))


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
    Command("app list", "List the apps of apps.directory.", apps.show_list, (JSON,)),
    Command("app check", "Say what is wrong with definitions; exit status 0: nothing, 3: warnings, 1: some are left out.", apps.check, (
        argument("folder", metavar="FOLDER", nargs="?", help="The folder to read instead of apps.directory."),
    )),
    Command("app show", "Print a definition as it was understood.", apps.show, (
        argument("key", metavar="APP", help="Key of the app."),
    )),
    Command("worker", "Run experiments in a batch engine, until SIGTERM; their jobs are found again after a restart.", apps.worker, (
        argument("--engine", choices=tuple(ENGINES), required=True, help=f"One of {', '.join(ENGINES)}."),
        argument("--once", action="store_true", help="Do one round only."),
        argument("--as-root", action="store_true", help="Run even as root, and with it the programs that users ask for."),
    )),
    Command("login", "Log in at a portal and keep the token, readable by you alone.", remote.login, (EMAIL, PASSWORD_FILE, *REMOTE)),
    Command("submit", "Submit an experiment to a portal; prints its id.", remote.submit, (
        argument("app", metavar="APP", help="Key of the app."), FIELDS,
        argument("--name", help="Name of the experiment; without it that of the app."),
        argument("--description", help="Its description."),
        argument("--host", help="Where it shall run, where the portal has several places."),
        argument("--priority", type=int, help="Less than 0: behind other experiments."),
        argument("--after", metavar="IDS", help="Start after the end of these, separated by commas."),
        argument("--time-limit", metavar="SECONDS", type=float, help="End it when it runs longer."), *REMOTE,
    )),
    Command("list", "List your experiments at a portal.", remote.show_list, (
        argument("--status", choices=STATES, help="Only those in this state."), JSON, *REMOTE,
    )),
    Command("show", "Show one of your experiments.", remote.show, (ID, JSON, *REMOTE)),
    Command("log", "Print what an experiment has printed.", remote.log, (
        ID, argument("-f", "--follow", action="store_true", help="Go on until it ends."),
        argument("--stderr", action="store_true", help="Its standard error instead of its standard output."), *REMOTE,
    )),
    Command("get", "Bring results of an experiment, with their checksums compared; goes on where it stopped.", remote.get, (
        ID, argument("names", metavar="NAME", nargs="*", help="Files of the experiment; without any, all results."),
        argument("--to", metavar="FOLDER", default=".", help="Where they go."), *REMOTE,
    )),
    Command("cancel", "Cancel an experiment; exit status 1 while its job may still run.", remote.cancel, (ID, *REMOTE)),
    Command("suspend", "Hold an experiment.", remote.suspend, (ID, *REMOTE)),
    Command("resume", "Let a held experiment go on.", remote.resume, (ID, *REMOTE)),
    Command("relaunch", "Run an experiment again, with other parameters and the same files; prints the new id.", remote.relaunch, (
        ID, FIELDS, *REMOTE,
    )),
    Command("expire", "Remove the files of experiments that are past files.retention_days.", house.expire),
    Command("housekeeping", "Run a job of the schedule now; without a name, list them.", house.housekeeping, (
        argument("job", metavar="NAME", nargs="?", choices=[job.name for job in SCHEDULE], help="Name of the job."),
    )),
    Command("notifications list", "List the newest notifications with what became of them.", house.notifications, (
        argument("--status", choices=NOTIFICATION_STATUSES, help="Only those of this status."), JSON,
    )),
    Command("notifications retry", "Send failed notifications again, and those that wait for another try at once.", house.retry),
    Command("notifications drop", "Remove notifications that are still pending and too old to be of use.", house.drop, (
        argument("--older-than", metavar="DAYS", type=int, default=7, help="Those written so many days ago or earlier; without it 7."),
    )),
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
    Command("update", "Put a signed release in the place of this program; the daemon goes over to it without losing a request.",
            update.update, (
        argument("release", metavar="RELEASE", nargs="?", help="A file with FILE.sig beside it, or a version in update.directory."),
        argument("--check", action="store_true", help="Only try it: with the real settings, over a copy of the database."),
        argument("--back", action="store_true", help="Put the program before this one in its place again; with --frontend, the frontend."),
        argument("--allow-older", action="store_true", help="Take a release that is older than what is in its place."),
        argument("--frontend", action="store_true", help="RELEASE is an archive of frontend files, for public.frontend."),
    )),
    Command("release key", "Make a key that releases are signed with, and print the public half for update.key.", update.key, (
        argument("file", metavar="FILE", help="Where the secret half goes; it must not be there yet."),
    )),
    Command("release public", "Print the public half of a key that is there, for update.key.", update.public, (
        argument("file", metavar="FILE", help="The secret key of ippd release key."),
    )),
    Command("release sign", "Sign a release: write FILE.sig.", update.sign, (
        argument("file", metavar="FILE", help="The program, or the archive of a frontend."),
        argument("version", metavar="VERSION", help="Its version."),
        argument("--key", metavar="FILE", required=True, help="The secret key of ippd release key."),
        argument("--kind", choices=KINDS, default="program", help="What it is a release of."),
    )),
    Command("doctor", "Look for what is wrong here, and say what to do; exit status 0: all is well, 3: warnings, 1: something failed.",
            doctor.doctor, (JSON, argument("--mail", metavar="EMAIL", help="Send a test message there as well."))),
    Command("install", "Put this program in its place on a host: account, folders, settings, certificate, and what starts it.",
            _install, (DRY_RUN,)),
    Command("uninstall", "Stop the daemon and take program and what starts it away; data and settings stay.",
            install.uninstall, (DRY_RUN,)),
    Command("ready", "Ask the daemon whether it can do its work; exit status 0 when it can.", service.ready, (
        argument("--wait", metavar="SECONDS", type=float, default=0.0, help="Ask again until then."),
        argument("--answers", action="store_true", help="Be content when it answers on all addresses, and tell what it cannot do."),
    )),
    Command("manual", "Print a page of the manual (man -l shows it), or the completion for bash.", _manual, (
        argument("page", metavar="PAGE", type=manual.with_section, choices=tuple(manual.PAGES),
                 help=f"One of {', '.join(manual.PAGES)}; the number of a section may be left out."),
    )),
    Command("version", "Print the version.", service.version),
)
