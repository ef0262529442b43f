"""A portal for a test: the real server in a thread of the test, or the binary as processes of its own."""

import threading
import time

from client import Client
from daemons import Daemon
from ippd import certificate
from ippd.children import FAMILIES
from ippd.http import cors, make_app
from ippd.permissions import ANONYMOUS, OPERATOR
from ippd.server import Limits, Listener, Server, bind_tcp
from ippd.server.tls import make_context

PASSWORD = "correct horse battery"


class Portal:
    """The core, and a client of each listener: `public` (TLS) and `local`. `requests` is what the access log got."""

    def __init__(self, core, public, local):
        self.core, self.public, self.local = core, public, local

    def user(self, email="ada@example.org"):
        """A new account that is logged in; returns its token."""
        self.core.users.add(OPERATOR, email, PASSWORD)
        return self.core.sessions.log_in(ANONYMOUS, email, PASSWORD)

    def requests_done(self, count):
        """Wait until so many requests have ended, at most ten seconds; returns them."""
        deadline = time.monotonic() + 10
        while len(self.requests) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return list(self.requests)


class Threaded(Portal):
    """One public listener with TLS and one local listener, each on a free port, served by a thread of the test."""

    def __init__(self, core, families=FAMILIES):
        settings = core.settings
        self.requests = []
        certificate.make(["localhost"], str(core.certificate_path()), str(core.key_path()))
        tls = make_context(str(core.certificate_path()), str(core.key_path()))
        apps = {name: make_app(families, core, settings, name) for name in ("public", "local")}
        sockets = {name: bind_tcp("127.0.0.1", 0, f"{name}.listen") for name in apps}
        self._server = Server(
            [
                Listener("public", sockets["public"], apps["public"], tls, lambda origin: list(cors(settings, origin).items())),
                Listener("local", sockets["local"], apps["local"], local=True),
            ],
            Limits.of(settings),
            self.requests.append,
        )
        super().__init__(core, Client(*sockets["public"].getsockname(), tls=True), Client(*sockets["local"].getsockname()))
        self._thread = threading.Thread(target=self._server.run, name="server")
        self._thread.start()

    def stop(self):
        self._server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


class Frozen(Portal):
    """What a daemon of the binary serves over the core's data folder; who started it stops it."""

    def __init__(self, core, daemon: Daemon):
        super().__init__(core, Client("127.0.0.1", daemon.public, tls=True), Client("127.0.0.1", daemon.local))
        self._daemon = daemon

    @property
    def requests(self):
        return self._daemon.requests()

    def stop(self):
        pass
