"""The definition of a warehouse table, and how an existing table may differ from the wanted one.

The stages that fill the tables declare them. This module talks to no warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from backfill_assets.columns import Column, ColumnType, arrow_schema
from backfill_assets.failures import PermanentFailure

#: Measured: sizes from 64k to 1M make no difference in speed or bytes; this one keeps memory low.
ROW_GROUP_ROWS: Final = 262_144
#: Types that may be summed exactly, and those that may be summed only within a tolerance.
_EXACT_TYPES: Final = ("INT64", "TIMESTAMP")
_FLOAT_TYPES: Final = ("FLOAT64",)


@dataclass(frozen=True, slots=True)
class Table:
    """A table partitioned by day, and the control totals that confirm a partition.

    Attributes
    ----------
    name
        Letters, digits and underscores; also the folder of the embedded warehouse.
    columns
        Columns in the order of the table. The partition column is a required DATE.
    clustering
        At most four columns by which BigQuery sorts the partition.
    group_by
        The columns whose values name one line of control totals; usually exchange and symbol.
    time_column
        The TIMESTAMP whose first and last value per group are compared; None if there is none.
    exact_sums
        INT64 or TIMESTAMP columns whose sums must be equal (timestamps as microseconds since the epoch).
    float_sums
        FLOAT64 columns whose sums must agree within a relative tolerance, such as prices and amounts. A
        column whose values cancel is not suitable, because a correct sum may be off by any factor.
    row_group_rows
        The most rows of a row group in the embedded warehouse.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    clustering: tuple[str, ...] = ("exchange", "symbol")
    partition_column: str = "date"
    group_by: tuple[str, ...] = ("exchange", "symbol")
    time_column: str | None = None
    exact_sums: tuple[str, ...] = ()
    float_sums: tuple[str, ...] = ()
    row_group_rows: int = ROW_GROUP_ROWS

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").isalnum() or not self.name.isascii():
            msg = f"table {self.name!r}: a name has letters, digits and underscores only"
            raise ValueError(msg)
        if not self.column(self.partition_column).required:
            msg = f"table {self.name}: the partition column {self.partition_column} must be required"
            raise ValueError(msg)
        self._demand((self.partition_column,), ("DATE",))
        self._demand((self.time_column,) if self.time_column else (), ("TIMESTAMP",))
        self._demand(self.exact_sums, _EXACT_TYPES)
        self._demand(self.float_sums, _FLOAT_TYPES)
        self._demand(self.group_by, ("STRING",))
        for name in self.clustering:
            self.column(name)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the table's rows."""
        return arrow_schema(self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; ``ValueError`` if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        msg = f"table {self.name} has no column {name!r}"
        raise ValueError(msg)

    def _demand(self, names: tuple[str, ...], types: tuple[ColumnType | str, ...]) -> None:
        for name in names:
            if self.column(name).type not in types:
                msg = f"table {self.name}: column {name} must be {' or '.join(types)} for its use"
                raise ValueError(msg)


def missing_columns(table: Table, existing: Sequence[Column], where: str) -> tuple[Column, ...]:
    """Return the columns to add to an existing table.

    Parameters
    ----------
    existing
        The columns in the warehouse; descriptions are not compared.
    where
        The table's full name, for messages.

    Raises
    ------
    PermanentFailure
        A column is missing, has another type, is nullable but must be required, or a new one is required: the
        existing rows could not keep their meaning.
    """
    found = {column.name: column for column in existing}
    wanted = {column.name for column in table.columns}
    for name in found:
        if name not in wanted:
            msg = f"{where}: column {name} exists but is no longer wanted: keep it, or publish to a new table"
            raise PermanentFailure(msg)
    for column in table.columns:
        there = found.get(column.name)
        if there is None and column.required:
            msg = (
                f"{where}: new column {column.name} is required: make it nullable, or publish to a new table"
            )
            raise PermanentFailure(msg)
        if there is not None and (there.type != column.type or there.required < column.required):
            msg = (
                f"{where}: column {column.name} is {_kind(there)} instead of {_kind(column)}: "
                "change it back, or publish to a new table"
            )
            raise PermanentFailure(msg)
    return tuple(column for column in table.columns if column.name not in found)


def relaxed_columns(table: Table, existing: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns that are required in the existing table and should be nullable."""
    required = {column.name for column in existing if column.required}
    return tuple(column for column in table.columns if not column.required and column.name in required)


def _kind(column: Column) -> str:
    return f"{column.type} {'REQUIRED' if column.required else 'NULLABLE'}"
