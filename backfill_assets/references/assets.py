"""The node ``reference`` fetches, stores and compares the candles of other sources.

It depends on candles alone and runs after publishing, so it can neither delay nor stop a day. It is in the
graph under all settings, because the graph must not depend on the environment.
"""

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, failures_as_dagster
from backfill_assets.partitions import daily

OFF = "off: comparison names no source"


@dg.asset(
    deps=["candles"],
    partitions_def=daily,
    group_name="candles",
    owners=OWNERS,
    kinds={"parquet"},
    op_tags={"dagster/priority": "-2"},
    description=(
        "Candles of the sources that the settings name, one Parquet file and one document per source, and "
        "the document that says how far the day's candles agree with them. Sources are asked after "
        "publishing, and not again for a market whose candles are here."
    ),
)
def reference(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """Compare the day with its sources."""
    from backfill_assets.references.day import compare_days

    with failures_as_dagster():
        found = compare_days(lake.store(), context.partition_key, lake.settings())
    if found is None:
        return dg.MaterializeResult(metadata={"state": OFF})
    return dg.MaterializeResult(
        metadata={
            "markets": len(found.markets),
            "minutes": sum(one.minutes for one in found.markets),
            "failures": len(found.failures),
        }
    )
