"""The measure for large files: plain loops between a socket and a file, with nothing around them.

Usage: loops.py PORT FOLDER [CERTIFICATE KEY]. What follows "U" and a length of 8 bytes goes into a file, hashed on the way and
synced, then comes one byte as an answer; a connection that sends "D" gets that file.
"""

import hashlib
import os
import socket
import ssl
import sys

CHUNK = 256 << 10


def receive(connection, path):
    """Bytes from the socket into a file, hashed on the way."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK)
    view = memoryview(buffer)
    left = int.from_bytes(connection.recv(8))
    with open(path, "wb") as file:
        while left > 0:
            count = connection.recv_into(buffer)
            digest.update(view[:count])
            file.write(view[:count])
            left -= count or left
        file.flush()
        os.fsync(file.fileno())
    connection.sendall(b"!")


def serve(connection, path):
    """One connection."""
    if connection.recv(1) == b"U":
        receive(connection, path)
    else:
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                connection.sendall(block)


def main(port, folder, *pair):
    """Serve one connection after the other until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if pair else None
    if context:
        context.load_cert_chain(*pair)
    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) if context else connection as stream:
                serve(stream, os.path.join(folder, "loop"))
        except OSError:  # somebody only looked whether we listen
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
