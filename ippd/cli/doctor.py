"""The command `ippd doctor`."""

import functools
import time
from collections.abc import Iterator

from ippd.cli.call import Call, become_owner
from ippd.cli.show import as_json
from ippd.doctor import FAIL, OK, WARN, Finding, Patient, examine
from ippd.logs import visible
from ippd.mail import make_send

MESSAGE = "This message came through the mail settings of ippd."
STATUS = {OK: 0, WARN: 3, FAIL: 1}


def doctor(call: Call) -> int:
    """Run all checks; 0 when all is well, 3 when there are warnings only, 1 when something has failed."""
    settings = call.settings
    become_owner(settings, make=False)
    more = [("test mail", functools.partial(_test_mail, call.arguments.mail))] if call.arguments.mail else []
    found = []
    for finding in examine(settings, time.time(), more):
        found.append(finding)
        if not call.arguments.json:
            print(visible(f"{finding['number']:2} {finding['level']:4} {finding['name']}: {finding['found']}"))
            if finding["level"] != OK:
                print(visible(f"        -> {finding['advice']}"))
    if call.arguments.json:
        as_json(found)
    levels = {finding["level"] for finding in found}
    return STATUS[FAIL if FAIL in levels else WARN if WARN in levels else OK]


def _test_mail(to: str, patient: Patient) -> Iterator[Finding]:
    """Send a message."""
    if not patient.settings["mail.host"]:
        yield FAIL, f"no message could be sent to {to}: mail.host is empty", "set mail.host and mail.from"
        return
    try:
        make_send(patient.settings)("email", to, "Test of ippd doctor", MESSAGE)
    except Exception as error:  # whatever the library or the server has to say
        yield FAIL, f"no message could be sent to {to}: {error}", "look at the settings mail.*"
    else:
        yield OK, f"the mail server has taken a message to {to}", ""
