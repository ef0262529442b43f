"""The command `ippd config`, and what is checked before the daemon starts."""

import os

from ippd import certificate
from ippd.cli.call import Call
from ippd.errors import SettingsError
from ippd.logs import visible
from ippd.settings import Settings, sample


def show(call: Call) -> None:
    """Print the settings, a sample file, or what is wrong."""
    if call.arguments.sample:
        print(sample(), end="")
    elif call.arguments.check:
        check(call.settings)
        print(f"{call.settings.file or 'the settings'}: nothing is wrong")
    else:
        for name in call.settings:
            line = f"{name} = {visible(call.settings.shown(name))}"
            print(f"{line:<56}  # {call.settings.source(name)}")


def check(settings: Settings) -> None:
    """Look at the files and folders that the settings name. Raises SettingsError with everything that is wrong."""
    problems = []
    if settings["public.certificate"] and settings["public.listen"]:
        try:
            certificate.check_pair(settings["public.certificate"], settings["public.key"])
        except SettingsError as error:
            problems.append(f"{settings.source('public.certificate')}: public.certificate: {error}")
    frontend = settings["public.frontend"]
    if frontend and not os.path.isfile(os.path.join(frontend, "index.html")):
        problems.append(f"{settings.source('public.frontend')}: public.frontend: there is no {frontend}/index.html")
    if problems:
        raise SettingsError(problems)
