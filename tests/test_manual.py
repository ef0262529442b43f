"""The manual pages and the completion: every setting and command is in them, man and bash understand them."""

import re
import subprocess

import pytest

import program
from ippd.cli import main
from ippd.cli.table import COMMANDS
from ippd.settings import SETTINGS


@pytest.fixture
def page(capsys):
    """A function: a page as it is printed."""

    def page(name):
        if program.BINARY:
            return program.run("manual", name)[1]
        assert main(["manual", name]) == 0
        return capsys.readouterr().out

    return page


def as_text(roff, width=200):
    """What man shows. Fails when groff has a warning."""
    done = subprocess.run(["groff", "-man", "-Tutf8", "-P-cbou", "-ww", f"-rLL={width}n"], input=roff, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_command_with_its_arguments_is_in_the_manual(page):
    shown = as_text(page("ippd.8"))
    for command in COMMANDS:
        assert f"ippd {command.words}" in shown and command.help in " ".join(shown.split()), command.words
        for argument in command.arguments:
            assert " ".join(argument.help.split()) in " ".join(shown.split()), (command.words, argument.flags)


@pytest.mark.parametrize("usage", [
    "ippd get ID [NAME]... [--to FOLDER]", "ippd submit APP [FIELD=VALUE]... [--name NAME]", "ippd relaunch ID [FIELD=VALUE]...",
    "ippd worker --engine ENGINE [--once] [--as-root]", "ippd release sign FILE VERSION --key FILE [--kind KIND]",
    "ippd app check [FOLDER]",
])  # fmt: skip
def test_the_manual_puts_what_may_be_left_out_in_brackets(page, usage):
    assert usage in as_text(page("ippd.8"))


def test_signals_and_exit_statuses_are_in_the_manual(page):
    shown = as_text(page("ippd.8"))
    signals, statuses = shown.partition("\nSIGNALS\n")[2].split("\nEXIT STATUS\n")
    assert [name for name in ("TERM, INT", "HUP", "USR1") if f"\n       {name}" in "\n" + signals] == ["TERM, INT", "HUP", "USR1"]
    assert [line.split()[0] for line in statuses.partition("\nFILES\n")[0].splitlines() if line.strip()] == ["0", "1", "2", "3"]


def test_the_manual_said_of_hup_what_only_usr1_does(page):
    signals = as_text(page("ippd.8")).partition("\nSIGNALS\n")[2]
    hup, usr1 = re.search(r"\n +HUP\b(.*)\n +USR1\b(.*)\nEXIT", signals, re.DOTALL).groups()
    assert "log files" not in hup and "log files" in usr1


def test_every_setting_is_in_the_manual_with_its_default(page):
    shown = " ".join(as_text(page("ippd.conf.5")).split())
    for row in SETTINGS:
        assert f"{row.name} {row.help}" in shown, row.name
        assert not row.default or f"Default: {row.default}." in shown, row.name


def complete(script, *words):
    """What bash offers for the last of these words."""
    typed = " ".join(f"'{word}'" for word in words)
    code = f'{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _ippd 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-uc", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_flags_choices_and_settings(page):
    script = page("completion")
    nouns = {command.words.split()[0] for command in COMMANDS}
    assert set(complete(script, "ippd", "")) >= nouns | {"--config", "--set"}
    assert complete(script, "ippd", "user", "app") == ["approve"]
    assert complete(script, "ippd", "-c", "user", "user", "app") == ["approve"], "a file that is called user is no command"
    assert set(complete(script, "ippd", "user", "list", "--s")) == {"--status", "--set"}
    assert "deliver" in complete(script, "ippd", "housekeeping", "d")
    assert complete(script, "ippd", "--set", "local.a") == ["local.allow="]


def test_a_page_was_refused_without_its_section(page):
    """Bad input: the names as man takes them; completion is no page of a section."""
    assert page("ippd.conf") == page("ippd.conf.5") and page("ippd") == page("ippd.8")


@pytest.mark.parametrize("name", ["nonsense", "", "ippd.conf.", "ippd.5", "ippd."])
def test_a_page_that_is_none_is_refused(name):
    """Bad input: no page, no name, another section, half a section."""
    done = subprocess.run(program.words("manual", name), capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice" in done.stderr
