"""Joins Parquet files of one schema into one without decoding a value.

Row groups are copied byte for byte, and the footer is written again with their offsets in the new file. A
footer is one struct in Thrift's compact protocol (``parquet.thrift`` of apache/parquet-format). It is read
and written here without knowledge of its fields, so everything that a writer puts into it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from backfill_assets.failures import PermanentFailure

MAGIC: Final = b"PAR1"
#: Fields of ``FileMetaData``, ``RowGroup``, ``ColumnChunk`` and ``ColumnMetaData``.
_SCHEMA, _ROWS, _GROUPS, _ORDERS = 2, 3, 4, 7
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
_META = 3
_CHUNK_OFFSETS: Final = (2, 4, 6)
_PAGE_OFFSETS: Final = (9, 10, 11, 14)
_MOST_GROUPS: Final = 2**15
_CHUNK: Final = 1 << 20

_TRUE, _FALSE, _BYTE, _I16, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 4, 6, *range(7, 13)

#: A struct of the protocol: by field number its type and value, in the order of the file.
Struct = dict[int, tuple[int, Any]]


def join(sources: Sequence[Path], target: Path) -> None:
    """Write one file with the row groups of all sources, in their order.

    Raises
    ------
    PermanentFailure
        A source has no readable footer, or a schema that differs from the first one's.
    """
    footer: Struct = {}
    groups: list[Struct] = []
    rows = 0
    with target.open("wb") as sink:
        sink.write(MAGIC)
        for path in sources:
            with path.open("rb") as source:
                found, end = read_footer(source)
                if footer and any(found.get(part) != footer.get(part) for part in (_SCHEMA, _ORDERS)):
                    msg = f"{path}: has another schema than {sources[0]}: write both with the same columns"
                    raise PermanentFailure(msg)
                shift = sink.tell() - len(MAGIC)
                source.seek(len(MAGIC))
                left = end - len(MAGIC)
                while chunk := source.read(min(left, _CHUNK)):
                    sink.write(chunk)
                    left -= len(chunk)
            for group in found[_GROUPS][1][1]:
                _move(group, shift, len(groups))
                groups.append(group)
            rows += found[_ROWS][1]
            footer = {**(footer or found), _ROWS: (_I64, rows)}
        text = footer_bytes({**footer, _GROUPS: (_LIST, (_STRUCT, groups))})
        sink.write(text + len(text).to_bytes(4, "little") + MAGIC)


def read_footer(file: BinaryIO) -> tuple[Struct, int]:
    """Return the footer of a Parquet file, and its position.

    Raises
    ------
    PermanentFailure
        The file is not a Parquet file, or its footer is damaged.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 12 > size:
        msg = f"{file.name}: has no footer of a Parquet file: make the file again"
        raise PermanentFailure(msg)
    file.seek(size - 8 - length)
    try:
        return _read_struct(_Bytes(file.read(length))), size - 8 - length
    except (IndexError, RecursionError) as error:
        msg = f"{file.name}: has a damaged footer: make the file again"
        raise PermanentFailure(msg) from error


def footer_bytes(footer: Struct) -> bytes:
    """The footer as stored in a file, without its length."""
    text = bytearray()
    _write_struct(footer, text)
    return bytes(text)


def _move(group: Struct, shift: int, ordinal: int) -> None:
    """Let the row group begin ``shift`` bytes later, as the file's number ``ordinal``."""
    if _ORDINAL in group:
        if ordinal >= _MOST_GROUPS:
            del group[_ORDINAL]
        else:
            group[_ORDINAL] = (_I16, ordinal)
    _shift(group, (_GROUP_OFFSET,), shift)
    for column in group[_COLUMNS][1][1]:
        _shift(column, _CHUNK_OFFSETS, shift)
        _shift(column[_META][1], _PAGE_OFFSETS, shift)


def _shift(struct: Struct, fields: Sequence[int], by: int) -> None:
    for field in fields:
        kind, at = struct.get(field, (0, 0))
        # Writers put 0 for an unknown offset: nothing lies at a file's first byte.
        if at:
            struct[field] = (kind, at + by)


class _Bytes:
    """Bytes that are read from the beginning; raises ``IndexError`` past their end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        found = self.data[self.at]
        self.at += 1
        return found

    def take(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        if len(found) < count:
            raise IndexError
        self.at += count
        return found

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)


def _read_struct(data: _Bytes) -> Struct:
    struct: Struct = {}
    field = 0
    while header := data.byte():
        field = field + (header >> 4) if header >> 4 else data.zigzag()
        struct[field] = (header & 15, _read(header & 15, data))
    return struct


def _read(kind: int, data: _Bytes) -> Any:
    if kind in (_TRUE, _FALSE):
        return None  # the type is the value
    if kind == _BYTE:
        return data.byte()
    if _I16 <= kind <= _I64:
        return data.zigzag()
    if kind == _DOUBLE:
        return data.take(8)
    if kind == _BINARY:
        return data.take(data.varint())
    if kind in (_LIST, _SET):
        header = data.byte()
        size = header >> 4 if header >> 4 < 15 else data.varint()
        return header & 15, [_read_element(header & 15, data) for _ in range(size)]
    if kind == _STRUCT:
        return _read_struct(data)
    raise IndexError  # no footer has a map


def _read_element(kind: int, data: _Bytes) -> Any:
    return data.byte() if kind in (_TRUE, _FALSE) else _read(kind, data)


def _write_varint(value: int, text: bytearray) -> None:
    while value >= 0x80:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    text.append(value)


def _write_zigzag(value: int, text: bytearray) -> None:
    _write_varint(value << 1 if value >= 0 else (-value << 1) - 1, text)


def _write_struct(struct: Struct, text: bytearray) -> None:
    before = 0
    for field, (kind, value) in struct.items():
        if 0 < field - before < 16:
            text.append(field - before << 4 | kind)
        else:
            text.append(kind)
            _write_zigzag(field, text)
        _write(kind, value, text)
        before = field
    text.append(0)


def _write(kind: int, value: Any, text: bytearray) -> None:
    if kind == _BYTE:
        text.append(value)
    elif _I16 <= kind <= _I64:
        _write_zigzag(value, text)
    elif kind == _DOUBLE:
        text += value
    elif kind == _BINARY:
        _write_varint(len(value), text)
        text += value
    elif kind in (_LIST, _SET):
        of, elements = value
        if len(elements) < 15:
            text.append(len(elements) << 4 | of)
        else:
            text.append(0xF0 | of)
            _write_varint(len(elements), text)
        for element in elements:
            _write(_BYTE if of in (_TRUE, _FALSE) else of, element, text)
    elif kind == _STRUCT:
        _write_struct(value, text)
