"""Columns of the candle and the coverage table, and the rules for their rows.

Units: prices in ``quote_unit``, volumes in ``volume_unit``, times in UTC with microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backfill_assets.columns import Column, arrow_schema
from backfill_assets.contracts import CONTRACTS
from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.quality.bucket_states import STATES, WITH_CANDLE
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.ticks.schemas import PRICE_COLUMNS, SUMS, TIME_COLUMNS

if TYPE_CHECKING:
    import pandera.polars as pa_polars
    import polars as pl

#: Float sums of the same trades in another order differ by less than this, relatively (measured: 1e-11).
SUM_TOLERANCE: Final = 1e-9

CANDLE_COLUMNS: Final = (
    Column("date", "DATE", "UTC day of open_time.", required=True),
    Column("exchange", "STRING", "Exchange id of the vendor.", required=True),
    Column(
        "symbol", "STRING", "Market, as in instruments: BTC-USDT, BTC-USDT-PERP, BTC-28JUN24.", required=True
    ),
    Column("timeframe", "STRING", "Length of the bucket: 1m, 5m, 15m, 1h, 4h, 1d, ...", required=True),
    Column("open_time", "TIMESTAMP", "Start of the bucket, inclusive, aligned to UTC.", required=True),
    *PRICE_COLUMNS,
    Column("volume", "FLOAT64", "Sum of amounts, in volume_unit; null where that is contracts."),
    Column("quote_volume", "FLOAT64", "Sum of price times amount, in quote_unit; null where volume is."),
    Column("vwap", "FLOAT64", "quote_volume / volume; null where volume is."),
    Column(
        "trade_count", "INT64", "Trades, or aggregate trades where the venue reports those.", required=True
    ),
    Column("buy_volume", "FLOAT64", "Volume of trades whose taker bought; null where volume is."),
    Column("sell_volume", "FLOAT64", "Volume of trades whose taker sold; null where volume is."),
    *TIME_COLUMNS,
    Column(
        "volume_unit",
        "STRING",
        "Currency of the volumes; contracts where nothing says how large one is; null where it has no name.",
    ),
    Column(
        "quote_unit",
        "STRING",
        "Currency of prices and quote_volume; of options often the base currency; null where it has no name.",
    ),
)

#: A run of a market's equal buckets.
COVERAGE_COLUMNS: Final = (
    Column("date", "DATE", "UTC day of the buckets.", required=True),
    Column("exchange", "STRING", "Exchange id of the vendor.", required=True),
    Column(
        "symbol", "STRING", "Market, as in instruments: BTC-USDT, BTC-USDT-PERP, BTC-28JUN24.", required=True
    ),
    Column("timeframe", "STRING", "Length of the buckets: 1m, 5m, 15m, 1h, 4h, 1d, ...", required=True),
    Column(
        "state",
        "STRING",
        "traded, traded_partial, proven_empty, outage, missing or empty_unproven.",
        required=True,
    ),
    Column(
        "provisional",
        "BOOL",
        "Whether files of the neighboring days may still add trades: first and last bucket until sealed.",
        required=True,
    ),
    Column(
        "flagged",
        "BOOL",
        "Whether an unconfirmed price is the high or low of a minute in it; null without trades.",
    ),
    Column("first_open_time", "TIMESTAMP", "Start of the run's first bucket.", required=True),
    Column("last_open_time", "TIMESTAMP", "Start of the run's last bucket.", required=True),
    Column("buckets", "INT64", "Buckets of the run.", required=True),
    Column(
        "previous_close",
        "FLOAT64",
        "Last price before the run, of this day or the day before; null where neither has a trade.",
    ),
)
#: The key of a candle.
CANDLE_KEY: Final = ("exchange", "symbol", "timeframe", "open_time")

CANDLE_SCHEMA: Final = arrow_schema(CANDLE_COLUMNS)
COVERAGE_SCHEMA: Final = arrow_schema(COVERAGE_COLUMNS)


def candle_schema() -> pa_polars.DataFrameSchema:
    """Schema of the candle table: names, types, nulls and key; buckets are aligned."""
    import pandera.polars as pa
    import polars as pl

    def aligned(data: pa.PolarsData) -> pl.LazyFrame:
        length = pl.col("timeframe").replace_strict(TIMEFRAMES, default=None, return_dtype=pl.Int64)
        second = pl.col("open_time").dt.epoch("us") // MICROSECONDS_PER_SECOND
        whole = pl.col("open_time").dt.epoch("us") % MICROSECONDS_PER_SECOND == 0
        return data.lazyframe.select(((second % length == 0) & whole).fill_null(value=False))

    def of_the_day(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("open_time").dt.date() == pl.col("date"))

    types = pl.DataFrame(CANDLE_SCHEMA.empty_table()).schema
    return pa.DataFrameSchema(
        {c.name: pa.Column(types[c.name], nullable=not c.required) for c in CANDLE_COLUMNS},
        strict=True,
        unique=list(CANDLE_KEY),
        checks=[
            pa.Check(aligned, name="open_time_is_aligned_to_the_timeframe"),
            pa.Check(of_the_day, name="date_is_the_day_of_open_time"),
        ],
    )


def ohlc_schema() -> pa_polars.DataFrameSchema:
    """Schema of one candle: rules between its prices and volumes."""
    import pandera.polars as pa
    import polars as pl

    column = pl.col
    slack = 1 + SUM_TOLERANCE
    rules = {
        "low_is_lowest": (column("low") <= column("open")) & (column("low") <= column("close")),
        "high_is_highest": (column("high") >= column("open")) & (column("high") >= column("close")),
        "low_is_positive": column("low") > 0,
        "vwap_within_low_and_high": (column("vwap") * slack >= column("low"))
        & (column("vwap") <= column("high") * slack),
        "volume_is_not_negative": (column("volume") >= 0)
        & (column("buy_volume") >= 0)
        & (column("sell_volume") >= 0),
        "buys_and_sells_within_volume": column("buy_volume") + column("sell_volume")
        <= column("volume") * slack,
        "has_trades": column("trade_count") > 0,
        "trades_inside_their_order": column("first_trade_time") <= column("last_trade_time"),
        "first_trade_not_before_open_time": column("first_trade_time") >= column("open_time"),
        "values_are_finite": pl.all_horizontal(
            column(name).is_finite() for name in ("open", "high", "low", "close", "volume", "quote_volume")
        ),
        "volumes_are_null_together_and_only_of_contracts": pl.all_horizontal(
            column(name).is_null() == (column("volume_unit") == CONTRACTS).fill_null(value=False)
            for name in (*SUMS, "vwap")
        ),
    }

    def check(name: str, rule: pl.Expr) -> pa.Check:
        # A rule about a null volume does not apply.
        holds = rule.fill_null(value=True).alias("holds")
        return pa.Check(lambda data: data.lazyframe.select(holds), name=name)

    return pa.DataFrameSchema(checks=[check(name, rule) for name, rule in rules.items()])


def coverage_schema() -> pa_polars.DataFrameSchema:
    """Schema of the coverage table: names, types, nulls, key and states, and the length of its runs."""
    import pandera.polars as pa
    import polars as pl

    def length_is_told(data: pa.PolarsData) -> pl.LazyFrame:
        seconds = pl.col("timeframe").replace_strict(TIMEFRAMES, default=None, return_dtype=pl.Int64)
        span = (pl.col("last_open_time") - pl.col("first_open_time")).dt.total_microseconds()
        told = (pl.col("buckets") - 1) * seconds * MICROSECONDS_PER_SECOND
        return data.lazyframe.select(((span == told) & (pl.col("buckets") > 0)).fill_null(value=False))

    def flags_need_trades(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("flagged").is_not_null() == pl.col("state").is_in(WITH_CANDLE))

    types = pl.DataFrame(COVERAGE_SCHEMA.empty_table()).schema
    checks = {
        "state": [pa.Check.isin(STATES)],
        "timeframe": [pa.Check.isin(list(TIMEFRAMES))],
        "previous_close": [pa.Check.gt(0)],
    }
    return pa.DataFrameSchema(
        {
            c.name: pa.Column(types[c.name], nullable=not c.required, checks=checks.get(c.name))
            for c in COVERAGE_COLUMNS
        },
        strict=True,
        unique=["exchange", "symbol", "timeframe", "first_open_time"],
        checks=[
            pa.Check(length_is_told, name="first_and_last_are_as_far_apart_as_the_buckets"),
            pa.Check(flags_need_trades, name="flagged_is_null_exactly_without_trades"),
        ],
    )
