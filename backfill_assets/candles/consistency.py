"""Candles computed a second time, by another engine, and held against the first.

K1: trades to base candles. K2: base candles to every larger timeframe. Prices and counts must be equal,
float sums equal within ``SUM_TOLERANCE``; every bucket that is not is named. Written in polars on purpose:
sharing code with ``kernels`` would let one bug hide in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.candles.schemas import SUM_TOLERANCE
from backfill_assets.contracts import Contracts
from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES
from backfill_assets.ticks.partials import seam_window
from backfill_assets.ticks.repeats import Range
from backfill_assets.ticks.schemas import PRICES, SUMS

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_EXACT: Final = (*PRICES, "trade_count", "first_trade_time", "last_trade_time")
#: Rows that are equal in these are one trade, if they have an id.
_TRADE: Final = ("dataset_symbol", "id", "timestamp", "side", "price", "amount")
#: Mismatches of a file or timeframe returned at most; one is enough to stop a day.
LIMIT: Final = 50
#: Behind the time of every trade.
_NEVER: Final = 1 << 62
#: Bits of a row's number and of an id beside 26 of a minute's microseconds: 63 without and 127 with an id.
_ROW_BITS: Final = 37
_ID_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """Ticks of one feed, the partials that were made of them, and what these depend on besides."""

    ticks: Path
    #: ``PARTIAL_SCHEMA``.
    partials: pa.Table
    #: Whether every id is an integer, and ids are an order.
    numeric_ids: bool
    contracts: Mapping[str, Contracts] = field(default_factory=dict)
    #: Whether rows may repeat a trade of the file.
    repeats: bool = False
    #: The ticks of the day before that may hold trades of this file; and the first and last microsecond that
    #: both have rows of.
    before: tuple[tuple[Path, Range], ...] = ()
    #: Data set symbols whose rows do not count.
    left_out: tuple[str, ...] = ()


def mismatches_with_ticks(
    files: Sequence[ComparedFile], *, day: str, seam_window_seconds: int
) -> list[list[dict[str, Any]]]:
    """K1: for each file the base candles that differ from those computed again from its trades.

    One query compares all files, since a query costs more than the rows of a small file.
    """
    import polars as pl

    stored = pl.concat(
        pl.LazyFrame(one.partials).with_columns(file=pl.lit(number, pl.Int32))
        for number, one in enumerate(files)
    ).with_columns((pl.col(name) + pl.col(f"{name}_error")).alias(name) for name in SUMS)
    again = _candles_again(_trades(files, *seam_window(day, seam_window_seconds)), _order(files))
    found: list[list[dict[str, Any]]] = [[] for _ in files]
    differing = _differences(stored, again, ("file", "symbol", "open_time"))
    for row in (
        differing.group_by("file", maintain_order=True)
        .head(LIMIT)
        .collect(engine="streaming")
        .iter_rows(named=True)
    ):
        found[row.pop("file")].append(row)
    return found


def _trades(files: Sequence[ComparedFile], first_us: int, beyond_us: int) -> pl.LazyFrame:
    """The valid trades of the files that their partials count, each with the number of its file."""
    import polars as pl

    schema = {
        "file": pl.Int32,
        "symbol": pl.String,
        "multiplier": pl.Float64,
        "inverse": pl.Boolean,
        "since_us": pl.Int64,
        "until_us": pl.Int64,
    }
    rows = pl.scan_parquet(
        [one.ticks for one in files],
        glob=False,
        hive_partitioning=False,
        extra_columns="ignore",
        include_file_paths="path",
    )
    numeric_ids = [one.numeric_ids for one in files]
    if files[1:]:
        paths, numbers = [str(one.ticks) for one in files], pl.Series(range(len(files)), dtype=pl.Int32)
        named = pl.LazyFrame({"path": paths, "file": numbers, "numeric_ids": numeric_ids})
        rows = rows.join(named, on="path", maintain_order="left")
    else:
        rows = rows.with_columns(file=pl.lit(0, pl.Int32), numeric_ids=pl.lit(numeric_ids[0]))
    units = [
        (number, symbol, contract.multiplier, contract.inverse, contract.since_us, until_us)
        for number, one in enumerate(files)
        for symbol, of_symbol in one.contracts.items()
        for contract, until_us in zip(
            of_symbol, [*(following.since_us for following in of_symbol[1:]), _NEVER], strict=True
        )
    ]
    base = pl.col("amount")
    if units:
        contracts = pl.LazyFrame(units, schema=schema, orient="row")
        rows = rows.join(contracts, on=["file", "symbol"], how="left", maintain_order="left")
        time_us = pl.col("timestamp").dt.epoch("us")
        rows = rows.filter(
            pl.col("until_us").is_null() | time_us.is_between("since_us", "until_us", closed="left")
        )
        scaled = base * pl.col("multiplier")
        scaled = pl.when("inverse").then(scaled / pl.col("price")).otherwise(scaled)
        base = pl.when(pl.col("inverse").is_null()).then(base).otherwise(scaled)
    rows = _once(
        rows.filter(
            pl.col("symbol").is_not_null(),
            pl.col("price").is_between(*SANE_PRICE),
            pl.col("amount").is_between(*SANE_AMOUNT),
            pl.col("timestamp").dt.epoch("us").is_between(first_us, beyond_us, closed="left"),
        ),
        files,
    )
    return rows.select(
        "file",
        "symbol",
        "timestamp",
        "side",
        "price",
        "row",
        base=base,
        trade_id=pl.when("numeric_ids").then(pl.col("id").cast(pl.Int64, strict=False)).otherwise(-1),
        open_time=pl.col("timestamp").dt.truncate("1m"),
    )


def _once(rows: pl.LazyFrame, files: Sequence[ComparedFile]) -> pl.LazyFrame:
    """Each trade once: of rows with one id and payload the first, and none that the day before has, too."""
    import polars as pl

    trade = ["file", *_TRADE]
    has_id = pl.col("id").is_not_null() & (pl.col("id") != "")
    repeating = [number for number, one in enumerate(files) if one.repeats]
    if repeating:
        found = has_id & pl.col("file").is_in(repeating)
        first = rows.filter(found).sort("row").unique(trade, keep="first")
        rows = pl.concat([rows.filter(~found), first.select(pl.all())])
    for number, one in enumerate(files):
        if one.left_out:
            is_out = (pl.col("file") == number) & pl.col("dataset_symbol").is_in(one.left_out)
            rows = rows.filter(~is_out.fill_null(value=False))
        for path, (first_us, last_us) in one.before:
            known = pl.scan_parquet(path, glob=False, hive_partitioning=False).filter(
                has_id, pl.col("timestamp").dt.epoch("us").is_between(first_us, last_us)
            )
            known = known.select(*_TRADE, file=pl.lit(number, pl.Int32))
            rows = rows.join(known, on=trade, how="anti", nulls_equal=True)
    return rows


def _order(files: Sequence[ComparedFile]) -> pl.Expr:
    """An integer by which the trades of a minute are in order: by time, by id where that is an order, by row.

    A query that keeps the first and the last by an integer needs no sort, and so holds no file in memory.
    """
    import polars as pl

    order = pl.col("timestamp").dt.epoch("us") - pl.col("open_time").dt.epoch("us")
    if any(one.numeric_ids for one in files):
        order = order.cast(pl.Int128) * (1 << _ID_BITS) + pl.col("trade_id") + (1 << _ID_BITS - 1)
    return order * (1 << _ROW_BITS) + pl.col("row")


def _candles_again(trades: pl.LazyFrame, order: pl.Expr) -> pl.LazyFrame:
    import polars as pl

    def of_side(name: str) -> pl.Expr:
        return pl.when(pl.col("side") == name).then("base").otherwise(0.0).sum()

    return (
        trades.with_columns(order=order)
        .group_by("file", "symbol", "open_time")
        .agg(
            pl.col("price").min_by("order").alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").max_by("order").alias("close"),
            pl.len().cast(pl.Int64).alias("trade_count"),
            pl.col("timestamp").min().alias("first_trade_time"),
            pl.col("timestamp").max().alias("last_trade_time"),
            pl.col("base").sum().alias("volume"),
            (pl.col("base") * pl.col("price")).sum().alias("quote_volume"),
            of_side("buy").alias("buy_volume"),
            of_side("sell").alias("sell_volume"),
            pl.col("base").has_nulls().alias("is_unknown"),
        )
        .with_columns(pl.when(~pl.col("is_unknown")).then(pl.col(name)).alias(name) for name in SUMS)
    )


def mismatches_between_timeframes(candles: pl.DataFrame, timeframes: Sequence[str]) -> list[dict[str, Any]]:
    """K2: candles of larger timeframes that are not the roll-up of the base candles; empty if none."""
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
    """Rows by key that are on one side only or differ; each names the columns in question."""
    import polars as pl

    both = stored.select(*key, *_EXACT, *SUMS).join(
        again.select(*key, *_EXACT, *SUMS), on=list(key), how="full", suffix="_again", coalesce=True
    )
    differs = {name: ~pl.col(name).eq_missing(pl.col(f"{name}_again")) for name in _EXACT}
    for name in SUMS:
        apart = (pl.col(name) - pl.col(f"{name}_again")).abs()
        limit = SUM_TOLERANCE * pl.max_horizontal(pl.col(name).abs(), pl.col(f"{name}_again").abs())
        # NaN and infinity compare as equal to themselves, and are the sum of no trades.
        # One side that is null differs; both are where volumes are unknown.
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
