"""Real servers on loopback that take messages: SMTP in all its forms, and an HTTPS endpoint for webhooks."""

import http.server
import json
import socket
import ssl
import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import SMTPUTF8
from types import SimpleNamespace

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from ippd import certificate


class Inbox:
    """Keeps the messages; answers RCPT with what `refuse` has for the address, and DATA with `data_answer`."""

    def __init__(self, refuse=None, data_answer="250 taken"):
        self.refuse, self.data_answer = refuse or {}, data_answer
        self.messages, self.envelopes, self.logins = [], [], []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.data_answer.startswith("250"):
            self.envelopes.append(envelope)
            self.messages.append(message_from_bytes(envelope.content, policy=SMTPUTF8))
        return self.data_answer

    def check(self, server, session, envelope, mechanism, data):
        self.logins.append((data.login.decode(), data.password.decode(), session.ssl is not None))
        return AuthResult(success=data.password == b"right", handled=False)


class _Controller(Controller):
    """Listens on a port that the system chose."""

    def __init__(self, handler, **options):
        self.socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(handler, hostname="127.0.0.1", port=self.socket.getsockname()[1], **options)

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self.socket, ssl=self.ssl_context)


@contextmanager
def smtp_server(inbox, **options):
    """An SMTP server with this inbox; yields its port. `options` are aiosmtpd's."""
    controller = _Controller(inbox, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def silent_server():
    """Takes connections and never says anything; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def closed_port():
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def make_certificate(folder, names=("localhost", "127.0.0.1")):
    """A self-made certificate for these names; returns its path and a server context with it."""
    cert, key = str(folder / "server.pem"), str(folder / "server.key")
    certificate.make(names, cert, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


@contextmanager
def webhook_server(context, status=200, headers=(), wait=0):
    """An HTTPS endpoint on localhost; yields an object with `port` and `texts` (path, text) that it was sent."""
    seen = SimpleNamespace(texts=[], port=0, status=status)
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.texts.append((self.path, body["text"]))
            release.wait(wait)
            self.send_response(seen.status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"no_service" if seen.status >= 400 else b"ok")

        do_GET = do_POST

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    seen.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join()
