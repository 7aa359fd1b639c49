"""What the candles of a day promise.

What fails only by a bug of ours stops the run. ``consistency`` is the day's score by the same comparisons;
``reference`` and ``venues`` hold candles against somebody else's, who may be wrong: they warn.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from backfill_assets.candles.comparison import across_venues, against_reference
from backfill_assets.candles.day import merged_candles
from backfill_assets.candles.measures import measure_day
from backfill_assets.candles.schemas import candle_schema, ohlc_schema
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.day import JudgedDay, judge
from backfill_assets.quality.pandera_checks import failure_cases, frame_check
from backfill_assets.quality.reference import reference_of
from backfill_assets.quality.verdict_schema import verdict_frame, verdict_schema

KEY = dg.AssetKey("candles")

ROW = ("exchange", "symbol", "timeframe", "open_time")

STOPPING = {
    "schema": "Columns and types are right, no key occurs twice, every open_time is aligned and of the day.",
    "ohlc": "low ≤ open, close ≤ high; vwap within low and high; volumes add up and are not negative.",
    "match_ticks": "Candles computed again from the ticks by another engine are the same.",
    "timeframes": "Every larger candle is the roll-up of its one-minute candles.",
}
SHOWN = {
    "consistency": "The day's consistency is above its threshold and every feed's candles agree.",
    "reference": "One-minute candles are the exchange's own, where the settings name a directory of them.",
    "venues": "The vwap of a minute is near that of the other venues of the pair.",
}


@daily_checks("candles", {**STOPPING, **SHOWN}, blocking=STOPPING)
def candles_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the day's merged candles, and the partials of its own files."""
    import polars as pl

    settings, store, day = lake.settings(), lake.store(), context.partition_key
    frame = pl.DataFrame(merged_candles(store, day, settings))
    yield frame_check(KEY, "schema", candle_schema(), frame, ROW)
    yield frame_check(KEY, "ohlc", ohlc_schema(), frame, ROW)
    agreement = measure_day(store, day, settings)
    yield _equality("match_ticks", agreement.against_ticks, f"{agreement.files} files")
    yield _equality(
        "timeframes", agreement.between_timeframes, f"{len(settings.candles.timeframes)} timeframes"
    )
    limits = settings.comparison
    yield _consistency(judge(store, day, settings.thresholds), settings.thresholds.day_consistency)
    reference = reference_of(limits)
    compared = against_reference(frame, day, reference, limits) if reference is not None else []
    yield _agreement("reference", compared, limits.agreement)
    yield _agreement("venues", across_venues(frame, limits.venue_vwap), limits.agreement)


def _equality(name: str, differing: Sequence[dict[str, Any]], compared: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not differing,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(differing)} buckets differ" if differing else f"{compared} agree",
        metadata={"mismatches": len(differing), "buckets": table_metadata(differing)},
    )


def _consistency(judged: JudgedDay, threshold: float) -> dg.AssetCheckResult:
    """ERROR where the day is not above the threshold, WARN where single feeds have a miss."""
    score = judged.scores.consistency
    compared = verdict_frame(judged).filter(accepted=True, data_type="trades")
    cases = failure_cases(verdict_schema("consistency"), compared)
    bad = {case["index"] for case in cases if case["index"] is not None}
    rows = [row for i, row in enumerate(compared.to_dicts()) if i in bad]
    enough = score is not None and score > threshold
    # Without an accepted feed of trades there is no candle to be wrong; that the feeds are not there is the
    # finding of the checks of ticks.
    vacuous = score is None and not compared.height
    shown = "no evidence" if score is None else f"{score:.6f}"
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name="consistency",
        passed=vacuous or (enough and not cases),
        severity=dg.AssetCheckSeverity.WARN if enough else dg.AssetCheckSeverity.ERROR,
        description=(
            f"consistency of the day: {shown} (threshold {threshold:g}); "
            f"{len(rows)} of {compared.height} feeds fall short"
        ),
        metadata={
            "score": dg.MetadataValue.float(score) if score is not None else dg.MetadataValue.null(),
            "threshold": threshold,
            "feeds_that_fall_short": table_metadata(rows),
        },
    )


def _agreement(name: str, markets: Sequence[dict[str, Any]], least: float) -> dg.AssetCheckResult:
    """Never more than a warning; with nothing to compare it passes and says so."""
    low = [row for row in markets if row["share"] < least]
    said = f"{len(low)} of {len(markets)} markets agree in less than {least:.0%} of their minutes"
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not low,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if markets else "nothing to compare with",
        metadata={"compared": len(markets), "markets": table_metadata(low or list(markets))},
    )
