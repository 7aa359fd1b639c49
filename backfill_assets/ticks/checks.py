"""What the ticks of a day promise: files that are what their manifests say, complete and sound.

``schema`` stops the run, because it fails only by a bug of ours. The scores gate inside publishing, which
asks the verdicts; here they are shown, with ERROR where a day score is not above its threshold.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from backfill_assets.lake.gather import gather
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.day import JudgedDay, JudgedFeed, judge
from backfill_assets.quality.pandera_checks import failure_cases, frame_check
from backfill_assets.quality.verdict_schema import verdict_frame, verdict_schema
from backfill_assets.settings import ThresholdSettings
from backfill_assets.ticks.schemas import profile_frame_schema, profile_row, profile_schema

KEY = dg.AssetKey("ticks")


@daily_checks(
    "ticks",
    {
        "schema": "Files have their data type's columns and the rows that manifest and profile count.",
        "completeness": "The day's completeness is above its threshold and no feed is missing or incomplete.",
        "quality": "The day's quality is above its threshold and no feed breaks a rule.",
    },
    blocking=("schema",),
)
def ticks_checks(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> Iterator[dg.AssetCheckResult]:
    """Judge the day's files as the lake has them."""
    import polars as pl

    settings, store, day = lake.settings(), lake.store(), context.partition_key
    judged = judge(store, day, settings.thresholds)

    def row(feed: JudgedFeed) -> dict[str, Any] | None:
        version = feed.manifest.current
        return None if version is None else profile_row(store, feed.feed, day, feed.manifest, version)

    rows = [found for found in gather(row, judged.feeds, store.parallel_reads) if found is not None]
    frame = pl.DataFrame(rows, schema=profile_frame_schema())
    yield frame_check(KEY, "schema", profile_schema(), frame, ("feed",))
    limits = settings.thresholds
    yield _score(judged, "completeness", judged.scores.completeness, limits.day_completeness, limits)
    yield _score(judged, "quality", judged.scores.quality, limits.day_quality, limits)


def _score(
    judged: JudgedDay, name: str, score: float | None, threshold: float, limits: ThresholdSettings
) -> dg.AssetCheckResult:
    """Passes if the day is above the threshold and every feed satisfies the verdict's schema."""
    frame = verdict_frame(judged)
    cases = failure_cases(verdict_schema(name, limits), frame)
    enough = score is not None and score > threshold
    bad = {case["index"] for case in cases if case["index"] is not None}
    rows = [row for i, row in enumerate(frame.to_dicts()) if i in bad]
    shown = "no evidence" if score is None else f"{score:.6f}"
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=enough and not cases,
        severity=dg.AssetCheckSeverity.WARN if enough else dg.AssetCheckSeverity.ERROR,
        description=(
            f"{name} of the day: {shown} (threshold {threshold:g}); "
            f"{len(rows)} of {frame.height} feeds fall short"
        ),
        metadata={
            "score": dg.MetadataValue.float(score) if score is not None else dg.MetadataValue.null(),
            "threshold": threshold,
            "day_state": judged.scores.state,
            "feeds_that_fall_short": table_metadata(rows),
        },
    )
