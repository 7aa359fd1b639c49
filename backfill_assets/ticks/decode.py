"""Decoding: one vendor file becomes one Parquet file and its profile, in one pass and bounded memory.

The calling thread inflates, parses and counts; a second thread encodes and writes the previous row group. The
heavy calls release the interpreter lock, so several files decode side by side in threads of one process.
This module does not know the origin of files or the use of the result.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from backfill_assets.days import MICROSECONDS_PER_DAY, parse_day, start_us
from backfill_assets.feeds import Feed
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.tardis.columns import csv_fields
from backfill_assets.ticks.blocks import BLOCK_BYTES, Block, HashingFile, read_blocks
from backfill_assets.ticks.dialect import Dialect
from backfill_assets.ticks.prices import Grids
from backfill_assets.ticks.profile import Name, ProfileParameters, Profiler
from backfill_assets.ticks.reference_parser import Reader

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from backfill_assets.lake.manifests import ColumnTotals
    from backfill_assets.ticks.partials import MinuteCandles
    from backfill_assets.ticks.rowgroups import Layout, RowGroup
    from backfill_assets.ticks.stored import Totals

#: One group is filled while one is written.
_GROUPS: Final = 2


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of decoding a file.

    Attributes
    ----------
    rows, bytes, content
        Rows, size and sha256 (hex) of the Parquet file.
    raw_bytes, raw_sha256
        Size and sha256 (hex) of the compressed file, of exactly the bytes that were decoded.
    profile
        The evidence counted during decoding.
    totals
        Control totals of the rows.
    """

    rows: int
    bytes: int
    content: str
    raw_bytes: int
    raw_sha256: str
    profile: FeedProfile
    totals: tuple[ColumnTotals, ...]


def decode(
    source: Path,
    target: Path,
    *,
    feed: Feed,
    day: str,
    symbols: Mapping[str, str],
    parameters: ProfileParameters,
    grids: Grids | None = None,
    candles: MinuteCandles | None = None,
    row_group_rows: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    fast: bool = True,
) -> Decoded:
    """Turn a vendor's ``.csv.gz`` into Parquet with ``tick_columns(feed.data_type)``, every row, in order.

    The same source gives the same bytes for any ``block_bytes`` and ``fast``. The target appears whole or not
    at all: it is written under another name in its folder and renamed. A power failure may lose it; the store
    that takes it over makes it durable.

    Parameters
    ----------
    source, target
        Files; the target's folder is created if it does not exist.
    feed, day
        The claimed feed and day of the file.
    symbols
        Canonical symbol for each text of the file's symbol column; others are stored as null and counted.
    parameters
        The parameters of the profile.
    grids
        Price steps valid at some time of the day, for texts of the file's symbol column; prices of other
        texts are not compared with a grid.
    candles
        Receives every row of a file of trades, under the row's canonical symbol.
    row_group_rows, block_bytes, fast
        For tests and measurements: rows of a group, inflated bytes read at once, whether to use compiled
        code.

    Raises
    ------
    TransientFailure
        The compressed body is damaged; a new download can repair it.
    CorruptFeed
        A line does not fit the data type; names file, line (1 is the header) and column.
    """
    day_number = start_us(parse_day(day).isoformat()) // MICROSECONDS_PER_DAY
    name = f"{feed} {day} ({source.name})"
    reader = Reader(name, csv_fields(feed.data_type))
    profiler = Profiler(
        feed.exchange,
        day,
        parameters,
        trades=feed.type.has_trades,
        updates=not feed.type.has_fills,
        data_type=feed.data_type,
        grids=grids,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}.unfinished")
    try:
        with HashingFile(source) as raw:
            dialect, totals = _transcode(
                raw,
                unfinished,
                reader,
                profiler,
                candles,
                feed=feed,
                day_number=day_number,
                symbols=symbols,
                sizes=(row_group_rows, block_bytes),
                fast=fast,
            )
            raw_bytes, raw_sha256 = raw.bytes_read, raw.sha256
        with unfinished.open("rb") as written:
            content = hashlib.file_digest(written, "sha256").hexdigest()
            size = written.tell()
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    profile = profiler.finish(has_header=dialect.has_header, unknown_columns=dialect.more_columns)
    return Decoded(profile.rows, size, content, raw_bytes, raw_sha256, profile, totals)


class _GroupWriter:
    """Encodes and writes row groups in one thread while the caller fills the next."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema, day_number: int, totals: Totals) -> None:
        self._writer, self._schema, self._day_number = writer, schema, day_number
        self._totals = totals
        self._free: list[RowGroup] = []
        self._busy: deque[tuple[RowGroup, Future[None]]] = deque()
        self._thread = ThreadPoolExecutor(1, "parquet")

    def start(self, groups: list[RowGroup]) -> RowGroup:
        """Take the groups, which are filled in turn, and return the first to fill."""
        self._free = groups
        return self._empty_group(0)

    def write(self, group: RowGroup, names: tuple[Name, ...]) -> RowGroup:
        """Queue a group, wait for a free one and return it; raises failures of earlier writes."""
        self._busy.append((group, self._thread.submit(self._encode, group, names)))
        return self._empty_group(group.first_row + group.rows)

    def finish(self, group: RowGroup, names: tuple[Name, ...]) -> None:
        """Wait until all earlier groups are written, then write the last one in the calling thread."""
        while self._busy:
            self._wait_for_one()
        if group.rows:
            self._encode(group, names)

    def close(self) -> None:
        """End the thread, after a failure too."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _encode(self, group: RowGroup, names: tuple[Name, ...]) -> None:
        from backfill_assets.ticks.rowgroups import arrow_table

        table = arrow_table(group, names, self._day_number, self._schema)
        self._writer.write_table(table, row_group_size=group.rows)
        self._totals.add(table)

    def _empty_group(self, first_row: int) -> RowGroup:
        if not self._free:
            self._wait_for_one()
        group = self._free.pop()
        group.restart(first_row)
        return group

    def _wait_for_one(self) -> None:
        group, written = self._busy.popleft()
        written.result()
        self._free.append(group)


def _transcode(
    raw: HashingFile,
    unfinished: Path,
    reader: Reader,
    profiler: Profiler,
    candles: MinuteCandles | None,
    *,
    feed: Feed,
    day_number: int,
    symbols: Mapping[str, str],
    sizes: tuple[int | None, int],
    fast: bool,
) -> tuple[Dialect, tuple[ColumnTotals, ...]]:
    """Write all rows; return the dialect of the vendor's file and the totals.

    ``sizes`` is the rows of a group and the bytes of a block.
    """
    from backfill_assets.ticks.parser import LineParser
    from backfill_assets.ticks.rowgroups import Layout, parquet_writer, writer_schema
    from backfill_assets.ticks.stored import Totals

    layout = Layout.of(feed.data_type)
    row_group_rows, block_bytes = sizes[0] or layout.row_group_rows, sizes[1]

    def register(name: Name) -> None:
        profiler.register(name)
        if candles is not None:
            candles.register(name.symbol)

    parser = LineParser(reader, symbols, register, fast=fast)
    schema = writer_schema(feed.data_type)
    dialect, totals = Dialect(reader), Totals(feed.data_type)
    group: RowGroup | None = None
    with (
        parquet_writer(unfinished, feed.data_type, schema) as parquet,
        closing(_GroupWriter(parquet, schema, day_number, totals)) as writer,
    ):
        for block in dialect.rows(read_blocks(raw, reader.file, block_bytes)):
            position = 0
            if group is None:
                group = writer.start(_empty_groups(layout, row_group_rows, block))
            while position < block.end:
                start = group.rows
                position = parser.parse(block, position, group)
                rows = group.counted()
                profiler.add(rows, start, group.rows)
                if candles is not None:
                    candles.add(rows, start, group.rows)
                if group.full:
                    group = writer.write(group, tuple(parser.names))
        if group is not None:
            writer.finish(group, tuple(parser.names))
    return dialect, totals.found()


def _empty_groups(layout: Layout, rows: int, first: Block) -> list[RowGroup]:
    """The groups of a file; a file of one block needs only one group, no larger than the block."""
    from backfill_assets.ticks.rowgroups import RowGroup

    if first.last:
        lines = first.buffer.count(b"\n", 0, first.end)
        return [RowGroup(layout, min(rows, max(lines, 1)), text_bytes=first.end)]
    return [RowGroup(layout, rows) for _ in range(_GROUPS)]
