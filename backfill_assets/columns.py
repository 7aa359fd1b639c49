"""The description of a stored column, shared by Parquet, BigQuery, DuckDB and the documentation.

Stages list their columns as ``Column`` tuples (in their ``schemas.py`` and in ``tardis/columns.py``); this
file turns such a list into an Arrow schema. Types have BigQuery's names, because BigQuery is the narrowest
system that stores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

ColumnType = Literal["STRING", "DATE", "TIMESTAMP", "INT64", "FLOAT64", "BOOL"]

ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
}

#: Control totals add up the values in this range, both ends included, so that no sum overflows or cancels.
#: The exact sums prove rows outside it.
SUMMED_RANGE: Final = (0.0, 1e36)


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column: name, BigQuery type, whether it is never null, and its meaning (with unit)."""

    name: str
    type: ColumnType
    description: str
    required: bool = False


def described(schema: pa.Schema) -> tuple[str, ...]:
    """``name:type`` of each column; the form of text in a program's memory is not part of the type."""
    return tuple(f"{field.name}:{_plain(field.type)}" for field in schema)


def _plain(stored: pa.DataType) -> pa.DataType:
    value = stored.value_type if pa.types.is_dictionary(stored) else stored
    return pa.string() if pa.types.is_large_string(value) else value


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Arrow schema of a table with these columns: TIMESTAMP is microseconds UTC, DATE is ``date32``."""
    return pa.schema(
        [pa.field(c.name, ARROW_TYPES[c.type], nullable=not c.required) for c in columns],
    )
