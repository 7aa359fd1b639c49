"""Parses blocks of lines into row groups, by the compiled parser or, where that declines, the reference one.

Both fill the same arrays with the same values; with ``fast=False`` the reference parser reads every line,
so tests can compare the two. ``reference_parser`` defines the form of a line, ``rowgroups`` the storage of a
group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from backfill_assets.failures import CorruptFeed
from backfill_assets.ticks import kernels
from backfill_assets.ticks.blocks import SLACK, Block
from backfill_assets.ticks.profile import Name
from backfill_assets.ticks.reference_parser import Reader, Value, id_number
from backfill_assets.ticks.rowgroups import RowGroup

_ODD_CELLS: Final = 1 << 14
#: Most pairs of exchange and symbol in a file. The largest grouped files have a few thousand symbols; each
#: symbol costs memory and time, even with few rows.
MOST_NAMES: Final = 10_000
#: The header is line 1.
_FIRST_LINE: Final = 2
#: An empty line, with and without the carriage return of its newline.
_EMPTY: Final = (b"", b"\r")


class NameTable:
    """The "exchange,symbol," texts read so far, in the form in which the kernel looks them up."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.texts = np.zeros(256 + SLACK, np.uint8)
        self.ends = np.zeros(8, np.int64)
        self.table = np.full(16, -1, np.int32)

    def add(self, text: bytes) -> None:
        """Give the next number to a text that is not yet in the table."""
        number = len(self.names)
        start = int(self.ends[number - 1]) if number else 0
        end = start + len(text)
        if end + SLACK > len(self.texts):
            self.texts = _grown(self.texts, 2 * (end + SLACK))
        if number == len(self.ends):
            self.ends = _grown(self.ends, 2 * number)
        self.names.append(text)
        self.texts[start:end] = np.frombuffer(text, np.uint8)
        self.ends[number] = end
        if 2 * len(self.names) <= len(self.table):
            self._insert(len(self.names) - 1)
            return
        self.table = np.full(4 * len(self.table), -1, np.int32)
        for number in range(len(self.names)):
            self._insert(number)

    def _insert(self, number: int) -> None:
        hashed = 14695981039346656037  # FNV-1a, as in the kernel
        for byte in self.names[number]:
            hashed = (hashed ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
        slot = hashed & (len(self.table) - 1)
        while self.table[slot] >= 0:
            slot = (slot + 1) & (len(self.table) - 1)
        self.table[slot] = number


def _grown(array: np.typing.NDArray[Any], size: int) -> np.typing.NDArray[Any]:
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger


class LineParser:
    """Parses the lines of one file after its header.

    Parameters
    ----------
    reader
        The reference reader of this file.
    symbols
        Canonical symbol for each text of the file's symbol column.
    register
        Called with each new pair of exchange and symbol, in order of its code.
    """

    def __init__(
        self,
        reader: Reader,
        symbols: Mapping[str, str],
        register: Callable[[Name], None],
        *,
        fast: bool = True,
    ) -> None:
        self.names: list[Name] = []
        self._reader = reader
        self._symbols = symbols
        self._register = register
        self._fast = fast
        self._table = NameTable()
        self._codes: dict[bytes, int] = {}
        self._odd = np.empty((_ODD_CELLS, 4), np.int64)
        #: The first empty line; 0 if there was none.
        self._empty_line = 0

    def parse(self, block: Block, position: int, group: RowGroup) -> int:
        """Read lines from ``position`` until the block ends or the group is full; return the next position.

        Raises
        ------
        CorruptFeed
            A line does not fit the columns; names file, line and column.
        """
        view = np.frombuffer(block.buffer, np.uint8)
        while position < block.end and not group.full:
            if self._empty_line:
                self._insist_on_the_end(block, position)
            reason = kernels.DECLINED
            if self._fast:
                position, reason = self._parse_fast(block, view, position, group)
            if reason == kernels.DECLINED:
                position = self._parse_line(block, position, group)
        if group.full and not group.rows:
            line = group.first_row + _FIRST_LINE
            msg = (
                f"{self._reader.file}: line {line}: a text of megabytes: this is no CSV; inspect the raw file"
            )
            raise CorruptFeed(msg)
        return position

    def _parse_fast(
        self, block: Block, view: np.typing.NDArray[np.uint8], position: int, group: RowGroup
    ) -> tuple[int, int]:
        table, layout = self._table, group.layout
        if not 0 <= position <= block.end <= len(view) - SLACK:
            msg = f"bytes {position} to {block.end} of {len(view)}, without {SLACK} behind them"
            raise IndexError(msg)
        group.rows, position, odd, reason = kernels.parse(  # type: ignore[no-untyped-call]
            view, position, block.end, table.texts, table.ends, table.table, layout.plan, layout.words,
            group.codes, group.integers, group.numbers, group.word_codes, group.text_ends, group.texts,
            self._odd, group.rows,
        )  # fmt: skip
        for row, column, start, length in self._odd[:odd].tolist():
            cell = bytes(block.buffer[start : start + length])
            line = group.first_row + row + _FIRST_LINE
            value = self._reader.number(cell, layout.fields[column].csv, line)
            group.numbers[layout.plan[column, 1], row] = value
        group.full = reason == kernels.FULL
        return position, reason

    def _parse_line(self, block: Block, position: int, group: RowGroup) -> int:
        """Read one line by the reference parser; a new name is only added, and the line is read again."""
        if group.rows == group.capacity:
            group.full = True
            return position
        newline = block.buffer.find(b"\n", position, block.end)
        line = bytes(block.buffer[position:newline])
        if line in _EMPTY:
            self._empty_line = self._empty_line or group.first_row + group.rows + _FIRST_LINE
            return newline + 1
        values = self._reader.row(line, group.first_row + group.rows + _FIRST_LINE)
        prefix = b",".join(line.split(b",", 2)[:2]) + b","
        code = self._codes.get(prefix)
        if code is None:
            if len(self.names) == MOST_NAMES:
                self._reader.fail(
                    group.first_row + group.rows + _FIRST_LINE,
                    "symbol",
                    f"more than {MOST_NAMES:,} different pairs of exchange and symbol",
                )
            self._add_name(prefix)
            return position
        if not _place(values, code, group):
            group.full = True
            return position
        return newline + 1

    def _insist_on_the_end(self, block: Block, position: int) -> None:
        """Refuse an empty line before other lines; at the end of a file it has no meaning."""
        newline = block.buffer.find(b"\n", position, block.end)
        if bytes(block.buffer[position:newline]) not in _EMPTY:
            self._reader.fail(self._empty_line, self._reader.fields[0].csv, "the line is empty")

    def _add_name(self, prefix: bytes) -> None:
        exchange, dataset_symbol, _ = prefix.decode().split(",")
        name = Name(exchange, dataset_symbol, self._symbols.get(dataset_symbol))
        self._codes[prefix] = len(self.names)
        self.names.append(name)
        self._table.add(prefix)
        self._register(name)


def _place(values: list[Value], code: int, group: RowGroup) -> bool:
    """Write the values of a line as the group's next row; False if its texts do not fit."""
    row, plan = group.rows, group.layout.plan
    for (kind, target, id_row), field, value in zip(
        plan.tolist(), group.layout.fields, values[2:], strict=True
    ):
        if kind == kernels.TIME:
            group.integers[target, row] = kernels.NULL_TIME if value is None else value
        elif kind == kernels.NUMBER:
            group.numbers[target, row] = np.nan if value is None else value
        else:
            text = value if isinstance(value, bytes) else b""
            if kind == kernels.WORD:
                group.word_codes[target, row] = (
                    field.words.index(text.decode()) if text else kernels.NULL_WORD
                )
                continue
            start = int(group.text_ends[target, row])
            if start + len(text) > group.texts.shape[1]:
                return False
            group.texts[target, start : start + len(text)] = np.frombuffer(text, np.uint8)
            group.text_ends[target, row + 1] = start + len(text)
            if kind == kernels.ID:
                group.integers[id_row, row] = id_number(text)
    group.codes[row] = code
    group.rows += 1
    return True
