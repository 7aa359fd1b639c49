"""What a schema found in a frame, as it is kept beside the frame's file and told by a check.

A content-named file never changes, so neither does what a schema finds in it: the asset that makes the file
looks once, and the checks of every later run tell the same. ``pandera_checks`` makes Dagster's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.lake.documents import Document

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

#: Cases that are kept; their number is exact.
KEPT_CASES: Final = 50


class Finding(Document):
    """How many rows were looked at, how many cases break the schema, the first of them, and which rows do."""

    rows: int
    failures: int = 0
    cases: tuple[dict[str, Any], ...] = ()
    broken: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.failures:
            return f"{self.rows} rows hold"
        first = self.cases[0]
        where = f" at {first['row']}" if first["row"] else ""
        return f"{self.failures} failing cases; first: {first.get('check')} on {first.get('column')}{where}"


def look_at(schema: pa.DataFrameSchema, frame: pl.DataFrame, key: Sequence[str] = ()) -> Finding:
    """Validate an eager frame: a lazy one makes pandera skip the checks of the data.

    Parameters
    ----------
    key
        Columns whose values name a row to a person; pandera itself gives its number only.
    """
    found = failure_cases(schema, frame)
    cases = [{"row": _row_name(frame, key, case.get("index")), **case} for case in found[:KEPT_CASES]]
    plain = tuple({name: _plain(value) for name, value in case.items()} for case in cases)
    broken = sorted({case["index"] for case in found if case.get("index") is not None})
    return Finding(rows=frame.height, failures=len(found), cases=plain, broken=tuple(broken))


def together(findings: Sequence[Finding]) -> Finding:
    """The findings of several frames as one."""
    return Finding(
        rows=sum(found.rows for found in findings),
        failures=sum(found.failures for found in findings),
        cases=tuple(case for found in findings for case in found.cases)[:KEPT_CASES],
    )


def failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Every way in which the frame breaks the schema: column, check and failing value; empty if it holds."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        wanted = [name for name in ("column", "check", "failure_case", "index") if name in cases.columns]
        return list(cases.select(wanted).to_dicts())
    return []


def _row_name(frame: pl.DataFrame, key: Sequence[str], index: int | None) -> str:
    """Values of the key in that row; of a case that is about no row, those that all rows share."""
    rows = frame if index is None else frame[index]
    shared = [rows[name] for name in key if name in rows.columns and rows[name].n_unique() == 1]
    return " ".join(str(values[0]) for values in shared)


def _plain(value: object) -> str | int | bool | None:
    return value if isinstance(value, str | int | bool) or value is None else str(value)
