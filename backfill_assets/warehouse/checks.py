"""Asset checks of a published day: the warehouse holds the lake's content, to the last value.

The checks of the coverage also tell whether its rows are complete and agree with the candles.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import dagster as dg

from backfill_assets.candles.findings import findings_of
from backfill_assets.candles.query import made_day
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, failures_as_dagster, table_metadata
from backfill_assets.quality.pandera_checks import finding_check
from backfill_assets.readable_numbers import plural
from backfill_assets.warehouse.assets import OFF, OpenPublisher, ohlcv_publisher, publisher
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, OHLCV, QUALITY
from backfill_assets.warehouse.presence import ASKED_AT, LATE_AT, published_lag
from backfill_assets.warehouse.publisher import Publisher
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets.warehouse.tables import Table

EQUALS_LAKE = {"equals_lake": "The rows, read back, are those that were published from the lake's files."}
ON_TIME = {"on_time": "The day was last published by 10:00 UTC of the next day, or later by a backfill."}
OF_COVERAGE = {
    "schema": "Columns, types and states are right, no run begins twice, each is as long as it says.",
    "whole_day": "The runs of every market and timeframe add up to exactly one day, without gap or overlap.",
    "traded_buckets": "The coverage calls a bucket traded if and only if it has a candle.",
}


#: Longer than this after 09:00 UTC a daily run is late; longer than a day after it, it was a backfill.
_ON_TIME: Final = timedelta(hours=LATE_AT.hour - ASKED_AT.hour)


def _equality_check(
    key: str, table: Table | None, opener: OpenPublisher = publisher
) -> dg.AssetChecksDefinition:
    @daily_checks(key.split("/"), EQUALS_LAKE)
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        with failures_as_dagster(), opener(lake, warehouse) as opened:
            result = _equals_lake(opened, key, table, context.partition_key)
        yield result

    return check


@daily_checks(["bigquery", "coverage"], {**EQUALS_LAKE, **OF_COVERAGE})
def coverage_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Compare the warehouse with the lake, and report the findings made when the coverage was made."""
    key, day = "bigquery/coverage", context.partition_key
    with failures_as_dagster(), publisher(lake, warehouse) as opened:
        result = _equals_lake(opened, key, COVERAGE, day)
    yield result
    settled, measures = made_day(lake.store(), day)
    found = findings_of(lake.store(), settled, measures, lake.settings())
    for name in OF_COVERAGE:
        yield finding_check(dg.AssetKey.from_user_string(key), name, found[f"coverage:{name}"])


@daily_checks(["bigquery", "quality"], {**EQUALS_LAKE, **ON_TIME})
def quality_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Compare the warehouse with the lake, and check when the day was published."""
    key, day = "bigquery/quality", context.partition_key
    with failures_as_dagster(), publisher(lake, warehouse) as opened:
        result = _equals_lake(opened, key, QUALITY, day)
    yield result
    with failures_as_dagster():
        lag = published_lag(lake.store(), day)
    # A publication more than a day late is not a daily run.
    passed = lag is not None and (lag <= _ON_TIME or lag > timedelta(days=1))
    yield dg.AssetCheckResult(
        asset_key=dg.AssetKey.from_user_string(key),
        check_name="on_time",
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=_lag_words(lag),
        metadata={} if lag is None else {"seconds_after_0900_utc": lag.total_seconds()},
    )


def _lag_words(lag: timedelta | None) -> str:
    if lag is None:
        return "not in all tables"
    if lag > timedelta(days=1):
        return f"published by a backfill, {plural(lag.days, 'day')} later"
    minutes = lag.total_seconds() / 60
    return f"last published {abs(minutes):,.0f} minutes {'after' if minutes >= 0 else 'before'} 09:00 UTC"


def _equals_lake(opened: Publisher | None, key: str, table: Table | None, day: str) -> dg.AssetCheckResult:
    tables = [] if opened is None else [table] if table else opened.tick_tables(day)
    found = [
        {"table": wanted.name, "difference": line}
        for wanted in tables
        for line in (opened.differences(wanted, day) if opened else ())
    ]
    agreed = OFF if opened is None else f"{len(tables)} tables agree"
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey.from_user_string(key),
        check_name="equals_lake",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(found)} differences" if found else agreed,
        metadata={"tables": len(tables), "differences": table_metadata(found)},
    )


CHECKS = (
    _equality_check("bigquery/instruments", INSTRUMENTS),
    _equality_check("bigquery/ticks", None),
    _equality_check("bigquery/candles", CANDLES),
    coverage_checks,
    quality_checks,
    _equality_check("ohlcv", OHLCV, ohlcv_publisher),
)
