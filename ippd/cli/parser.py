"""Makes the argument parser out of the table of commands."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ippd import VERSION
from ippd.cli.call import Run
from ippd.cli.rows import Command
from ippd.cli.table import COMMANDS, GLOBAL, NOUNS

LEVELS = 3  # ippd, ippd user, ippd user add: the global flags may stand after each of them


def parse(argv: Sequence[str] | None) -> tuple[Run, Namespace, str | None, list[str]]:
    """Take the words after `ippd` apart: (function, arguments, settings file, overrides).

    Raises SystemExit: 0 after --help, 2 for wrong usage, each with its text printed.
    """
    parser = make()
    given, late = parser.parse_known_args(argv)
    arguments = vars(given)
    # The words of a list may stand behind a flag as well: ippd submit APP --name NAME FIELD=VALUE.
    more = next((name for name in ("fields", "names") if name in arguments), None)
    if late and (more is None or any(word.startswith("-") for word in late)):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if more:
        arguments[more] += late
    run: Run = arguments.pop("run")
    configs = [arguments.pop(f"config{level}", None) for level in range(LEVELS)]
    overrides = [arguments.pop(f"set{level}", None) or [] for level in range(LEVELS)]
    config = next((given for given in reversed(configs) if given is not None), None)
    return run, Namespace(**arguments), config, [override for level in overrides for override in level]


def make() -> ArgumentParser:
    """The whole parser."""
    top = _parser(ArgumentParser(prog="ippd", description="The portal daemon and its commands.", allow_abbrev=False), 0)
    top.add_argument("--version", action="version", version=f"ippd {VERSION}", help="Print the version.")
    words = top.add_subparsers(metavar="COMMAND", required=True)
    nouns = {}
    for command in COMMANDS:
        noun, _, verb = command.words.partition(" ")
        if verb and noun not in nouns:
            parser = words.add_parser(noun, help=NOUNS[noun], description=NOUNS[noun], allow_abbrev=False)
            nouns[noun] = _parser(parser, 1).add_subparsers(metavar="COMMAND", required=True)
        _command((nouns[noun] if verb else words), verb or noun, command)
    return top


def _command(words, word: str, command: Command) -> None:  # type: ignore[no-untyped-def]  # argparse hides its type
    parser = words.add_parser(word, help=command.help, description=command.help, allow_abbrev=False)
    for argument in command.arguments:
        parser.add_argument(*argument.flags, help=argument.help, **argument.options)
    _parser(parser, command.words.count(" ") + 1).set_defaults(run=command.run)


def _parser(parser: ArgumentParser, level: int) -> ArgumentParser:
    # Each level keeps its flags under a name of its own: a subparser would overwrite what was given before it.
    for flags, metavar, action, help in GLOBAL:
        name = flags[-1].lstrip("-")
        parser.add_argument(*flags, metavar=metavar, action=action, dest=f"{name}{level}", help=help)
    return parser
