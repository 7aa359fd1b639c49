"""Files with the same content in another form: a byte order mark, quoted cells, more columns at the end.

They are rewritten block by block to the vendor's plain form, so neither parser handles them and a plain file
costs one search for a quote per block. ``reference_parser`` interprets lines and handles every other oddity;
a line without a plain form is passed on unchanged, and refused there by its number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np

from backfill_assets.failures import printable
from backfill_assets.ticks.blocks import SLACK, Block
from backfill_assets.ticks.reference_parser import Reader

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_COMMA, _NEWLINE = 44, 10
#: Most characters of an unknown name that are shown.
_SHOWN: Final = 60


@dataclass(slots=True)
class Dialect:
    """The dialect of one file, known once its header is read."""

    reader: Reader
    #: Names of the columns after those of the data type.
    more_columns: tuple[str, ...] = ()
    has_header: bool = False
    #: Lines read so far, for messages.
    _lines: int = field(default=0, repr=False)

    def rows(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks without the header, in the plain form.

        Raises
        ------
        CorruptFeed
            The header is not that of the data type, or a line and the header differ in number of columns.
        """
        remaining = iter(blocks)
        first = next(remaining, None)
        if first is None:
            return
        for block in chain([self._without_header(first)], remaining):
            if self.more_columns or block.buffer.find(b'"', 0, block.end) >= 0:
                yield self._plain(block)
            else:
                yield block

    def _without_header(self, block: Block) -> Block:
        end = block.buffer.index(b"\n")
        line = bytes(block.buffer[:end]).removesuffix(b"\r").removeprefix(_BYTE_ORDER_MARK)
        names = [name.decode(errors="replace") for name in _cells(line) or line.split(b",")]
        wanted = [column.csv for column in self.reader.fields]
        if names[: len(wanted)] != wanted:
            column = next((w for w, f in zip(wanted, names, strict=False) if w != f), wanted[-1])
            shown = printable(",".join(names))
            shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
            self.reader.fail(1, column, f"the header is '{shown}', expected '{','.join(wanted)}'")
        self.has_header = True
        self.more_columns = tuple(printable(name)[:_SHOWN] for name in names[len(wanted) :])
        self._lines = 1
        return _block(block.buffer[end + 1 : block.end], last=block.last)

    def _plain(self, block: Block) -> Block:
        known, columns = len(self.reader.fields), len(self.reader.fields) + len(self.more_columns)
        before = self._lines
        self._lines += block.buffer.count(b"\n", 0, block.end)
        cut = _without_last_columns(block, known, columns)
        if cut is not None:
            return cut
        lines = bytes(block.buffer[: block.end]).split(b"\n")[:-1]
        plain = [self._line(line, known, columns, before + 1 + n) for n, line in enumerate(lines)]
        return _block(b"".join(plain), last=block.last)

    def _line(self, line: bytes, known: int, columns: int, number: int) -> bytes:
        cells = _cells(line.removesuffix(b"\r"))
        if cells is None or cells in ([], [b""]):
            return line + b"\n"
        if self.more_columns and len(cells) != columns:
            here = self.reader.fields[min(len(cells), known) - 1].csv
            self.reader.fail(number, here, f"the line has {len(cells)} columns, the header has {columns}")
        return b",".join(cells[: known if self.more_columns else None]) + b"\n"


def _block(text: bytes | bytearray, *, last: bool) -> Block:
    return Block(bytearray(text) + bytes(SLACK), len(text), last)


def _cells(line: bytes) -> list[bytes] | None:
    """The cells without their quotes; None if a quote is part of a value, or a value has several lines."""
    if b'"' not in line:
        return line.split(b",")
    try:
        [texts] = csv.reader([line.decode("utf-8", "surrogateescape")], strict=True)
    except (csv.Error, ValueError):
        return None
    cells = [text.encode("utf-8", "surrogateescape") for text in texts]
    return None if any(sign in cell for cell in cells for sign in (b'"', b",", b"\r")) else cells


def _without_last_columns(block: Block, known: int, columns: int) -> Block | None:
    """The block cut after the known columns; None if each line must be checked for that."""
    text = np.frombuffer(block.buffer, np.uint8, block.end)
    ends = np.flatnonzero(text == _NEWLINE)
    commas = np.flatnonzero(text == _COMMA)
    if columns == known or len(commas) != len(ends) * (columns - 1) or (text == ord('"')).any():
        return None
    of_line = commas.reshape(len(ends), columns - 1)
    if (of_line[:, -1] > ends).any() or (of_line[1:, 0] < ends[:-1]).any():
        return None
    cut = of_line[:, known - 1]
    change = np.zeros(block.end + 1, np.int8)
    change[cut] = 1
    change[ends] -= 1
    return _block(text[np.cumsum(change[:-1], dtype=np.int8) == 0].tobytes(), last=block.last)
