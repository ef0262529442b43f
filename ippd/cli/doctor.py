"""The command `ippd doctor`."""

import time

from ippd.cli.call import Call, become_owner
from ippd.cli.show import as_json
from ippd.doctor import FAIL, OK, WARN, examine
from ippd.logs import visible
from ippd.mail import make_send

STATUS = {OK: 0, WARN: 3, FAIL: 1}


def doctor(call: Call) -> int:
    """Run all checks; 0 when all is well, 3 when there are warnings only, 1 when something has failed."""
    settings = call.settings
    become_owner(settings["data.directory"])
    found = []
    for finding in examine(settings, time.time()):
        found.append(finding)
        if not call.arguments.json:
            print(visible(f"{finding['number']:2} {finding['level']:4} {finding['name']}: {finding['found']}"))
            if finding["level"] != OK:
                print(visible(f"        -> {finding['advice']}"))
    if call.arguments.mail:
        make_send(settings)("email", call.arguments.mail, "Test of ippd doctor", "This message came through the mail settings of ippd.")
        if not call.arguments.json:
            print(visible(f"the mail server has taken a message to {call.arguments.mail}"))
    if call.arguments.json:
        as_json(found)
    levels = {finding["level"] for finding in found}
    return STATUS[FAIL if FAIL in levels else WARN if WARN in levels else OK]
