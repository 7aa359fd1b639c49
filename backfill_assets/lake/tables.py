"""Stores a small table as one Parquet file that is named by its content: equal tables give equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.lake.documents import Document
from backfill_assets.lake.store import Store

#: Rows of each row group of a file that is read by market, so that a reader skips other markets' rows.
#: Measured: with 4k the footers of 500 markets weigh half a megabyte; with 16k a year of one market takes
#: half as long again to read.
MARKET_GROUP_ROWS: Final = 8_192


class DataFile(Document):
    """A Parquet file, named by its sha256."""

    content: str
    rows: int
    bytes: int


def store_table(store: Store, table: pa.Table, path: Callable[[str], str], **layout: Any) -> DataFile:
    """Store a table under the path that ``path`` makes from its sha256.

    ``layout`` is passed to ``pyarrow.parquet.write_table``.
    """
    made = pa.BufferOutputStream()
    pq.write_table(table, made, compression="zstd", **layout)
    data = made.getvalue().to_pybytes()
    content = hashlib.sha256(data).hexdigest()
    store.put_bytes(data, path(content))
    return DataFile(content=content, rows=table.num_rows, bytes=len(data))


def market_layout(schema: pa.Schema) -> dict[str, Any]:
    """Return the layout of a file whose rows are sorted by market and whose readers want one market."""
    # Dictionaries of so few numbers take more room and time than the numbers.
    texts = [field.name for field in schema if field.type in (pa.string(), pa.date32())]
    return {"row_group_size": MARKET_GROUP_ROWS, "use_dictionary": texts}
