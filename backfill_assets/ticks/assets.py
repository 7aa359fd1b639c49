"""The node ``ticks``: every expected feed of the day as one Parquet file with its profile and its verdict."""

from collections.abc import Mapping

import dagster as dg
from pydantic import Field

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import DayRecord
from backfill_assets.lake.resource import LakeResource
from backfill_assets.logs import bound
from backfill_assets.orchestration import (
    LONGEST_STEP_WAIT_SECONDS,
    OWNERS,
    STEP_RETRIES,
    STEP_RETRY_SECONDS,
    failures_as_dagster,
    live_progress_writer,
    refresh_of,
    table_metadata,
)
from backfill_assets.partitions import daily
from backfill_assets.quality.beside_trades import compare_with_trades
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledDay
from backfill_assets.quality.witnesses import ask_witnesses
from backfill_assets.tardis.resource import TardisResource
from backfill_assets.ticks.fetch import FeedOutcome, FetchReport, fetch_day, recorded_day
from backfill_assets.ticks.fetch_progress import FetchProgress
from backfill_assets.ticks.healed import with_recovered_rows
from backfill_assets.ticks.restatements import compare_versions


class TicksConfig(dg.Config):
    """Feeds to fetch again although the lake has them."""

    #: Fetch every feed again, or only those named in ``feeds``.
    refresh: bool = False
    #: Each as ``exchange/data_type/SYMBOL``; empty: all expected feeds.
    feeds: list[str] = Field(default_factory=list)


@dg.asset(
    deps=["instruments"],
    partitions_def=daily,
    group_name="tardis",
    owners=OWNERS,
    kinds={"parquet"},
    pool="tardis",
    description=(
        "Tick files of the day, one Parquet file and one manifest per feed. Finished feeds are kept; "
        "only what is missing is fetched, unless a refresh is asked for."
    ),
)
def ticks(
    context: dg.AssetExecutionContext, config: TicksConfig, lake: LakeResource, tardis: TardisResource
) -> dg.MaterializeResult[None]:
    """Store one Parquet file per feed."""
    day = context.partition_key
    fetch_progress = FetchProgress(live_progress_writer(context))

    def progress(outcome: FeedOutcome, done: int, total: int) -> None:
        # Each line is an event in Dagster's database; the live progress names the feeds that are stored.
        if outcome.state not in ("fetched", "kept"):
            with bound(feed=str(outcome.feed)):
                context.log.warning("%s %s %s: %s", day, outcome.feed, outcome.state, outcome.reason)
        fetch_progress(outcome, done, total)

    with failures_as_dagster():
        settings, store = lake.settings(), lake.store()
        record = recorded_day(store, day)
        refresh = _refresh(config, context.run.tags, record)
        report = fetch_day(store, tardis.client(), record, settings, refresh=refresh, progress=progress)
        context.log.info("%s: %s", day, report.summary)
        manifests = with_recovered_rows(store, record, report.manifests, settings)
        ask_witnesses(store, record, manifests, settings)
        compare_with_trades(store, record, manifests, settings)
        compare_versions(store, manifests, settings.thresholds.id_laws)
        settled = settle(store, day, settings.thresholds)
        _insist(report, day, last_try=context.retry_number >= STEP_RETRIES)
    return dg.MaterializeResult(
        metadata={**_metadata(report, settled), "lake": dg.MetadataValue.path(store.uri)}
    )


def _refresh(config: TicksConfig, tags: Mapping[str, str], record: DayRecord) -> list[Feed]:
    """The feeds to fetch again: those of the configuration, and those that the run's tags choose."""
    choice, expected = refresh_of(tags), record.expected_feeds
    chosen = [e.feed for e in expected if choice and choice.has(e.feed, [name for _, name in e.symbols])]
    return list(dict.fromkeys([*_configured(config, [e.feed for e in expected]), *chosen]))


def _configured(config: TicksConfig, expected: list[Feed]) -> list[Feed]:
    known = {str(feed): feed for feed in expected}
    unknown = sorted(set(config.feeds) - known.keys())
    if unknown:
        msg = f"{unknown[0]} is not a feed of this day: choose from {', '.join(sorted(known))}"
        raise PermanentFailure(msg)
    if not config.refresh:
        return []
    return [known[name] for name in config.feeds] or expected


def _insist(report: FetchReport, day: str, *, last_try: bool) -> None:
    """Ask for another try while feeds have failed for a passing reason; on the last try, go on without them.

    The day is then judged without these feeds (degraded, or held if they are too many), and the schedule asks
    for it again. Feeds that must wait longer than a step may are skipped at once. The step fails only if all
    feeds have failed: nothing else shows that a key is refused everywhere.
    """
    failed = report.of("failed")
    passing = [o for o in failed if o.is_passing and o.wait_seconds <= LONGEST_STEP_WAIT_SECONDS]
    nothing_else = len(failed) == len(report.outcomes)
    if not failed or (not nothing_else and (last_try or not passing)):
        return
    first = passing[0] if passing else failed[0]
    count = f"{len(failed)} of {len(report.outcomes)} feeds"
    msg = f"{count} of {day} were not fetched; {first.feed}: {first.reason}"
    if not passing:
        raise PermanentFailure(msg)
    wait = max(outcome.wait_seconds for outcome in passing)
    raise TransientFailure(msg, retry_after_seconds=wait if wait > STEP_RETRY_SECONDS else None)


def _metadata(report: FetchReport, settled: SettledDay) -> dict[str, dg.MetadataValue | int | float | str]:
    states = ("fetched", "kept", "absent", "rejected", "failed", "unreadable")
    return {
        "dagster/row_count": sum(outcome.rows for outcome in report.outcomes),
        "raw_bytes": sum(outcome.raw_bytes for outcome in report.outcomes),
        "fetched_bytes": sum(outcome.raw_bytes for outcome in report.of("fetched")),
        **{f"feeds_{state}": len(report.of(state)) for state in states},
        "feeds": table_metadata(
            [
                {
                    "feed": str(feed.feed),
                    "rows": feed.verdict.rows,
                    "completeness": feed.verdict.completeness,
                    "state": feed.verdict.completeness_state,
                    "verdict": feed.verdict.outcome,
                    "reasons": "; ".join(feed.verdict.reasons),
                    "approval": feed.approval.reason if feed.approval else "",
                    "restatement": feed.restatement_summary or "",
                }
                for feed in settled.feeds
            ]
        ),
    }
