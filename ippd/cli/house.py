"""The commands that do by hand what the schedule does by the clock, and those for the outbox."""

from pathlib import Path
from typing import Any

from ippd import schedule
from ippd.cli.call import Call, warn
from ippd.cli.show import as_json, moment, table
from ippd.domain.notifications import Waiting
from ippd.mail import make_send
from ippd.permissions import OPERATOR

TIMES = ("created_at", "sent_at", "next_attempt_at")


def expire(call: Call) -> None:
    """Remove the files that are past their retention."""
    print(f"expire: {_job(call, 'expire')}")


def housekeeping(call: Call) -> None:
    """Run a job of the schedule, or list them."""
    if call.arguments.job is None:
        table(("NAME", "WHAT IT DOES"), ((job.name, job.help) for job in schedule.SCHEDULE))
    else:
        print(f"{call.arguments.job}: {_job(call, call.arguments.job)}")


def _job(call: Call, name: str) -> str:
    done: Any = schedule.run_once(call.core, name, make_send(call.settings))
    return ", ".join(f"{count} {what}" for what, count in done.items()) if isinstance(done, dict) else str(done)


def notifications(call: Call) -> None:
    """List the outbox."""
    rows = call.look().notifications.list(OPERATOR, call.arguments.status)
    for row in rows:
        row |= {name: moment(row[name]) for name in TIMES}
    if call.arguments.json:
        as_json(rows)
        return
    columns = ("id", "created_at", "status", "attempts", "channel", "recipient", "subject", "error")
    table([column.removesuffix("_at").upper() for column in columns],
          ([row[column] if row[column] is not None else "" for column in columns] for row in rows))


def retry(call: Call) -> None:
    """Put failed notifications back into the outbox, and let those that wait go at once."""
    _told(call.core.notifications.retry(OPERATOR), "will be sent again")


def drop(call: Call) -> None:
    """Remove notifications that came too late."""
    _told(call.core.notifications.drop(OPERATOR, call.arguments.older_than), "removed")


def _told(waiting: Waiting, what: str) -> None:
    print(f"{waiting.done} {what}; pending: {waiting.pending}{waiting.why and f' ({waiting.why})'}")


def import_portal(call: Call) -> int:
    """Bring the old server's data over and report; 1 when something was damaged."""
    report = call.core.imports.portal(OPERATOR, Path(call.arguments.database), Path(call.arguments.uploads))
    kinds = ("users", "groups", "memberships", "limits", "experiments", "files")
    table(("WHAT", "BROUGHT", "THERE ALREADY"), ((kind, report.brought[kind], report.known[kind]) for kind in kinds))
    for problem in report.problems:
        warn(problem)
    if report.problems:
        warn(f"{len(report.problems)} things were not as they should be, see above; all else is here")
    return 1 if report.problems else 0
