"""TLS: which versions and ciphers, and certificates that can be changed while connections are open."""

import ssl

from ippd.certificate import check_pair

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy and AEAD only; those of 1.3 are all good


def make_context(certificate: str, key: str) -> ssl.SSLContext:
    """A context for servers from two PEM files. Raises SettingsError when they cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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
