"""Rows of a small table and of the OHLCV table, and a lake of one partition to publish."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.columns import Column
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.publish import Load, Partition
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import file_totals

DAY, NEXT_DAY = "2024-01-01", "2024-01-02"

TRADES = Table(
    name="trades",
    description="Trades of the tests; it's a sample",
    columns=(
        Column("date", "DATE", "Day of the file", required=True),
        Column("exchange", "STRING", "Venue", required=True),
        Column("symbol", "STRING", "Canonical symbol, the customer's", required=False),
        Column("timestamp", "TIMESTAMP", "Time at the venue", required=True),
        Column("id", "INT64", "Trade id"),
        Column("price", "FLOAT64", "Price in quote units"),
        Column("is_maker", "BOOL", "Whether the buyer was the maker"),
    ),
    time_column="timestamp",
    exact_sums=("id", "timestamp"),
    float_sums=("price",),
)


def rows(
    symbol: str | None = "BTC-USDT", count: int = 3, day: str = DAY, price: float = 10.1
) -> list[dict[str, Any]]:
    """So many trades of one symbol, a second apart; ids are larger than a float can hold."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return [
        {
            "date": date.fromisoformat(day),
            "exchange": "binance",
            "symbol": symbol,
            "timestamp": midnight + timedelta(seconds=i, microseconds=1),
            "id": 2**62 + i,
            "price": price + i,
            "is_maker": None if i % 2 else True,
        }
        for i in range(count)
    ]


def candle_rows(
    symbol: str = "BTC-USDT", count: int = 3, day: str = DAY, price: float = 10.1
) -> list[dict[str, Any]]:
    """So many one-minute candles of one symbol, from midnight on: rows of the OHLCV table."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return [
        {
            "date": date.fromisoformat(day),
            "exchange": "binance",
            "symbol": symbol,
            "timeframe": "1m",
            "open_time": midnight + timedelta(minutes=i),
            "open": price - 0.1,
            "high": price + 1,
            "low": price - 0.4,
            "close": price,
            "volume": 0.1 + i,
            "quote_volume": 1.7 + i,
            "vwap": price + 0.1,
            "trade_count": i + 1,
            "volume_unit": symbol.partition("-")[0],
            "quote_unit": symbol.partition("-")[2],
        }
        for i in range(count)
    ]


def write(path: Path, content: Sequence[dict[str, Any]], schema: pa.Schema = TRADES.schema) -> Path:
    """Write rows as one Parquet file, replacing it atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(list(content), schema), temporary)
    return temporary.replace(path)


def load_file(path: Path, count: int | None = None) -> LoadFile:
    """A local file with its own number of rows, or with another number for the lake."""
    return LoadFile(uri=None, path=path, rows=pq.read_metadata(path).num_rows if count is None else count)


def set_lake(folder: Path, *files: Path) -> None:
    """Set the required content of the partition."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "current.tmp"
    temporary.write_text("\n".join(str(file) for file in files))
    temporary.replace(folder / "current")


def plan(folder: Path, table: Table = TRADES) -> Partition:
    """Read the content that ``set_lake`` has set."""
    text = (folder / "current").read_text()
    paths = [Path(line) for line in text.splitlines()]
    return partition(
        hashlib.sha256(text.encode()).hexdigest(),
        Load(files=[load_file(path) for path in paths], totals=file_totals(table, paths)),
    )


def partition(fingerprint: str, load: Load) -> Partition:
    """A partition of these rows."""
    return Partition(fingerprint, partial(nullcontext, load))


def loaded(found: Partition) -> Load:
    """The rows of a partition."""
    with found.load() as load:
        return load
