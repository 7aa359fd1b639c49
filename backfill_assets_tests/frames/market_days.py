"""A warehouse of many days of many markets, published by the code that runs use, without a run."""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.tables import market_layout, store_table
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, QUALITY
from backfill_assets.warehouse.duckdb import DuckDBWarehouse
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.tables import Table

FIRST = date(2023, 1, 1)
EXCHANGE = "binance"
STORED = ("1m", "5m", "15m", "1h", "4h", "1d")


def symbol(number: int) -> str:
    """The market of this number; numbers follow the order of the alphabet."""
    return f"C{number:03d}-USDT"


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def publish_days(folder: Path, markets: int, days: int) -> Path:
    """Publish candles of all timeframes, a trade in every bucket, and quality; returns the settings file."""
    store, warehouse = LocalStore(folder / "lake"), DuckDBWarehouse(folder / "warehouse")
    for table in (CANDLES, COVERAGE, QUALITY):
        warehouse.ensure_table(table)
    first = candles(markets)
    for number in range(days):
        shifted = first.with_columns(
            pl.col(pl.Date, pl.Datetime) + pl.duration(days=number),
        )
        rows = shifted.to_arrow().cast(CANDLE_SCHEMA)
        stored = store_table(store, rows, "candles/{}.parquet".format, **market_layout(rows.schema))
        made = store.uri_of(f"candles/{stored.content}.parquet")
        load(warehouse, CANDLES, number, Path(made), stored.rows)
        warehouse.replace_partition(COVERAGE, day(number), [], 1)
        publish_quality(folder, markets, number)
    file = folder / "settings.yaml"
    content = {
        "tardis": {"datasets_endpoint": "http://127.0.0.1:9", "api_endpoint": "http://127.0.0.1:9"},
        "universe": [{"exchanges": [EXCHANGE], "symbols": [symbol(n) for n in range(markets)]}],
        "lake": {"uri": str(folder / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
    }
    file.write_text(yaml.safe_dump(content))
    return file


def publish_quality(folder: Path, markets: int, number: int, **changes: object) -> None:
    """Publish the day's quality, or publish it again; changes are values, or a list with one per market."""
    rows = feeds(markets, number)
    for name, value in changes.items():
        values = value if isinstance(value, list) else [value] * markets
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(
            index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type)
        )
    pq.write_table(rows, folder / "quality.parquet")
    load(DuckDBWarehouse(folder / "warehouse"), QUALITY, number, folder / "quality.parquet", markets)


def load(warehouse: DuckDBWarehouse, table: Table, number: int, path: Path, rows: int) -> None:
    generation = time.monotonic_ns()
    warehouse.replace_partition(table, day(number), [LoadFile(uri=None, path=path, rows=rows)], generation)


def candles(markets: int) -> pl.DataFrame:
    """The first day of every market, in the order of the lake; prices walk and differ by market."""
    start = pl.lit(FIRST).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    seconds = pl.DataFrame({"timeframe": STORED, "step": [TIMEFRAMES[name] for name in STORED]})
    buckets = seconds.with_columns(
        bucket=pl.int_ranges(0, 86_400 // pl.col("step")), rank=pl.int_range(0, pl.len())
    ).explode("bucket")
    names = pl.DataFrame({"symbol": [symbol(n) for n in range(markets)]}).with_row_index("market")
    rows = names.join(buckets, how="cross", maintain_order="left_right")
    step = pl.col("hash") % 2_001 - 1_000
    rows = rows.with_columns(hash=pl.struct("market", "rank", "bucket").hash(7).cast(pl.Int64, strict=False))
    rows = rows.with_columns(hash=pl.col("hash").fill_null(0).abs())
    price = (10_000_000 + step.cum_sum()) / 100
    opened = start + pl.duration(seconds=pl.col("bucket") * pl.col("step"))
    amount = (pl.col("hash") % 1_000_003) / 1_000
    made = rows.select(
        date=pl.lit(FIRST),
        exchange=pl.lit(EXCHANGE),
        symbol="symbol",
        timeframe="timeframe",
        open_time=opened,
        open=price,
        high=price + 1,
        low=price - 1,
        close=price,
        volume=amount,
        quote_volume=amount * price,
        vwap=price,
        trade_count=pl.col("hash") % 500 + 1,
        buy_volume=amount / 2,
        sell_volume=amount / 2,
        first_trade_time=opened,
        last_trade_time=opened + pl.duration(microseconds=pl.col("hash") % 59_000_000),
        volume_unit=pl.col("symbol").str.head(4),
        quote_unit=pl.lit("USDT"),
    )
    return made.select(CANDLE_SCHEMA.names)


def feeds(markets: int, number: int) -> pa.Table:
    """A row of quality of each market's trades, all published."""
    same = {
        "date": FIRST + timedelta(days=number),
        "exchange": EXCHANGE,
        "data_type": "trades",
        "verdict": "publish",
        "completeness_state": "proven",
        "rules": "r" * 16,
        "day_state": "published",
        "content": "c" * 64,
        **dict.fromkeys(("published", "sealed"), True),
        **dict.fromkeys(("pending", "generated"), False),
        **dict.fromkeys(("rows", "valid_rows"), 1_000_000),
    }
    names = [symbol(market) for market in range(markets)]
    rows = [{**same, "symbol": name, "dataset_symbol": name.replace("-", "")} for name in names]
    return pa.Table.from_pylist(rows, schema=QUALITY.schema)
