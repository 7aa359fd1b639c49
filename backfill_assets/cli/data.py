"""Commands that look at data: candles, reports, coverage, quality, and the trials of lake and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from backfill_assets.cli.group import DATA, DAY, MONTH, TIMEFRAME, console, json_text, main
from backfill_assets.days import insist_on_order
from backfill_assets.failures import PermanentFailure, printable


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
    for line in [json_text(found.model_dump_json())] if as_json else map(printable, lines):
        click.echo(line)


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
        click.echo(json_text(found.model_copy(update={"incidents": shown}).model_dump_json()))
    else:
        show_incidents(found, utc_now(), console(), only_open=only_open)


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
            json_text(json.dumps({"days": len(days), "differences": [asdict(d) for d in found]}, indent=2))
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
