"""Inflating: a gzip file as blocks of whole lines, in one reused buffer.

The parsers split a block into lines and cells. This module raises only for damage that a new download can
repair (a truncated or corrupted body), not for damage in the content.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.failures import CorruptFeed, TransientFailure

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Small enough that a block stays in a core's cache from inflating to parsing.
BLOCK_BYTES: Final = 1 << 20

#: A block's room in inflated bytes per byte of the file, so that a small file takes little memory; trades
#: inflate to 9 times their size.
_INFLATION: Final = 16
_LEAST_BLOCK_BYTES: Final = 1 << 16

#: Readable bytes behind every block, because kernels load 8 bytes at a time.
SLACK: Final = 64

#: Longest line: the widest data type (102 columns) needs about 2.5 kB, so a longer one is not CSV.
LONGEST_LINE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines: ``buffer[:end]`` ends with a newline. Valid until the next block is asked for."""

    buffer: bytearray
    end: int
    #: No block follows.
    last: bool = False


class HashingFile(io.RawIOBase):
    """The compressed file; counts and hashes the bytes as they are read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = path.stat().st_size
        self._hash = hashlib.sha256()
        self.bytes_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read as any raw file does."""
        size = self._file.readinto(buffer)
        self._hash.update(memoryview(buffer)[:size])
        self.bytes_read += size
        return size

    def close(self) -> None:
        """Close the underlying file too."""
        self._file.close()
        super().close()

    @property
    def sha256(self) -> str:
        """Hash of the bytes read so far, in hex."""
        return self._hash.hexdigest()


def read_blocks(source: HashingFile, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Inflate a gzip file of any number of members; a missing final newline is added.

    Raises
    ------
    TransientFailure
        The body is empty, truncated, not gzip, or its checksum is wrong: download it again.
    CorruptFeed
        A line is longer than ``LONGEST_LINE``.
    """
    from isal import igzip, igzip_lib

    # igzip_lib's stub gives the exception class no type.
    damage: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, zlib.error, igzip_lib.IsalError)
    block_bytes = min(block_bytes, max(_LEAST_BLOCK_BYTES, _INFLATION * source.size))
    capacity, have = 2 * block_bytes, 0
    buffer = bytearray(capacity + SLACK)
    # A large buffer of compressed bytes: with the default of 8 kB the file system is asked 500 times more.
    raw = io.BufferedReader(source, 1 << 20)
    with igzip.IGzipFile(fileobj=raw, mode="rb") as inflated:  # type: ignore[no-untyped-call]
        while True:
            try:
                size = inflated.readinto(memoryview(buffer)[have:capacity])
            except damage as error:
                reason = " ".join(str(error).split())
                msg = f"{name}: damaged gzip after {source.bytes_read} bytes ({reason}): download it again"
                raise TransientFailure(msg) from error
            have += size
            if size == 0:
                break
            if have < min(block_bytes, capacity):
                continue
            end = buffer.rfind(b"\n", 0, have) + 1
            if end:
                yield Block(buffer, end)
                buffer[: have - end] = buffer[end:have]
                have -= end
            elif have == capacity:
                if capacity > LONGEST_LINE + 2 * block_bytes:
                    msg = f"{name}: a line is longer than {LONGEST_LINE} bytes: this is no CSV; inspect it"
                    raise CorruptFeed(msg)
                buffer.extend(bytes(capacity))
                capacity *= 2
    if source.bytes_read == 0:
        msg = f"{name}: the body is empty, without even a gzip header: download it again"
        raise TransientFailure(msg)
    if have:
        if buffer[have - 1] != ord("\n"):
            buffer[have : have + 1] = b"\n"
            have += 1
        yield Block(buffer, have, last=True)
