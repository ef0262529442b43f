"""The real server in a thread of the test: one public listener with TLS and one local listener, each on a free port."""

import threading
import time

from client import Client
from ippd import certificate
from ippd.api.portal import portal as PORTAL
from ippd.api.portal_jobs import jobs as JOBS
from ippd.http import cors, make_app
from ippd.permissions import ANONYMOUS, OPERATOR
from ippd.server import Limits, Listener, Server, bind_tcp
from ippd.server.tls import make_context

PASSWORD = "correct horse battery"


class Portal:
    """The core, and a client of each listener: `public` (TLS) and `local`."""

    def __init__(self, core, families=(PORTAL, JOBS)):
        self.core = core
        settings = core.settings
        self.requests = []  # what the access log gets
        certificate.make(["localhost"], str(core.certificate_path()), str(core.key_path()))
        tls = make_context(str(core.certificate_path()), str(core.key_path()))
        self.apps = {name: make_app(families, core, settings, name) for name in ("public", "local")}
        sockets = {name: bind_tcp("127.0.0.1", 0, f"{name}.listen") for name in self.apps}
        self.server = Server(
            [
                Listener("public", sockets["public"], self.apps["public"], tls, lambda origin: list(cors(settings, origin).items())),
                Listener("local", sockets["local"], self.apps["local"], local=True),
            ],
            Limits.of(settings),
            self.requests.append,
        )
        self.public = Client(*sockets["public"].getsockname(), tls=True)
        self.local = Client(*sockets["local"].getsockname())
        self._thread = threading.Thread(target=self.server.run, name="server")
        self._thread.start()

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

    def stop(self):
        self.server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
