"""Findings of pandera schemas as Dagster asset checks: one adapter, so all of them look alike."""

from __future__ import annotations

from typing import Any

import dagster as dg

from backfill_assets.orchestration import table_metadata
from backfill_assets.quality.findings import Finding


def finding_check(asset_key: dg.AssetKey, name: str, finding: Finding) -> dg.AssetCheckResult:
    """Tell the finding as the check ``name``, with the failing cases as a table."""
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
