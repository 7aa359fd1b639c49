"""Columns of the partial candles of one tick file, which are only in the lake.

Columns of the ticks themselves are in ``tardis.columns``. Units: prices in the quote currency, volumes in
base units, times in UTC with microseconds.
"""

from __future__ import annotations

from typing import Final

from backfill_assets.columns import Column, arrow_schema

#: Columns that a partial candle shares with a candle.
PRICE_COLUMNS: Final = (
    Column("open", "FLOAT64", "Price of the first trade by (timestamp, id, row).", required=True),
    Column("high", "FLOAT64", "Highest price.", required=True),
    Column("low", "FLOAT64", "Lowest price.", required=True),
    Column("close", "FLOAT64", "Price of the last trade by (timestamp, id, row).", required=True),
)
TIME_COLUMNS: Final = (
    Column("first_trade_time", "TIMESTAMP", "Exchange time of the first trade.", required=True),
    Column("last_trade_time", "TIMESTAMP", "Exchange time of the last trade.", required=True),
)

PRICES: Final = tuple(column.name for column in PRICE_COLUMNS)
#: Sums over the trades of a candle.
SUMS: Final = ("volume", "quote_volume", "buy_volume", "sell_volume")

#: A partial candle: the candle's parts before division, ids for ties, and the error terms of the sums.
PARTIAL_COLUMNS: Final = (
    Column("exchange", "STRING", "Exchange id of the vendor.", required=True),
    Column("symbol", "STRING", "Canonical symbol.", required=True),
    Column("open_time", "TIMESTAMP", "Start of the base bucket.", required=True),
    *PRICE_COLUMNS,
    *(
        Column(name, "FLOAT64", "Sum, or its error term; null where the contract of a trade is not known.")
        for total in SUMS
        for name in (total, f"{total}_error")
    ),
    Column("trade_count", "INT64", "Trades.", required=True),
    *TIME_COLUMNS,
    Column("open_id", "INT64", "Numeric id of the first trade, or -1.", required=True),
    Column("close_id", "INT64", "Numeric id of the last trade, or -1.", required=True),
)
PARTIAL_SCHEMA: Final = arrow_schema(PARTIAL_COLUMNS)
