"""What the candles of a day promise. All of these fail only by a bug of ours, so all of them stop the run."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from backfill_assets.candles.consistency import mismatches_between_timeframes
from backfill_assets.candles.day import accepted_files, merged_candles, mismatches
from backfill_assets.candles.schemas import candle_schema, ohlc_schema
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.pandera_checks import frame_check

KEY = dg.AssetKey("candles")

ROW = ("exchange", "symbol", "timeframe", "open_time")

PROMISES = {
    "schema": "Columns and types are right, no key occurs twice, every open_time is aligned and of the day.",
    "ohlc": "low ≤ open, close ≤ high; vwap within low and high; volumes add up and are not negative.",
    "match_ticks": "Candles computed again from the ticks by another engine are the same.",
    "timeframes": "Every larger candle is the roll-up of its one-minute candles.",
}


@daily_checks("candles", PROMISES, blocking=PROMISES)
def candles_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the day's merged candles, and the partials of its own files."""
    import polars as pl

    settings, store, day = lake.settings(), lake.store(), context.partition_key
    frame = pl.DataFrame(merged_candles(store, day, settings))
    yield frame_check(KEY, "schema", candle_schema(), frame, ROW)
    yield frame_check(KEY, "ohlc", ohlc_schema(), frame, ROW)
    files = accepted_files(store, day, settings)
    differing = [{"feed": str(file.feed), **row} for file in files for row in mismatches(store, file)]
    yield _equality("match_ticks", differing, f"{len(files)} files")
    between = mismatches_between_timeframes(frame, settings.candles.timeframes)
    yield _equality("timeframes", between, f"{len(settings.candles.timeframes)} timeframes")


def _equality(name: str, differing: Sequence[dict[str, Any]], compared: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not differing,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(differing)} buckets differ" if differing else f"{compared} agree",
        metadata={"mismatches": len(differing), "buckets": table_metadata(differing)},
    )
