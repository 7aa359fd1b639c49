"""The node ``ohlcv``: the day's candles in the relational database that the settings name, if they name one.

It is in the graph whatever the settings say, because the graph must not depend on the environment at import.
Where publication to it is off, its materialization says so and has no row count.
"""

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, failures_as_dagster, table_metadata
from backfill_assets.partitions import daily
from backfill_assets.warehouse.assets import publisher
from backfill_assets.warehouse.resource import WarehouseResource

OFF = "off: ohlcv.url is empty"


@dg.asset(
    deps=[["bigquery", "candles"]],
    partitions_def=daily,
    group_name="warehouse",
    owners=OWNERS,
    kinds={"table"},
    pool="warehouse",
    description=(
        "The candles that bigquery/candles has, upserted by (exchange, symbol, timeframe, open_time) into a "
        "table of Postgres or SQLite; nothing unless ohlcv.url is set."
    ),
)
def ohlcv(
    context: dg.AssetExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> dg.MaterializeResult[None]:
    """One row per candle."""
    # SQLAlchemy is of no use to whoever only loads the code location.
    from backfill_assets.warehouse.ohlcv.day import OhlcvDay
    from backfill_assets.warehouse.ohlcv.target import open_target

    day = context.partition_key
    with failures_as_dagster():
        target = open_target(lake.settings().ohlcv)
        if target is None:
            return dg.MaterializeResult(metadata={"state": OFF})
        with publisher(lake, warehouse) as opened:
            done = OhlcvDay(opened, target).write(day)
    for written in done:
        context.log.info("%s: %d rows, %d of them written", written.day, written.rows, written.written)
    return dg.MaterializeResult(
        metadata={
            "state": "written",
            "place": target.place,
            "table": target.table,
            "dagster/row_count": done[0].rows,
            "days": table_metadata(
                [{"day": w.day, "rows": w.rows, "written": w.written, "deleted": w.deleted} for w in done]
            ),
        }
    )
