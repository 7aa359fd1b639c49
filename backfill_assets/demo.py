"""The quickstart: one day through Dagster, shown while it runs, with a table of the outcome.

It runs the same job as the schedule, on the instance of ``DAGSTER_HOME`` if there is one. Only the vendor is
simulated.
"""

from __future__ import annotations

import http.client
import shlex
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from backfill_assets.automation.backfills import checked_days
from backfill_assets.failures import SettingsError, printable
from backfill_assets.lake import paths
from backfill_assets.lake.store import open_store
from backfill_assets.local_runs import run_day
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.settings import ProcessEnvironment, Settings, current_settings, resolve
from backfill_assets.tardis.generated import GENERATED_PRICES, GENERATED_SERVER
from backfill_assets.warehouse.catalog import CANDLES, TICKS
from backfill_assets.warehouse.protocol import open_warehouse

_ANSWER_SECONDS: Final = 60.0
#: The Makefile beside the package, in a clone of the repository.
_MAKEFILE: Final = Path(__file__).parents[1] / "Makefile"


def run_demo(day: str) -> int:
    """Run the day and print the table; return exit code 0 if the run succeeded, otherwise 1."""
    console = Console()
    settings = current_settings()
    _insist_on_standin(settings)
    checked_days(day, day)
    started = time.monotonic()
    if _is_generated():
        console.print(GENERATED_PRICES)
    console.print(f"[bold]{day}[/] through Dagster: Tardis stand-in → lake → candles → warehouse")
    run = run_day(day, console)
    for text in run.failures:
        console.print(f"[red]{escape(printable(text))}[/]", soft_wrap=True)
    store = open_store(settings.lake)
    found = load_day(store, day)
    if found is not None and found.feeds:
        console.print(_table(found, settings, day))
    console.print(run.text(time.monotonic() - started), soft_wrap=True)
    if not run.succeeded:
        console.print(
            f"[red]The run failed; the day is {found.scores.state if found else 'missing'}.[/] See above."
        )
        return 1
    _say_next(console, settings, day, store.uri_of(paths.day_report(day)))
    return 0


def _insist_on_standin(settings: Settings) -> None:
    """Refuse an environment that reads the real vendor and really publishes."""
    standin = ProcessEnvironment().backfill_standin_url
    if not standin or not resolve(settings.tardis.datasets_endpoint).startswith(standin):
        msg = f"BACKFILL_ENV={settings.name} does not read the Tardis stand-in, as the demo needs: unset it"
        raise SettingsError(msg)


def _is_generated() -> bool:
    """Whether the stand-in says that its market is generated; it may serve real files instead."""
    url = urlsplit(str(ProcessEnvironment().backfill_standin_url))
    asked = http.client.HTTPConnection(url.netloc, timeout=_ANSWER_SECONDS)
    try:
        # The stand-in has no such page, but each answer names its source.
        asked.request("GET", "/")
        return asked.getresponse().getheader("Server") == GENERATED_SERVER
    except OSError as error:
        msg = f"the Tardis stand-in does not answer ({error}): start it, or unset BACKFILL_STANDIN_URL"
        raise SettingsError(msg) from error
    finally:
        asked.close()


def _table(found: Day, settings: Settings, day: str) -> RichTable:
    warehouse = open_warehouse(settings.warehouse)
    rows = {t.group: t.rows for t in warehouse.totals(TICKS["trades"], day)}
    candles: Counter[tuple[str | None, str | None]] = Counter()
    for total in warehouse.totals(CANDLES, day):
        candles[total.group[0], total.group[1]] += total.rows
    warehouse.close()
    title = f"{day}: {found.scores.state}"
    table = RichTable(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("feed", no_wrap=True)
    for name in ("rows", "candles", "completeness"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("published")
    for feed in found.feeds:
        verdict = feed.verdict
        published = sum(rows.get((feed.feed.exchange, name), 0) for name, _ in feed.symbols)
        canonical = {name for _, name in feed.symbols}
        made = sum(candles[feed.feed.exchange, name] for name in canonical)
        score = "–" if verdict.completeness is None else f"{verdict.completeness:.4f}"
        style = {"publish": "green", "quarantine": "red", "missing": "red"}.get(verdict.outcome, "yellow")
        table.add_row(
            escape(printable(str(feed.feed))),
            f"{verdict.rows:,}",
            f"{made:,}",
            f"{score} {verdict.completeness_state}",
            f"[{style}]{verdict.outcome}[/]",
            "yes" if published == verdict.rows else "[red]no[/]",
        )
    return table


def _program(name: str) -> str:
    """The name as the shell finds it, otherwise its path: the environment may not be active."""
    own = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(own):
        return name
    return shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))


def _say_next(console: Console, settings: Settings, day: str, page: str) -> None:
    market = "--exchange binance --symbol BTC-USDT --timeframe 1h"
    lines = [
        f"  {page}  # the page of the day, for a browser",
        f"  {_program('backfill-assets')} candles --date {day} {market}",
    ]
    if _MAKEFILE.is_file():
        lines.append("  make ui          # the graph, its checks and a backfill of January with the mouse")
    if settings.warehouse.kind == "duckdb":
        folder = resolve(settings.warehouse.folder)
        query = "select exchange, symbol, verdict, completeness, quality, day_overall from quality"
        database = f"duckdb.connect('{folder}/warehouse.duckdb')"
        lines.append(f"  {_program('python')} -c \"import duckdb; print({database}.sql('{query}'))\"")
    console.print("Look at next:", *lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
