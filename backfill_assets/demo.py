"""The quickstart: one day through Dagster, shown while it works, with a table of what came of it.

Runs the same job as the schedule does, on the instance of ``DAGSTER_HOME`` where there is one. Nothing is
simulated but the vendor.
"""

from __future__ import annotations

import http.client
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from backfill_assets.automation.backfills import checked_days
from backfill_assets.failures import SettingsError, printable
from backfill_assets.lake import paths
from backfill_assets.lake.store import open_store
from backfill_assets.orchestration import open_instance
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.settings import ProcessEnvironment, Settings, current_settings, resolve
from backfill_assets.tardis.generated import GENERATED_SERVER
from backfill_assets.warehouse.catalog import CANDLES, TICKS
from backfill_assets.warehouse.protocol import open_warehouse

if TYPE_CHECKING:
    import dagster as dg

_ANSWER_SECONDS: Final = 60.0
GENERATED: Final = "Generated prices: they come from a stand-in for Tardis, not from a market."
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class Work:
    """What the run did, from the metadata of its materializations."""

    fetched: int
    kept: int
    loads: int
    skipped: int


def run_demo(day: str) -> int:
    """Run the day, print the table; exit code 0 if the run succeeded, else 1."""
    console = Console()
    settings = current_settings()
    _insist_on_standin(settings)
    checked_days(day, day)
    started = time.monotonic()
    if _is_generated():
        console.print(GENERATED)
    console.print(f"[bold]{day}[/] through Dagster: Tardis stand-in → lake → candles → warehouse")
    succeeded, work = _run(day, console)
    store = open_store(settings.lake)
    found = load_day(store, day)
    if found is not None and found.feeds:
        console.print(_table(found, settings, day))
    _say_work(console, work, time.monotonic() - started)
    if not succeeded:
        console.print(
            f"[red]The run failed; the day is {found.scores.state if found else 'missing'}.[/] "
            "See above, or run `make ui`."
        )
        return 1
    _say_next(console, settings, day, store.uri_of(paths.day_report(day)))
    return 0


def _insist_on_standin(settings: Settings) -> None:
    """Refuse to play with an environment that reads the real vendor and publishes for real."""
    standin = ProcessEnvironment().backfill_standin_url
    if not standin or not resolve(settings.tardis.datasets_endpoint).startswith(standin):
        msg = f"BACKFILL_ENV={settings.name} does not read the Tardis stand-in, the demo does: unset it"
        raise SettingsError(msg)


def _is_generated() -> bool:
    """Whether the stand-in says that its market is generated; it may serve real files instead."""
    url = urlsplit(str(ProcessEnvironment().backfill_standin_url))
    asked = http.client.HTTPConnection(url.netloc, timeout=_ANSWER_SECONDS)
    try:
        # It has no such page, but each answer says who gives it.
        asked.request("GET", "/")
        return asked.getresponse().getheader("Server") == GENERATED_SERVER
    except OSError as error:
        msg = f"the Tardis stand-in does not answer ({error}): start it, or unset BACKFILL_STANDIN_URL"
        raise SettingsError(msg) from error
    finally:
        asked.close()


def _run(day: str, console: Console) -> tuple[bool, Work]:
    """Run the job in this thread, where an interrupt ends it, and show its events."""
    import dagster as dg

    from backfill_assets.automation.run_process import RunProcess, ending_with_the_terminal
    from backfill_assets.definitions import defs

    job = defs.resolve_job_def("day")
    run_id = str(uuid.uuid4())
    with open_instance() as instance:
        try:
            with ending_with_the_terminal(), _following(instance, run_id, console, len(job.nodes)):
                result = job.execute_in_process(
                    partition_key=day,
                    instance=instance,
                    run_id=run_id,
                    run_config=_QUIET,
                    tags=RunProcess.this(run_id).tags(),
                    raise_on_error=False,
                )
        except dg.DagsterExecutionInterruptedError as interrupt:
            raise KeyboardInterrupt from interrupt
        if any(_was_interrupted(event) for event in result.all_events):
            raise KeyboardInterrupt
        for text in _failures(instance, run_id):
            console.print(f"[red]{escape(printable(text))}[/]", soft_wrap=True)
        return result.success, _work(result)


@contextmanager
def _following(instance: dg.DagsterInstance, run_id: str, console: Console, steps: int) -> Iterator[None]:
    """Show each event of the run as this process stores it, until the block ends."""
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=steps)

        def show(entry: dg.EventLogEntry) -> None:
            event = entry.dagster_event
            if event is not None:
                progress.advance(task, int(event.is_step_success))
            elif entry.user_message:
                progress.update(task, description=entry.user_message.strip()[:70])

        instance.add_event_listener(run_id, show)
        yield


def _failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    found = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_failure:
            data = event.step_failure_data
            reason = data.user_failure_data.description if data.user_failure_data else None
            error = data.error.message.strip() if data.error else "failed"
            found.append(f"{event.step_key}: {reason or error}")
        check = event.asset_check_evaluation_data if event is not None and _is_check(event) else None
        if check is not None and not check.passed:
            found.append(f"check {check.asset_key.to_user_string()} {check.check_name}: {check.description}")
    return found


def _is_check(event: dg.DagsterEvent) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION"


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    """Whether the step's failure is an interrupt, which Dagster records like any other."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _work(result: dg.ExecuteInProcessResult) -> Work:
    counts: Counter[str] = Counter()
    for event in result.get_asset_materialization_events():
        for name, value in event.materialization.metadata.items():
            if name in ("feeds_fetched", "feeds_kept", "loads", "skipped"):
                counts[name] += int(str(value.value))
    return Work(counts["feeds_fetched"], counts["feeds_kept"], counts["loads"], counts["skipped"])


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


def _say_work(console: Console, work: Work, seconds: float) -> None:
    did = f"{work.fetched} feeds fetched, {work.loads} partitions loaded in {seconds:.1f} s."
    if work.fetched == 0 and work.loads == 0 and work.kept:
        did = (
            f"Nothing was done twice: {work.kept} feeds were in the lake already, "
            f"{work.skipped} partitions held what the lake says ({seconds:.1f} s)."
        )
    console.print(did, soft_wrap=True)


def _say_next(console: Console, settings: Settings, day: str, page: str) -> None:
    lines = [
        f"  {page}  # the page of the day, for a browser",
        f"  backfill-assets candles --date {day} --exchange binance --symbol BTC-USDT --timeframe 1h",
        "  make ui          # the graph, its checks and a backfill of January 2024 with the mouse",
    ]
    if settings.warehouse.kind == "duckdb":
        folder = resolve(settings.warehouse.folder)
        query = "select exchange, symbol, verdict, completeness, quality, day_overall from quality"
        database = f"duckdb.connect('{folder}/warehouse.duckdb')"
        lines.append(f"  python -c \"import duckdb; print({database}.sql('{query}'))\"")
    console.print("Look at next:", *lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
