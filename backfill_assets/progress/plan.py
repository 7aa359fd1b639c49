"""The cost of a backfill before its start: files, bytes, load jobs, storage, time, days to skip.

The command line, the API and the page call ``make_plan``; all show the same ``Plan``. It reads the lake and
Dagster's records, writes nothing, and asks the vendor only if ``listing`` is given. An unknown number is
null, and ``notes`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING, Final

from pydantic import Field

from backfill_assets.automation.backfills import checked_days
from backfill_assets.automation.history import MeasuredRun
from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError, PermanentFailure, SettingsError
from backfill_assets.feeds import ExpectedFeed
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.progress.model import ApiModel, BackfillRequest
from backfill_assets.progress.plan_day import DayListing, DayPlan, plan_day
from backfill_assets.progress.plan_history import LakeHistory, Sizes, Speed
from backfill_assets.progress.plan_money import Money, Range, money
from backfill_assets.progress.request_tags import as_kept, choice_of
from backfill_assets.progress.selection import Combination, checked_choice, combinations
from backfill_assets.readable_numbers import plural
from backfill_assets.settings import BigQueryWarehouse, Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS

if TYPE_CHECKING:
    from backfill_assets.tardis.client import TardisClient

#: A day's candles, coverage and quality rows are published again with each of its two neighbors; ticks and
#: instruments only when a verdict changes.
LOADS_WITH_NEIGHBOURS: Final = 3
#: Most waiting versions whose commands the notes give.
_APPROVALS_TOLD: Final = 3
#: Most damaged documents that the notes name.
_UNREADABLE_TOLD: Final = 10
#: Most failures of the last runs that the notes list one by one.
FAILURES_NAMED: Final = 5


class TableLoads(ApiModel):
    """BigQuery load jobs of one table."""

    table: str
    jobs: Range = Field(description="The high bound includes publishing each day's neighbors again.")
    used_today: int = Field(description="Since midnight UTC, by all publishers of this lake.")
    limit: int = Field(description="warehouse.load_jobs_per_table_and_day")

    @property
    def utc_days(self) -> int:
        """Most UTC days over which the jobs spread, including today."""
        return ceil((self.used_today + self.jobs.high) / self.limit)


class Plan(ApiModel):
    """The work and cost of a backfill."""

    start: str
    end: str
    exchanges: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()
    refresh: bool = False
    days: int
    days_to_run: tuple[str, ...] = Field(description="Days that a run would change.")
    days_good: int = Field(
        description="Days published in full without a missing file: another run changes nothing."
    )
    all_days: bool = Field(default=False, description="Whether the good days are run too.")
    days_held: int = Field(
        description="Days to run that are held now, and will be held again unless something is new."
    )
    days_lacking: int = Field(
        description="Days to run that lack a file the vendor did not have when last asked."
    )
    days_unlisted: int = Field(description="Days to run whose listed symbols are not yet known.")
    files: int = Field(description="Files to fetch; an upper limit if days_unlisted is not 0.")
    files_of_unknown_size: int = Field(
        description="Files not counted in expected_bytes and the numbers derived from it."
    )
    expected_bytes: int | None = Field(description="Compressed bytes to download; null if no size is known.")
    measured_over: tuple[str, ...] = Field(description="The published days from which sizes were taken.")
    rows: int | None
    lake_bytes: int | None = Field(description="Parquet of ticks.")
    warehouse_bytes: int | None = Field(description="Null for BigQuery, whose bytes are not measured.")
    loads: tuple[TableLoads, ...] = Field(description="Empty if the warehouse has no limit.")
    seconds: Range | None
    speed_of_runs: int = Field(description="Number of runs over which the speed was measured.")
    runs_at_once: int | None = Field(description="Days that the queue lets run at once; null means no limit.")
    money: Money | None = Field(default=None, description="Null if the settings have no prices.")
    notes: tuple[str, ...] = ()


def make_plan(
    store: Store,
    settings: Settings,
    request: BackfillRequest,
    *,
    runs: Sequence[MeasuredRun] = (),
    runs_at_once: int | None = 1,
    listing: Callable[[str], DayListing] | None = None,
    now: datetime | None = None,
) -> Plan:
    """Plan the backfill.

    Parameters
    ----------
    runs, runs_at_once
        ``automation.history.measured_runs`` and ``run_order.backfill_places`` of Dagster's instance.
    listing
        ``vendor_listing``, to know the listed symbols of days that never ran; without it, such days are
        expected to have every combination of the universe.

    Raises
    ------
    PermanentFailure
        A day is outside the partitions, or the universe does not have a name; one line.
    """
    start, end = request.start.isoformat(), request.end.isoformat()
    days = checked_days(start, end)
    checked_choice(settings.universe, choice_of(request))
    universe = combinations(settings.universe)
    plans = plan_days(store, settings, days, request, listing=listing)
    due = [plan for plan in plans if request.all_days or not plan.good]
    files = [file for plan in due for file in plan.files]
    history = LakeHistory(store, settings)
    sizes = history.sizes(start, end, set(files))
    known = [sizes.raw_bytes[file] for file in files if file in sizes.raw_bytes]
    expected_bytes = round(sum(known)) if known or not files else None
    unknown = len(files) - len(known)
    speed = history.speed(runs) if due else None
    runs_at_once = min((n for n in (runs_at_once, request.at_once) if n is not None), default=None)
    loads = _loads(store, settings, universe, len(due), now or utc_now())
    lake_bytes = _times(expected_bytes, sizes.lake_ratio)
    warehouse_bytes = _times(expected_bytes, sizes.warehouse_ratio)
    run_seconds = _run_seconds(len(due), unknown, expected_bytes, speed)
    return Plan(
        start=start,
        end=end,
        exchanges=request.exchanges,
        symbols=request.symbols,
        data_types=request.data_types,
        refresh=as_kept(request).refresh,
        days=len(days),
        days_to_run=tuple(plan.day for plan in due),
        days_good=sum(plan.good for plan in plans),
        all_days=request.all_days,
        days_held=sum(plan.held for plan in due),
        days_lacking=sum(plan.asked_again > 0 for plan in due),
        days_unlisted=sum(not plan.listed for plan in due),
        files=len(files),
        files_of_unknown_size=unknown,
        expected_bytes=expected_bytes,
        measured_over=sizes.days,
        rows=_times(expected_bytes, sizes.rows_ratio),
        lake_bytes=lake_bytes,
        warehouse_bytes=warehouse_bytes,
        loads=loads,
        seconds=_seconds(settings, len(due), len(files), run_seconds, speed, runs_at_once),
        speed_of_runs=speed.runs if speed else 0,
        runs_at_once=runs_at_once,
        money=money(
            settings.prices,
            expected_bytes=expected_bytes,
            lake_bytes=lake_bytes,
            warehouse_bytes=warehouse_bytes,
            run_seconds=run_seconds,
        ),
        notes=(*_notes(due, files, sizes, speed, loads, unknown, listing is not None), *_waiting(plans)),
    )


def plan_days(
    store: Store,
    settings: Settings,
    days: Sequence[str],
    request: BackfillRequest,
    *,
    listing: Callable[[str], DayListing] | None = None,
) -> list[DayPlan]:
    """Return for each day the files that a run would fetch, and whether the run would change anything."""
    universe = combinations(settings.universe)
    again = choice_of(request) if as_kept(request).refresh else None
    return parallel_map(
        lambda day: plan_day(store, settings, day, universe, again, listing), days, store.parallel_reads
    )


def vendor_listing(client: TardisClient, settings: Settings) -> Callable[[str], DayListing]:
    """Ask the vendor once for each exchange of the universe, and resolve days from its answers.

    An exchange that does not answer or lacks a symbol of the universe is unknown; others are unaffected.

    Raises
    ------
    SettingsError
        The key or the endpoint is wrong, so no exchange can be asked.
    """
    from backfill_assets.tardis.symbols import of_exchanges, resolve

    details, instruments, unanswered = {}, {}, {}
    for exchange in sorted({exchange for entry in settings.universe for exchange in entry.exchanges}):
        try:
            details[exchange], instruments[exchange] = (
                client.exchange_details(exchange),
                client.instruments(exchange),
            )
        except SettingsError:
            raise
        except BackfillError as failure:
            unanswered[exchange] = str(failure)

    def listing(day: str) -> DayListing:
        feeds: list[ExpectedFeed] = []
        unknown = dict(unanswered)
        for exchange in details:
            try:
                own = of_exchanges(settings.universe, [exchange])
                feeds += resolve(own, day, details, instruments).expected
            except PermanentFailure as failure:
                unknown[exchange] = str(failure)
        return DayListing(feeds, unknown)

    return listing


def _loads(
    store: Store, settings: Settings, universe: Sequence[Combination], days: int, now: datetime
) -> tuple[TableLoads, ...]:
    if not isinstance(settings.warehouse, BigQueryWarehouse) or not days:
        return ()
    types = sorted({wanted.data_type for wanted in universe})
    most = dict.fromkeys([INSTRUMENTS.name, *(TICKS[t].name for t in types)], 1)
    most |= dict.fromkeys([CANDLES.name, COVERAGE.name, QUALITY.name], LOADS_WITH_NEIGHBOURS)
    return tuple(
        TableLoads(
            table=table,
            jobs=Range(low=days, high=days * factor),
            used_today=ledger.submissions(store, table, now),
            limit=settings.warehouse.load_jobs_per_table_and_day,
        )
        for table, factor in most.items()
    )


def _run_seconds(days: int, unknown: int, expected_bytes: int | None, speed: Speed | None) -> Range | None:
    """Return how long the runs take one after another, from the fastest to the slowest.

    If every size is known, days are weighted by their bytes; otherwise they count alike.
    """
    if not days:
        return Range(low=0, high=0)
    if speed is None:
        return None
    if unknown == 0 and expected_bytes:
        low, high = (expected_bytes / rate for rate in reversed(speed.bytes_per_second))
    else:
        low, high = (seconds * days for seconds in speed.seconds_per_day)
    return Range(low=low, high=high)


def _seconds(
    settings: Settings,
    days: int,
    files: int,
    run_seconds: Range | None,
    speed: Speed | None,
    runs_at_once: int | None,
) -> Range | None:
    """Return the time from the fastest runs, all at once, to the slowest, as parallel as when measured.

    All runs together ask the vendor no faster than ``tardis.requests_per_minute`` allows.
    """
    if run_seconds is None or speed is None:
        return run_seconds
    at_once = max(1, min(days, runs_at_once if runs_at_once is not None else days))
    asking = files / (settings.tardis.requests_per_minute / 60)
    fastest = max(run_seconds.low / at_once, asking)
    return Range(low=fastest, high=max(run_seconds.high / min(at_once, speed.overlap), fastest))


def _notes(
    due: Sequence[DayPlan],
    files: Sequence[Combination],
    sizes: Sizes,
    speed: Speed | None,
    loads: Sequence[TableLoads],
    unknown: int,
    is_asked: bool,
) -> list[str]:
    """Return notes on the limits of the numbers."""
    unanswered = {exchange: why for plan in due for exchange, why in plan.unlisted.items()}
    notes = [f"all feeds of {e} are counted on such days: {why}" for e, why in unanswered.items()]
    unlisted = sum(not plan.listed for plan in due)
    if unlisted and not is_asked:
        notes.append(
            f"{plural(unlisted, 'day')} never run: every feed of the universe is counted, although some may "
            "not have been listed then (--online asks the vendor)"
        )
    if unknown:
        some = f"the size of {plural(unknown, 'file')} is not known"
        what = "no size is known" if unknown == len(files) else some
        notes.append(f"{what}: no published day in the lake has these files")
    if sizes.days and files:
        span = f"{sizes.days[0]} to {sizes.days[-1]}"
        notes.append(f"sizes are medians of {plural(len(sizes.days), 'published day')}, {span}")
    if due and speed is None:
        notes.append("the time is not known: Dagster has no record of a run that fetched a day's files")
    elif speed is not None:
        notes.append(f"the speed is that of {plural(speed.runs, 'run')}, {speed.overlap:.1f} at once")
    notes += [why for plan in due for why in plan.unreadable][:_UNREADABLE_TOLD]
    failures = [failure for plan in due for failure in plan.failures]
    notes += [f"not fetched: {failure}" for failure in failures[:FAILURES_NAMED]]
    if len(failures) > FAILURES_NAMED:
        notes.append(f"{len(failures) - FAILURES_NAMED:,} more were not fetched; the days' reports name them")
    held = sum(plan.held for plan in due)
    if held:
        notes.append(f"{plural(held, 'day')} held: running them again helps only if something is new")
    lacking = [plan.asked_again for plan in due if plan.asked_again]
    if lacking:
        notes.append(
            f"{plural(len(lacking), 'day')} without {plural(sum(lacking), 'file')} that the vendor did not "
            "have when last asked: running them again asks only for these files"
        )
    for table in loads:
        if table.utc_days > 1:
            notes.append(
                f"{table.table}: up to {table.jobs.high:,.0f} loads, {table.used_today:,} today already, of "
                f"{table.limit:,} a day: further loads fail until the next UTC day and must be retried"
            )
    return notes


def _waiting(plans: Sequence[DayPlan]) -> list[str]:
    """Return notes on versions that wait for a decision, whether or not their day is run."""
    commands = [command for plan in plans for command in plan.approvals]
    told = [f"a version waits for a decision: {command}" for command in commands[:_APPROVALS_TOLD]]
    if len(commands) > len(told):
        told.append(f"{len(commands) - len(told):,} more wait: the reports of their days have the commands")
    return told


def _times(expected_bytes: int | None, ratio: float | None) -> int | None:
    if expected_bytes == 0:
        return 0
    return round(expected_bytes * ratio) if expected_bytes is not None and ratio is not None else None
