"""What a published day promises: the warehouse holds what the lake says, as far as totals can tell."""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.warehouse.assets import PREFIX, publisher
from backfill_assets.warehouse.catalog import CANDLES, INSTRUMENTS, QUALITY
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets.warehouse.tables import Table

EQUALS_LAKE = {
    "equals_lake": "Rows, first and last time and sums per feed, read back, are those of the lake's files."
}


def _equality_check(name: str, table: Table | None) -> dg.AssetChecksDefinition:
    @daily_checks([PREFIX, name], EQUALS_LAKE)
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        day = context.partition_key
        with publisher(lake, warehouse) as opened:
            tables = [table] if table else opened.tick_tables(day)
            found = [
                {"table": wanted.name, "difference": line}
                for wanted in tables
                for line in opened.differences(wanted, day)
            ]
        yield dg.AssetCheckResult(
            asset_key=dg.AssetKey([PREFIX, name]),
            check_name="equals_lake",
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{len(found)} differences" if found else f"{len(tables)} tables agree",
            metadata={"tables": len(tables), "differences": table_metadata(found)},
        )

    return check


CHECKS = (
    _equality_check("instruments", INSTRUMENTS),
    _equality_check("ticks", None),
    _equality_check("candles", CANDLES),
    _equality_check("quality", QUALITY),
)
