"""The command `ippd config`."""

import os

from ippd.checks import backup_trouble, check, check_places, doubts
from ippd.cli.call import Call, become_owner, warn
from ippd.logs import visible
from ippd.settings import sample


def show(call: Call) -> None:
    """Print the settings, a sample file, or what is wrong."""
    if call.arguments.sample:
        print(sample(), end="")
    elif call.arguments.check:
        settings, caller = call.settings, os.geteuid()
        become_owner(settings, make=False)  # what root can read and write says nothing of the daemon
        check(settings)
        # A unit can give the daemon, and not this command of root, ports that are root's (CAP_NET_BIND_SERVICE).
        check_places(settings, ports=caller == os.geteuid() or not os.path.isdir("/run/systemd/system"))
        found = list(doubts(settings))
        sentence, command = backup_trouble(settings)
        if sentence:
            found.append(f"{settings.source('backup.directory')}: backup.directory: {sentence}: {command}")
        for sentence in found:
            warn(sentence)
        print(f"{settings.file or 'the settings'}: {'the daemon can start' if found else 'nothing is wrong'}")
    else:
        for name in call.settings:
            line = f"{name} = {visible(call.settings.shown(name))}"
            print(f"{line:<56}  # {call.settings.source(name)}")
