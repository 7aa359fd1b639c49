"""What a published day promises: the warehouse holds what the lake says, as far as totals can tell.

The checks of the coverage also tell whether its rows are whole and agree with the candles.
"""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.candles.findings import findings_of
from backfill_assets.candles.query import made_day
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.pandera_checks import finding_check
from backfill_assets.warehouse.assets import PREFIX, publisher
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY
from backfill_assets.warehouse.publisher import Publisher
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets.warehouse.tables import Table

EQUALS_LAKE = {
    "equals_lake": "Rows, first and last time and sums per feed, read back, are those of the lake's files."
}
OF_COVERAGE = {
    "schema": "Columns, types and states are right, no run begins twice, each is as long as it says.",
    "whole_day": "The runs of every market and timeframe add up to exactly one day, without gap or overlap.",
    "traded_buckets": "Buckets are traded by the coverage exactly where there is a candle.",
}


def _equality_check(name: str, table: Table | None) -> dg.AssetChecksDefinition:
    @daily_checks([PREFIX, name], EQUALS_LAKE)
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        day = context.partition_key
        with publisher(lake, warehouse) as opened:
            yield _equals_lake(opened, name, [table] if table else opened.tick_tables(day), day)

    return check


@daily_checks([PREFIX, "coverage"], {**EQUALS_LAKE, **OF_COVERAGE})
def coverage_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Compare the warehouse with the lake, and tell what was found when the coverage was made."""
    key, day = dg.AssetKey([PREFIX, "coverage"]), context.partition_key
    with publisher(lake, warehouse) as opened:
        yield _equals_lake(opened, "coverage", [COVERAGE], day)
    settled, measures = made_day(lake.store(), day)
    found = findings_of(lake.store(), settled, measures, lake.settings())
    for name in OF_COVERAGE:
        yield finding_check(key, name, found[f"coverage:{name}"])


def _equals_lake(opened: Publisher, name: str, tables: list[Table], day: str) -> dg.AssetCheckResult:
    found = [
        {"table": wanted.name, "difference": line}
        for wanted in tables
        for line in opened.differences(wanted, day)
    ]
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey([PREFIX, name]),
        check_name="equals_lake",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(found)} differences" if found else f"{len(tables)} tables agree",
        metadata={"tables": len(tables), "differences": table_metadata(found)},
    )


CHECKS = (
    _equality_check("instruments", INSTRUMENTS),
    _equality_check("ticks", None),
    _equality_check("candles", CANDLES),
    coverage_checks,
    _equality_check("quality", QUALITY),
)
