"""Reading the candles that the lake has: a day's file, one market of it, as a table, CSV or Parquet."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.candles.merge import rolled_up
from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile
from backfill_assets.quality.measures import DayMeasures, load_measures
from backfill_assets.quality.settled import SettledDay, load_settled
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES

if TYPE_CHECKING:
    import pyarrow as pa

#: What fits a terminal; the other formats have every column.
TABLE_COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count")
#: Columns times the longest number that is written.
TABLE_WIDTH: Final = 160


def made_day(store: Store, day: str) -> tuple[SettledDay, DayMeasures]:
    """Return the two documents of a day whose candles were made.

    Raises
    ------
    PermanentFailure
        The day was not run.
    """
    settled, measures = load_settled(store, day), load_measures(store, day)
    if settled is None or measures is None or measures.candles is None:
        msg = f"the lake {store.uri} has no candles of {day}: run the day first"
        raise PermanentFailure(msg)
    return settled, measures


def read_made(store: Store, day: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the day's candles or its coverage, every market and timeframe of them.

    Parameters
    ----------
    table
        ``candles`` or ``coverage``.

    Raises
    ------
    PermanentFailure
        The day was not run, or its file is gone.
    """
    while True:
        # Another run may delete the file between its name and its bytes; it has named another by then.
        with open_made(store, day, table) as (_, file), suppress(FileNotFoundError):
            return pq.read_table(file, columns=columns, partitioning=None)


def markets_of(settled: SettledDay) -> list[tuple[str, str]]:
    """Exchange and canonical symbol of every market that the day may have candles of, in order."""
    feeds = [f for f in settled.feeds if f.feed.type.makes_candles]
    return sorted({(f.feed.exchange, symbol) for f in feeds for _, symbol in settled.counted_symbols(f)})


def insist_on_timeframe(name: str) -> None:
    """Raise ``BadInput`` for an unknown timeframe; the message lists the known ones."""
    if name not in TIMEFRAMES:
        msg = f"'{name}' is no timeframe: choose from {', '.join(TIMEFRAMES)}"
        raise BadInput(msg)


@contextmanager
def open_made(store: Store, day: str, table: str) -> Iterator[tuple[DataFile, Path]]:
    """Lend the file of the day's candles or coverage that counts, for the block."""
    with ExitStack() as stack:
        _, measures = made_day(store, day)
        while True:
            named: DataFile | None = getattr(measures, table)
            if named is None:
                msg = f"the lake {store.uri} has no {table} of {day}: run the day first"
                raise PermanentFailure(msg)
            try:
                path = stack.enter_context(store.local_copy(paths.made_data(table, day, named.content)))
            except PermanentFailure:
                # Another run may have replaced the file since the document was read.
                _, latest = made_day(store, day)
                if getattr(latest, table) == named:
                    raise
                measures = latest
            else:
                break
        yield named, path


def market_candles(store: Store, day: str, exchange: str, symbol: str, timeframe: str) -> pa.Table:
    """Candles of one market and timeframe, ordered by ``open_time``; columns of ``CANDLE_SCHEMA``.

    Raises
    ------
    PermanentFailure
        The day was not run, or has no such exchange, symbol or timeframe; names what there is.
    """
    insist_on_timeframe(timeframe)
    markets = markets_of(made_day(store, day)[0])
    _insist("exchange", exchange, sorted({e for e, _ in markets}), day)
    _insist("symbol", symbol, [s for e, s in markets if e == exchange], day)
    return candles_of(store, day, timeframe).filter(
        (pc.field("exchange") == exchange) & (pc.field("symbol") == symbol)
    )


def why_no_candles(store: Store, day: str, exchange: str, symbol: str) -> str:
    """Name the feeds of a market that has no candle on a day, each with the reason."""
    told = []
    for found in made_day(store, day)[0].feeds:
        names = {name for _, name in found.symbols}
        if found.feed.exchange != exchange or not found.feed.type.makes_candles or symbol not in names:
            continue
        if found.accepted is not None:
            told.append(f"{found.feed} counts, and has no trade of it")
        else:
            told.append(f"{found.feed} does not count ({'; '.join(found.verdict.reasons)})")
    return f"no candles of {exchange} {symbol} on {day}: {', '.join(told)}"


def candles_of(store: Store, day: str, timeframe: str) -> pa.Table:
    """Every market's candles of one timeframe, rolled up where the lake does not keep it."""
    return of_timeframe(read_made(store, day, "candles"), day, timeframe)


def of_timeframe(candles: pa.Table, day: str, timeframe: str) -> pa.Table:
    """The candles of one timeframe among those of a day, rolled up where they are not there."""
    import pyarrow.compute as pc

    found = candles.filter(pc.field("timeframe") == timeframe)
    if found.num_rows or not candles.num_rows:
        return found
    return rolled_up(candles.filter(pc.field("timeframe") == BASE_TIMEFRAME), day, timeframe)


def close_before(store: Store, day: str, exchange: str, symbol: str) -> float | None:
    """The last price of the market on the day before, by the coverage of the day; None if none is known."""
    first = read_made(store, day, "coverage").filter(
        (pc.field("exchange") == exchange)
        & (pc.field("symbol") == symbol)
        & (pc.field("timeframe") == BASE_TIMEFRAME)
    )
    return first["previous_close"][0].as_py() if first.num_rows else None


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
            table.add_row(
                row[0].strftime("%Y-%m-%d %H:%M"),
                *("" if value is None else f"{value:.10g}" for value in row[1:]),
            )
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
