"""A judged day as a frame, and the pandera schemas that say which of its feeds fall short.

``completeness``, ``quality`` and ``consistency`` are asset checks of their own; a feed falls short in one of
them where its score is below 1 by loss, by broken rows or by candles that differ, or where it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backfill_assets.quality.completeness import UNCALIBRATED_CAP
from backfill_assets.quality.day import JudgedDay

if TYPE_CHECKING:
    import pandera.polars as pa_polars
    import polars as pl

#: A feed judged by silences alone reaches at most ``UNCALIBRATED_CAP``; that is no shortfall of the feed.
_FULL: Final = {"completeness": UNCALIBRATED_CAP, "quality": 1.0, "consistency": 1.0}


def verdict_frame(judged: JudgedDay) -> pl.DataFrame:
    """One row per feed: feed, data type, outcome, scores, state, weight, whether it counts, and reasons."""
    import polars as pl

    return pl.DataFrame(
        [
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
                "reasons": "; ".join((*feed.verdict.reasons, *feed.verdict.warnings)),
            }
            for feed, consistency, weight in zip(
                judged.feeds, judged.scores.consistencies, judged.scores.weights, strict=True
            )
        ],
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
            "reasons": pl.String,
        },
    )


def verdict_schema(score: str) -> pa_polars.DataFrameSchema:
    """Which feeds count as good: published, with a full score in the one that is named."""
    import pandera.polars as pa
    import polars as pl

    columns = {
        "feed": pa.Column(pl.String, unique=True),
        "outcome": pa.Column(pl.String, pa.Check.eq("publish", error="verdict_is_publish")),
        score: pa.Column(pl.Float64, pa.Check.in_range(_FULL[score], 1, error="score_is_full")),
    }
    if score == "completeness":
        columns["completeness_state"] = pa.Column(
            pl.String, pa.Check.ne("degraded", error="no_id_is_missing")
        )
    return pa.DataFrameSchema(columns)
