"""The node ``candles``: partial candles of every accepted file of trades, and the day merged from them."""

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, failures_as_dagster
from backfill_assets.partitions import daily


@dg.asset(
    deps=["ticks"],
    partitions_def=daily,
    group_name="candles",
    owners=OWNERS,
    kinds={"parquet"},
    description=(
        "The day's candles of every timeframe and its coverage, one Parquet file each, and the document of "
        "the measurements. A day is merged from the partial candles of three days' files, because files are "
        "split by arrival; neighboring days whose midnight this day's files change are rebuilt."
    ),
)
def candles(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """Candles and coverage of the accepted files."""
    from backfill_assets.candles.build import build_candles

    with failures_as_dagster():
        store = lake.store()
        made = build_candles(store, context.partition_key, lake.settings())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.candles.rows if made.candles else 0,
            "coverage_rows": made.coverage.rows if made.coverage else 0,
            "partial_rows": sum(file.partials.rows for file in made.files.values()),
            "files": len(made.files),
        }
    )
