"""What can be wrong on a host, as numbered checks: each answers OK, WARN or FAIL, with what to do about it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ippd.doctor import data, host
from ippd.doctor.patient import FAIL, OK, WARN, Check, Finding, Patient
from ippd.errors import IppdError
from ippd.settings import Settings

__all__ = ["CHECKS", "FAIL", "OK", "WARN", "Finding", "Patient", "examine"]
CHECKS: tuple[Check, ...] = (
    ("settings", host.named),
    ("unpack folder", host.unpack),
    ("data folder", data.data_folder),
    ("database", data.database),
    ("certificate", host.pair),
    ("ports", host.ports),
    ("clock", data.clock),
    ("file limits", host.file_limits),
    ("local listener", host.local_access),
    ("mail", host.mail),
    ("orphans", data.orphans),
    ("stuck", data.stuck),
    ("backups", data.backups),
)


def examine(settings: Settings, now: float, more: Iterable[Check] = ()) -> Iterator[dict[str, Any]]:
    """All checks, and `more`, one by one: {number, name, level, found, advice}. A check that breaks has failed."""
    patient = Patient(settings, now)
    number = 0
    for name, check in (*CHECKS, *more):
        for level, found, advice in _findings(check, patient):
            number += 1
            yield {"number": number, "name": name, "level": level, "found": found, "advice": advice}


def _findings(check: Callable[[Patient], Iterator[Finding]], patient: Patient) -> Iterator[Finding]:
    """What a check finds, and last why it broke, if it did: damage that no check has thought of must not keep the others from looking."""
    advice = "mend this first; other checks may depend on it"
    try:
        yield from check(patient)
    except (IppdError, OSError, sqlite3.Error) as error:
        yield FAIL, str(error), advice
    except Exception as error:
        yield FAIL, f"the check broke with {type(error).__name__}: {error}", advice
