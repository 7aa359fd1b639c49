"""Small frames of one-minute candles, ours and a source's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from backfill_assets.references.compare import compare_market
from backfill_assets.references.conventions import Convention
from backfill_assets.settings import ComparisonSettings

DAY = "2024-01-02"
#: Minute of the day, open, high, low, close, volume.
Row = tuple[int, float, float, float, float, float]
#: Minute 2 was not traded, and no candle opens at the close before it.
OURS: Sequence[Row] = (
    (0, 100.0, 102.0, 99.0, 101.0, 1.0),
    (1, 100.5, 103.0, 100.0, 102.5, 2.0),
    (3, 104.0, 105.0, 103.0, 104.5, 4.0),
    (4, 104.4, 104.6, 104.0, 104.2, 1.5),
)


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    midnight = datetime.fromisoformat(DAY).replace(tzinfo=UTC)
    names = ("open", "high", "low", "close", "volume")
    times = pl.Series([midnight + timedelta(minutes=row[0]) for row in rows], dtype=pl.Datetime("us", "UTC"))
    values = {name: [float(row[n + 1]) for row in rows] for n, name in enumerate(names)}
    return pl.DataFrame({"open_time": times, **values})


def compared(theirs: Sequence[Row], convention: Convention, **more: Any) -> dict[str, Any]:
    """``OURS`` beside these candles."""
    ours = frame(OURS).with_columns(trade_count=pl.lit(3, pl.Int64))
    return compare_market(ours, frame(theirs), convention, ComparisonSettings(), **more)


def changed(rows: Sequence[Row], minute: int, **values: float) -> list[Row]:
    """The rows with other values in one of them."""
    names = ("open", "high", "low", "close", "volume")
    return [
        (row[0], *(values.get(name, row[n + 1]) for n, name in enumerate(names)))  # type: ignore[misc]
        if row[0] == minute
        else row
        for row in rows
    ]
