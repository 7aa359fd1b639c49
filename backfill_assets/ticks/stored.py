"""Facts about a finished tick file, read back from it before it is stored: footer, columns, control totals.

They go with the version in its manifest, so that the check of the file's schema and the proof of a
publication need not open it again. Sums of integers are exact: times are added up as distances from the first
of a row group, because the sum of a day's times does not fit 64 bits.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.columns import described
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.lake.manifests import ColumnTotals, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Columns that name the market of a row.
NAMES: Final = ("exchange", "dataset_symbol")
#: Columns whose sums are exact; with the name they prove that each row is there once.
EXACT: Final = ("row", "local_timestamp")


def stored_file(file: Path, data_type: str) -> StoredFile:
    """Read the facts; ``file`` is as ``decode`` writes it."""
    summed = DATA_TYPES[data_type].summed
    columns = [*NAMES, "timestamp", *EXACT, *summed]
    totals: dict[tuple[str, str], ColumnTotals] = {}
    with pq.ParquetFile(file, read_dictionary=list(NAMES)) as opened:
        for group in range(opened.num_row_groups):
            for names, rows in _by_names(opened.read_row_group(group, columns=columns)):
                found = _totals(names, rows, summed)
                totals[names] = _added(totals[names], found) if names in totals else found
        return StoredFile(
            rows=opened.metadata.num_rows,
            columns=described(opened.schema_arrow),
            totals=tuple(totals[names] for names in sorted(totals)),
        )


def _by_names(table: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    """The rows of each exchange and symbol; a file usually has one of each."""
    if table.num_rows == 0:
        return
    texts = [pc.unique(table[name]).to_pylist() for name in NAMES]
    for exchange, symbol in product(*texts):
        rows = table
        for name, text, known in zip(NAMES, (exchange, symbol), texts, strict=True):
            rows = rows if len(known) == 1 else rows.filter(pc.equal(rows[name], text))
        if rows.num_rows:
            yield (exchange, symbol), rows


def _totals(names: tuple[str, str], rows: pa.Table, summed: tuple[str, ...]) -> ColumnTotals:
    times = pc.min_max(rows["timestamp"].cast(pa.int64())).as_py()
    return ColumnTotals(
        exchange=names[0],
        dataset_symbol=names[1],
        rows=rows.num_rows,
        first_timestamp_us=times["min"],
        last_timestamp_us=times["max"],
        exact={name: _exact(rows[name].cast(pa.int64())) for name in EXACT},
        floats={name: pc.sum(rows[name]).as_py() or 0.0 for name in summed},
    )


def _exact(values: pa.ChunkedArray) -> int:
    first = values[0].as_py()
    return int(pc.sum(pc.subtract(values, first)).as_py()) + int(first) * len(values)


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
