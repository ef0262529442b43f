"""The measure: a bare cheroot server, one process and its 10 default threads, that answers the bytes of a file.

Usage: bare.py PORT FILE [CERTIFICATE KEY]. A body is read to its end and thrown away.
"""

import sys

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server


def main(port, file, *pair):
    """Serve until killed; with TLS if a certificate and its key are given."""
    with open(file, "rb") as source:
        body = source.read()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]

    def answer(environ, start_response):
        left = int(environ.get("CONTENT_LENGTH") or 0)
        while left > 0:
            left -= len(environ["wsgi.input"].read(min(left, 65536))) or left
        start_response("200 OK", headers)
        return [body]

    server = Server(("127.0.0.1", int(port)), answer)
    if pair:
        server.ssl_adapter = BuiltinSSLAdapter(*pair)
    server.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
