"""The node ``instruments``: the instruments listed on the day, and the feeds that the day must have."""

import dagster as dg

from backfill_assets.instruments.recording import record_day
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake.manifests import with_reasons
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, column_schema, failures_as_dagster, table_metadata
from backfill_assets.partitions import daily
from backfill_assets.tardis.resource import TardisResource


@dg.asset(
    partitions_def=daily,
    group_name="tardis",
    owners=OWNERS,
    kinds={"parquet"},
    pool="tardis",
    metadata={"dagster/column_schema": column_schema(INSTRUMENT_COLUMNS)},
    description=(
        "Instruments of every configured exchange with the values valid on the day, and the day's record: "
        "the feeds that the universe expects, resolved as of the day."
    ),
)
def instruments(
    context: dg.AssetExecutionContext, lake: LakeResource, tardis: TardisResource
) -> dg.MaterializeResult[None]:
    """One row per instrument and exchange as listed on that day."""
    with failures_as_dagster():
        settings = lake.settings()
        recorded = record_day(lake.store(), tardis.client(), context.partition_key, settings.universe)
    rows = sum(manifest.rows for manifest in recorded.manifests)
    record = recorded.record
    for sentence in (*record.why_awaited, *recorded.unreadable):
        context.log.warning("%s: %s", record.day, sentence)
    context.log.info("%s: %d instruments, %d feeds expected", record.day, rows, len(record.expected))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "expected_feeds": len(record.expected),
            "not_listed": dg.MetadataValue.json(with_reasons(record.not_listed, record.why_not_listed)),
            "awaited": dg.MetadataValue.json(list(record.why_awaited)),
            "unreadable": dg.MetadataValue.json(list(recorded.unreadable)),
            "exchanges": table_metadata(
                [{"exchange": m.exchange, "rows": m.rows, "source": m.source} for m in recorded.manifests]
            ),
        }
    )
