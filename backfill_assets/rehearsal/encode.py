"""The vendor's file of stored ticks: decoding it gives exactly the same rows.

A stored row has every value of the vendor's file, and its numbers are those nearest to the file's. So the
file written here need not have the vendor's bytes; it only has to decode to the same values: numbers in their
shortest form, times in microseconds, empty cells for nulls. A file of generated data is marked as such again.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from backfill_assets.tardis.columns import CsvField, csv_fields, csv_header
from backfill_assets.tardis.generated import GZIP_HEADER

if TYPE_CHECKING:
    import polars as pl

#: Magic number and method; no flags, no time, an unknown system.
_PLAIN_HEADER: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
_BATCH_ROWS: Final = 100_000
#: The file is read once, on this machine.
_LEVEL: Final = 1


def encode(source: Path, target: Path, data_type: str, *, generated: bool) -> None:
    """Write the ``.csv.gz`` of a Parquet file of ticks, in bounded memory.

    Parameters
    ----------
    generated
        Whether the vendor's file said that its content is generated.
    """
    import polars as pl

    fields = csv_fields(data_type)
    # Negative window bits: the header is written here, since zlib's own cannot hold a comment.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = length = 0
    with pq.ParquetFile(source) as file, target.open("wb") as out:

        def write(text: bytes) -> None:
            nonlocal checksum, length
            checksum, length = zlib.crc32(text, checksum), length + len(text)
            out.write(packer.compress(text))

        out.write(GZIP_HEADER if generated else _PLAIN_HEADER)
        # An empty file has no header line, like the vendor's.
        if file.metadata.num_rows:
            write(f"{csv_header(data_type)}\n".encode())
        for batch in file.iter_batches(_BATCH_ROWS, columns=[field.column.name for field in fields]):
            frame = pl.DataFrame(batch).select(_cell(field) for field in fields)
            write(frame.write_csv(include_header=False, quote_style="never").encode())
        out.write(packer.flush())
        out.write(struct.pack("<LL", checksum, length & 0xFFFFFFFF))


def _cell(field: CsvField) -> pl.Expr:
    import polars as pl

    column = pl.col(field.column.name)
    if field.kind == "time":
        return column.dt.epoch("us")
    if field.kind == "flag":
        no, yes = field.words
        return pl.when(column).then(pl.lit(yes)).when(column.not_()).then(pl.lit(no))
    return column if field.kind == "number" else column.cast(pl.String)
