"""A settled day as a frame, and the pandera schemas that say which of its feeds fall short.

``completeness``, ``quality`` and ``consistency`` are separate asset checks. A feed falls short in one of them
if loss, broken rows or differing candles put its score below 1, or if it has no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.feeds import DATA_TYPES
from backfill_assets.quality.findings import Finding, look_at
from backfill_assets.quality.settled import Day
from backfill_assets.settings import ThresholdSettings

if TYPE_CHECKING:
    import pandera.polars as pa_polars
    import polars as pl

_DEFAULTS: Final = ThresholdSettings()


def verdict_rows(found: Day) -> list[dict[str, Any]]:
    """One row per feed: feed, data type, outcome, scores, state, weight, whether it counts, and reasons."""
    return [
        {
            "feed": str(feed.feed),
            "data_type": feed.feed.data_type,
            "outcome": feed.verdict.outcome,
            "completeness": feed.verdict.completeness,
            "completeness_state": feed.verdict.completeness_state,
            "quality": feed.verdict.quality,
            "consistency": consistency,
            "weight": weight,
            "accepted": feed.accepted is not None,
            "approval": feed.approval.reason if feed.approval else "",
            "pending": feed.excess,
            "reasons": "; ".join((*feed.verdict.reasons, *feed.verdict.warnings)),
        }
        for feed, consistency, weight in zip(
            found.feeds, found.scores.consistencies, found.scores.weights, strict=True
        )
    ]


def verdict_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Rows of ``verdict_rows`` as a frame."""
    import polars as pl

    return pl.DataFrame(
        rows,
        schema={
            "feed": pl.String,
            "data_type": pl.String,
            "outcome": pl.String,
            "completeness": pl.Float64,
            "completeness_state": pl.String,
            "quality": pl.Float64,
            "consistency": pl.Float64,
            "weight": pl.Float64,
            "accepted": pl.Boolean,
            "approval": pl.String,
            "pending": pl.String,
            "reasons": pl.String,
        },
    )


def candle_rows(found: Day) -> list[dict[str, Any]]:
    """The rows of accepted feeds whose consistency is judged: feeds of trades with known volumes."""
    makes_candles = {name for name, data_type in DATA_TYPES.items() if data_type.makes_candles}
    return [
        row
        for row, feed in zip(verdict_rows(found), found.feeds, strict=True)
        if row["accepted"]
        and row["data_type"] in makes_candles
        and not (row["consistency"] is None and found.lacks_volumes(feed))
    ]


def score_finding(name: str, rows: Sequence[dict[str, Any]], thresholds: ThresholdSettings) -> Finding:
    """Validate the feeds by this score; the finding has those that fall short."""
    return look_at(verdict_schema(name, thresholds), verdict_frame(rows), ("feed",))


def verdict_schema(score: str, thresholds: ThresholdSettings = _DEFAULTS) -> pa_polars.DataFrameSchema:
    """The schema of good feeds: published, with a full score of the given name.

    A feed judged by silences alone reaches at most ``uncalibrated_cap``; that is not a shortfall of the feed.
    """
    import pandera.polars as pa
    import polars as pl

    full = thresholds.uncalibrated_cap if score == "completeness" else 1.0
    columns = {
        "feed": pa.Column(pl.String, unique=True),
        "outcome": pa.Column(pl.String, pa.Check.eq("publish", error="verdict_is_publish")),
        score: pa.Column(pl.Float64, pa.Check.in_range(full, 1, error="score_is_full")),
    }
    if score == "completeness":
        columns["completeness_state"] = pa.Column(
            pl.String, pa.Check.ne("degraded", error="no_id_is_missing")
        )
    if score == "quality":
        columns["pending"] = pa.Column(pl.String, pa.Check.eq("", error="no_restatement_is_pending"))
    return pa.DataFrameSchema(columns)
