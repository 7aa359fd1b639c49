"""Facts about a tick file: its footer, its columns, and control totals of its rows.

They are stored with the version in its manifest, so the check of the file's schema and the confirmation of a
publication do not open the file again. The totals are of the rows before writing, not of the rows read back
from the file, so the comparison covers the encoding too. Sums of integers are exact; those of floats are over
``SUMMED_RANGE``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.columns import SUMMED_RANGE, described
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.lake.manifests import ColumnTotals, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

#: Columns that name the market of a row.
NAMES: Final = ("exchange", "dataset_symbol")
#: Columns whose sums are exact; together with the name they show that each row is present once.
EXACT: Final = ("row", "local_timestamp")


def stored_file(file: Path, totals: tuple[ColumnTotals, ...]) -> StoredFile:
    """Read the footer of a file whose rows have these totals."""
    with pq.ParquetFile(file) as opened:
        return StoredFile(
            rows=opened.metadata.num_rows, columns=described(opened.schema_arrow), totals=totals
        )


class Totals:
    """Control totals of the row groups of a file, whose ``NAMES`` are dictionaries."""

    def __init__(self, data_type: str) -> None:
        self._summed = DATA_TYPES[data_type].summed
        self._totals: dict[tuple[str, str], ColumnTotals] = {}

    def add(self, group: pa.Table) -> None:
        """Count the rows of a group."""
        for found in _totals(group, self._summed):
            names = (found.exchange, found.dataset_symbol)
            known = self._totals.get(names)
            self._totals[names] = found if known is None else _added(known, found)

    def found(self) -> tuple[ColumnTotals, ...]:
        """The totals by exchange and symbol, sorted."""
        return tuple(self._totals[names] for names in sorted(self._totals))


def _totals(table: pa.Table, summed: tuple[str, ...]) -> Iterator[ColumnTotals]:
    """Totals of each exchange and symbol; a file usually has one of each, so its rows need no sort."""
    if table.num_rows == 0:
        return
    names, codes = _names(table)
    if len(names) > 1:
        order = np.argsort(codes, kind="stable")
        table, codes = table.take(pa.array(order)), codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    rows = np.diff(starts, append=table.num_rows).tolist()
    times = table["timestamp"].cast(pa.int64()).to_numpy()
    first, last = np.minimum.reduceat(times, starts).tolist(), np.maximum.reduceat(times, starts).tolist()
    exact = {name: _exact(table[name].cast(pa.int64()).to_numpy(), starts) for name in EXACT}
    floats = {name: _sums(table[name], starts) for name in summed}
    for n, code in enumerate(codes[starts].tolist()):
        yield ColumnTotals(
            exchange=names[code][0],
            dataset_symbol=names[code][1],
            rows=rows[n],
            first_timestamp_us=first[n],
            last_timestamp_us=last[n],
            exact={name: sums[n] for name, sums in exact.items()},
            floats={name: sums[n] for name, sums in floats.items()},
        )


def _names(table: pa.Table) -> tuple[list[tuple[str, str]], Ints]:
    """The distinct pairs of names, and the number of each row's pair; a single 0 if there is one pair."""
    columns = [table[name].unify_dictionaries().combine_chunks() for name in NAMES]
    texts = [column.dictionary.to_pylist() for column in columns]
    if len(texts[0]) == len(texts[1]) == 1:
        return [(texts[0][0], texts[1][0])], np.zeros(1, np.int64)
    exchange, symbol = (column.indices.to_numpy().astype(np.int64) for column in columns)
    numbers = exchange * len(texts[1]) + symbol
    # Hash the rows: sorting them would take longer than reading them.
    pairs = pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)]).dictionary_encode()
    found = [divmod(pair, len(texts[1])) for pair in pairs.dictionary.to_pylist()]
    return [(texts[0][one], texts[1][other]) for one, other in found], pairs.indices.to_numpy()


def _exact(values: Ints, starts: Ints) -> list[int]:
    """Sums of each part, by halves of 32 bits, because the sum of a day's times does not fit into 64 bits."""
    high, low = (np.add.reduceat(half, starts).tolist() for half in (values >> 32, values & 0xFFFFFFFF))
    return [(above << 32) + below for above, below in zip(high, low, strict=True)]


def _sums(column: pa.ChunkedArray, starts: Ints) -> list[float]:
    """Sums of each part over the values in ``SUMMED_RANGE``, which are usually all values."""
    least, most = SUMMED_RANGE
    found = pc.min_max(column).as_py()
    if found["min"] is not None and not (least <= found["min"] and found["max"] <= most):
        is_summed = pc.and_(pc.greater_equal(column, least), pc.less_equal(column, most))
        column = pc.if_else(is_summed, column, None)
    if len(starts) == 1:
        return [pc.sum(column).as_py() or 0.0]
    return list(np.add.reduceat(pc.fill_null(column, 0.0).to_numpy(), starts).tolist())


def _added(one: ColumnTotals, other: ColumnTotals) -> ColumnTotals:
    return ColumnTotals(
        exchange=one.exchange,
        dataset_symbol=one.dataset_symbol,
        rows=one.rows + other.rows,
        first_timestamp_us=min(one.first_timestamp_us, other.first_timestamp_us),
        last_timestamp_us=max(one.last_timestamp_us, other.last_timestamp_us),
        exact={name: total + other.exact[name] for name, total in one.exact.items()},
        floats={name: total + other.floats[name] for name, total in one.floats.items()},
    )
