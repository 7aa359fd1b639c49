"""The tables of the warehouse: their names, their rows, and the control totals that confirm a partition."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from backfill_assets.candles.schemas import CANDLE_COLUMNS, COVERAGE_COLUMNS
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake.tables import MARKET_GROUP_ROWS
from backfill_assets.quality.schemas import QUALITY_COLUMNS
from backfill_assets.tardis.columns import tick_columns
from backfill_assets.warehouse.tables import Table

INSTRUMENTS: Final = Table(
    name="instruments",
    description="Instruments per exchange as listed on the day, with the values valid on the day.",
    columns=INSTRUMENT_COLUMNS,
    group_by=("exchange",),
    float_sums=("price_increment", "amount_increment"),
)


def _ticks_table(data_type: str) -> Table:
    return Table(
        name=data_type,
        description=f"Rows of the vendor's {data_type} files; date is the file's day, by arrival in UTC.",
        columns=tick_columns(data_type),
        group_by=("exchange", "dataset_symbol"),
        time_column="timestamp",
        exact_sums=("row", "local_timestamp"),
        float_sums=DATA_TYPES[data_type].summed,
    )


TICKS: Final = {data_type: _ticks_table(data_type) for data_type in DATA_TYPES}

CANDLES: Final = Table(
    name="candles",
    description="Candles of every timeframe; date is the day of open_time. Empty buckets have no row.",
    columns=CANDLE_COLUMNS,
    group_by=("exchange", "symbol", "timeframe"),
    time_column="open_time",
    exact_sums=("trade_count", "first_trade_time", "last_trade_time"),
    float_sums=("open", "high", "low", "close", "volume", "quote_volume"),
    row_group_rows=MARKET_GROUP_ROWS,
)

#: Candles for services that read them by key. They go to another database, so ``TABLES`` lacks this table.
OHLCV: Final = replace(
    CANDLES,
    name="ohlcv",
    description="Candles by key for services, in Postgres or SQLite; nothing unless ohlcv.url is set.",
    columns=tuple(
        c
        for c in CANDLE_COLUMNS
        if c.name not in ("buy_volume", "sell_volume", "first_trade_time", "last_trade_time")
    ),
    exact_sums=("trade_count",),
    float_sums=(*CANDLES.float_sums, "vwap"),
)

COVERAGE: Final = Table(
    name="coverage",
    description="The state of every bucket of every market: traded, empty or lost. A row is a run of equals.",
    columns=COVERAGE_COLUMNS,
    group_by=("exchange", "symbol", "timeframe", "state"),
    time_column="first_open_time",
    exact_sums=("buckets", "first_open_time", "last_open_time"),
    float_sums=("previous_close",),
    row_group_rows=MARKET_GROUP_ROWS,
)

QUALITY: Final = Table(
    name="quality",
    description="One row per expected feed: verdict, scores and their evidence. Written for held days too.",
    columns=QUALITY_COLUMNS,
    group_by=("exchange", "data_type", "dataset_symbol", "verdict", "day_state", "content"),
    exact_sums=("rows", "valid_rows"),
    float_sums=("completeness", "quality"),
)

TABLES: Final = (INSTRUMENTS, *TICKS.values(), CANDLES, COVERAGE, QUALITY)
