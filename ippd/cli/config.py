"""The command `ippd config`."""

from ippd.checks import check, doubts
from ippd.cli.call import Call, become_owner, warn
from ippd.logs import visible
from ippd.settings import sample


def show(call: Call) -> None:
    """Print the settings, a sample file, or what is wrong."""
    if call.arguments.sample:
        print(sample(), end="")
    elif call.arguments.check:
        settings = call.settings
        become_owner(settings, make=False)  # what root can read and write says nothing of the daemon
        check(settings)
        found = list(doubts(settings))
        for sentence in found:
            warn(sentence)
        print(f"{settings.file or 'the settings'}: {'the daemon can start' if found else 'nothing is wrong'}")
    else:
        for name in call.settings:
            line = f"{name} = {visible(call.settings.shown(name))}"
            print(f"{line:<56}  # {call.settings.source(name)}")
