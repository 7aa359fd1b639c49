"""Row groups: the parsers' output arrays, their Arrow view, and their Parquet form.

Parsers fill a ``RowGroup`` in place; ``arrow_table`` wraps the same memory, so no value is copied between
parsing and encoding. ``decode`` reuses groups. Arrow arrays are made from buffers because ``pyarrow.array``
imports pandas if that is installed, which costs more than decoding a small file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.columns import ARROW_TYPES, Column
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.tardis.columns import CsvField, csv_fields, tick_columns
from backfill_assets.ticks import kernels
from backfill_assets.ticks.profile import Name, Rows

#: Rows of a group. Smaller groups take as long and less memory; wide data types get fewer rows, so that their
#: groups take no more memory.
ROW_GROUP_ROWS: Final = 250_000
_GROUP_BYTES: Final = 24 << 20
#: Room for texts per row and column (a UUID has 36 bytes); a group that needs more is written earlier.
_TEXT_BYTES: Final = 40
_LEAST_TEXT_BYTES: Final = 8 << 20

_KINDS: Final = {
    "time": kernels.TIME,
    "number": kernels.NUMBER,
    "text": kernels.TEXT,
    "id": kernels.ID,
    "word": kernels.WORD,
    "flag": kernels.WORD,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The place of each column of a data type; ``plan`` and ``words`` have the kernel's form."""

    data_type: str
    fields: tuple[CsvField, ...]
    plan: Any
    words: Any
    #: Rows of each array: integers, numbers, word codes, texts.
    sizes: tuple[int, int, int, int]

    @classmethod
    def of(cls, data_type: str) -> Layout:
        """Make the layout of the columns after exchange and symbol."""
        fields = csv_fields(data_type)[2:]
        plan = np.zeros((len(fields), 3), np.int64)
        words = np.zeros((len(fields), 3, 3), np.uint64)
        integers = numbers = codes = texts = 0
        for c, field in enumerate(fields):
            plan[c, 0] = _KINDS[field.kind]
            if field.kind == "time":
                plan[c, 1], integers = integers, integers + 1
            elif field.kind == "number":
                plan[c, 1], numbers = numbers, numbers + 1
            elif field.words:
                plan[c, 1], codes = codes, codes + 1
                for k, word in enumerate(field.words):
                    text = f"{word},".encode()
                    words[c, k] = ((1 << 8 * len(text)) - 1, int.from_bytes(text, "little"), len(word))
            else:
                plan[c, 1], texts = texts, texts + 1
                if field.kind == "id":
                    plan[c, 2], integers = integers, integers + 1
        return cls(data_type, fields, plan, words, (integers, numbers, codes, texts))

    @property
    def row_group_rows(self) -> int:
        """Rows of a full group."""
        integers, numbers, codes, texts = self.sizes
        return min(ROW_GROUP_ROWS, _GROUP_BYTES // (8 * (integers + numbers) + 4 + codes + 4 * texts))

    def number_row(self, name: str) -> int | None:
        """Row of ``RowGroup.numbers`` with the stored column, if there is one."""
        return next(
            (int(self.plan[c, 1]) for c, field in enumerate(self.fields) if field.column.name == name), None
        )


class RowGroup:
    """Parsed columns of up to ``capacity`` rows; the first one is the file's row ``first_row``.

    ``text_bytes`` is the most bytes that the texts of a column can have, if that is known.
    """

    def __init__(self, layout: Layout, capacity: int, text_bytes: int | None = None) -> None:
        integers, numbers, codes, texts = layout.sizes
        self.layout = layout
        self.capacity = capacity
        self.first_row = 0
        self.rows = 0
        self.full = False
        self.codes = np.empty(capacity, np.int32)
        self.integers = np.empty((integers, capacity), np.int64)
        self.numbers = np.empty((numbers, capacity), np.float64)
        self.word_codes = np.empty((codes, capacity), np.uint8)
        self.text_ends = np.empty((texts, capacity + 1), np.int32)
        self.text_ends[:, 0] = 0
        room = max(capacity * _TEXT_BYTES, _LEAST_TEXT_BYTES)
        self.texts = np.empty((texts, room if text_bytes is None else min(room, text_bytes)), np.uint8)

    def restart(self, first_row: int) -> None:
        """Drop the rows but keep the memory."""
        self.first_row, self.rows, self.full = first_row, 0, False

    def counted(self) -> Rows:
        """The columns that the profile counts."""
        layout = self.layout
        fills = DATA_TYPES[layout.data_type].has_fills
        trades = DATA_TYPES[layout.data_type].has_trades
        changes = DATA_TYPES[layout.data_type].changes_books

        def number(*names: str) -> Any:
            row = next((r for r in map(layout.number_row, names) if r is not None), None)
            return None if row is None else self.numbers[row]

        book = layout.data_type in ("quotes", "book_ticker") or layout.data_type.startswith("book_snapshot")
        return Rows(
            times=self.integers[0],
            locals=self.integers[1],
            codes=self.codes,
            price=number("price") if fills or changes else None,
            amount=number("amount") if fills or changes else None,
            side=self.word_codes[0] if trades else self.word_codes[1] if changes else None,
            is_snapshot=self.word_codes[0] if changes else None,
            ids=self.integers[2] if trades else None,
            best_bid=number("bid_price", "bids_0_price") if book else None,
            best_ask=number("ask_price", "asks_0_price") if book else None,
            values=None if fills else self.numbers,
            due=None if fills or len(self.integers) < 3 else self.integers[2],
        )


def _validity(valid: Any) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _strings(texts: Sequence[str]) -> pa.Array:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0] + [len(text) for text in encoded]).astype(np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def _dictionary(indices: Any, texts: Sequence[str], valid: Any = None) -> pa.Array:
    array = pa.Array.from_buffers(
        pa.from_numpy_dtype(indices.dtype),
        len(indices),
        [None if valid is None else _validity(valid), pa.py_buffer(np.ascontiguousarray(indices))],
    )
    return pa.DictionaryArray.from_arrays(array, _strings(texts))


def _named(codes: Any, texts: Sequence[str | None]) -> pa.Array:
    """Dictionary array of the text of each code."""
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    positions = {text: n for n, text in enumerate(distinct)}
    index = np.array([-1 if text is None else positions[text] for text in texts], np.int32)
    if len(distinct) == len(texts):
        return _dictionary(codes, distinct)
    indices = index[codes]
    return _dictionary(indices, distinct, indices >= 0)


def _column(group: RowGroup, number: int) -> pa.Array:
    """Arrow view of the CSV column ``number`` (counted from ``timestamp``)."""
    field, n = group.layout.fields[number], group.rows
    target = int(group.layout.plan[number, 1])
    if field.kind == "time":
        times = group.integers[target, :n]
        valid = None if field.column.required else _validity(times != kernels.NULL_TIME)
        return pa.Array.from_buffers(ARROW_TYPES["TIMESTAMP"], n, [valid, pa.py_buffer(times)])
    if field.kind == "number":
        values = group.numbers[target, :n]
        return pa.Array.from_buffers(pa.float64(), n, [_validity(~np.isnan(values)), pa.py_buffer(values)])
    if field.words:
        codes = group.word_codes[target, :n]
        valid = codes != kernels.NULL_WORD
        if field.kind == "flag":
            bits = np.packbits(codes == 1, bitorder="little")
            return pa.Array.from_buffers(pa.bool_(), n, [_validity(valid), pa.py_buffer(bits)])
        return _dictionary(codes.view(np.int8), field.words, valid)
    ends = group.text_ends[target, : n + 1]
    data = group.texts[target, : int(ends[n])]
    return pa.Array.from_buffers(
        pa.string(), n, [_validity(ends[1:] != ends[:-1]), pa.py_buffer(ends), pa.py_buffer(data)]
    )


def writer_schema(data_type: str) -> pa.Schema:
    """The stored columns, as Arrow dictionaries if the parser has codes; Parquet has plain strings."""
    words = {field.column.name for field in csv_fields(data_type) if field.kind == "word"}
    fields = []
    for column in tick_columns(data_type):
        arrow = ARROW_TYPES[column.type]
        if column.name in ("exchange", "symbol", "dataset_symbol"):
            arrow = pa.dictionary(pa.int32(), pa.string())
        elif column.name in words:
            arrow = pa.dictionary(pa.int8(), pa.string())
        fields.append(pa.field(column.name, arrow, nullable=not column.required))
    return pa.schema(fields)


def arrow_table(group: RowGroup, names: Sequence[Name], day_number: int, schema: pa.Schema) -> pa.Table:
    """The group's rows, ordered like ``tick_columns``; views of its memory, so use it before ``restart``."""
    n = group.rows
    codes = group.codes[:n]
    rows = np.arange(group.first_row, group.first_row + n, dtype=np.int64)
    arrays = [
        pa.Array.from_buffers(pa.date32(), n, [None, pa.py_buffer(np.full(n, day_number, np.int32))]),
        _named(codes, [name.exchange for name in names]),
        _named(codes, [name.symbol for name in names]),
        _named(codes, [name.dataset_symbol for name in names]),
        _column(group, 0),
        _column(group, 1),
        pa.Array.from_buffers(pa.int64(), n, [None, pa.py_buffer(rows)]),
        *(_column(group, number) for number in range(2, len(group.layout.fields))),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _encoding(column: Column) -> str | None:
    """Parquet encoding of a column; None is dictionary. Chosen by measurement (``docs/performance.md``).

    Publishing copies row groups, so these are the encodings of published partitions (``warehouse.parquet``).
    """
    if column.type in ("INT64", "TIMESTAMP"):
        return "DELTA_BINARY_PACKED"
    return "PLAIN" if column.type == "BOOL" or column.name == "id" else None


def parquet_writer(path: Path, data_type: str, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a writer whose output depends only on the rows.

    The Arrow schema is not stored beside Parquet's own, so readers see strings instead of dictionaries.
    """
    columns = tick_columns(data_type)
    encodings = {column.name: encoding for column in columns if (encoding := _encoding(column))}
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[column.name for column in columns if column.name not in encodings],
        column_encoding=encodings,
        store_schema=False,
        # Readers of parts of a file select by time only.
        write_statistics=["timestamp"],
        # BigQuery advises smaller pages for more than 100 columns.
        data_page_size=(1 << 20) if len(columns) <= 100 else (1 << 18),
    )
