"""How a row of the table of commands looks."""

from typing import Any, NamedTuple

from ippd.cli.call import Run


class Argument(NamedTuple):
    """One argument: what argparse's add_argument takes, with a help sentence."""

    flags: tuple[str, ...]
    help: str
    options: dict[str, Any]


class Command(NamedTuple):
    """One row: the words that call it, what it does, its function and its arguments."""

    words: str
    help: str
    run: Run
    arguments: tuple[Argument, ...] = ()


def argument(*flags: str, help: str, **options: Any) -> Argument:
    return Argument(flags, help, options)
