"""The help of the command line: whole summaries, sections, and a working example of each command."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from backfill_assets.cli import OTHER, PROGRAM, main
from backfill_assets.progress.model import RETRIED_DAY_STATES

COMMANDS = sorted(main.commands)


def help_of(*words: str) -> str:
    answer = CliRunner(env={"COLUMNS": "80"}).invoke(main, [*words, "--help"])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_the_list_has_every_command_once_with_its_whole_summary_on_one_line() -> None:
    text = help_of()
    assert "..." not in text.partition("\n")[2]
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in COMMANDS:
        summary = (main.commands[name].help or "").partition("\n")[0]
        assert summary.endswith(".")
        assert re.findall(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE), name


def test_every_command_has_its_section() -> None:
    text = help_of()
    for section in ("Start here", "Backfills", "Look at data", "Decide"):
        assert f"\n{section}:\n" in text
    assert f"\n{OTHER}:\n" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_it_understands(name: str) -> None:
    [example] = re.findall(r"^Example:\n  (.+)$", help_of(name), re.MULTILINE)
    program, *words = shlex.split(example)
    assert program == PROGRAM
    context = click.Context(main)
    called, command, rest = main.resolve_command(context, words)
    assert (called, command) == (name, main.commands[name])
    assert command is not None
    command.make_context(name, rest, parent=context)


def test_the_help_of_retry_names_every_state_that_it_runs_again() -> None:
    words = set(re.findall(r"\w+", help_of("retry")))
    assert words >= RETRIED_DAY_STATES
