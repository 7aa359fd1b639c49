"""What the ticks of a day promise: files that are what their manifests say, complete and sound.

``schema`` stops the run, because it fails only by a bug of ours. The scores gate inside publishing, which
asks the verdicts; here they are shown, with ERROR where a day score is not above its threshold.
"""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.lake.manifests import load_day_record, load_manifests
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.findings import failure_cases, look_at
from backfill_assets.quality.pandera_checks import finding_check
from backfill_assets.quality.settled import Day, load_day
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
    """Hold the newest files against their manifests, and tell the scores of the settled day."""
    import polars as pl

    settings, store, day = lake.settings(), lake.store(), context.partition_key
    found = load_day(store, day)
    record = load_day_record(store, day)
    newest = {
        feed: manifest.newest
        for feed, manifest in (load_manifests(store, record) if record else {}).items()
        if manifest.newest is not None
    }
    rows = parallel_map(
        lambda one: profile_row(store, one[0], day, one[1]), newest.items(), store.parallel_reads
    )
    frame = pl.DataFrame(rows, schema=profile_frame_schema())
    yield finding_check(KEY, "schema", look_at(profile_schema(), frame, ("feed",)))
    if found is None:
        msg = f"nothing is settled of {day}: materialize its ticks first"
        raise dg.Failure(description=msg, allow_retries=False)
    scores, limits = found.scores, found.settled.limits
    for name, score, threshold in (
        ("completeness", scores.completeness, limits.day_completeness),
        ("quality", scores.quality, limits.day_quality),
    ):
        yield _score(found, name, score, threshold, settings.thresholds)


def _score(
    found: Day, name: str, score: float | None, threshold: float, limits: ThresholdSettings
) -> dg.AssetCheckResult:
    """Passes if the day is above the threshold and every feed satisfies the verdict's schema."""
    frame = verdict_frame(found)
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
            "day_state": found.scores.state,
            "feeds_that_fall_short": table_metadata(rows),
        },
    )
