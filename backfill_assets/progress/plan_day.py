"""The files that a run of one day would fetch, read from the lake alone, without the network.

A day that was run has its record. A day that was never run is expected to have every combination of the
universe, since only the vendor's listing tells whether a symbol was listed on that day.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from backfill_assets.automation.due import outdated_tables
from backfill_assets.failures import Unreadable
from backfill_assets.feeds import ExpectedFeed, Feed, FeedChoice
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import load_day_record, load_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.progress.selection import Combination
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.remedies import approve_command, run_day
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.report.month import DaySummary, build_version, current_summary, has_page
from backfill_assets.settings import Settings
from backfill_assets.warehouse.presence import lost_files, unpublished_tables


@dataclass(frozen=True, slots=True)
class DayListing:
    """The feeds of the universe that the vendor lists on a day."""

    feeds: Sequence[ExpectedFeed]
    #: Why the listing of an exchange is not known, by exchange.
    unknown: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DayPlan:
    """One day of a plan."""

    day: str
    #: The files to fetch.
    files: tuple[Combination, ...]
    #: Whether the day was published in full by its own run under the present settings, with the versions that
    #: count now, and no file is missing or lost: another run would change nothing.
    good: bool = False
    held: bool = False
    #: Files that the vendor did not have when last asked, and that a run requests again. They are not in
    #: ``files``, because it is not known whether they bring bytes.
    asked_again: int = 0
    #: The commands that approve waiting versions; running the day does not decide on them.
    approvals: tuple[str, ...] = ()
    #: Whether the listed symbols are known.
    listed: bool = True
    #: Why the listing of a requested exchange is not known, by exchange.
    unlisted: Mapping[str, str] = field(default_factory=dict)
    #: Why documents of the day cannot be read.
    unreadable: tuple[str, ...] = ()
    #: Why files to fetch, and exchanges, failed when the day was last run.
    failures: tuple[str, ...] = ()


def plan_day(
    store: Store,
    settings: Settings,
    day: str,
    universe: Sequence[Combination],
    refresh: FeedChoice | None,
    listing: Callable[[str], DayListing] | None,
) -> DayPlan:
    """Return the day's part of a plan.

    Parameters
    ----------
    refresh
        Feeds to fetch even if the lake has them.
    listing
        None if the vendor was not asked.
    """
    try:
        record = load_day_record(store, day)
    except Unreadable as failure:
        return DayPlan(day, tuple(universe), listed=False, unreadable=(str(failure),))
    if record is None or (record.awaiting_export and not record.expected):
        failures = tuple(f"{day}: {reason}" for reason in record.why_awaited) if record else ()
        if listing is None:
            return DayPlan(day, tuple(universe), listed=False, failures=failures)
        listed = listing(day)
        files = [combination_of(feed) for feed in listed.feeds]
        files += [wanted for wanted in universe if wanted.exchange in listed.unknown]
        return DayPlan(
            day, tuple(files), listed=not listed.unknown, unlisted=listed.unknown, failures=failures
        )
    summary, found = current_summary(store, day), load_day(store, day)
    expected = record.expected_feeds
    unpublished = unpublished_tables(store, settings, day, {e.feed.data_type for e in expected})
    lost = lost_files(store, day, summary.data_files) if summary is not None else []
    held = summary is not None and summary.state == "held"
    current = summary is not None and summary.build_version == build_version(settings)
    same = summary is not None and found is not None and _is_published(store, summary, found)
    if summary is None or held or unpublished or not current:
        suspects = list(expected)
    else:
        seen = {feed.feed for feed in summary.feeds if feed.outcome != "missing"}
        suspects = [e for e in expected if str(e.feed) not in seen]
    troubles: list[str] = []
    lacking = parallel_map(
        lambda e: _lacks(store, settings, day, e.feed, troubles), suspects, store.parallel_reads
    )
    fetched = {e.feed for e, lacks in zip(suspects, lacking, strict=True) if lacks}
    fetched |= {e.feed for e in expected if any(p.startswith(paths.ticks_prefix(e.feed, day)) for p in lost)}
    if refresh is not None:
        fetched |= {e.feed for e in expected if refresh.has(e.feed, [c for _, c in e.symbols])}
    absent = {feed.feed for feed in summary.feeds if feed.outcome == "missing"} if summary else set()
    asked_again = len(absent - {str(feed) for feed in fetched})
    files = [combination_of(e) for e in expected if e.feed in fetched]
    files += [
        wanted for wanted in universe if not record.knows(wanted.exchange, wanted.data_type, wanted.symbol)
    ]
    good = not (files or asked_again or unpublished or lost or held or record.awaiting_export)
    good = good and current and same
    if good and (trouble := documents.damage(store, paths.measures(day), DayMeasures)):
        troubles.append(trouble)
        good = False
    if good and summary is not None and not has_page(store, summary):
        troubles.append(f"{store.uri_of(paths.day_report(day))} is lost: {run_day(day)}")
        good = False
    waiting = [(f.feed, f.candidate) for f in found.feeds if f.candidate] if found else []
    failures = tuple(f"{day}: {reason}" for reason in record.why_awaited)
    failures += _failures(found, fetched) if found else ()
    return DayPlan(
        day,
        tuple(files),
        good=good,
        held=held,
        asked_again=asked_again,
        approvals=tuple(approve_command(day, str(feed), version.content) for feed, version in waiting),
        failures=failures,
        unreadable=tuple(sorted(troubles)),
    )


def _failures(found: Day, fetched: Collection[Feed]) -> tuple[str, ...]:
    lacking = [f for f in found.feeds if f.feed in fetched and f.judged is None]
    return tuple(f"{f.feed} of {found.day}: {reason}" for f in lacking for reason in f.verdict.reasons)


def _is_published(store: Store, summary: DaySummary, found: Day) -> bool:
    """Whether the counted versions are those of the day's own run, or of the ledger since then.

    For a day with dropped feeds, only the ledger tells whether their rows are gone.
    """
    is_same = summary.versions == found.settled.versions and not found.settled.dropped
    return is_same or not outdated_tables(store, found)


def combination_of(expected: ExpectedFeed) -> Combination:
    """Return the feed under the name that it keeps when the venue renames its symbol."""
    feed = expected.feed
    symbol = feed.dataset_symbol if feed.is_grouped else expected.symbols[0][1]
    return Combination(feed.exchange, feed.data_type, symbol)


def _lacks(store: Store, settings: Settings, day: str, feed: Feed, troubles: list[str]) -> bool:
    """Whether a run would fetch the file; a file that the vendor does not have brings no bytes."""
    try:
        manifest = load_manifest(store, feed, day)
    except Unreadable as failure:
        troubles.append(str(failure))
        return False
    if manifest.newest is None:
        return manifest.absent is None
    version = manifest.newest
    return _outdated(settings, feed.data_type, version.schema_version, version.profile_parameters)


def _outdated(settings: Settings, data_type: str, schema_version: int, profile_parameters: str) -> bool:
    from backfill_assets.ticks.fetch import SCHEMA_VERSION
    from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash

    wanted = profile_parameters_hash(ProfileParameters.of(settings.thresholds), data_type)
    return (schema_version, profile_parameters) != (SCHEMA_VERSION, wanted)
