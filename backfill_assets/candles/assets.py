"""The node ``candles``: partial base candles of every file of trades, and the day merged from them."""

import dagster as dg

from backfill_assets.candles.day import WORKERS, ensure_partials, file_of_trades, merged_candles
from backfill_assets.feeds import Feed
from backfill_assets.lake.gather import gather
from backfill_assets.lake.manifests import ExpectedSymbols, Partial, load_day_record, load_manifest
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, failures_as_dagster, table_metadata
from backfill_assets.partitions import daily


@dg.asset(
    deps=["ticks"],
    partitions_def=daily,
    group_name="candles",
    owners=OWNERS,
    kinds={"parquet"},
    description=(
        "Mergeable one-minute partial candles of every file of trades, one Parquet file per feed. A day of "
        "candles is the merge of the partials of three days' files, because files are split by arrival."
    ),
)
def candles(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """Partials of every version that the day's manifests name."""
    day = context.partition_key
    with failures_as_dagster():
        settings, store = lake.settings(), lake.store()
        record = load_day_record(store, day)

        def partials_of(expected: ExpectedSymbols) -> Partial | None:
            feed = Feed.parse(expected.feed)
            manifest = load_manifest(store, feed, day)
            made = [
                ensure_partials(
                    store, file_of_trades(store, feed, day, version, dict(expected.symbols), settings)
                )
                for version in (manifest.candidate, manifest.accepted)
                if version is not None and feed.data_type == "trades"
            ]
            return made[-1] if made else None

        partials = [
            p for p in gather(partials_of, record.expected if record else (), WORKERS) if p is not None
        ]
        merged = merged_candles(store, day, settings)
    counts = merged.group_by(["exchange", "symbol", "timeframe"]).aggregate([([], "count_all")])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": merged.num_rows,
            "partial_rows": sum(p.rows for p in partials),
            "files": len(partials),
            "candles": table_metadata(counts.rename_columns({"count_all": "rows"}).to_pylist()),
        }
    )
