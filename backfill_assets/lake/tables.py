"""Storing a small table as one Parquet file that is named by its content: equal tables are equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.files import temporary_folder
from backfill_assets.lake.documents import Document
from backfill_assets.lake.store import Store


class DataFile(Document):
    """A Parquet file, named by its sha256."""

    content: str
    rows: int
    bytes: int


def store_table(store: Store, table: pa.Table, path: Callable[[str], str]) -> DataFile:
    """Store a table under the path that ``path`` makes of its sha256."""
    with temporary_folder(None, "TMPDIR") as folder:
        target = folder / "made.parquet"
        pq.write_table(table, target, compression="zstd")
        content = hashlib.sha256(target.read_bytes()).hexdigest()
        store.put_file(target, path(content))
        return DataFile(content=content, rows=table.num_rows, bytes=target.stat().st_size)
