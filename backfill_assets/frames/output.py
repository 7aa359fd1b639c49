"""Writes the rows of a range as a table, or as a Parquet, CSV or Arrow file that appears when it is complete.

Rows come a day at a time, and memory holds at most a day and a row group.
"""

from __future__ import annotations

import errno
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.files import put_in_place

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Format = Literal["parquet", "csv", "arrow"]
FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv", "arrow")
#: Rows of a Parquet row group and of an Arrow batch, unless a day has more.
BATCH_ROWS: Final = 131_072
#: Errors of a full disk.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Columns that fit a terminal; files have every column.
TABLE_COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count")
#: The columns times the longest number written.
TABLE_WIDTH: Final = 160


def format_of(file: Path) -> Format:
    """The format named by the end of the file's name.

    Raises
    ------
    BadInput
        The name ends in no known format.
    """
    for form in FORMATS:
        if file.suffix.lower() == f".{form}":
            return form
    ends = " or ".join(f".{form}" for form in FORMATS)
    msg = f"{file}: the end of the name sets the format: use {ends}"
    raise BadInput(msg)


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces one of this name when it is complete; a partial file leaves nothing behind.

    Raises
    ------
    PermanentFailure
        The file cannot be written there.
    """
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            with unfinished.open("xb") as sink:
                yield sink
            put_in_place(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        # Rows are read meanwhile, and reading may raise its own errors.
        if error.filename not in {str(unfinished), str(file.parent)} and error.errno not in _FULL:
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        msg = f"{file}: cannot be written ({reason}): name a file in an existing folder"
        raise PermanentFailure(msg) from error


def write_rows(days: Iterable[pl.DataFrame], form: Format, sink: BinaryIO) -> int:
    """Write the rows and return their number; CSV has ISO times and the shortest exact floats.

    Parameters
    ----------
    days
        At least one day's frame, which may be empty, so that the columns are known.
    """
    return _write_csv(days, sink) if form == "csv" else _write_arrow(days, form, sink)


def _write_csv(days: Iterable[pl.DataFrame], sink: BinaryIO) -> int:
    written = 0
    for number, rows in enumerate(days):
        # Polars raises its own kind of error when the reader has gone.
        text = io.BytesIO()
        rows.write_csv(text, include_header=number == 0, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
        sink.write(text.getbuffer())
        written += rows.height
    return written


def _write_arrow(days: Iterable[pl.DataFrame], form: Format, sink: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pa.ipc.RecordBatchFileWriter | pq.ParquetWriter | None = None
    written = 0
    for rows in _batches(days):
        if writer is None:
            new = pq.ParquetWriter if form == "parquet" else pa.ipc.new_file
            more = {"compression": "zstd"} if form == "parquet" else {}
            writer = new(sink, rows.schema, **more)
        writer.write_table(rows)
        written += rows.num_rows
    if writer is not None:
        writer.close()
    return written


def _batches(days: Iterable[pl.DataFrame]) -> Iterator[pa.Table]:
    """The same rows in larger parts; at least one part, even without rows."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    is_first = True
    for rows in days:
        waiting.append(rows)
        if sum(part.height for part in waiting) >= BATCH_ROWS:
            yield arrow_table(pl.concat(waiting, rechunk=True))
            waiting, is_first = [], False
    if waiting and (is_first or any(part.height for part in waiting)):
        yield arrow_table(pl.concat(waiting, rechunk=True))


def arrow_table(rows: pl.DataFrame) -> pa.Table:
    """The rows as an Arrow table, with a string type that all libraries accept."""
    import pyarrow as pa

    found = rows.to_arrow()
    # Polars makes every string a large string, which few others accept.
    schema = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in found.schema]
    )
    return found.cast(schema)


def table_text(rows: pl.DataFrame, *, first: Sequence[str] = ()) -> str:
    """Format candles as a text table, with the columns ``first`` before the others."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in (*first, *TABLE_COLUMNS):
        is_text = name in (*first, "open_time")
        table.add_column(
            "time (UTC)" if name == "open_time" else name,
            no_wrap=True,
            justify="left" if is_text else "right",
        )
    for row in rows.select(*first, *TABLE_COLUMNS).iter_rows():
        names, opened, numbers = row[: len(first)], row[len(first)], row[len(first) + 1 :]
        table.add_row(
            *names,
            opened.strftime("%Y-%m-%d %H:%M"),
            *("" if value is None else f"{value:.10g}" for value in numbers),
        )
    # Wide enough for any row: a narrow terminal breaks lines, but cut digits would be wrong.
    console = Console(width=TABLE_WIDTH, markup=False)
    with console.capture() as text:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.get().splitlines())
