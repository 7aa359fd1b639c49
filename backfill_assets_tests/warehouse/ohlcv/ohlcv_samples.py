"""Days of candles for the OHLCV table: what the tests and their processes write."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.warehouse.ohlcv.table import TOTALS
from backfill_assets.warehouse.ohlcv.writing import DayCandles
from backfill_assets.warehouse.totals import file_totals

DAY, NEXT_DAY = "2024-01-01", "2024-01-02"


def candles(
    count: int = 10, day: str = DAY, close: float = 10.5, symbols: tuple[str, ...] = ("BTC-USDT",)
) -> pa.Table:
    """One-minute candles from midnight on, as many of each symbol."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    rows = [
        {
            "date": date.fromisoformat(day),
            "exchange": "binance",
            "symbol": symbol,
            "timeframe": "1m",
            "open_time": midnight + timedelta(minutes=minute),
            "open": 10.0,
            "high": close + 1,
            "low": 9.1,
            "close": close,
            "volume": 0.1 + minute,
            "quote_volume": 1.7 + minute,
            "vwap": 10.1,
            "trade_count": minute + 1,
            "buy_volume": 0.1,
            "sell_volume": 0.0,
            "first_trade_time": midnight + timedelta(minutes=minute, microseconds=1),
            "last_trade_time": midnight + timedelta(minutes=minute, seconds=59),
        }
        for symbol in symbols
        for minute in range(count)
    ]
    return pa.Table.from_pylist(rows, CANDLE_SCHEMA)


def day_candles(rows: pa.Table) -> DayCandles:
    """The rows as the lake would give them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "candles.parquet"
        pq.write_table(rows, file)
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        return DayCandles(content, rows, file_totals(TOTALS, [file]))
