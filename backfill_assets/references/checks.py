"""The check of candles against other sources, which never stops a day."""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.references.day import DayComparison, load_comparison
from backfill_assets.settings import ComparisonSettings

KEY = dg.AssetKey("reference")
#: Lines of one kind that the description shows; all are in the metadata.
LINES = 5


@daily_checks(
    "reference",
    {"agreement": "One-minute candles are those of the sources that the settings name; each has the day."},
)
def reference_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Report the result of the comparison, at most as a warning."""
    found = load_comparison(lake.store(), context.partition_key) or DayComparison(day=context.partition_key)
    limits = lake.settings().comparison
    low = found.low(limits)
    rows = [one.model_dump(exclude={"differences"}) for one in (low or found.markets)]
    lines = [
        *found.failures,
        *(f"compared in part: {line}" for line in found.partly),
        *(f"not compared: {line}" for line in found.not_compared),
    ]
    yield dg.AssetCheckResult(
        asset_key=KEY,
        check_name="agreement",
        passed=not low and not found.failures and not found.partly,
        severity=dg.AssetCheckSeverity.WARN,
        description=_description(found, limits),
        metadata={
            "compared": len(found.markets),
            "markets": table_metadata(rows),
            "said": table_metadata([{"line": line} for line in lines]),
        },
    )


def _description(found: DayComparison, limits: ComparisonSettings) -> str:
    parts = list(_first(found.failures, ""))
    if found.markets:
        minutes, equal = (sum(getattr(one, name) for one in found.markets) for name in ("minutes", "equal"))
        parts.append(
            f"{len(found.low(limits))} of {len(found.markets)} markets agree in less than "
            f"{limits.agreement:.0%} of their minutes, or differ in more than {limits.differing_run} in a "
            "row; "
            f"{minutes - equal:,} of {minutes:,} minutes differ"
        )
    parts += _first(found.partly, "compared in part: ")
    parts += _first(found.not_compared, "not compared: ")
    return "; ".join(parts) or "nothing to compare with"


def _first(lines: tuple[str, ...], before: str) -> Iterator[str]:
    yield from (f"{before}{line}" for line in lines[:LINES])
    if lines[LINES:]:
        yield f"{before}{len(lines) - LINES} more"
