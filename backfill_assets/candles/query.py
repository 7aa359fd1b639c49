"""Looking at the candles of one market: from the lake's accepted data to a table, CSV or Parquet."""

from __future__ import annotations

import difflib
import io
from typing import TYPE_CHECKING, BinaryIO, Final

from backfill_assets.candles.day import merged_candles
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.settings import TIMEFRAMES, Settings

if TYPE_CHECKING:
    import pyarrow as pa

#: What fits a terminal; the other formats have every column.
TABLE_COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count")
#: Columns times the longest number that is written.
TABLE_WIDTH: Final = 160


def market_candles(
    store: Store, settings: Settings, day: str, exchange: str, symbol: str, timeframe: str
) -> pa.Table:
    """Candles of one market and timeframe, ordered by ``open_time``; columns of ``CANDLE_SCHEMA``.

    Raises
    ------
    PermanentFailure
        The day was not run, or its record knows no such exchange, symbol or timeframe; names what there is.
    """
    import pyarrow.compute as pc

    if timeframe not in TIMEFRAMES:
        msg = f"'{timeframe}' is no timeframe: choose from {', '.join(TIMEFRAMES)}"
        raise PermanentFailure(msg)
    record = load_day_record(store, day)
    if record is None or not record.expected:
        msg = f"the lake {store.uri} has nothing of {day}: run the day first"
        raise PermanentFailure(msg)
    markets = sorted(
        {
            (Feed.parse(e.feed).exchange, canonical)
            for e in record.expected
            if Feed.parse(e.feed).data_type == "trades"
            for _, canonical in e.symbols
        }
    )
    _insist("exchange", exchange, sorted({e for e, _ in markets}), day)
    _insist("symbol", symbol, [s for e, s in markets if e == exchange], day)
    candles = merged_candles(store, day, settings, [timeframe], exchange)
    return candles.filter(pc.equal(candles["symbol"], symbol))


def write_candles(candles: pa.Table, form: str, out: BinaryIO) -> None:
    """Write as ``table``, ``csv`` (ISO times, shortest exact floats) or ``parquet``."""
    import polars as pl

    frame = pl.DataFrame(candles)
    # Written at once: an engine that finds its reader gone in the middle raises errors of its own kind.
    whole = io.BytesIO()
    if form == "parquet":
        frame.write_parquet(whole)
    elif form == "csv":
        frame.write_csv(whole, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None)
        for name in TABLE_COLUMNS:
            first = name == "open_time"
            table.add_column(
                "time (UTC)" if first else name, no_wrap=True, justify="left" if first else "right"
            )
        for row in frame.select(TABLE_COLUMNS).iter_rows():
            table.add_row(row[0].strftime("%Y-%m-%d %H:%M"), *(f"{value:.10g}" for value in row[1:]))
        # Wide enough for any row: a narrow terminal breaks lines, cut digits would be wrong ones.
        console = Console(width=TABLE_WIDTH)
        with console.capture() as text:
            console.print(table)
        whole.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()).encode())
    out.write(whole.getvalue())


def _insist(kind: str, value: str, known: list[str], day: str) -> None:
    if value not in known:
        close = difflib.get_close_matches(value, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known) or 'none'}"
        msg = f"unknown {kind} '{value}' on {day}: {hint}"
        raise PermanentFailure(msg)
