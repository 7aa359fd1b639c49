"""Comparing two files of one feed's day: what the newer one changes, as a ``Restatement``.

A pure function over the tables of two files, given group of rows by group of rows, so that memory holds one
group of each, a row per minute and, of trades with numeric ids, the ids. Base candles are computed here with
polars and not taken from ``candles``, which lies downstream: equal files give equal minutes, and that is all
that is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backfill_assets.lake.evidence import Largest, Restatement

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

#: The columns that candles of trades are made of.
TRADE_COLUMNS: Final = ("dataset_symbol", "symbol", "timestamp", "id", "price", "amount")
PRICES: Final = ("open", "high", "low", "close")
#: Sums of the same amounts, added up in another order, differ by less.
ROUNDING: Final = 1e-9

_KEY: Final = ("symbol", "minute_us")
_FIRST: Final = ("first_us", "first_id", "first_row")
_LAST: Final = ("last_us", "last_id", "last_row")


@dataclass(frozen=True, slots=True)
class _Minutes:
    """One file: its rows, its minutes by market, and its ids by market where all are numeric."""

    rows: int
    minutes: pl.DataFrame
    ids: dict[str, NDArray[np.int64]] | None


def compare_trades(
    before: Iterable[pa.Table], after: Iterable[pa.Table], names: tuple[str, str], *, numeric_ids: bool
) -> Restatement:
    """What one file of trades changes against another.

    Parameters
    ----------
    before, after
        Groups of rows in the order of the file, with ``TRADE_COLUMNS``.
    names
        Contents of the two files.
    numeric_ids
        Whether every row of both files has an integer as its id.
    """
    import polars as pl

    old, new = _trades(before, numeric_ids=numeric_ids), _trades(after, numeric_ids=numeric_ids)
    both = old.minutes.join(new.minutes, on=list(_KEY), how="full", suffix="_after", coalesce=True)
    mean = pl.lit(old.minutes["volume"].mean() if old.minutes.height else 0.0, pl.Float64)
    volume, volume_after = pl.col("volume").fill_null(0.0), pl.col("volume_after").fill_null(0.0)
    moved = (volume_after - volume).abs()
    compared = both.select(
        *_KEY,
        price=pl.max_horizontal(
            (pl.col(f"{name}_after") - pl.col(name)).abs() / pl.col(name) for name in PRICES
        ),
        volume=pl.when(moved > ROUNDING * pl.max_horizontal(volume, volume_after))
        .then(moved / pl.max_horizontal(volume, mean, pl.lit(5e-324)))
        .otherwise(0.0),
        other_count=pl.col("trades").ne_missing(pl.col("trades_after")),
    )
    differs = (pl.col("price").fill_null(1.0) > 0) | (pl.col("volume") > 0) | pl.col("other_count")
    return Restatement(
        before=names[0],
        after=names[1],
        rows_before=old.rows,
        rows_after=new.rows,
        ids_added=_only_in(new.ids, old.ids),
        ids_removed=_only_in(old.ids, new.ids),
        minutes=compared.height,
        minutes_differing=compared.filter(differs).height,
        price=_largest(compared, "price"),
        volume=_largest(compared, "volume"),
    )


def compare_rows(
    before: Iterable[pa.Table], after: Iterable[pa.Table], names: tuple[str, str]
) -> Restatement:
    """The same for any other data type: minutes of arrival whose rows are not the same, in any order."""
    old, new = _rows(before), _rows(after)
    both = old.minutes.join(new.minutes, on=list(_KEY), how="full", suffix="_after", coalesce=True)
    same = [both[name].eq_missing(both[f"{name}_after"]) for name in ("rows", "low", "high")]
    return Restatement(
        before=names[0],
        after=names[1],
        rows_before=old.rows,
        rows_after=new.rows,
        minutes=both.height,
        minutes_differing=both.height - int((same[0] & same[1] & same[2]).sum()),
    )


def _trades(groups: Iterable[pa.Table], *, numeric_ids: bool) -> _Minutes:
    import polars as pl

    rows, partials, ids = 0, [], []
    for group in groups:
        frame = _plain(group).with_columns(symbol=pl.coalesce("symbol", "dataset_symbol"))
        id_ = pl.col("id").cast(pl.Int64) if numeric_ids else pl.lit(0, pl.Int64)
        frame = frame.with_columns(id=id_, row=pl.int_range(rows, rows + frame.height, dtype=pl.Int64))
        rows += group.num_rows
        ids.append(frame.select("symbol", "id").unique())
        partials.append(_minutes_of_trades(frame))
    if not partials:
        return _Minutes(0, _minutes_of_trades(_no_trades()), {} if numeric_ids else None)
    found = (
        {str(key[0]): part["id"].unique().to_numpy() for key, part in pl.concat(ids).group_by("symbol")}
        if numeric_ids
        else None
    )
    return _Minutes(rows, _merged(pl.concat(partials)), found)


def _no_trades() -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(
        schema={
            "symbol": pl.String,
            "timestamp": pl.Datetime("us", "UTC"),
            "id": pl.Int64,
            "price": pl.Float64,
            "amount": pl.Float64,
            "row": pl.Int64,
        }
    )


def _minutes_of_trades(frame: pl.DataFrame) -> pl.DataFrame:
    """Candles of the valid rows, with what is needed to put those of several groups together."""
    import polars as pl

    return (
        frame.filter((pl.col("price") > 0) & (pl.col("amount") > 0))
        .with_columns(
            time_us=pl.col("timestamp").dt.epoch("us"),
            minute_us=pl.col("timestamp").dt.truncate("1m").dt.epoch("us"),
        )
        .sort("time_us", "id", "row")
        .group_by(_KEY)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("amount").sum(),
            trades=pl.len().cast(pl.Int64),
            first_us=pl.col("time_us").first(),
            first_id=pl.col("id").first(),
            first_row=pl.col("row").first(),
            last_us=pl.col("time_us").last(),
            last_id=pl.col("id").last(),
            last_row=pl.col("row").last(),
        )
    )


def _merged(partials: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return partials.group_by(_KEY).agg(
        open=pl.col("open").sort_by(_FIRST).first(),
        high=pl.col("high").max(),
        low=pl.col("low").min(),
        close=pl.col("close").sort_by(_LAST).last(),
        volume=pl.col("volume").sum(),
        trades=pl.col("trades").sum(),
    )


def _rows(groups: Iterable[pa.Table]) -> _Minutes:
    """Per minute the rows and two sums of halves of their hashes, which no order of rows changes."""
    import polars as pl

    rows, partials = 0, []
    for group in groups:
        frame = _plain(group)
        rows += frame.height
        hashes = frame.hash_rows()
        partials.append(
            frame.select(
                symbol=pl.coalesce("symbol", "dataset_symbol"),
                minute_us=pl.col("local_timestamp").dt.truncate("1m").dt.epoch("us"),
                low=(hashes & 0xFFFFFFFF).cast(pl.Int64),
                high=(hashes // 2**32).cast(pl.Int64),
            )
            .group_by(_KEY)
            .agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("low", "high").sum())
        )
    none = {"symbol": pl.String, **dict.fromkeys(("minute_us", "rows", "low", "high"), pl.Int64)}
    together = pl.concat([pl.DataFrame(schema=none).select(*_KEY, "rows", "low", "high"), *partials])
    return _Minutes(rows, together.group_by(_KEY).agg(pl.col("rows", "low", "high").sum()), None)


def _plain(group: pa.Table) -> pl.DataFrame:
    """The rows with texts as texts, however the file encodes them."""
    import polars as pl
    from polars import selectors

    frame = pl.DataFrame(group)
    return frame.with_columns(selectors.categorical().cast(pl.String))


def _only_in(
    ids: dict[str, NDArray[np.int64]] | None, others: dict[str, NDArray[np.int64]] | None
) -> int | None:
    import numpy as np

    if ids is None or others is None:
        return None
    none = np.empty(0, np.int64)
    return sum(
        len(np.setdiff1d(own, others.get(symbol, none), assume_unique=True)) for symbol, own in ids.items()
    )


def _largest(compared: pl.DataFrame, name: str) -> Largest | None:
    """The largest difference, of equal ones the first by time and market; None if nothing differs."""
    import polars as pl

    found = compared.filter(pl.col(name) > 0).sort(
        name, "minute_us", "symbol", descending=[True, False, False]
    )
    if not found.height:
        return None
    row = found.row(0, named=True)
    return Largest(difference=row[name], symbol=row["symbol"], minute_us=row["minute_us"])
