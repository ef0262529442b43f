"""The commands `ippd serve`, `ippd ready` and `ippd version`, and what the first start makes."""

import socket
import sys
from urllib.parse import urlsplit

from ippd import VERSION, certificate, daemon, logs, probe
from ippd.checks import check
from ippd.cli.call import Call, warn
from ippd.core import Core, open_core
from ippd.permissions import OPERATOR
from ippd.settings import Settings

FIRST_USER = """There is no user yet. Make the first one, who is approved at once, with
    ippd user add you@example.org
Others sign up in the portal, and are let in with
    ippd user list --status pending
    ippd user approve them@example.org"""


def version(call: Call) -> None:
    """Print the version."""
    print(f"ippd {VERSION}")


def serve(call: Call) -> int | None:
    """Run the daemon until it is told to stop. What is wrong is told on standard error before the log begins."""
    check(call.settings)
    core = open_core(call.settings)
    try:
        prepare(core, call.settings)
        nobody = not core.users.list(OPERATOR)
    finally:
        core.close()  # the serving processes open the database for themselves: it must not cross a fork
    logs.start(call.settings, core.clock)
    try:
        return daemon.serve(call.settings, call.load, lambda: _tell(FIRST_USER) if nobody else None)
    finally:
        logs.stop()


def prepare(core: Core, settings: Settings) -> None:
    """Make the certificate when there is none, and try it. Raises SettingsError."""
    cert, key = str(core.certificate_path()), str(core.key_path())
    if settings["public.listen"]:
        if not settings["public.certificate"] and not core.certificate_path().exists():
            names = own_names(settings)
            certificate.make(names, cert, key, core.clock)
            _tell(f"Made a self-signed certificate for {', '.join(names)}: {cert}")
        certificate.check_pair(cert, key)


def own_names(settings: Settings) -> list[str]:
    """The names and addresses by which the public listener can be reached, as far as they can be found out."""
    names = [urlsplit(settings["public.url"]).hostname, socket.getfqdn(), socket.gethostname(), "localhost"]
    names += [address for address, _ in settings["public.listen"] if address not in ("0.0.0.0", "::")]
    names += ["127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(names) if name and certificate.possible(name)]


def ready(call: Call) -> int:
    """Say whether the daemon is ready; 1 when it is not."""
    if call.arguments.answers:
        return _answers(call)
    problem = probe.wait(call.settings, call.arguments.wait)
    print(f"not ready: {problem}" if problem else "ready")
    return 1 if problem else 0


def _answers(call: Call) -> int:
    """For what starts a daemon: one that answers has started, as it can do a part of its work and no other start could do more."""
    settings = call.load()  # what there is to warn of has been told by the check before the start
    answers = probe.answers(settings, call.arguments.wait)
    problem = probe.wait(settings, 0)
    if problem:
        warn(f"the daemon answers, but is not ready: {problem}" if answers else f"not ready: {problem}")
    return 0 if answers else 1


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
