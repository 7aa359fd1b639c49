"""Findings of pandera schemas as Dagster asset checks, in one place, so that all of them look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg

from backfill_assets.orchestration import table_metadata
from backfill_assets.quality.findings import Finding
from backfill_assets.quality.settled import Day

#: Feeds that a description names.
_NAMED: Final = 3


def finding_check(asset_key: dg.AssetKey, name: str, finding: Finding) -> dg.AssetCheckResult:
    """Report the finding as the check ``name``, with the failing cases as a table."""
    metadata: dict[str, Any] = {"rows": finding.rows, "failures": finding.failures}
    if finding.cases:
        metadata["failure_cases"] = table_metadata(finding.cases)
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=name,
        passed=not finding.failures,
        severity=dg.AssetCheckSeverity.ERROR,
        description=finding.summary,
        metadata=metadata,
    )


def _shown(score: float | None) -> str:
    return "no score" if score is None else f"{score:.4f}"


def score_check(
    asset_key: dg.AssetKey,
    score_name: str,
    found: Day,
    feeds: Sequence[dict[str, Any]],
    finding: Finding,
    *,
    needs_feeds: bool = True,
) -> dg.AssetCheckResult:
    """Report a score of the day: ERROR where it is not above its threshold, WARN where only feeds fall short.

    Parameters
    ----------
    score_name
        Name of the score and of the check.
    feeds
        The rows of ``verdict_rows`` that were validated.
    needs_feeds
        Whether the check fails where there is neither a feed nor a score, unless the day expects none.
    """
    score: float | None = getattr(found.scores, score_name)
    threshold: float = getattr(found.settled.limits, f"day_{score_name}")
    rows = [feeds[i] for i in finding.broken]
    enough = score is not None and score > threshold
    is_free = not found.feeds and found.scores.state == "published"
    vacuous = score is None and not feeds and (is_free or not needs_feeds)
    shown = "no evidence" if score is None else f"{score:.6f}"
    named = ", ".join(f"{row['feed']} {_shown(row[score_name])}" for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=score_name,
        passed=vacuous or (enough and not finding.failures),
        severity=dg.AssetCheckSeverity.WARN if enough else dg.AssetCheckSeverity.ERROR,
        description=(
            f"{score_name} of the day: {shown} (threshold {threshold:g}); "
            f"{len(rows)} of {len(feeds)} feeds fall short{': ' if rows else ''}{named}{more}"
        ),
        metadata={
            "score": dg.MetadataValue.float(score) if score is not None else dg.MetadataValue.null(),
            "threshold": threshold,
            "day_state": found.scores.state,
            "feeds_that_fall_short": table_metadata(rows),
        },
    )
