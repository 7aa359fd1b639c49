"""What a day of the OHLCV table promises: it holds what the lake says, as far as totals can tell."""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, failures_as_dagster, table_metadata
from backfill_assets.warehouse.assets import publisher
from backfill_assets.warehouse.ohlcv.assets import OFF
from backfill_assets.warehouse.resource import WarehouseResource


@daily_checks(
    "ohlcv",
    {"equals_lake": "Rows, first and last time and sums per market, read back, are the lake's."},
)
def ohlcv_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Compare what the database has with the lake; where publication is off there is nothing to compare."""
    from backfill_assets.warehouse.ohlcv.day import OhlcvDay
    from backfill_assets.warehouse.ohlcv.target import open_target

    found: list[str] = []
    with failures_as_dagster():
        target = open_target(lake.settings().ohlcv)
        if target is not None:
            with publisher(lake, warehouse) as opened:
                found = OhlcvDay(opened, target).differences(context.partition_key)
    agreed = OFF if target is None else "the table agrees"
    yield dg.AssetCheckResult(
        asset_key=dg.AssetKey("ohlcv"),
        check_name="equals_lake",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(found)} differences" if found else agreed,
        metadata={"differences": table_metadata([{"difference": line} for line in found])},
    )
