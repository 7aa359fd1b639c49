"""Commands of decisions: limits, healing, and which versions and feeds count."""

from __future__ import annotations

import sys

import click

from backfill_assets.cli.group import DAY, DECISIONS, main
from backfill_assets.days import insist_on_order
from backfill_assets.failures import BackfillError, PermanentFailure, Unreadable, printable


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
    from backfill_assets.lake import paths
    from backfill_assets.lake.store import open_store
    from backfill_assets.settings import current_settings

    insist_on_order(day, end or day)
    settings = current_settings()
    store, budget = open_store(settings.lake), Budget(settings.heal.requests)
    is_whole, chosen = True, list[tuple[str, str]]()
    known = set(store.list("settled/"))
    for one in day_range(day, end or day):
        if paths.settled_day(one) not in known:
            click.echo(f"{one} was never run: backfill-assets run --date {one}", err=True)
            is_whole = False
            continue
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
            click.echo(printable(f"  still missing: {problem}"), err=True)
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
