"""Pandera schemas as Dagster asset checks: one adapter, so every failing check shows its cases alike.

Frames are eager polars frames: a LazyFrame makes pandera skip the checks of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from backfill_assets.orchestration import table_metadata

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl


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


def frame_check(
    asset_key: dg.AssetKey,
    name: str,
    schema: pa.DataFrameSchema,
    frame: pl.DataFrame,
    key: Sequence[str] = (),
) -> dg.AssetCheckResult:
    """Validate the frame and tell the outcome as the check ``name``, with the failing cases as a table.

    Parameters
    ----------
    key
        Columns whose values name a row to a person; pandera itself gives its number only.
    """
    cases = [
        {"row": _row_name(frame, key, case.get("index")), **case} for case in failure_cases(schema, frame)
    ]
    metadata: dict[str, Any] = {"rows": frame.height, "failures": len(cases)}
    if cases:
        metadata["failure_cases"] = table_metadata(cases)
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=name,
        passed=not cases,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_summary(cases) if cases else f"{frame.height} rows hold",
        metadata=metadata,
    )


def _summary(cases: list[dict[str, Any]]) -> str:
    first = cases[0]
    where = f" at {first['row']}" if first["row"] else ""
    return f"{len(cases)} failing cases; first: {first.get('check')} on {first.get('column')}{where}"


def _row_name(frame: pl.DataFrame, key: Sequence[str], index: int | None) -> str:
    """Values of the key in that row; of a case that is about no row, those that all rows share."""
    rows = frame if index is None else frame[index]
    shared = [rows[name] for name in key if name in rows.columns and rows[name].n_unique() == 1]
    return " ".join(str(values[0]) for values in shared)
