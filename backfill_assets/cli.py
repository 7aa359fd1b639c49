"""The command line: parses, calls, prints. The work of a command is in the module that it calls.

Each command imports the heavy modules it needs, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import click

from backfill_assets import logs
from backfill_assets.days import insist_on_order, parse_day, parse_month
from backfill_assets.failures import BackfillError, BadInput, PermanentFailure, Unreadable, printable

PROGRAM: Final = "backfill-assets"
START, BACKFILLS, DATA, DECISIONS, OTHER = "Start here", "Backfills", "Look at data", "Decide", "Other"


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

    The exit code is 2 for mistyped values, as for options that click refuses, otherwise 1.
    """

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BackfillError as failure:
            told = _WrongCall if isinstance(failure, BadInput) else click.ClickException
            raise told(printable(str(failure))) from failure
        except OSError as failure:
            # A write that fails has no file name: it is of the output, or of a file that is open already.
            if failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            full = f"{failure.strerror}: free some for the output and the data, then run the command again"
            raise click.ClickException(full) from failure

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


#: Columns of the list of commands besides names and summaries.
_MARGIN: Final = 4
#: Width without a terminal, more than any row needs: programs read each row as one line.
_UNWRAPPED: Final = 10_000


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


#: The lowest level that a command logs. Others log warnings; ``doctor`` reports problems in its own lines.
_LEAST_LOGGED: Final = {"serve": logging.NOTSET, "doctor": logging.ERROR}

DAY = _Checked("YYYY-MM-DD", parse_day)
MONTH = _Checked("YYYY-MM", parse_month)
TIMEFRAME = _Checked("TEXT", _check_timeframe)
NAMES = _Names()


def _new_settings(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for the settings file that a command writes."""
    return click.option(
        "--settings",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path(default),
        show_default=True,
        help="Where to write the settings.",
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backfill-assets")
def main() -> None:
    """Daily crypto market data: Tardis ticks to candles to BigQuery, proven day by day."""
    command = click.get_current_context().invoked_subcommand or ""
    logs.install(least=_LEAST_LOGGED.get(command, logging.WARNING))


@main.command(section=START, example="demo --date 2024-01-01")
@click.option("--date", "day", type=DAY, default="2024-01-01", show_default=True, help="The day to run.")
def demo(day: str) -> None:
    """Run one day on generated data, without any account.

    The day goes from a stand-in for Tardis through lake and candles to the embedded warehouse.
    """
    from backfill_assets.settings import ProcessEnvironment

    if ProcessEnvironment().backfill_standin_url is None:
        from backfill_assets.standins.run import run_with_standins

        sys.exit(run_with_standins([sys.executable, "-m", "backfill_assets.cli", "demo", "--date", day]))
    from backfill_assets.demo import run_demo

    sys.exit(run_demo(day))


@main.command(section=START, example="run --date 2024-01-01 --end 2024-01-31")
@click.option("--date", "day", type=DAY, required=True, help="The day to run, or the first of several.")
@click.option("--end", type=DAY, help="The last day.")
def run(day: str, end: str | None) -> None:
    """Run days in this process, one after the other.

    This needs no daemon or service: for a laptop, cron or CI. The exit code is 1 unless every day is in
    the tables.
    """
    from backfill_assets.automation.backfills import checked_days
    from backfill_assets.local_runs import run_days

    sys.exit(run_days(checked_days(day, end or day)))


@main.command(section=START, example="init --exchanges binance,coinbase --symbols BTC-USDT,ETH-USDT")
@click.option("--exchanges", type=NAMES, help="The vendor's exchange ids; otherwise asked for, or binance.")
@click.option("--symbols", type=NAMES, help="Markets such as BTC-USDT; otherwise asked for, or BTC-USDT.")
@click.option("--data-types", type=NAMES, help="Names of tick tables; otherwise asked for, or trades.")
@click.option(
    "--folder", help="Folder of lake, tables and Dagster's records; otherwise asked for, or ./data/NAME."
)
@_new_settings("mine.yaml")
@click.option(
    "--like", default="tardis", show_default=True, help="Environment or file that gives all other settings."
)
@click.option(
    "--date", "day", type=DAY, help="A day on which every symbol is listed; default: the newest free day."
)
def init(file: Path, like: str, day: str | None, **given: Any) -> None:
    """Write a settings file of your own, and try it.

    On a terminal, it asks for values without an option. Each symbol must be listed on the day, and the
    trials of 'doctor' must pass; otherwise nothing is written.
    """
    from backfill_assets.new_settings import Answers, newest_free_day, next_commands, write_tried
    from backfill_assets.yaml_files import insist_on_new

    insist_on_new(file)
    questions = {
        "exchanges": ("Exchanges, separated by commas", "binance"),
        "symbols": ("Symbols, separated by commas", "BTC-USDT"),
        "data_types": ("Data types, separated by commas", "trades"),
        "folder": ("Folder of lake and tables", f"./data/{file.stem}"),
    }
    for name, (question, default) in questions.items():
        if given[name] is None:
            answer = click.prompt(question, default=default) if sys.stdin.isatty() else default
            given[name] = answer if name == "folder" else NAMES.convert(answer, None, None)
    answers, on_day = Answers(**given), day or newest_free_day()
    for finding in write_tried(answers, file, like, on_day):
        click.echo(f"{click.style('ok  ', fg='green')}  {finding.what}: {printable(finding.text)}")
    click.echo("\n".join((f"{file} is written. Next:", *next_commands(answers, file, on_day))))


@main.command(
    section=START,
    example="standins -- backfill-assets doctor",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free port.")
@click.option(
    "--datasets",
    type=click.Path(path_type=Path, file_okay=False),
    help="Serve your own files from this directory instead of a generated market; see 'import'.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def standins(port: int, datasets: Path | None, command: tuple[str, ...]) -> None:
    """Serve a stand-in for Tardis on loopback.

    With a COMMAND after --, it serves while the command runs.
    """
    from backfill_assets.standins.run import run_with_standins, serve_standins

    if command:
        sys.exit(run_with_standins(command, datasets_dir=datasets, port=port))
    serve_standins(port, datasets)


@main.command("import", section=START, example="import ./files")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_new_settings("own-files.yaml")
def import_files(folder: Path, file: Path) -> None:
    """Import a folder of your own Tardis files.

    It lists the feeds and days of the files, and the files without a place, with the reason. Then it writes
    settings that expect them. No vendor is asked, and no file is changed.
    """
    from backfill_assets.quality.remedies import RUN_DAY
    from backfill_assets.standins.own_files import look_at
    from backfill_assets.standins.own_settings import lines, write_settings
    from backfill_assets.yaml_files import insist_on_new

    insist_on_new(file)
    found = look_at(folder)
    write_settings(found, folder, file)
    click.echo("\n".join(lines(found, folder, file, RUN_DAY.format(day=found.days[-1]))))


@main.command(
    section=DATA,
    example="candles --date 2024-01-01 --exchange binance --symbol BTC-USDT --timeframe 1h",
)
@click.option("--date", "day", type=DAY, required=True, help="Day of open_time, or the first of several.")
@click.option("--end", type=DAY, help="The last day.")
@click.option("--exchange", required=True, help="The vendor's exchange id, e.g. binance.")
@click.option("--symbol", help="The market, e.g. BTC-USDT or BTC-USDT-PERP.")
@click.option("--all-symbols", is_flag=True, help="Every market of the exchange.")
@click.option(
    "--timeframe", type=TIMEFRAME, default="1m", show_default=True, help="1m, 5m, 15m, 1h, 4h, 1d, ..."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, which ends in .parquet, .csv or .arrow.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "parquet", "arrow"]),
    help="To standard output: a table to read (the default), or CSV, Parquet or Arrow.",
)
@click.option("--fill", is_flag=True, help="Add flat candles where it is proven that no trade happened.")
@click.option(
    "--on-gap",
    type=click.Choice(["raise", "warn", "mask"]),
    default="raise",
    show_default=True,
    help="Days that are not published in full: refuse, give their rows with a warning, or leave them out.",
)
def candles(
    day: str, end: str | None, symbol: str | None, all_symbols: bool, output: Path | None, **options: Any
) -> None:
    """Print or write candles of one market, or of all.

    They come from the lake's accepted data. Writing a file of any range needs memory for one day.
    """
    from backfill_assets.frames.commands import give_candles
    from backfill_assets.settings import current_settings

    if bool(symbol) == all_symbols:
        msg = "give either --symbol or --all-symbols"
        raise click.UsageError(msg)
    if output and options["form"]:
        msg = "give either --output or --format"
        raise click.UsageError(msg)
    insist_on_order(day, end or day)
    settings, days = current_settings(), (day, end or day)
    for line in give_candles(settings, days, symbol, output, sys.stdout.buffer, **options):
        click.echo(printable(line), err=True)


@main.command(section=DATA, example="report --date 2024-01-01")
@click.option("--date", "day", type=DAY, help="The day to report on.")
@click.option("--month", type=MONTH, help="The month to give an overview of.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page to this file and leave the lake's page unchanged.",
)
def report(day: str | None, month: str | None, out: Path | None) -> None:
    """Write the page of a day or a month.

    It shows the lake as it is now; the command prints the page's address.
    """
    from backfill_assets.lake.store import open_store
    from backfill_assets.report.publish import write_page
    from backfill_assets.settings import current_settings

    if (day is None) == (month is None):
        msg = "give either --date or --month"
        raise click.UsageError(msg)
    settings = current_settings()
    click.echo(write_page(open_store(settings.lake), settings, day or "", month or "", out))


@main.command(section=DATA, example="coverage --date 2024-01-01 --exchange binance --symbol BTC-USDT")
@click.option("--date", "day", type=DAY, required=True, help="Day of the buckets, or the first of several.")
@click.option("--end", type=DAY, help="The last day; one market's days are shown, a line each.")
@click.option("--exchange", help="Only this exchange's markets.")
@click.option("--symbol", help="Only this canonical symbol; one market is shown run by run.")
@click.option(
    "--timeframe", type=TIMEFRAME, default="1m", show_default=True, help="1m, 5m, 15m, 1h, 4h, 1d, ..."
)
@click.option("--json", "as_json", is_flag=True, help="One market's days as JSON, as in the API.")
def coverage(
    day: str, end: str | None, exchange: str | None, symbol: str | None, timeframe: str, as_json: bool
) -> None:
    """Show which candles are traded, proven empty, or lost."""
    from backfill_assets.settings import current_settings

    settings = current_settings()
    if not (end or as_json):
        from backfill_assets.candles.buckets import buckets, write_buckets
        from backfill_assets.lake.store import open_store

        found = buckets(open_store(settings.lake), day, timeframe, exchange, symbol)
        write_buckets(found, day, sys.stdout)
        return
    from backfill_assets.frames.commands import coverage_lines
    from backfill_assets.frames.conditions import market_coverage, open_tables

    if not (exchange and symbol):
        msg = "days are shown of one market: give --exchange and --symbol"
        raise click.UsageError(msg)
    insist_on_order(day, end or day)
    days = market_coverage(open_tables(settings), exchange, symbol, day, end or day, timeframe)
    _show(days, coverage_lines(days), as_json=as_json)


@main.command(section=DATA, example="quality --date 2024-01-01 --end 2024-01-31 --exchange binance")
@click.option("--date", "day", type=DAY, required=True, help="Day of the files, or the first of several.")
@click.option("--end", type=DAY, help="The last day.")
@click.option("--exchange", default="", help="Only this exchange's feeds.")
@click.option("--symbol", default="", help="Only this canonical symbol.")
@click.option("--data-type", default="", help="Only this data type.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as in the API.")
def quality(day: str, end: str | None, as_json: bool, **chosen: str) -> None:
    """Show which feeds can be read on which days.

    It also shows the vendor file of their rows.
    """
    from backfill_assets.frames.commands import quality_lines
    from backfill_assets.frames.conditions import feed_quality, open_tables
    from backfill_assets.settings import current_settings

    insist_on_order(day, end or day)
    found = feed_quality(open_tables(current_settings()), day, end or day, **chosen)
    _show(found, quality_lines(found), as_json=as_json)


def _show(found: Any, lines: Iterator[str], *, as_json: bool) -> None:
    for line in [_json(found.model_dump_json())] if as_json else map(printable, lines):
        click.echo(line)


def days_and_feeds(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a backfill and its plan."""
    for option in (
        click.option("--order", metavar="oldest|newest", help="Days that run first; default: the oldest."),
        click.option(
            "--at-once", metavar="N", help="Most days to run at once; default: as many as the queue allows."
        ),
        click.option("--all-days", is_flag=True, help="Also run days that are already good."),
        click.option("--refresh", is_flag=True, help="Fetch again files that the lake has."),
        click.option("--data-types", type=NAMES, default="", help="Fetch only these data types again."),
        click.option("--symbols", type=NAMES, default="", help="Fetch only these canonical symbols again."),
        click.option("--exchanges", type=NAMES, default="", help="Fetch only these exchanges' feeds again."),
        click.option("--end", type=DAY, required=True, help="Last day, included."),
        click.option("--start", type=DAY, required=True, help="First day, in UTC."),
    ):
        command = option(command)
    return command


@main.command(section=BACKFILLS, example="plan --start 2024-01-01 --end 2024-01-31")
@days_and_feeds
@click.option("--online", is_flag=True, help="Ask Tardis for the symbols listed on days that were never run.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON, as in the API.")
def plan(online: bool, as_json: bool, **fields: Any) -> None:
    """Plan a backfill: its work and its cost.

    It shows the files, loads, storage and time, and the days that are already good; it writes nothing.
    """
    from backfill_assets.automation.history import measured_runs
    from backfill_assets.automation.run_order import backfill_places
    from backfill_assets.lake.store import open_store
    from backfill_assets.orchestration import open_instance
    from backfill_assets.progress.plan import make_plan, vendor_listing
    from backfill_assets.progress.plan_text import plan_text
    from backfill_assets.progress.request import backfill_request
    from backfill_assets.settings import current_settings
    from backfill_assets.tardis.client import TardisClient

    settings = current_settings()
    with open_instance() as instance:
        runs, at_once = measured_runs(instance), backfill_places(instance)
    found = make_plan(
        open_store(settings.lake),
        settings,
        backfill_request(fields),
        runs=runs,
        runs_at_once=at_once,
        listing=vendor_listing(TardisClient(settings.tardis), settings) if online else None,
    )
    click.echo(_json(found.model_dump_json(indent=2)) if as_json else plan_text(found))


@main.command(section=DECISIONS, example="baseline")
@click.option(
    "--start", type=DAY, help="Measure this day and later ones again; default: days not yet in the baseline."
)
@click.option("--end", type=DAY, help="The last day to measure.")
def baseline(start: str | None, end: str | None) -> None:
    """Measure published days, by which later days are judged.

    Later days are weighted and judged by this baseline when they are run.
    """
    from backfill_assets.candles.notional import notional_usd
    from backfill_assets.lake import documents, paths
    from backfill_assets.lake.store import open_store
    from backfill_assets.quality.baseline import accepted_rows, add_days, load_baseline, longest_silences
    from backfill_assets.quality.settled import SettledDay
    from backfill_assets.readable_numbers import plural
    from backfill_assets.settings import current_settings
    from backfill_assets.warehouse.catalog import CANDLES
    from backfill_assets.warehouse.ledger import published_days

    if start and end:
        insist_on_order(start, end)
    settings = current_settings()
    store = open_store(settings.lake)
    known = load_baseline(store).days
    days = [
        day
        for day in published_days(store, CANDLES.name)
        if (start is None or day >= start) and (end is None or day <= end) and (start or day not in known)
    ]
    settled, notional = {}, {}
    for day in days:
        found, why = documents.look(store, paths.settled_day(day), SettledDay)
        try:
            if found is None:
                msg = why or "its document is gone: run the day again"
                raise Unreadable(msg)
            notional[day] = notional_usd(store, day)
        except PermanentFailure as failure:
            click.echo(printable(f"{day} is left out: {failure}"), err=True)
        else:
            settled[day] = found
    rows = {day: accepted_rows(found) for day, found in settled.items()}
    silences = {day: longest_silences(found) for day, found in settled.items()}
    stored = add_days(store, notional, rows, silences)
    click.echo(f"baseline {stored.version}: {plural(len(stored.days), 'day')}, {len(settled)} measured now")


@main.command(section=DECISIONS, example="heal --date 2024-01-01 --feed coinbase/trades/BTC-USD")
@click.option(
    "--date", "day", type=DAY, required=True, help="Day of the feed's file, or the first of several."
)
@click.option("--end", type=DAY, help="The last day.")
@click.option("--feed", help="exchange/data_type/SYMBOL; default: every feed with missing ids to ask for.")
@click.option("--dry-run", is_flag=True, help="Write nothing and send no requests: use stored answers again.")
def heal(day: str, end: str | None, feed: str | None, dry_run: bool) -> None:
    """Ask the exchange for missing trades, and keep its answers.

    Trades that the exchange has are added as a new version, and ids that it does not have no longer count as
    missing; the next run of the day publishes the result. The exit code is 1 if an id is still missing.
    """
    from backfill_assets.days import day_range
    from backfill_assets.heal.healing import heal as heal_feed
    from backfill_assets.heal.holes import feeds_to_heal
    from backfill_assets.heal.sources import Budget
    from backfill_assets.lake.store import open_store
    from backfill_assets.settings import current_settings

    insist_on_order(day, end or day)
    settings = current_settings()
    store, budget = open_store(settings.lake), Budget(settings.heal.requests)
    is_whole, chosen = True, list[tuple[str, str]]()
    for one in day_range(day, end or day):
        names, unreadable = ([feed], []) if feed else feeds_to_heal(store, settings, one)
        chosen += [(one, name) for name in names]
        for problem in unreadable:
            click.echo(printable(f"{one}: {problem}"), err=True)
            is_whole = False
    if not chosen and is_whole:
        click.echo("no id is to be asked for")
    for one, name in chosen:
        try:
            done = heal_feed(store, settings, one, name, budget, dry_run=dry_run)
        except BackfillError as failure:
            if len(chosen) == 1 and is_whole:
                raise
            click.echo(printable(f"{name} of {one}: {failure}"), err=True)
            is_whole = False
            continue
        click.echo("\n".join(map(printable, done.lines)))
        for problem in done.problems:
            click.echo(printable(f"  not proven: {problem}"), err=True)
        is_whole &= done.is_whole
    sys.exit(int(not is_whole))


@main.command(
    section=DECISIONS,
    example='approve --date 2024-01-01 --content 18a200144829 --reason "checked with the exchange"',
)
@click.option("--date", "day", type=DAY, required=True, help="Day of the feed's file, in UTC.")
@click.option("--feed", help="exchange/data_type/SYMBOL; default: the feeds that have these contents.")
@click.option(
    "--content",
    "contents",
    multiple=True,
    help="First digits of the version's sha256, as in the report and quality; may be repeated.",
)
@click.option("--reason", required=True, help="Why it should count; shown with the verdict.")
def approve(day: str, feed: str | None, contents: tuple[str, ...], reason: str) -> None:
    """Accept a pending version in spite of its verdict.

    The next run of the day publishes it. The report and the table quality print the version's content; if
    another version is pending by now, nothing is approved.
    """
    from backfill_assets.lake.store import open_store
    from backfill_assets.quality.decisions import approve as approve_feeds
    from backfill_assets.quality.decisions import what_next
    from backfill_assets.settings import current_settings

    settings = current_settings()
    decided = approve_feeds(open_store(settings.lake), day, feed, contents, reason, settings.thresholds)
    for one in decided:
        click.echo("\n".join(one.lines))
    click.echo(what_next(day, decided[0].day_state, decided[0].publish))


@main.command(
    section=DECISIONS,
    example='retract --date 2024-01-01 --feed binance/trades/BTCUSDT --content 18a200144829 --reason "wrong"',
)
@click.option("--date", "day", type=DAY, required=True, help="Day of the feed's file, in UTC.")
@click.option("--feed", required=True, help="exchange/data_type/SYMBOL")
@click.option(
    "--content", default="", help="First digits of the version's sha256, as in the report and quality."
)
@click.option("--reason", required=True, help="Why it should not count.")
def retract(day: str, feed: str, content: str, reason: str) -> None:
    """Withdraw the accepted version.

    It does not count until it is approved; the next run of the day removes it from the tables.
    """
    from backfill_assets.lake.store import open_store
    from backfill_assets.quality.decisions import retract as retract_feed
    from backfill_assets.settings import current_settings

    settings = current_settings()
    store = open_store(settings.lake)
    decided = retract_feed(store, day, feed, content, reason, settings.thresholds)
    click.echo("\n".join(decided.lines))
    do = "remove it from the tables" if decided.day_state == "held" else "publish the result"
    click.echo(f"{day} is {decided.day_state}; {do}: {decided.publish}")


@main.command(
    section=DECISIONS,
    example='expect --date 2024-01-01 --drop binance/trades/LUNAUSDT --reason "delisted that morning"',
)
@click.option("--date", "day", type=DAY, required=True, help="Day of the feed's file, in UTC.")
@click.option("--drop", "dropped", default="", help="exchange/data_type/SYMBOL that the day need not have.")
@click.option("--restore", "restored", default="", help="A dropped feed that the day must have after all.")
@click.option("--reason", default="", help="Why the feed is dropped; the day's record and report keep it.")
def expect(day: str, dropped: str, restored: str, reason: str) -> None:
    """Drop an expected feed of a past day, or restore it.

    The next run of the day no longer requests a dropped feed, and requests a restored one again. Future days
    follow the universe of the settings.
    """
    from backfill_assets.lake.store import open_store
    from backfill_assets.quality import decisions
    from backfill_assets.settings import current_settings

    if bool(dropped) == bool(restored):
        msg = "give either --drop or --restore"
        raise click.UsageError(msg)
    settings = current_settings()
    store = open_store(settings.lake)
    if dropped:
        click.echo(decisions.drop(store, day, dropped, reason, settings.thresholds))
    else:
        click.echo(decisions.restore(store, day, restored, settings.thresholds))


@main.command(section=BACKFILLS, example="serve --port 3080")
@click.option("--host", default="", help="Address to listen at; default: serve.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free port; default: serve.port.")
@click.option("--with-ui", is_flag=True, help="Also serve the Dagster UI, under /dagster.")
def serve(host: str, port: int | None, with_ui: bool) -> None:
    """Serve page and API: start, watch, cancel and retry backfills.

    Ctrl-C ends it, with exit code 0.
    """
    from backfill_assets.progress.server import serve as run_server

    # The server shuts down in order, then raises the interrupt again.
    with suppress(KeyboardInterrupt):
        run_server(_asset_graph, host=host, port=port, with_ui=with_ui, say=click.echo)


@main.command(
    section=BACKFILLS,
    example='backfill --start 2024-01-01 --end 2024-01-31 --reason "first month" --wait',
)
@days_and_feeds
@click.option("--reason", default="", help="The reason for the job, for later readers.")
@click.option("--request-id", help="Repeating an id returns the same job instead of a new one.")
@click.option("--wait", is_flag=True, help="Watch the job until it has ended; the exit code is its outcome.")
def backfill(wait: bool, **fields: Any) -> None:
    """Start a backfill of a range of days.

    Dagster's daemon runs it. Exit codes of --wait are 0: all published, 1: failed or held days, 3: canceled.
    """
    from backfill_assets.progress import commands
    from backfill_assets.progress.request import backfill_request

    request = backfill_request(fields)
    with _backfills() as service:
        job, is_new = service.create(request, commands.requester())
        click.echo(commands.started(job, is_new=is_new))
        if wait:
            sys.exit(commands.wait(service, job.job_id, click.echo, _console()))
        click.echo(f"backfill-assets status {job.job_id} shows its progress")


@main.command(section=BACKFILLS, example="status twqndbej")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="With every day, as in the API.")
def status(job: str, as_json: bool) -> None:
    """Show the progress of a backfill and the outcome of its days."""
    from backfill_assets.progress import commands

    with _backfills() as service:
        if as_json:
            click.echo(_json(service.status_json(job)[0]))
        else:
            click.echo(commands.status_text(service.status(job)))


@main.command(section=BACKFILLS, example="recent --state failed")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many to list."
)
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "canceling", "canceled", "succeeded", "failed"]),
    help="Only backfills in this state.",
)
@click.option("--json", "as_json", is_flag=True, help="As in the API.")
def recent(limit: int, state: Any, as_json: bool) -> None:
    """List backfills, the newest first."""
    from backfill_assets.progress import commands
    from backfill_assets.progress.model import Jobs

    with _backfills() as service:
        jobs = service.recent(limit, state)
    if as_json:
        click.echo(_json(Jobs(jobs=tuple(jobs)).model_dump_json()))
    else:
        commands.show_recent(jobs, _console())


@main.command(section=BACKFILLS, example="cancel twqndbej")
@click.argument("job")
def cancel(job: str) -> None:
    """Stop a backfill.

    No further day starts, running days are ended, and finished days stay.
    """
    with _backfills() as service:
        click.echo(f"{job} is {service.cancel(job).state}")


@main.command(section=BACKFILLS, example="retry twqndbej --wait")
@click.argument("job")
@click.option("--wait", is_flag=True, help="Watch the job until it has ended, like backfill --wait.")
def retry(job: str, wait: bool) -> None:
    """Run the bad days of a backfill again.

    These are failed, held, missing, unreadable and canceled days, and those that lack a file.
    """
    from backfill_assets.progress import commands

    with _backfills() as service:
        again = service.retry(job)
        click.echo(f"{job} is {again.state}, attempt {again.attempt}")
        if wait:
            sys.exit(commands.wait(service, job, click.echo, _console()))


@main.command(section=START, example="settings")
@click.option("--show", is_flag=True, help="Every value and its origin, with secrets masked; the default.")
@click.option(
    "--schema",
    type=click.Choice(["settings", "rules"]),
    is_flag=False,
    flag_value="settings",
    help="A JSON schema for editors, of a settings file or of a file of rules.",
)
def settings(show: bool, schema: str | None) -> None:
    """Show every setting with its value, or the schema of the file."""
    from backfill_assets.settings_view import schema_text, settings_text

    if show and schema:
        msg = "give either --show or --schema"
        raise click.UsageError(msg)
    click.echo(schema_text(schema) if schema else settings_text())


@main.command(section=DATA, example="laws learn --start 2024-01-01 --end 2024-01-31")
@click.argument("action", type=click.Choice(["show", "learn"]), default="show")
@click.option("--start", type=DAY, help="learn: the first day, in UTC.")
@click.option("--end", type=DAY, help="learn: the last day, included.")
def laws(action: str, start: str | None, end: str | None) -> None:
    """Show the laws of ids, or infer laws from published days.

    Inferred laws are printed in the form of a file of laws, with the evidence against stronger laws. To adopt
    them, write them into a file and name it in the settings as thresholds.id_laws.
    """
    from backfill_assets.days import day_range
    from backfill_assets.lake.store import open_store
    from backfill_assets.quality.learned_laws import law_lines, learn, published_profiles
    from backfill_assets.settings import current_settings

    settings = current_settings()
    if action == "show":
        if start or end:
            msg = "--start and --end are for laws learn"
            raise click.UsageError(msg)
        click.echo("\n".join(law_lines(settings.thresholds.id_laws)))
        return
    if start is None or end is None:
        msg = "give --start and --end"
        raise click.UsageError(msg)
    insist_on_order(start, end)
    left_out: list[str] = []
    seen = published_profiles(open_store(settings.lake), day_range(start, end), left_out)
    found = learn(seen, settings.thresholds)
    for line in left_out:
        click.echo(printable(line), err=True)
    if not found:
        msg = f"no file of trades counts from {start} to {end}: run these days, or choose others"
        raise PermanentFailure(msg)
    click.echo("\n".join(one.text for one in found))
    # A law may be broken in a file that was left out.
    sys.exit(int(bool(left_out)))


@main.command(section=DATA, example="incidents --open")
@click.option("--open", "only_open", is_flag=True, help="Only open incidents.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def incidents(only_open: bool, as_json: bool) -> None:
    """List incidents that wait, or have waited, for a person.

    They are those of the last look: Dagster's daemon and `serve` look every five minutes.
    """
    from backfill_assets.alerts.incidents import load_incidents
    from backfill_assets.days import utc_now
    from backfill_assets.lake.store import open_store
    from backfill_assets.progress.commands import show_incidents
    from backfill_assets.settings import current_settings

    found = load_incidents(open_store(current_settings().lake))
    if as_json:
        shown = found.open if only_open else found.incidents
        click.echo(_json(found.model_copy(update={"incidents": shown}).model_dump_json()))
    else:
        show_incidents(found, utc_now(), _console(), only_open=only_open)


@main.command(section=START, example="alerts test")
@click.argument("action", type=click.Choice(["test"]))
def alerts(action: str) -> None:  # noqa: ARG001 - there is only one
    """Send a test message to every address of alerts.urls.

    The exit code is 1 if an address does not accept it.
    """
    from backfill_assets.progress.watch import send_test
    from backfill_assets.settings import current_settings

    click.echo(f"sent to {send_test(current_settings())}")


@main.command(section=DATA, example="verify --start 2024-01-01 --end 2024-01-31")
@click.option("--date", "day", type=DAY, help="Only this day.")
@click.option("--start", type=DAY, help="First day, in UTC.")
@click.option("--end", type=DAY, help="Last day, included.")
@click.option("--mend", is_flag=True, help="Set damaged data aside, so that a backfill restores it.")
def verify(day: str | None, start: str | None, end: str | None, mend: bool) -> None:
    """Check every byte of days in lake and warehouse.

    The exit code is 1 if any byte differs from the stored one.
    """
    from contextlib import closing

    from backfill_assets.days import day_range
    from backfill_assets.lake.store import open_store
    from backfill_assets.readable_numbers import plural
    from backfill_assets.report.month import page_problem
    from backfill_assets.settings import current_settings
    from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
    from backfill_assets.warehouse.protocol import open_warehouse
    from backfill_assets.warehouse.verify import verify_days

    if (day is None) == (start is None) or (start is None) != (end is None):
        msg = "give either --date, or --start and --end"
        raise click.UsageError(msg)
    first, last = day or start or "", day or end or ""
    insist_on_order(first, last)
    settings, damaged = current_settings(), 0
    store = open_store(settings.lake)
    with closing(open_warehouse(settings.warehouse)) as warehouse:
        ohlcv = open_ohlcv(settings.ohlcv)
        opened = (warehouse,) if ohlcv is None else (warehouse, ohlcv)
        for found in verify_days(store, opened, day_range(first, last), mend=mend):
            problem = page_problem(store, found.day)
            problems = (*found.problems, *([problem] if problem else []))
            lines = problems or (_seen(store, found),)
            click.echo("\n".join(f"{found.day}  {line}" for line in lines))
            damaged += bool(problems)
    if damaged:
        words = f"--date {day}" if day else f"--start {start} --end {end}"
        aside = "it is set aside" if mend else f"'backfill-assets verify {words} --mend' sets it aside"
        again = f"'backfill-assets backfill --start {first} --end {last}' then restores it"
        msg = f"data of {plural(damaged, 'day')} is damaged: {aside}, {again}"
        raise click.ClickException(msg)


@main.command(section=DATA, example="reconcile --start 2024-01-01 --end 2024-01-31")
@click.option("--start", type=DAY, help="First day, in UTC; default: every known day.")
@click.option("--end", type=DAY, help="Last day, included.")
@click.option("--apply", "apply", is_flag=True, help="Publish and report differences.")
@click.option("--json", "as_json", is_flag=True, help="The differences as JSON.")
def reconcile(start: str | None, end: str | None, apply: bool, as_json: bool) -> None:
    """Compare lake, warehouse and Dagster's records.

    It lists every difference; the exit code is 1 if one is left. Without --apply it writes nothing.
    """
    from contextlib import ExitStack, closing

    from backfill_assets.automation.materializations import materialized_days, report_materialization
    from backfill_assets.days import day_range
    from backfill_assets.lake.store import open_store
    from backfill_assets.orchestration import database_failures, open_instance
    from backfill_assets.progress import reconcile as comparing
    from backfill_assets.progress.service import need_home
    from backfill_assets.readable_numbers import plural
    from backfill_assets.settings import current_settings
    from backfill_assets.warehouse.garbage import unnamed_files
    from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
    from backfill_assets.warehouse.presence import partitions
    from backfill_assets.warehouse.protocol import open_warehouse

    if (start is None) != (end is None):
        msg = "give --start and --end, or neither"
        raise click.UsageError(msg)
    if start and end:
        insist_on_order(start, end)
    need_home()
    settings = current_settings()
    store = open_store(settings.lake)
    with ExitStack() as stack:
        stack.enter_context(database_failures())
        instance = stack.enter_context(open_instance())
        places = comparing.Places(
            store,
            settings,
            stack.enter_context(closing(open_warehouse(settings.warehouse))),
            open_ohlcv(settings.ohlcv),
            materialized_days(instance, comparing.ASSETS),
            unnamed_files(store),
            partitions(settings.warehouse),
        )
        days = day_range(start, end) if start and end else places.all_days()
        found = [difference for day in days for difference in comparing.differences(places, day)]
        failed: list[comparing.Difference] = []
        # A table published again may be one that Dagster lacks.
        for _ in range(2 if apply else 0):
            failed = list(
                comparing.mend(places, found, lambda *what: report_materialization(instance, *what))
            )
            places = replace(places, materialized=materialized_days(instance, comparing.ASSETS))
            found = [d for day in sorted({d.day for d in found}) for d in comparing.differences(places, day)]
    for difference in failed:
        click.echo(printable(f"{difference.day}  {difference.what}: {difference.text}"), err=True)
    if as_json:
        click.echo(
            _json(json.dumps({"days": len(days), "differences": [asdict(d) for d in found]}, indent=2))
        )
    else:
        for difference in found:
            words = f"{difference.day}  {difference.kind}  {difference.what}: {difference.text}"
            click.echo(printable(words))
        click.echo(f"{plural(len(days), 'day')}: {plural(len(found), 'difference')}", err=bool(found))
    sys.exit(int(bool(found)))


@main.command(section=DATA, example="gc --older-than 30d")
@click.option("--older-than", "age", default="30d", show_default=True, help="Only files older than this.")
@click.option("--apply", "apply", is_flag=True, help="Delete the files; without this nothing is deleted.")
def gc(age: str, apply: bool) -> None:
    """Free the space of files that nothing names.

    These are replaced versions, orphans, rejected files, and temporary folders of killed runs. Days may run
    meanwhile.
    """
    from datetime import timedelta

    from backfill_assets.days import utc_now
    from backfill_assets.lake.store import open_store
    from backfill_assets.readable_numbers import bytes_text
    from backfill_assets.settings import current_settings
    from backfill_assets.warehouse import garbage

    before = utc_now() - timedelta(days=garbage.age_in_days(age))
    settings = current_settings()
    store = open_store(settings.lake)
    found: Iterator[garbage.Garbage] = garbage.garbage(store, settings.lake, before)
    if apply:
        found = garbage.free(store, found, before)
    freed = []
    for one in found:
        freed.append(one)
        click.echo(printable(f"{one.kind:<10} {bytes_text(one.bytes):>10}  {one.path}"))
    for kind in garbage.KINDS:
        sizes = [one.bytes for one in freed if one.kind == kind]
        click.echo(f"{kind}: {len(sizes):,}, {bytes_text(sum(sizes))}")
    words = "freed" if apply else f"would be freed: 'backfill-assets gc --older-than {age} --apply' frees it"
    click.echo(f"{bytes_text(sum(one.bytes for one in freed))} {words}")


def _seen(store: Any, day: Any) -> str:
    """Return how much of an undamaged day was checked."""
    from backfill_assets.lake.manifests import load_day_record
    from backfill_assets.readable_numbers import bytes_text, plural

    if not (day.files or day.partitions) and load_day_record(store, day.day) is None:
        return "no record: it was never run"
    files = f"{plural(day.files, 'file')} ({bytes_text(day.bytes)})"
    return f"ok  {files}, {plural(day.partitions, 'partition')}"


@main.command(section=START, example="rehearse --quick --scenario killed")
@click.option("--date", "day", type=DAY, help="The day to rehearse; default: the environment's day.")
@click.option(
    "--env",
    "given",
    metavar="local|staging|FILE",
    default="local",
    show_default=True,
    help="Limits, sources and test data: a file of the package, or your own.",
)
@click.option(
    "--replay", "replayed", type=DAY, help="A published day of your lake, instead of a generated one."
)
@click.option(
    "--scenario", "names", metavar="NAME", multiple=True, help="Only this scenario; may be repeated."
)
@click.option(
    "--quick", "mode", flag_value="quick", default="quick", help="Takes a few minutes; the default."
)
@click.option(
    "--full", "mode", flag_value="full", help="More faults, kills, feeds and days, and longer ones."
)
@click.option(
    "--soak-minutes",
    type=click.IntRange(1, 1_440),
    help="How long the scenario soak takes; default: 3, with --full 60.",
)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("rehearsal"),
    show_default=True,
    help="Where to write JSON, JUnit XML, the HTML page and the logs of all runs.",
)
@click.option(
    "--history",
    "history_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measurements of earlier rehearsals to compare with; default: history.jsonl in --report-dir.",
)
def rehearse(
    day: str | None,
    given: str,
    replayed: str | None,
    names: tuple[str, ...],
    mode: str,
    soak_minutes: int | None,
    report_dir: Path,
    history_file: Path | None,
) -> None:
    """Run a day under faults, and show which promises hold.

    It makes real runs against stand-ins, in scratch folders. It reads only limits from your settings and,
    with --replay, your lake; it touches none of your data, unless --env names your sources. The exit code is
    1 if a promise is broken.
    """
    from backfill_assets.days import utc_now
    from backfill_assets.rehearsal import history, scenarios
    from backfill_assets.rehearsal import report as reports
    from backfill_assets.rehearsal.environment import environment_of
    from backfill_assets.rehearsal.limits import limits_of_settings
    from backfill_assets.settings import current_settings

    environment = environment_of(given)
    if replayed and environment.is_real:
        msg = f"--replay serves the day from a stand-in, but {given} names sources: choose another --env"
        raise BadInput(msg)
    if replayed and day:
        msg = f"--replay {replayed} and --date {day} are both days to rehearse: leave one out"
        raise BadInput(msg)
    day = replayed or day or environment.test_data.day
    wanted = scenarios.chosen(names)
    if replayed is None:
        scenarios.insist_on_day(day)
    limits = limits_of_settings(scenarios.SCENARIOS)
    history_file = history_file or report_dir / "history.jsonl"

    def say(text: str) -> None:
        click.echo(text, err=True)

    with reports.reserved(report_dir, history_file):
        past = history.load(history_file)
        played = scenarios.rehearse(
            day,
            wanted,
            is_full=mode == "full",
            logs=report_dir / "logs",
            limits=limits,
            replayed=current_settings() if replayed else None,
            environment=environment,
            soak_minutes=soak_minutes,
            say=say,
        )
        found = history.compared(played, past)
        reports.show(found, _console())
        for file in reports.write(found, report_dir):
            click.echo(printable(str(file)))
        history.add(history_file, found, utc_now())
    sys.exit(found.exit_code)


@main.command(section=START, example="doctor")
def doctor() -> None:
    """Check settings, reachability and permissions.

    It names the repairs; the exit code is 1 if there are any.
    """
    from backfill_assets.doctor import examine
    from backfill_assets.readable_numbers import plural

    findings = 0
    for finding in examine():
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.what}: {printable(finding.text)}")
        findings += not finding.ok
    if findings:
        msg = f"{plural(findings, 'thing')} to mend"
        raise click.ClickException(msg)


@contextmanager
def _backfills() -> Iterator[Any]:
    from backfill_assets.progress.service import open_backfills
    from backfill_assets.progress.statuses import UnknownJob

    with open_backfills(_asset_graph) as service:
        try:
            yield service
        except UnknownJob as failure:
            msg = f"{failure}: backfill-assets recent lists them"
            raise PermanentFailure(msg) from failure


def _json(text: str) -> str:
    """Return JSON that a terminal only displays: ``printable`` escapes other characters as JSON does."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _console() -> Any:
    from rich.console import Console

    # Names, numbers and foreign text are neither colored nor read as markup.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNWRAPPED
    return console


def _asset_graph() -> Any:
    from backfill_assets.definitions import defs

    return defs.resolve_asset_graph()


if __name__ == "__main__":
    main(prog_name=PROGRAM)
