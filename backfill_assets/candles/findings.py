"""Findings of the schemas in a day's candles and coverage, made when the files are made.

The day's document keeps the findings with the files. If it has none, because the files were not written by
``build``, the checks examine the files themselves.
"""

from __future__ import annotations

import pyarrow as pa

from backfill_assets.candles.coverage import coverage_findings
from backfill_assets.candles.query import read_made
from backfill_assets.candles.schemas import CANDLE_KEY, candle_schema, ohlc_schema
from backfill_assets.lake.store import Store
from backfill_assets.quality.findings import Finding, look_at
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.settled import SettledDay, day_of
from backfill_assets.quality.verdict_schema import candle_rows, score_finding
from backfill_assets.settings import Settings


def look_at_day(
    candles: pa.Table, coverage: pa.Table, settled: SettledDay, measures: DayMeasures, settings: Settings
) -> dict[str, Finding]:
    """Return findings by ``candles:CHECK`` and ``coverage:CHECK``."""
    import polars as pl

    frame, rows = pl.DataFrame(candles), candle_rows(day_of(settled, measures))
    return {
        "candles:schema": look_at(candle_schema(), frame, CANDLE_KEY),
        "candles:ohlc": look_at(ohlc_schema(), frame, CANDLE_KEY),
        "candles:consistency": score_finding("consistency", rows, settings.thresholds),
        **coverage_findings(pl.DataFrame(coverage), frame, settled, settings.candles.timeframes),
    }


def findings_of(
    store: Store, settled: SettledDay, measures: DayMeasures, settings: Settings
) -> dict[str, Finding]:
    """Return the findings that the day's document keeps; if it has none, examine its files now."""
    if measures.findings is not None:
        return measures.findings
    candles, coverage = (read_made(store, settled.day, table) for table in ("candles", "coverage"))
    return look_at_day(candles, coverage, settled, measures, settings)
