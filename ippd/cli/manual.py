"""The manual pages ippd(8) and ippd.conf(5) and the completion for bash, made from the tables of commands and settings."""

import re
from collections.abc import Iterable, Sequence

from ippd import VERSION
from ippd.cli.rows import Argument, Command
from ippd.settings import DEFAULT_FILE, SETTINGS, Setting

EXIT = (("0", "All is well."), ("1", "It did not work; one sentence on standard error says why."), ("2", "Wrong usage."),
        ("3", "From ippd doctor and ippd app check: there are warnings, and nothing worse."))  # fmt: skip
SIGNALS = (
    ("TERM, INT", "Stop: no new connections, running requests have server.drain_timeout to end."),
    ("HUP", "Read the settings again (those marked as live), load the certificate anew."),
    ("USR1", "Open the log files anew, after they were moved away."),
)
CONF_HEAD = (
    "The file has sections in square brackets, lines of the form name = value, and comments on lines of their own that begin with "
    "# or ;. A setting is written with its section here: public.listen is the line listen in the section [public].",
    "The environment is stronger than the file (IPPD_PUBLIC_LISTEN for public.listen), and ippd --set NAME=VALUE is stronger still. "
    "ippd config shows each value with where it came from; ippd config --check says what is wrong.",
    "Sizes are 100, 64KB, 1.5MB, 5GB or 2TB (multiples of 1024), times 10, 10s, 5m, 24h or 7d. A live setting changes when the daemon "
    "gets SIGHUP; others wait for a restart.",
)


Flag = tuple[tuple[str, ...], str, str, str]  # flags, metavar, action, help


def page(name: str, commands: Sequence[Command], flags: Sequence[Flag]) -> str:
    """A page of PAGES, for these commands and the flags that all of them take."""
    return PAGES[name](commands, flags)


def with_section(name: str) -> str:
    """The name of a page with its section, as man finds it: ippd.8 for ippd. Any other name is left as it is."""
    return next((page for page in PAGES if re.fullmatch(rf"{re.escape(name)}\.[0-9]", page)), name)


def commands_page(commands: Sequence[Command], flags: Sequence[Flag]) -> str:
    """ippd(8) as roff."""
    lines = _head("IPPD", 8, "ippd", "the image processing portal daemon and its commands")
    lines += [".SH SYNOPSIS", ".B ippd", r"[\fB\-c\fR \fIFILE\fR] [\fB\-\-set\fR \fINAME=VALUE\fR]... \fICOMMAND\fR [\fIARGUMENT\fR]..."]
    lines += [".SH DESCRIPTION", *_text(
        "Takes image processing experiments in over HTTP, hands them to job scripts and keeps the results. "
        "ippd serve is the daemon; the other commands work on the same data folder, whether the daemon runs or not. "
        "Called by root they go on as the account that the data folder belongs to."
    )]
    lines += [".SH OPTIONS"]
    for words, metavar, _, help in flags:
        lines += [".TP", rf"{', '.join(map(_bold, words))} \fI{metavar}\fR", *_text(help)]
    lines += [".SH COMMANDS"]
    for command in commands:
        lines += _command(command)
    lines += [".SH SIGNALS", *_tagged(SIGNALS), ".SH EXIT STATUS", *_tagged(EXIT)]
    lines += [".SH FILES", *_tagged(((DEFAULT_FILE, "Settings, see ippd.conf(5)."), ("/var/lib/ippd", "The data folder.")))]
    lines += [".SH SEE ALSO", ".BR ippd.conf (5)"]
    return "\n".join(lines) + "\n"


def settings_page(commands: Sequence[Command], flags: Sequence[Flag]) -> str:
    """ippd.conf(5) as roff."""
    lines = _head("IPPD.CONF", 5, "ippd.conf", "settings of the image processing portal daemon")
    lines += [".SH DESCRIPTION"]
    for paragraph in CONF_HEAD:
        lines += [".PP", *_text(paragraph)]
    section = ""
    for row in SETTINGS:
        first = row.name.partition(".")[0]
        if first != section:
            lines += [f".SH [{first}]"]
            section = first
        lines += _setting(row)
    lines += [".SH FILES", ".I " + DEFAULT_FILE, ".SH SEE ALSO", ".BR ippd (8)"]
    return "\n".join(lines) + "\n"


def completion(commands: Sequence[Command], flags: Sequence[Flag]) -> str:
    """A completion for bash 4.1 and newer that needs no library."""
    nouns: dict[str, list[str]] = {}
    cases = []
    for command in commands:
        noun, _, verb = command.words.partition(" ")
        nouns.setdefault(noun, []).extend([verb] if verb else [])
        cases.append(f"        '{command.words}' | '{command.words} '*) words='{' '.join(_words(command.arguments))}' ;;")
    cases += [f"        '{noun}') words='{' '.join(verbs)}' ;;" for noun, verbs in nouns.items() if verbs]
    takers = [flag for row in flags for flag in row[0]]
    return COMPLETION.format(
        cases="\n".join(cases), nouns=" ".join(nouns), flags=" ".join(takers), takers="|".join(takers),
        settings=" ".join(row.name for row in SETTINGS),
    )


def _head(title: str, section: int, name: str, what: str) -> list[str]:
    return [f'.TH {title} {section} "" "ippd {VERSION}"', ".SH NAME", _escape(f"{name} - {what}")]


def _command(command: Command) -> list[str]:
    words = [rf"\fBippd {_escape(command.words)}\fR", *(_usage(argument) for argument in command.arguments)]
    lines = [".TP", " ".join(words), *_text(command.help)]
    if command.arguments:
        lines += [".RS"]
        for argument in command.arguments:
            name = ", ".join(argument.flags) if argument.flags[0][0] == "-" else argument.options.get("metavar", argument.flags[0])
            lines += [".TP", _bold(name), *_text(argument.help)]
        lines += [".RE"]
    return lines


def _usage(argument: Argument) -> str:
    name = argument.options.get("metavar") or argument.flags[-1].lstrip("-").upper()
    if argument.flags[0][0] != "-":
        shape = {"?": r"[\fI%s\fR]", "*": r"[\fI%s\fR]...", "+": r"\fI%s\fR..."}.get(argument.options.get("nargs", ""), r"\fI%s\fR")
        return shape % _escape(name)
    value = "" if argument.options.get("action") == "store_true" else rf" \fI{_escape(name)}\fR"
    flag = rf"\fB{_escape(argument.flags[-1])}\fR{value}"
    return flag if argument.options.get("required") else f"[{flag}]"


def _setting(row: Setting) -> list[str]:
    notes = [f"Default: {row.default}." if row.default else "Default: empty."]
    notes += ["Live."] if row.live else []
    notes += [f"The variable {row.env} works as well."] if row.env else []
    return [".TP", _bold(row.name), *_text(row.help), ".br", *_text(" ".join(notes))]


def _tagged(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for tag, text in rows for line in (".TP", _bold(tag), *_text(text))]


def _text(text: str) -> list[str]:
    escaped = _escape(text)
    return [rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped]


def _bold(text: str) -> str:
    return rf"\fB{_escape(text)}\fR"


def _escape(text: str) -> str:
    return re.sub("-", r"\\-", text.replace("\\", r"\e"))


def _words(arguments: Iterable[Argument]) -> list[str]:
    """The flags of a command, and the words that its arguments may be."""
    found: list[str] = []
    for argument in arguments:
        found += [flag for flag in argument.flags if flag.startswith("-")]
        found += [str(word) for word in argument.options.get("choices", ())]
    return found


PAGES = {"ippd.8": commands_page, "ippd.conf.5": settings_page, "completion": completion}

COMPLETION = """# Completion of the command ippd for bash.
_ippd() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} path= word skip= words=
    case $previous in
        --set) COMPREPLY=($(compgen -S = -W '{settings}' -- "$current")); compopt -o nospace; return ;;
        -c|--config) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [ -n "$skip" ]; then skip=; continue; fi
        case $word in
            {takers}) skip=1 ;;
            -*) ;;
            *) path="${{path:+$path }}$word" ;;
        esac
    done
    case $path in
{cases}
        '') words='{nouns}' ;;
    esac
    COMPREPLY=($(compgen -W "$words {flags} --help" -- "$current"))
}}
complete -o default -F _ippd ippd
"""
