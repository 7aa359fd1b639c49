"""The group of all commands: how values are read, how failures and help are shown."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from backfill_assets import logs
from backfill_assets.days import parse_day, parse_month
from backfill_assets.failures import BackfillError, BadInput, printable, system_message

PROGRAM: Final = "backfill-assets"
START, BACKFILLS, DATA, DECISIONS, OTHER = "Start here", "Backfills", "Look at data", "Decide", "Other"
#: Columns of the list of commands besides names and summaries.
_MARGIN: Final = 4
#: Width without a terminal, more than any row needs: programs read each row as one line.
_UNWRAPPED: Final = 10_000
#: The lowest level that a command logs. Others log warnings; ``doctor`` reports problems in its own lines.
_LEAST_LOGGED: Final = {"serve": logging.NOTSET, "doctor": logging.ERROR}


class _Command(click.Command):
    """A command with its place in the list of commands, and an example to copy."""

    def __init__(self, *args: Any, section: str = OTHER, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                # The line is not wrapped: a command to copy must stay one line.
                formatter.write(f"{'':{formatter.current_indent}}{PROGRAM} {self.example}\n")


class _WrongCall(click.ClickException):
    exit_code = click.UsageError.exit_code


class _Commands(click.Group):
    """The list of commands by section; deliberate failures are shown in one line.

    The exit code is 2 for mistyped values, as for options that click refuses, 130 for Ctrl-C, otherwise 1.
    """

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BackfillError as failure:
            told = _WrongCall if isinstance(failure, BadInput) else click.ClickException
            raise told(printable(str(failure))) from failure
        except OSError as failure:
            message = system_message(failure)
            if message is None:
                raise
            raise click.ClickException(printable(message)) from failure
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(128 + signal.SIGINT)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = formatter.width - max(map(len, self.commands)) - _MARGIN
        for section in (START, BACKFILLS, DATA, DECISIONS, OTHER):
            rows = [
                (name, command.get_short_help_str(width))
                for name, command in self.commands.items()
                if getattr(command, "section", OTHER) == section
            ]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


class _Checked(click.ParamType[str]):
    """A text checked by ``check``, whose refusal is one line; click's own error prints the usage."""

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        self._check(value)
        return value


def _check_timeframe(text: str) -> None:
    from backfill_assets.candles.query import insist_on_timeframe

    insist_on_timeframe(text)


class _Names(click.ParamType[tuple[str, ...]]):
    name = "A,B,…"

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        # Click also converts defaults that are already converted.
        names = value.split(",") if isinstance(value, str) else value
        return tuple(name.strip() for name in names if name.strip())


DAY = _Checked("YYYY-MM-DD", parse_day)
MONTH = _Checked("YYYY-MM", parse_month)
TIMEFRAME = _Checked("TEXT", _check_timeframe)
NAMES = _Names()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backfill-assets")
def main() -> None:
    """Daily crypto market data: Tardis ticks to candles to BigQuery, proven day by day."""
    for name in ("stdout", "stderr"):
        # A shell can close both. The output is then dropped, and no later file gets the free number.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    command = click.get_current_context().invoked_subcommand or ""
    logs.install(least=_LEAST_LOGGED.get(command, logging.WARNING))


def json_text(text: str) -> str:
    """Return JSON that a terminal only displays: ``printable`` escapes other characters as JSON does."""
    return "\n".join(printable(line) for line in text.split("\n"))


def console() -> Any:
    """Return rich's console for tables and progress."""
    from rich.console import Console

    # Names, numbers and foreign text are neither colored nor read as markup.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNWRAPPED
    return console
