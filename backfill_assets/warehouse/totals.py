"""Control totals: they confirm that a partition has the lake's rows.

Per group (usually a feed's exchange and symbol): rows, first and last time, exact sums of integers, and sums
of floats. The warehouse itself computes them for a partition, DuckDB for Parquet files, in bounded memory;
they are compared here. Sums of floats are over ``SUMMED_RANGE``; they depend on the order of addition, so
they get a tolerance.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import PlainSerializer

from backfill_assets.columns import SUMMED_RANGE, ColumnType
from backfill_assets.days import iso_time
from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.tables import Table

if TYPE_CHECKING:
    import duckdb

#: Measured: engines and thread counts differ by up to 1e-11 on 5 million rows.
TOLERANCE: Final = 1e-9

_MEMORY_LIMIT: Final = "512MB"
_DUCKDB_TYPES: Final[dict[ColumnType, str]] = {
    "STRING": "VARCHAR",
    "BOOL": "BOOLEAN",
    "INT64": "BIGINT",
    "FLOAT64": "DOUBLE",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMPTZ",
}
_THREADS: Final = 2

#: JSON has no NaN, so the ledger holds the text of a float.
_StoredFloat = Annotated[float, PlainSerializer(repr, return_type=str)]


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """Totals of one group of rows: times in microseconds, sums in the order that the table declares."""

    group: tuple[str | None, ...]
    rows: int
    first_time_us: int | None
    last_time_us: int | None
    exact: tuple[int, ...] = ()
    floats: tuple[_StoredFloat, ...] = ()


def total_rows(totals: Iterable[GroupTotals]) -> int:
    """Sum the rows of all groups."""
    return sum(group.rows for group in totals)


def totals_from_rows(table: Table, rows: Iterable[Sequence[Any]]) -> tuple[GroupTotals, ...]:
    """Make totals from query results: group values, rows, first time, last time, exact sums, float sums.

    The order is that of the group values, regardless of the order of the rows; a sum over nulls only is 0.
    """
    groups, exact = len(table.group_by), len(table.exact_sums)
    result = []
    for row in rows:
        values = list(row)
        group, (count, first, last), sums = values[:groups], values[groups : groups + 3], values[groups + 3 :]
        result.append(
            GroupTotals(
                group=tuple(None if value is None else str(value) for value in group),
                rows=int(count),
                first_time_us=None if first is None else int(first),
                last_time_us=None if last is None else int(last),
                exact=tuple(int(value or 0) for value in sums[:exact]),
                floats=tuple(float(value or 0.0) for value in sums[exact:]),
            )
        )
    return tuple(
        sorted(result, key=lambda totals: [(value is not None, value or "") for value in totals.group])
    )


def file_totals(table: Table, paths: Sequence[Path]) -> tuple[GroupTotals, ...]:
    """Return totals of all rows of Parquet files; columns that a file lacks count as null.

    Raises
    ------
    PermanentFailure
        A file is missing or cannot be read as the table's rows.
    """
    if not paths:
        return ()
    import duckdb

    with _engine(os.getpid()).cursor() as connection:
        try:
            rows = connection.execute(
                _query(table), {"paths": [glob.escape(str(path)) for path in paths]}
            ).fetchall()
        except duckdb.Error as error:
            reason = " ".join(str(error).split())
            more = f" and {len(paths) - 1} more" if paths[1:] else ""
            msg = f"{paths[0]}{more}: not readable as rows of {table.name}: {reason}"
            raise PermanentFailure(msg) from error
    return totals_from_rows(table, rows)


@cache
def _engine(_: int) -> duckdb.DuckDBPyConnection:
    """An empty database for the process of that number; opening one takes four times as long as a query.

    A fork must neither use nor close its parent's database, whose threads it does not have.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={"memory_limit": _MEMORY_LIMIT, "threads": _THREADS})
    # A partition's file is replaced under its name, and only the current file counts.
    connection.execute("SET enable_external_file_cache = false")
    connection.execute("SET preserve_insertion_order = false")
    return connection


def _query(table: Table) -> str:
    groups = [f'"{name}"' for name in table.group_by]
    time = f'epoch_us("{table.time_column}")' if table.time_column else "CAST(NULL AS BIGINT)"
    exact = [
        f'sum(epoch_us("{name}"))' if table.column(name).type == "TIMESTAMP" else f'sum("{name}")'
        for name in table.exact_sums
    ]
    floats = [f"sum({summed(name)})" for name in (f'"{name}"' for name in table.float_sums)]
    columns = ", ".join([*groups, "count(*)", f"min({time})", f"max({time})", *exact, *floats])
    # Adds the columns that none of the files has yet. A relation of Arrow's would import pandas.
    empty = ", ".join(f'CAST(NULL AS {_DUCKDB_TYPES[c.type]}) AS "{c.name}"' for c in table.columns)
    files = "SELECT * FROM read_parquet($paths, union_by_name = true)"
    source = f"SELECT {empty} WHERE false UNION ALL BY NAME {files}"
    if not groups:
        return f"SELECT {columns} FROM ({source}) HAVING count(*) > 0"
    return f"SELECT {columns} FROM ({source}) GROUP BY {', '.join(groups)}"


def summed(column: str) -> str:
    """SQL for the column's value if it counts in a sum of floats."""
    least, most = SUMMED_RANGE
    return f"CASE WHEN {column} BETWEEN {least!r} AND {most!r} THEN {column} END"


def compare_totals(
    expected: Sequence[GroupTotals],
    found: Sequence[GroupTotals],
    tolerance: float = TOLERANCE,
    *,
    table: Table | None = None,
) -> list[str]:
    """Return the differences, one line each for a person; an empty list confirms that the rows are there.

    Parameters
    ----------
    expected, found
        Totals from the lake and from the warehouse.
    tolerance
        Relative to the larger of two float sums. NaN equals NaN.
    table
        Gives the sums their column names.
    """
    lake = {totals.group: totals for totals in expected}
    warehouse = {totals.group: totals for totals in found}
    differences = [
        f"{_name(group)}: {totals.rows} rows in the lake, none in the warehouse"
        for group, totals in lake.items()
        if group not in warehouse
    ]
    differences += [
        f"{_name(group)}: none in the lake, {totals.rows} rows in the warehouse"
        for group, totals in warehouse.items()
        if group not in lake
    ]
    for group, totals in lake.items():
        if group in warehouse:
            differences += _differences(_name(group), totals, warehouse[group], tolerance, table)
    return differences


def _differences(
    name: str, expected: GroupTotals, found: GroupTotals, tolerance: float, table: Table | None
) -> list[str]:
    if expected.rows != found.rows:
        return [f"{name}: {expected.rows} rows in the lake, {found.rows} in the warehouse"]
    lines = [
        f"{name}: {label} time {_time(a)} in the lake, {_time(b)} in the warehouse"
        for label, a, b in (
            ("first", expected.first_time_us, found.first_time_us),
            ("last", expected.last_time_us, found.last_time_us),
        )
        if a != b
    ]
    exact_names = table.exact_sums if table else tuple(f"exact {i + 1}" for i in range(len(expected.exact)))
    float_names = table.float_sums if table else tuple(f"float {i + 1}" for i in range(len(expected.floats)))
    lines += [
        f"{name}: sum of {column} is {a} in the lake, {b} in the warehouse"
        for column, a, b in zip(exact_names, expected.exact, found.exact, strict=True)
        if a != b
    ]
    lines += [
        f"{name}: sum of {column} is {a!r} in the lake, {b!r} in the warehouse"
        for column, a, b in zip(float_names, expected.floats, found.floats, strict=True)
        if not (math.isclose(a, b, rel_tol=tolerance, abs_tol=0.0) or (math.isnan(a) and math.isnan(b)))
    ]
    return lines


def _name(group: tuple[str | None, ...]) -> str:
    return "/".join("null" if value is None else value for value in group) or "all rows"


def _time(time_us: int | None) -> str:
    return "none" if time_us is None else iso_time(time_us)
