"""Where a password comes from: a prompt, a file or standard input, never the command line, which everybody can see."""

import getpass
import sys

from ippd.errors import Invalid

LONGEST = 4096  # bytes that are read at most; passwords are far shorter


def new_password(path: str | None) -> str:
    """Get a new password: from the file (- is standard input), else from a prompt, else from standard input.

    Raises Invalid when there is none or it is more than one line, OSError when the file cannot be read.
    """
    if path not in (None, "-"):
        with open(str(path), "rb") as file:
            return _one_line(file.read(LONGEST + 1), str(path))
    if sys.stdin is None:
        raise Invalid("there is no standard input to read a password from")
    if path is None and sys.stdin.isatty():
        return _asked()
    return _one_line(sys.stdin.buffer.read(LONGEST + 1), "standard input")


def _asked() -> str:
    try:
        first = getpass.getpass("New password: ")
        second = getpass.getpass("The same again: ")
    except EOFError:
        raise Invalid("no password was given") from None
    if first != second:
        raise Invalid("the two passwords differ; nothing was changed")
    return first


def _one_line(content: bytes, source: str) -> str:
    if len(content) > LONGEST:
        raise Invalid(f"{source} holds more than a password")
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not content:
        raise Invalid(f"no password was given: {source} is empty")
    if b"\n" in content:
        raise Invalid(f"{source} has more than one line; a password is one")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"the password in {source} is not UTF-8") from None
