"""Asset checks of a day's candles.

A check that only a bug of this project can fail stops the run. ``consistency`` is the day's score from the
same comparisons. The others compare candles with other markets and hours, which may be wrong or volatile, so
they only warn.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from backfill_assets.candles.comparison import agrees
from backfill_assets.candles.findings import findings_of
from backfill_assets.candles.query import made_day
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.pandera_checks import finding_check, score_check
from backfill_assets.quality.settled import day_of
from backfill_assets.quality.verdict_schema import candle_rows
from backfill_assets.settings import ComparisonSettings

KEY = dg.AssetKey("candles")

STOPPING = {
    "schema": "Columns and types are right, no key occurs twice, every open_time is aligned and of the day.",
    "ohlc": "low ≤ open, close ≤ high; vwap within low and high; volumes add up, or are all null.",
    "match_ticks": "Candles computed again from the ticks by another engine are the same.",
    "timeframes": "Every larger candle is the roll-up of its one-minute candles.",
}
SHOWN = {
    "consistency": "The day's consistency is above its threshold and every feed's candles agree.",
    "venues": "The vwap of a minute is near that of the other venues of the pair.",
    "symbols": "The vwap of a minute is near what crossing pairs imply; a perpetual's near spot and index.",
    "volumes": "No hour of a market has a volume far beyond its usual hour.",
}


@daily_checks("candles", {**STOPPING, **SHOWN}, blocking=STOPPING)
def candles_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Report the findings and measurements stored when the day's candles were made."""
    settings, store, day = lake.settings(), lake.store(), context.partition_key
    settled, measures = made_day(store, day)
    findings = findings_of(store, settled, measures, settings)
    for name in ("schema", "ohlc"):
        yield finding_check(KEY, name, findings[f"candles:{name}"])
    against = [{"feed": feed, **row} for feed, file in measures.files.items() for row in file.mismatches]
    yield _equality("match_ticks", against, f"{len(measures.files)} files")
    yield _equality(
        "timeframes", measures.between_timeframes, f"{len(settings.candles.timeframes)} timeframes"
    )
    found = day_of(settled, measures)
    # Without an accepted feed of trades there is no candle to judge; the checks of ticks report the missing
    # feeds.
    of_candles = candle_rows(found), findings["candles:consistency"]
    yield score_check(KEY, "consistency", found, *of_candles, needs_feeds=False)
    limits = settings.comparison
    yield _agreement("venues", measures.venues, limits)
    yield _agreement("symbols", measures.symbols, limits)
    yield _volumes(measures.volumes, settings.comparison.volume_multiple)


def _equality(name: str, differing: Sequence[dict[str, Any]], compared: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not differing,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(differing)} buckets differ" if differing else f"{compared} agree",
        metadata={"mismatches": len(differing), "buckets": table_metadata(differing)},
    )


def _volumes(hours: Sequence[dict[str, Any]], multiple: float) -> dg.AssetCheckResult:
    said = f"{len(hours)} hours have more than {multiple:g} times the volume of the market's median hour"
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name="volumes",
        passed=not hours,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if hours else f"no hour has more than {multiple:g} times the usual volume",
        metadata={"hours": table_metadata(hours)},
    )


def _agreement(
    name: str, markets: Sequence[dict[str, Any]], limits: ComparisonSettings
) -> dg.AssetCheckResult:
    """Report at most a warning; with nothing to compare, pass and say so."""
    low = [row for row in markets if not agrees(row, limits)]
    said = (
        f"{len(low)} of {len(markets)} markets agree in less than {limits.agreement:.0%} of their minutes, "
        f"or differ in more than {limits.differing_run} in a row"
    )
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not low,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if markets else "nothing to compare with",
        metadata={"compared": len(markets), "markets": table_metadata(low or list(markets))},
    )
