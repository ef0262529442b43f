"""The application log and the access log: one format, one line per write, nothing forged in it and no secrets."""

import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ippd.errors import SettingsError

APPLICATION = "ippd"
ACCESS = "ippd.access"
LONGEST = 4000  # characters of one line; nobody fills the disk with one field

_request: ContextVar[str] = ContextVar("ippd_request", default="-")

# Each pattern begins with a plain word, so that no line, however it was made up, takes more than linear time.
NAME = r"(?:token|password|passwd|secret|authorization)"
SECRETS = (
    # token=..., secret="...", password%3D...
    (re.compile(rf"({NAME}\s*(?:=|%3D)\s*)(?:\"[^\"]*\"?|'[^']*'?|[^\s&;,\"'<>()\[\]{{}}]+)", re.I), r"\1(hidden)"),
    # "token": "...", ('password', '...')
    (re.compile(rf"({NAME}[\"']\s*[:,]\s*)b?(?:\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?)", re.I), r"\1(hidden)"),
    (re.compile(r"\b(Bearer|Basic)(?:\s+|%20|\+)[\w.~+/=-]{8,}", re.I), r"\1 (hidden)"),
    (re.compile(r"eyJ[\w-]{5,}(?:\.[\w-]*){0,2}"), "(hidden)"),  # a JWT: the base64 of {" and up to two more parts
    (re.compile(r"(\bhooks\.slack\.com/)[^\s\"'<>]+", re.I), r"\1(hidden)"),
)
SUSPICIOUS = re.compile(rf"{NAME}|bearer|basic|eyJ|hooks\.slack", re.I)  # what each of the above has in it; most lines have nothing


def visible(text: str) -> str:
    """The text with everything that is not printable written as an escape: no line breaks, no terminal commands."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def blank(text: str) -> str:
    """The text without what looks like a password or a token."""
    if SUSPICIOUS.search(text):
        for pattern, instead in SECRETS:
            text = pattern.sub(instead, text)
    return text


@contextmanager
def request(id: str) -> Iterator[None]:
    """Lines of this thread carry the request id until the block ends."""
    mark = _request.set(id)
    try:
        yield
    finally:
        _request.reset(mark)


def access(address: str, user: str, method: str, target: str, status: int, length: int, seconds: float) -> None:
    """Write one line of the access log: who asked for what, the status, bytes sent, seconds taken."""
    logger = logging.getLogger(ACCESS)
    if logger.disabled:
        return
    asked = f"{method} {target.replace(' ', '%20')}".replace('"', "%22")
    text = f'{address or "-"} {user or "-"} "{asked}" {status} {length} {seconds:.3f}'
    for appender in logger.handlers or logging.getLogger().handlers:
        if isinstance(appender, Appender):  # past logging's records, which took longer than the answer to a short request
            appender.write(appender.lines.line("info", "access", text))


class Lines(logging.Formatter):
    """Each line: time (UTC), level, process, request, logger, message; further lines of a traceback begin with `|`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Takes the clock that gives the time of a line, in seconds since 1970."""
        super().__init__()
        self.clock = clock

    def format(self, record: logging.LogRecord) -> str:
        """The lines for a record, each with a line end."""
        lines = [record.getMessage()]
        if record.exc_info:
            lines += [f"| {line}" for line in self.formatException(record.exc_info).split("\n")]
        name = record.name.removeprefix(APPLICATION + ".")
        return "".join(self.line(record.levelname.lower(), name, line) for line in lines)

    def line(self, level: str, name: str, text: str) -> str:
        """One line, with its end."""
        now = self.clock()
        return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z {level} {os.getpid()} {visible(_request.get())} {name}: {_line(text)}\n"


@functools.lru_cache(8)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _line(text: str) -> str:
    rest = len(text) - LONGEST
    cut = f"{text[:LONGEST]}... ({rest} more characters)" if rest > 0 else text
    return visible(blank(cut))


class Appender(logging.Handler):
    """Appends to a file, or to standard error; several processes may append to the same file."""

    def __init__(self, path: str, lines: Lines) -> None:
        """Opens the file (empty: standard error). Raises OSError."""
        super().__init__()
        self.path, self.lines = path, lines
        self.setFormatter(lines)
        self.descriptor = _open(path) if path else os.dup(2)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. A log that cannot be written stops nobody."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self.write(text)

    def write(self, text: str) -> None:
        """Append with one write(2), which O_APPEND keeps whole."""
        try:
            os.write(self.descriptor, text.encode("utf-8", "backslashreplace"))
        except OSError:
            self.handleError(None)

    def handleError(self, record: logging.LogRecord | None) -> None:
        """Say on standard error that a line was lost, without the line: it may be what cannot be written."""
        try:
            os.write(2, f"ippd: cannot write to the log {self.path or 'on standard error'}\n".encode())
        except OSError:
            return  # there is nobody left to tell

    def reopen(self) -> None:
        """Open the file anew, in place: dup2 leaves no moment without a log. Raises OSError, and the old one stays."""
        if self.path:
            new = _open(self.path)
            os.dup2(new, self.descriptor, inheritable=False)
            os.close(new)

    def close(self) -> None:
        """Give the file back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        super().close()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


_appenders: list[Appender] = []


def start(settings: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
    """Begin to log as log.file, log.access and log.level say. Raises SettingsError when a file cannot be opened."""
    stop()
    main = _appender("log.file", settings["log.file"], clock)
    logging.getLogger().addHandler(main)
    logger = logging.getLogger(ACCESS)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if settings["log.access"] == "none":
        logger.disabled = True
    elif settings["log.access"] in ("", settings["log.file"]):
        logger.addHandler(main)
    else:
        logger.addHandler(_appender("log.access", settings["log.access"], clock))
    logging.captureWarnings(True)
    level(settings)


def level(settings: Mapping[str, Any]) -> None:
    """Take over log.level, at the start and when settings were reloaded; libraries are heard from `warning` on."""
    least = logging.getLevelNamesMapping()[settings["log.level"].upper()]
    logging.getLogger(APPLICATION).setLevel(least)
    logging.getLogger().setLevel(max(least, logging.WARNING))


def reopen() -> None:
    """Open the files anew, after logrotate moved them away; one that does not open stays as it is, which is logged."""
    for appender in _appenders:
        try:
            appender.reopen()
        except OSError as error:
            logging.getLogger(APPLICATION).error("cannot reopen %s: %s", appender.path, error.strerror)


def stop() -> None:
    """End logging and give the files back."""
    for appender in _appenders:
        for name in ("", ACCESS):
            logging.getLogger(name).removeHandler(appender)
        appender.close()
    _appenders.clear()
    logging.getLogger(ACCESS).disabled = False


def _appender(name: str, path: str, clock: Callable[[], float]) -> Appender:
    try:
        appender = Appender(path, Lines(clock))
    except OSError as error:
        stop()
        raise SettingsError(f"{name}: {path} cannot be opened: {error.strerror}") from None
    _appenders.append(appender)
    return appender
