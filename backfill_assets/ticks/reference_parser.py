"""The reference parser of a line: slow, in plain Python, and correct for every line.

It defines the form of a vendor's line. The kernels read the plain majority of cells and leave the rest to
this module: numbers with an exponent or more than 15 digits, text beyond ASCII, the first line of each
symbol, and every malformed line, whose place and fault this module names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, NoReturn

from backfill_assets.failures import CorruptFeed
from backfill_assets.tardis.columns import CsvField

#: A number as the vendor writes it in JavaScript: ``8531.5``, ``-0.2``, ``9.9e-7``, ``1e+21``.
NUMBER: Final = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
#: Microseconds from 9999 on: in a file, such a number is not a time; elsewhere, dates would overflow.
NO_TIME_US: Final = 253_370_764_800_000_000
_TIME: Final = re.compile(rb"[0-9]{1,18}", re.ASCII)
#: An id that counts as evidence: a decimal integer in its shortest form that fits into 63 bits.
_INTEGER_ID: Final = re.compile(rb"(?:0|[1-9][0-9]{0,17})", re.ASCII)

ID_EMPTY: Final = -2
#: Other ids become hashes of their texts, from here downwards.
ID_TEXT: Final = -3

#: Most bytes of an exchange or symbol name; the longest real ones have about 40.
LONGEST_NAME: Final = 200

Value = int | float | bytes | None


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads lines of one file; knows the file's name and columns for its messages."""

    file: str
    fields: Sequence[CsvField]

    def fail(self, line_number: int, column: str, what: str) -> NoReturn:
        """Raise ``CorruptFeed`` naming file, line (1 is the header) and column."""
        msg = (
            f"{self.file}: line {line_number}, column {column}: {what}; "
            "inspect the raw file, and report it to the vendor if the line is as served"
        )
        raise CorruptFeed(msg)

    def row(self, line: bytes, line_number: int) -> list[Value]:
        """Values of one line (without its newline), one per column.

        Times are microseconds, numbers are floats, texts and words are bytes, an empty cell is None.

        Raises
        ------
        CorruptFeed
            The line has a wrong number of columns, or a cell does not fit its column.
        """
        cells = line.removesuffix(b"\r").split(b",")
        for field, cell in zip(self.fields, cells, strict=False):
            if b'"' in cell:
                self.fail(line_number, field.csv, f"quoted cell {_shown(cell)}; the vendor writes none")
        if len(cells) != len(self.fields):
            here = self.fields[min(len(cells), len(self.fields)) - 1].csv
            self.fail(
                line_number, here, f"the line has {len(cells)} columns, the header has {len(self.fields)}"
            )
        return [
            self._value(number < 4, field, cell, line_number)
            for number, (field, cell) in enumerate(zip(self.fields, cells, strict=True))
        ]

    def number(self, cell: bytes, column: str, line_number: int) -> float:
        """Correctly rounded value of a nonempty cell; raises ``CorruptFeed`` if it is not a number."""
        value = float(cell) if NUMBER.fullmatch(cell) else float("nan")
        if not isfinite(value):
            self.fail(line_number, column, f"{_shown(cell)} is no number")
        return value

    def _value(self, required: bool, field: CsvField, cell: bytes, line_number: int) -> Value:
        if not cell:
            if required:
                self.fail(line_number, field.csv, "the cell is empty")
            return None
        if field.kind == "number":
            return self.number(cell, field.csv, line_number)
        if field.kind == "time":
            if not _TIME.fullmatch(cell) or int(cell) >= NO_TIME_US:
                self.fail(line_number, field.csv, f"{_shown(cell)} is no time in microseconds")
            return int(cell)
        if field.words:
            if cell not in [word.encode() for word in field.words]:
                self.fail(line_number, field.csv, f"{_shown(cell)} is none of {', '.join(field.words)}")
            return cell
        if field.kind == "name" and len(cell) > LONGEST_NAME:
            self.fail(line_number, field.csv, f"{_shown(cell)} has {len(cell):,} bytes: this is no name")
        try:
            cell.decode()
        except UnicodeDecodeError:
            self.fail(line_number, field.csv, f"{_shown(cell)} is not UTF-8")
        return cell


def id_number(cell: bytes | None) -> int:
    """The id as an integer, as ``ID_EMPTY``, or as 62 bits of its hash (FNV-1a) from ``ID_TEXT`` downwards.

    The hash stands for each id that is not an integer of at most 18 digits in its shortest form.
    """
    if not cell:
        return ID_EMPTY
    if _INTEGER_ID.fullmatch(cell):
        return int(cell)
    hashed = 14695981039346656037
    for byte in cell:
        hashed = (hashed ^ byte) * 1099511628211 % 2**64
    return ID_TEXT - (hashed >> 2)


def _shown(cell: bytes) -> str:
    text = repr(cell[:60].decode(errors="replace"))
    return text if len(cell) <= 60 else f"{text}…"
