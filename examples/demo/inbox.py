"""A mail server on loopback that keeps what it is sent: the demo's stand-in for the mail server of an institute."""

import email
import email.policy
import socket
import threading

from aiosmtpd.controller import Controller


class Inbox:
    """Takes mail for anybody. `port` is where; `told` is called with a line about each message."""

    def __init__(self, told=lambda line: None):
        self._messages, self._change, self._told = [], threading.Condition(), told
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._controller = _Controller(self, listener)
        self._controller.start()

    async def handle_DATA(self, server, session, envelope):
        """aiosmtpd's call for a whole message."""
        message = email.message_from_bytes(envelope.content, policy=email.policy.SMTPUTF8)
        for address in envelope.rcpt_tos:
            self._told(f"mail to {address}: {message['Subject']}")
        with self._change:
            self._messages += [(address, message) for address in envelope.rcpt_tos]
            self._change.notify_all()
        return "250 taken"

    def wait(self, address, words, seconds=30):
        """The message to this address that has all the words in its subject or text; None when it does not come."""

        def text(message):
            return f"{message['Subject']}\n{message.get_content()}"

        def find():
            here = (message for to, message in self._messages if to == address)
            return next((message for message in here if all(word in text(message) for word in words)), None)

        with self._change:
            return self._change.wait_for(find, timeout=seconds)

    def close(self):
        """Stop taking mail."""
        self._controller.stop()


class _Controller(Controller):
    """Listens on a socket that is there already, so that the port is known to be free."""

    def __init__(self, handler, listener):
        super().__init__(handler, hostname="127.0.0.1", port=listener.getsockname()[1])
        self._listener = listener

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self._listener)
