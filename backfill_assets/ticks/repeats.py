"""Rows of trades that repeat an earlier row: the same symbol, id, time, price, amount and side.

Such rows are one trade, and the first of them in the order of the file counts. Only files whose profile
counted repeats are searched, and two files are compared only over the time in which both have rows. Rows are
compared by 64 bits of a hash: two different rows of a file of ten million are taken for the same once in
300,000 files. Memory is 24 bytes a row. Rows without an id never count as repeats, since an order that is
filled in equal parts looks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from backfill_assets.ticks.partial_kernels import Ints

_COLUMNS: Final = ("dataset_symbol", "timestamp", "id", "side", "price", "amount")

Range = tuple[int, int]


def repeated_rows(ticks: Path) -> Ints:
    """Numbers of the rows that repeat an earlier row of the file, ascending."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(found for _, found in _hashes(ticks, {}))])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.zeros(len(order), np.bool_)
    again[1:] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return np.sort(order[again])


def rows_of_both(ticks: Path, other: Path, between: Range, names: Sequence[str] = ()) -> Ints:
    """Numbers of the rows of ``ticks`` that are also in ``other``, ascending.

    Parameters
    ----------
    between
        First and last microsecond of exchange time in which both files have rows; other rows are not read.
    names
        Data set symbols that name one market.
    """
    symbols = dict.fromkeys(names, 0)
    theirs = [found for _, found in _hashes(other, symbols, between)]
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *theirs]))
    ours = [
        first + np.flatnonzero((found != 0) & np.isin(found, known))
        for first, found in _hashes(ticks, symbols, between)
    ]
    return np.concatenate([np.empty(0, np.int64), *ours])


def rows_of_symbols(ticks: Path, symbols: Sequence[str]) -> Ints:
    """Numbers of the rows of these data set symbols, ascending."""
    column = "dataset_symbol"
    found = pq.read_table(ticks, columns=[column], read_dictionary=[column])[column]
    return np.flatnonzero(pc.is_in(found, pa.array(symbols, pa.string())).to_numpy(zero_copy_only=False))


def _hashes(
    ticks: Path, symbols: dict[str, int], between: Range | None = None
) -> Iterator[tuple[int, np.typing.NDArray[np.uint64]]]:
    """The first row number of each group, and its rows' hashes; 0 without an id or outside the time."""
    from backfill_assets.ticks import repeat_kernels as kernels

    first = 0
    with pq.ParquetFile(ticks, read_dictionary=["dataset_symbol", "side"]) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if between is None or _touches(file, group, between):
                table = file.read_row_group(group, list(_COLUMNS)).combine_chunks()
                column = {name: table[name].combine_chunks() for name in _COLUMNS}
                ids = column["id"].cast(pa.large_string()).fill_null("")
                time_us = column["timestamp"].cast(pa.int64()).to_numpy(zero_copy_only=False)
                hashes = np.zeros(rows, np.uint64)
                ends = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + rows + 1]
                text = ids.buffers()[2]
                kernels.hash_rows(  # type: ignore[no-untyped-call]
                    ends,
                    np.frombuffer(text, np.uint8) if text is not None else np.empty(0, np.uint8),
                    time_us,
                    _bits(column["price"]),
                    _bits(column["amount"]),
                    _numbers(column["side"], {"buy": 0, "sell": 1}),
                    _numbers(column["dataset_symbol"], symbols),
                    hashes,
                )
                if between is not None:
                    hashes[(time_us < between[0]) | (time_us > between[1])] = 0
                yield first, hashes
            first += rows


def _touches(file: pq.ParquetFile, group: int, between: Range) -> bool:
    """Whether the group may have rows in the time."""
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("timestamp"))
    found = column.statistics
    if found is None or not found.has_min_max:
        return True
    low, high = (
        int(pa.scalar(t, file.schema_arrow.field("timestamp").type).value) for t in (found.min, found.max)
    )
    return low <= between[1] and high >= between[0]


def _bits(column: pa.Array) -> Ints:
    return np.ascontiguousarray(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False)).view(
        np.int64
    )


def _numbers(column: pa.DictionaryArray, numbers: dict[str, int]) -> Ints:
    """The number of each value; a value without one gets the next, and null is -1."""
    table = [numbers.setdefault(value, len(numbers)) for value in column.dictionary.to_pylist()]
    indices = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*table, -1], np.int64)[indices], np.int64)
