"""The command `ippd`: finds the command in the table, runs it, and turns what goes wrong into one sentence."""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from ippd.cli.call import Call
from ippd.cli.parser import parse
from ippd.errors import IppdError, SettingsError
from ippd.logs import blank, visible

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; takes the words after `ippd`, returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show stops nothing
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # `ippd user list | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes at its end
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(error.strerror or str(error))
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        call = Call(*parse(argv))
    except SystemExit as end:  # --help, or wrong usage, which has been explained
        return end.code if isinstance(end.code, int) else 0
    try:
        return call.run()
    except BrokenPipeError:
        raise
    except SettingsError as error:
        return _fail(*error.problems)  # each begins with its file and line
    except IppdError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", status=INTERRUPTED)
    except OSError as error:
        reason = error.strerror or str(error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason)
    except Exception as error:
        if call.tracing():
            traceback.print_exc()
        return _fail(f"unexpected {type(error).__name__}: {error} (--set log.level=debug shows where)")
    finally:
        call.close()


def _fail(*sentences: str, status: int = 1) -> int:
    for sentence in sentences:
        print(f"ippd: {visible(blank(sentence))}", file=sys.stderr)
    return status
