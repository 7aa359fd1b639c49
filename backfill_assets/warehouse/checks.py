"""What a published day promises: the warehouse holds what the lake says, as far as totals can tell.

Of the coverage also that its rows are whole: it is made for the warehouse and judged nowhere before.
"""

from collections.abc import Iterator

import dagster as dg

from backfill_assets.candles.coverage import (
    coverage_rows,
    traded_frame,
    traded_schema,
    whole_day_frame,
    whole_day_schema,
)
from backfill_assets.candles.day import merged_candles
from backfill_assets.candles.schemas import coverage_schema
from backfill_assets.lake.resource import LakeResource
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.pandera_checks import frame_check
from backfill_assets.warehouse.assets import PREFIX, publisher
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY
from backfill_assets.warehouse.day import Publisher
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
MARKET = ("exchange", "symbol", "timeframe")


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
    """Compare the warehouse with the lake, and the lake's runs with the day and its candles."""
    import polars as pl

    key, day = dg.AssetKey([PREFIX, "coverage"]), context.partition_key
    with publisher(lake, warehouse) as opened:
        yield _equals_lake(opened, "coverage", [COVERAGE], day)
        judged = opened.judged(day)
    settings = lake.settings()
    with snapshot(lake.store()) as store:
        rows = pl.DataFrame(coverage_rows(store, settings, judged))
        candles = pl.DataFrame(merged_candles(store, day, settings))
    yield frame_check(key, "schema", coverage_schema(), rows, (*MARKET, "first_open_time"))
    markets = sorted(
        {
            (f.feed.exchange, name)
            for f in judged.feeds
            if f.feed.data_type == "trades"
            for _, name in f.symbols
        }
    )
    whole = whole_day_frame(rows, day, markets, settings.candles.timeframes)
    yield frame_check(key, "whole_day", whole_day_schema(), whole, MARKET)
    traded = traded_frame(rows, candles)
    yield frame_check(key, "traded_buckets", traded_schema(), traded, (*MARKET, "open_time"))


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
