"""Computes candles a second time, without the kernels, and compares them with the first.

K1: trades to base candles. K2: base candles to every larger timeframe. Prices and counts must be equal, and
float sums equal within ``SUM_TOLERANCE``; every differing bucket is named. The code shares nothing with the
kernels on purpose, because one bug could hide in both. So numpy adds up the trades (``recomputed``), and
polars the candles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from backfill_assets.candles.recomputed import ComparedFile, candles_again
from backfill_assets.candles.schemas import SUM_TOLERANCE
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES
from backfill_assets.ticks.partials import seam_window
from backfill_assets.ticks.schemas import PRICES, SUMS

if TYPE_CHECKING:
    import polars as pl

_EXACT: Final = (*PRICES, "trade_count", "first_trade_time", "last_trade_time")
#: Most mismatches returned for a file or timeframe; one is enough to stop a day.
LIMIT: Final = 50


def mismatches_with_ticks(
    files: Sequence[ComparedFile], *, day: str, seam_window_seconds: int
) -> list[list[dict[str, Any]]]:
    """K1: for each file, the base candles that differ from those computed again from its trades.

    Memory use is one batch of rows, and one row per symbol and minute of each batch.
    """
    import polars as pl

    # One frame for all files: making one costs more than the candles of a file.
    numbers = np.repeat(np.arange(len(files), dtype=np.int32), [one.partials.num_rows for one in files])
    partials = pa.concat_tables([one.partials for one in files]).combine_chunks()
    stored = pl.LazyFrame(partials.append_column("file", pa.array(numbers))).with_columns(
        (pl.col(name) + pl.col(f"{name}_error")).alias(name) for name in SUMS
    )
    again = candles_again(files, *seam_window(day, seam_window_seconds)).lazy()
    found: list[list[dict[str, Any]]] = [[] for _ in files]
    # One query for all files: a query costs more than the candles of a file.
    differing = _differences(stored, again, ("file", "symbol", "open_time"))
    for row in differing.group_by("file", maintain_order=True).head(LIMIT).collect().iter_rows(named=True):
        found[row.pop("file")].append(row)
    return found


def mismatches_between_timeframes(candles: pl.DataFrame, timeframes: Sequence[str]) -> list[dict[str, Any]]:
    """K2: candles of larger timeframes that differ from the roll-up of the base candles."""
    import polars as pl

    key = ("exchange", "symbol", "open_time")
    base = candles.lazy().filter(pl.col("timeframe") == BASE_TIMEFRAME)
    found: list[dict[str, Any]] = []
    for name in timeframes:
        if name == BASE_TIMEFRAME:
            continue
        again = (
            base.sort("open_time")
            .with_columns(pl.col("open_time").dt.truncate(f"{TIMEFRAMES[name]}s"))
            .group_by(key, maintain_order=True)
            .agg(
                pl.col("open").first(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("close").last(),
                pl.col("trade_count").sum(),
                pl.col("first_trade_time").min(),
                pl.col("last_trade_time").max(),
                *(pl.when(~pl.col(name).has_nulls()).then(pl.col(name).sum()) for name in SUMS),
            )
        )
        stored = candles.lazy().filter(pl.col("timeframe") == name)
        differing = _differences(stored, again, key).head(LIMIT).collect()
        found += [{"timeframe": name, **row} for row in differing.iter_rows(named=True)]
    return found[:LIMIT]


def _differences(stored: pl.LazyFrame, again: pl.LazyFrame, key: Sequence[str]) -> pl.LazyFrame:
    """Rows by key that are on one side only or differ; each names the differing columns."""
    import polars as pl

    both = stored.select(*key, *_EXACT, *SUMS).join(
        again.select(*key, *_EXACT, *SUMS), on=list(key), how="full", suffix="_again", coalesce=True
    )
    differs = {name: ~pl.col(name).eq_missing(pl.col(f"{name}_again")) for name in _EXACT}
    for name in SUMS:
        apart = (pl.col(name) - pl.col(f"{name}_again")).abs()
        limit = SUM_TOLERANCE * pl.max_horizontal(pl.col(name).abs(), pl.col(f"{name}_again").abs())
        # NaN and infinity equal themselves; they are the sum of no trades. A null on one side is a
        # difference; nulls on both sides are unknown volumes.
        known = pl.col(name).is_not_null() | pl.col(f"{name}_again").is_not_null()
        differs[name] = known & ((apart > limit) | ~apart.is_finite()).fill_null(value=True)
    named = both.with_columns(
        pl.concat_str(
            [pl.when(rule).then(pl.lit(name)) for name, rule in differs.items()],
            separator=" ",
            ignore_nulls=True,
        ).alias("differs")
    ).filter(pl.col("differs") != "")
    return named.sort(list(key)).select(*key, "differs")
