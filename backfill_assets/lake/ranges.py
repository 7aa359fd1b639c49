"""Reads parts of a data file in place, without fetching the whole file.

For questions that a small part answers: how many rows, which columns, which row groups around a time. A step
that reads every row uses ``Store.local_copy``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from backfill_assets.lake.store import Store

#: Fetched when a file is opened, since Arrow reads this much first; it is the footer of most files.
TAIL_BYTES: Final = 64 << 10


class RangedFile(io.RawIOBase):
    """A file for reading; each read calls ``fetch(start, stop)`` once for bytes before the tail."""

    def __init__(self, size: int, tail: bytes, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._tail = tail
        self._tail_start = size - len(tail)
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """See ``io.IOBase.seek``; no request is made."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            msg = f"{base + offset} is before the beginning"
            raise ValueError(msg)
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # of bytes, as readers pass
        """Fill the buffer; only at the end of the file with less."""
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Read the rest."""
        return self._read(self._size)

    def _read(self, length: int) -> bytes:
        if self.closed:
            msg = "the file is closed"
            raise ValueError(msg)
        start, stop = self._position, min(self._position + length, self._size)
        if start >= stop:
            return b""
        data = self._fetch(start, min(stop, self._tail_start)) if start < self._tail_start else b""
        if stop > self._tail_start:
            data += self._tail[max(start - self._tail_start, 0) : stop - self._tail_start]
        self._position = stop
        return data


def read_footer(store: Store, path: str) -> pq.FileMetaData:
    """Read the footer of a Parquet file: schema, rows, and the statistics of its row groups.

    Raises
    ------
    PermanentFailure
        The file is missing, though a manifest names it.
    """
    with store.open_ranges(path) as file:
        return pq.read_metadata(file)
