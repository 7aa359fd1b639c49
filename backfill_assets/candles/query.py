"""Reads a day's candles and coverage from the lake; ``frames`` reads ranges for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
    """Read the day's candles or its coverage, with every market and timeframe.

    Parameters
    ----------
    table
        ``candles`` or ``coverage``.

    Raises
    ------
    PermanentFailure
        The day was not run, or its file is missing.
    """
    while True:
        # Another run may delete the file after this one reads its name; the document then names a newer file.
        with open_made(store, day, table) as (_, file), suppress(FileNotFoundError):
            return pq.read_table(file, columns=columns, partitioning=None)


def markets_of(settled: SettledDay) -> list[tuple[str, str]]:
    """Exchange and canonical symbol of every market that may have candles on the day, in order."""
    feeds = [f for f in settled.feeds if f.feed.type.makes_candles]
    return sorted({(f.feed.exchange, symbol) for f in feeds for _, symbol in settled.counted_symbols(f)})


def insist_on_timeframe(name: str) -> None:
    """Raise ``BadInput`` for an unknown timeframe; the message lists the known ones."""
    if name not in TIMEFRAMES:
        msg = f"'{name}' is not a timeframe: choose from {', '.join(TIMEFRAMES)}"
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


def candles_of(store: Store, day: str, timeframe: str) -> pa.Table:
    """Return every market's candles of one timeframe, rolled up if the lake does not keep it."""
    return of_timeframe(read_made(store, day, "candles"), day, timeframe)


def of_timeframe(candles: pa.Table, day: str, timeframe: str) -> pa.Table:
    """Return the candles of one timeframe among those of a day, rolled up if they are not there."""
    found = candles.filter(pc.field("timeframe") == timeframe)
    if found.num_rows or not candles.num_rows:
        return found
    return rolled_up(candles.filter(pc.field("timeframe") == BASE_TIMEFRAME), day, timeframe)
