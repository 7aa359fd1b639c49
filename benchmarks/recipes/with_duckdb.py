"""csv.gz of trades to Parquet and candles with DuckDB: minutes from the trades, the rest from minutes."""

from pathlib import Path

import duckdb

from recipes.timeframes import SECONDS

COLUMNS = {
    "exchange": "VARCHAR",
    "symbol": "VARCHAR",
    "timestamp": "BIGINT",
    "local_timestamp": "BIGINT",
    "id": "VARCHAR",
    "side": "VARCHAR",
    "price": "DOUBLE",
    "amount": "DOUBLE",
}
SUMS = ("volume", "quote_volume", "buy_volume", "sell_volume", "trade_count")


def convert(source: Path, ticks: Path, candles: Path) -> None:
    parquet = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    with duckdb.connect() as connection:
        connection.execute(
            f"""COPY (
              SELECT * REPLACE (make_timestamptz("timestamp") AS "timestamp",
                                make_timestamptz(local_timestamp) AS local_timestamp)
              FROM read_csv('{source}', header = true, auto_detect = false, delim = ',', quote = '',
                            escape = '', columns = {COLUMNS})
            ) TO '{ticks}' {parquet}"""
        )
        # Time and row in one number: trades of one microsecond keep the order of the file.
        connection.execute(
            f"""CREATE TEMP TABLE minutes AS
            SELECT exchange, symbol, stamp // 60000000 * 60 AS open_time,
              arg_min(price, place) AS open, max(price) AS high, min(price) AS low,
              arg_max(price, place) AS close, sum(amount) AS volume, sum(price * amount) AS quote_volume,
              coalesce(sum(amount) FILTER (side = 'buy'), 0) AS buy_volume,
              coalesce(sum(amount) FILTER (side = 'sell'), 0) AS sell_volume, count(*) AS trade_count
            FROM (
              SELECT *, epoch_us("timestamp") AS stamp,
                stamp % 60000000 * 68719476736 + file_row_number AS place
              FROM read_parquet('{ticks}', file_row_number = true)
            )
            GROUP BY ALL"""
        )
        sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
        larger = " UNION ALL ".join(
            f"""SELECT exchange, symbol, open_time // {seconds} * {seconds} AS open_time,
              arg_min(open, minutes.open_time) AS open, max(high) AS high, min(low) AS low,
              arg_max(close, minutes.open_time) AS close, {sums}, '{name}' AS timeframe
            FROM minutes GROUP BY exchange, symbol, minutes.open_time // {seconds} * {seconds}"""
            for name, seconds in SECONDS.items()
        )
        connection.execute(f"COPY ({larger}) TO '{candles}' {parquet}")
