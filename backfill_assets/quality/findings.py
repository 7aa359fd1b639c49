"""The result of validating a frame by a schema, stored beside the frame's file and reported by a check.

A file that is named by its content never changes, so its result never changes either. The asset that makes
the file validates it once, and the checks of every later run report the stored result. ``pandera_checks``
makes Dagster's results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.lake.documents import Document

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

#: Stored cases at most; the number of failures is exact.
KEPT_CASES: Final = 50


class Finding(Document):
    """The number of rows and of failing cases, the first of the cases, and the rows that break the schema."""

    rows: int
    failures: int = 0
    cases: tuple[dict[str, Any], ...] = ()
    broken: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """The finding as one line for people to read."""
        if not self.failures:
            return f"{self.rows} rows are valid"
        first = self.cases[0]
        where = f" at {first['row']}" if first["row"] else ""
        return f"{self.failures} failing cases; first: {first.get('check')} on {first.get('column')}{where}"


def look_at(schema: pa.DataFrameSchema, frame: pl.DataFrame, key: Sequence[str] = ()) -> Finding:
    """Validate an eager frame: for a lazy frame pandera skips the checks of the data.

    Parameters
    ----------
    key
        Columns whose values name a row for people; pandera itself gives only the row's number.
    """
    found = failure_cases(schema, frame)
    cases = [{"row": _row_name(frame, key, case.get("index")), **case} for case in found[:KEPT_CASES]]
    broken = sorted({case["index"] for case in found if case.get("index") is not None})
    return Finding(rows=frame.height, failures=len(found), cases=plain_rows(cases), broken=tuple(broken))


def together(findings: Sequence[Finding]) -> Finding:
    """The findings of several frames as one."""
    return Finding(
        rows=sum(found.rows for found in findings),
        failures=sum(found.failures for found in findings),
        cases=tuple(case for found in findings for case in found.cases)[:KEPT_CASES],
    )


def failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Every failing case of the frame: column, check and failing value; empty if the frame is valid."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        wanted = [name for name in ("column", "check", "failure_case", "index") if name in cases.columns]
        return list(cases.select(wanted).to_dicts())
    return []


def _row_name(frame: pl.DataFrame, key: Sequence[str], index: int | None) -> str:
    """Values of the key in that row; for a case without a row, the values that all rows share."""
    rows = frame if index is None else frame[index]
    shared = [rows[name] for name in key if name in rows.columns and rows[name].n_unique() == 1]
    return " ".join(str(values[0]) for values in shared)


def plain_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows as JSON keeps them: values other than text, finite numbers and booleans become text."""
    return tuple({name: _plain(value) for name, value in row.items()} for row in rows)


def _plain(value: object) -> str | int | float | bool | None:
    is_plain = isinstance(value, str | int) or value is None or (isinstance(value, float) and isfinite(value))
    return value if is_plain else str(value)  # type: ignore[return-value]
