"""TLS: which versions and ciphers, and certificates that can be changed while connections are open."""

import functools
import ssl
from collections.abc import Callable
from typing import Any

from ippd.certificate import check_pair

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy and AEAD only; those of 1.3 are all good

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _leaving_no_error(method: Callable) -> Callable:
    """OpenSSL lists errors per thread, and takes what it finds there for an error of the connection that the thread turns to next.

    Pythons since 2025 leave those that the network caused, such as a client that has gone (python/cpython#148594).
    """

    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except ssl.SSLError:
            raise  # of these it leaves none
        except OSError:
            _NOBODY.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)  # which begins with an empty list
            raise

    return call


class Socket(ssl.SSLSocket):
    """A TLS connection whose end harms no other one."""

    do_handshake = _leaving_no_error(ssl.SSLSocket.do_handshake)
    recv = _leaving_no_error(ssl.SSLSocket.recv)
    recv_into = _leaving_no_error(ssl.SSLSocket.recv_into)
    send = _leaving_no_error(ssl.SSLSocket.send)
    unwrap = _leaving_no_error(ssl.SSLSocket.unwrap)


def make_context(certificate: str, key: str) -> ssl.SSLContext:
    """A context for servers from two PEM files. Raises SettingsError when they cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.sslsocket_class = Socket
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(CIPHERS)
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(["http/1.1"])
    load(made, certificate, key)
    return made


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Let new connections use another pair; open ones go on. Raises SettingsError, and then nothing has changed."""
    check_pair(certificate, key)  # in a context of its own: a bad pair must not spoil the live one
    context.load_cert_chain(certificate, key)
