"""Accepted files of trades and their partial candles, made and compared once.

A file's partials have a key: the content of the ticks and everything else that they are made of. The day's
document (``quality.measures``) keeps the key with the partials. So a file that counts again finds the earlier
partials, and so does a day that is rebuilt because a neighbor has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from backfill_assets.candles.consistency import mismatches_with_ticks
from backfill_assets.candles.recomputed import ComparedFile, OtherFile
from backfill_assets.contracts import Contracts
from backfill_assets.days import MICROSECONDS_PER_DAY, time_us
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import DecodedCandles
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile
from backfill_assets.quality.measures import LastTrade, TradesFile
from backfill_assets.quality.settled import SettledDay, SettledFeed
from backfill_assets.ticks.partials import PARTIALS_VERSION, partial_candles, store_partials
from backfill_assets.ticks.repeats import Range, repeated_rows, rows_of_both, rows_of_symbols
from backfill_assets.ticks.schemas import PARTIAL_SCHEMA

if TYPE_CHECKING:
    from backfill_assets.ticks.partial_kernels import Ints

#: Feeds whose ticks are read at once; the kernels release the GIL and the machine has few processors.
WORKERS: Final = 2
#: Rows of files that are compared with their partials at once.
ROWS_AT_ONCE: Final = 500_000


class Overlap(NamedTuple):
    """An accepted file that shares trades with another one; the shared trades count only in this one."""

    feed: Feed
    day: str
    content: str
    #: First and last microsecond of the time in which both have rows.
    between: Range


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """The accepted version of a feed's trades, with everything else that its partials depend on."""

    feed: Feed
    day: str
    content: str
    rows: int
    #: Whether every row has an integer id and ids increase in order of trading.
    numeric_ids: bool
    #: Whether rows may repeat a trade of the file.
    repeats: bool
    #: Files of the day before, and of the same day under another name of the market.
    overlaps: tuple[Overlap, ...]
    #: Data set symbols of a group for which their own files count.
    left_out: tuple[str, ...]
    contracts: dict[str, Contracts]
    seam_window_seconds: int
    #: Candles of all its rows, if they were made during decoding.
    decoded: DecodedCandles | None = None

    @property
    def key(self) -> str:
        """The key of the partials: the ticks' content and a hash of everything else."""
        others = [(str(o.feed), o.day, o.content, o.between) for o in self.overlaps]
        ids = f"{others}:{self.left_out}:{self.numeric_ids}:{self.repeats}"
        contracts = sorted(self.contracts.items())
        text = f"{PARTIALS_VERSION}:{self.seam_window_seconds}:{contracts}:{ids}"
        return f"{self.content}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def accepted_files(
    settled: SettledDay, before: SettledDay | None, seam_window_seconds: int
) -> list[AcceptedFile]:
    """Return the accepted files of trades of a day, in the order of the feeds.

    Parameters
    ----------
    before
        The settled day before.
    """
    files = _own_files(settled, before)
    has_groups = before is not None and any(other.feed.is_grouped for other in before.feeds)
    return [
        AcceptedFile(
            feed=found.feed,
            day=settled.day,
            content=found.accepted.content,
            rows=found.accepted.rows,
            numeric_ids=found.ids_are_order,
            repeats=found.may_repeat_trades,
            overlaps=(
                *_overlaps(found, settled, before, has_groups=has_groups),
                *_of_other_names(found, settled.day, files),
            ),
            left_out=settled.left_out_of(found),
            contracts=found.contracts,
            seam_window_seconds=seam_window_seconds,
            decoded=found.accepted.candles,
        )
        for found in settled.feeds
        if found.feed.type.makes_candles and found.accepted is not None
    ]


def _overlaps(
    found: SettledFeed, settled: SettledDay, before: SettledDay | None, *, has_groups: bool
) -> Iterator[Overlap]:
    """Files of the day before that may share trades with this one; a group may also match a symbol's own."""
    if before is None or not found.ids_name_trades:
        return
    counted = found.dataset_symbols.difference(settled.left_out_of(found))
    # Two symbols' own files have nothing in common; a day has hundreds of them.
    others = before.feeds if has_groups or found.feed.is_grouped else (before.feed(found.feed),)
    for other in others:
        if other is None or (other.feed != found.feed and other.feed.is_grouped == found.feed.is_grouped):
            continue
        if (other.feed.exchange, other.feed.data_type) != (found.feed.exchange, found.feed.data_type):
            continue
        theirs = other.dataset_symbols.difference(before.left_out_of(other))
        if other.feed == found.feed or not counted.isdisjoint(theirs):
            yield from _overlap(found, other, before.day)


def _own_files(*days: SettledDay | None) -> dict[tuple[str, str, str], list[tuple[str, SettledFeed]]]:
    """Symbols' own files by exchange, data type and market, each with its day."""
    files: dict[tuple[str, str, str], list[tuple[str, SettledFeed]]] = {}
    for settled in filter(None, days):
        for found in settled.feeds:
            if not found.feed.is_grouped and found.symbols:
                market = (found.feed.exchange, found.feed.data_type, found.symbols[0][1])
                files.setdefault(market, []).append((settled.day, found))
    return files


def _of_other_names(
    found: SettledFeed, day: str, files: Mapping[tuple[str, str, str], Sequence[tuple[str, SettledFeed]]]
) -> Iterator[Overlap]:
    """Files that the market has under another name, as on the day of a rename.

    Between two files of one day, common trades count in the first in the order of feeds.
    """
    if found.feed.is_grouped or not found.symbols or not found.ids_name_trades:
        return
    for other_day, other in files[found.feed.exchange, found.feed.data_type, found.symbols[0][1]]:
        if other.feed != found.feed and (other_day, other.feed) < (day, found.feed):
            yield from _overlap(found, other, other_day)


def _overlap(found: SettledFeed, other: SettledFeed, day: str) -> Iterator[Overlap]:
    """The overlap with a file, unless they have no time in common, or all ids of this one are higher."""
    if other.accepted is None or found.traded_us is None or other.traded_us is None:
        return
    between = (max(found.traded_us[0], other.traded_us[0]), min(found.traded_us[1], other.traded_us[1]))
    is_after = found.id_range and other.id_range and found.id_range[0] > other.id_range[1]
    if between[0] <= between[1] and not is_after:
        yield Overlap(other.feed, day, other.accepted.content, between)


class Partials:
    """The partial candles of a lake's files; each file is read once, together with others of its day."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, pa.Table] = {}

    def by_file(self, day: str, files: Sequence[tuple[Feed, DataFile]]) -> list[pa.Table]:
        """The partials of each file of a day."""
        unread = {file.content: (feed, file) for feed, file in files if file.content not in self._known}
        table, first = read_partials(self.store, day, [*unread.values()]), 0
        for content, (_, file) in unread.items():
            self._known[content] = table.slice(first, file.rows)
            first += file.rows
        return [self._known[file.content] for _, file in files]

    def of_day(self, day: str, files: Sequence[tuple[Feed, DataFile]]) -> pa.Table:
        """The partials of files of a day, in order."""
        return pa.concat_tables([PARTIAL_SCHEMA.empty_table(), *self.by_file(day, files)]).combine_chunks()


def make_all_partials(partials: Partials, files: Sequence[AcceptedFile]) -> list[TradesFile]:
    """Make the partials of files of one day; those made during decoding are read together."""
    store = partials.store
    whole = [f for f in files if not (f.repeats or f.left_out or f.overlaps)]
    there = [(f, stored) for f in whole if (stored := _decoded(store, f)) is not None]
    tables = partials.by_file(files[0].day, [(file.feed, stored) for file, stored in there]) if there else []
    made = {
        str(file.feed): _trades_file(file, stored, table)
        for (file, stored), table in zip(there, tables, strict=True)
    }
    others = [f for f in files if str(f.feed) not in made]
    computed = parallel_map(lambda file: make_partials(store, file), others, WORKERS)
    made |= {str(f.feed): found for f, found in zip(others, computed, strict=True)}
    return [made[str(f.feed)] for f in files]


def make_partials(store: Store, file: AcceptedFile) -> TradesFile:
    """Return the partials made while the file was decoded, or compute them from its ticks.

    The former exist and apply if all rows of the file count and amounts are in base units. Both have the same
    bytes.
    """
    left_out = _left_out(store, file)
    stored = _decoded(store, file) if not left_out.size else None
    if stored is not None:
        table = read_partials(store, file.day, [(file.feed, stored)])
    else:
        with store.local_copy(paths.ticks_data(file.feed, file.day, file.content)) as ticks:
            table = partial_candles(
                ticks,
                exchange=file.feed.exchange,
                day=file.day,
                seam_window_seconds=file.seam_window_seconds,
                numeric_ids=file.numeric_ids,
                contracts=file.contracts,
                left_out=left_out,
            )
        stored = store_partials(store, file.feed, file.day, table)
    return _trades_file(file, stored, table)


def _trades_file(file: AcceptedFile, stored: DataFile, table: pa.Table) -> TradesFile:
    return TradesFile(
        content=file.content,
        key=file.key,
        partials=stored,
        last_trades=_last_trades(table),
        without_volume=table["volume"].null_count,
    )


def _decoded(store: Store, file: AcceptedFile) -> DataFile | None:
    """The partials made while the file was decoded, if they equal those that it has now."""
    found = file.decoded
    if found is None:
        return None
    now = (PARTIALS_VERSION, file.seam_window_seconds, file.numeric_ids)
    contracts = (contract for of_symbol in file.contracts.values() for contract in of_symbol)
    if (found.version, found.seam_window_seconds, found.by_id) != now or not all(
        contract.multiplier == 1.0 and not contract.inverse for contract in contracts
    ):
        return None
    path = paths.partials_data(file.feed, file.day, found.file.content)
    return found.file if store.size(path) == found.file.bytes else None


def has_partials(store: Store, file: AcceptedFile, made: TradesFile | None) -> bool:
    """Whether these are the file's partials and the lake has them at full size."""
    if made is None or made.key != file.key:
        return False
    path = paths.partials_data(file.feed, file.day, made.partials.content)
    return store.size(path) == made.partials.bytes


def read_partials(store: Store, day: str, files: Sequence[tuple[Feed, DataFile]]) -> pa.Table:
    """Read the partials of files of a day, in order, as a table of ``PARTIAL_SCHEMA``.

    All files are read at once: opening a small file by itself takes several times as long as its rows.
    """
    import polars as pl

    if not files:
        return PARTIAL_SCHEMA.empty_table()
    named = [paths.partials_data(feed, day, file.content) for feed, file in files]
    with ExitStack() as stack:
        local = parallel_map(
            lambda path: stack.enter_context(store.local_copy(path)), named, store.parallel_reads
        )
        table = pl.read_parquet(local, glob=False, hive_partitioning=False).to_arrow()
    return table.select(PARTIAL_SCHEMA.names).cast(PARTIAL_SCHEMA)


def mismatches(
    partials: Partials, files: Sequence[tuple[AcceptedFile, TradesFile]]
) -> list[list[dict[str, Any]]]:
    """K1 for each file of one day: partials that a second engine computes differently from the same ticks."""
    found, store = [], partials.store
    for batch in _batches(files):
        one = batch[0][0]
        made = partials.by_file(one.day, [(file.feed, made.partials) for file, made in batch])
        with ExitStack() as stack:
            compared = [
                ComparedFile(
                    stack.enter_context(
                        store.local_copy(paths.ticks_data(file.feed, file.day, file.content))
                    ),
                    of_file,
                    file.numeric_ids,
                    file.contracts,
                    file.repeats,
                    _others(store, file, stack),
                    file.left_out,
                )
                for (file, _), of_file in zip(batch, made, strict=True)
            ]
            found += mismatches_with_ticks(compared, day=one.day, seam_window_seconds=one.seam_window_seconds)
    return found


def _batches(
    files: Sequence[tuple[AcceptedFile, TradesFile]],
) -> Iterator[list[tuple[AcceptedFile, TradesFile]]]:
    """Files with up to ``ROWS_AT_ONCE`` rows together; a larger file is alone."""
    batch: list[tuple[AcceptedFile, TradesFile]] = []
    rows = 0
    for each in files:
        rows += each[0].rows
        if batch and rows > ROWS_AT_ONCE:
            yield batch
            batch, rows = [], each[0].rows
        batch.append(each)
    if batch:
        yield batch


def _left_out(store: Store, file: AcceptedFile) -> Ints:
    """Return the numbers of the rows that repeat a trade of the file, or count in another file."""
    found = np.empty(0, np.int64)
    if not (file.repeats or file.left_out or file.overlaps):
        return found
    with store.local_copy(paths.ticks_data(file.feed, file.day, file.content)) as ticks:
        if file.repeats:
            found = repeated_rows(ticks)
        if file.left_out:
            found = np.union1d(found, rows_of_symbols(ticks, file.left_out))
        for other in file.overlaps:
            names = (file.feed.dataset_symbol, other.feed.dataset_symbol)
            with store.local_copy(paths.ticks_data(other.feed, other.day, other.content)) as theirs:
                found = np.union1d(found, rows_of_both(ticks, theirs, other.between, names))
    return found


def _others(store: Store, file: AcceptedFile, stack: ExitStack) -> tuple[OtherFile, ...]:
    return tuple(
        OtherFile(
            stack.enter_context(store.local_copy(paths.ticks_data(o.feed, o.day, o.content))),
            o.between,
            (file.feed.dataset_symbol, o.feed.dataset_symbol),
        )
        for o in file.overlaps
    )


def _last_trades(partials: pa.Table) -> dict[str, dict[str, LastTrade]]:
    """The last trade of each market on the file's day and on the days beside it, as far as the file knows."""
    if not partials.num_rows:
        return {}
    symbols = partials["symbol"].combine_chunks().dictionary_encode().indices.to_numpy()
    days = partials["open_time"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY
    # Sorted by symbol and time: the last row of a symbol and day is its last bucket.
    last = np.flatnonzero((np.diff(symbols, append=-1) != 0) | (np.diff(days, append=-1) != 0))
    found: dict[str, dict[str, LastTrade]] = {}
    for row in partials.take(pa.array(last)).to_pylist():
        trade = LastTrade(
            time_us=time_us(row["last_trade_time"]), trade_id=row["close_id"], price=row["close"]
        )
        found.setdefault(f"{row['open_time']:%Y-%m-%d}", {})[row["symbol"]] = trade
    return found
