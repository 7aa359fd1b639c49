"""The node ``ticks``: every expected feed of the day as one Parquet file with its profile and its verdict."""

from collections.abc import Mapping

import dagster as dg
from pydantic import Field

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import (
    OWNERS,
    STEP_RETRIES,
    failures_as_dagster,
    live_progress_writer,
    refresh_of,
    table_metadata,
)
from backfill_assets.partitions import daily
from backfill_assets.quality.day import JudgedDay, judge_with_neighbours
from backfill_assets.tardis.resource import TardisResource
from backfill_assets.ticks.fetch import FeedOutcome, FetchReport, expected_feeds, fetch_day
from backfill_assets.ticks.live import LiveProgress
from backfill_assets.ticks.restated import compare_versions
from backfill_assets.ticks.witnesses import ask_witnesses


class TicksConfig(dg.Config):
    """What to fetch although the lake has it."""

    #: Fetch again every feed, or only those named in ``feeds``.
    refresh: bool = False
    #: ``exchange/data_type/SYMBOL`` each; empty means all expected feeds.
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
    """One Parquet file per feed."""
    day = context.partition_key
    live = LiveProgress(live_progress_writer(context))

    def progress(outcome: FeedOutcome, done: int, total: int) -> None:
        context.log.info("%s %d/%d %s %s %s", day, done, total, outcome.feed, outcome.state, outcome.reason)
        live(outcome, done, total)

    with failures_as_dagster():
        settings, store = lake.settings(), lake.store()
        refresh = _refresh(config, context.run.tags, expected_feeds(store, day))
        report = fetch_day(store, tardis.client(), day, settings, refresh=refresh, progress=progress)
        ask_witnesses(store, day, settings)
        compare_versions(store, day)
        judged = judge_with_neighbours(store, day, settings.thresholds)
        _insist(report, day, last_try=context.retry_number >= STEP_RETRIES)
    return dg.MaterializeResult(
        metadata={**_metadata(report, judged), "lake": dg.MetadataValue.path(store.uri)}
    )


def _refresh(
    config: TicksConfig, tags: Mapping[str, str], expected: Mapping[Feed, Mapping[str, str]]
) -> list[Feed]:
    """The feeds to fetch again: those of the configuration, and those that the run's tags choose."""
    choice = refresh_of(tags)
    chosen = [feed for feed, symbols in expected.items() if choice and choice.has(feed, symbols.values())]
    return list(dict.fromkeys([*_configured(config, list(expected)), *chosen]))


def _configured(config: TicksConfig, expected: list[Feed]) -> list[Feed]:
    known = {str(feed): feed for feed in expected}
    unknown = sorted(set(config.feeds) - known.keys())
    if unknown:
        msg = f"{unknown[0]} is no feed of this day: choose from {', '.join(sorted(known))}"
        raise PermanentFailure(msg)
    if not config.refresh:
        return []
    return [known[name] for name in config.feeds] or expected


def _insist(report: FetchReport, day: str, *, last_try: bool) -> None:
    """Ask for another try while feeds have failed for a passing reason; at last go on without them.

    The day is then judged without these feeds (degraded, or held if they are too many), and the schedule asks
    for it again.
    """
    failed = report.of("failed")
    if failed and not (last_try and len(failed) < len(report.outcomes)):
        count = f"{len(failed)} of {len(report.outcomes)} feeds"
        msg = f"{count} of {day} were not fetched; {failed[0].feed}: {failed[0].reason}"
        raise TransientFailure(msg)


def _metadata(report: FetchReport, judged: JudgedDay) -> dict[str, dg.MetadataValue | int | float | str]:
    states = ("fetched", "kept", "absent", "rejected", "failed")
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
                for feed in judged.feeds
            ]
        ),
    }
