"""What the instruments of a day promise."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from backfill_assets.columns import arrow_schema
from backfill_assets.feeds import Feed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS, instrument_schema
from backfill_assets.lake.listing import read_instruments
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.pandera_checks import frame_check

KEY = dg.AssetKey("instruments")


@daily_checks(
    "instruments",
    {
        "schema": "Columns, types and keys are right, increments positive, every row was listed on the day.",
        "expected_symbols": "Every feed that the day must have is backed by exactly one instrument.",
    },
    blocking=("schema",),
)
def instruments_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the day's instruments as the lake has them."""
    import polars as pl

    store, day = lake.store(), context.partition_key
    record = load_day_record(store, day)
    feeds = [Feed.parse(e.feed) for e in record.expected] if record else []
    exchanges = record.exchanges if record else ()
    tables = {e: table for e in exchanges if (table := read_instruments(store, e, day)) is not None}
    empty = pl.DataFrame(arrow_schema(INSTRUMENT_COLUMNS).empty_table())
    frames = [pl.DataFrame(table) for table in tables.values()]
    # A table of other columns cannot be put under the others: it is judged, and fails, alone.
    other = [frame for frame in frames if frame.schema != empty.schema]
    frame = other[0] if other else pl.concat([empty, *frames])
    yield frame_check(KEY, "schema", instrument_schema(), frame, ("exchange", "dataset_symbol"))

    listed = Counter(
        (exchange, symbol)
        for exchange, table in tables.items()
        for symbol in table["dataset_symbol"].to_pylist()
    )
    single = [feed for feed in feeds if not feed.is_grouped]
    wrong = [
        {"feed": str(feed), "instruments": listed[feed.exchange, feed.dataset_symbol]}
        for feed in single
        if listed[feed.exchange, feed.dataset_symbol] != 1
    ]
    yield dg.AssetCheckResult(
        asset_key=KEY,
        check_name="expected_symbols",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(single) - len(wrong)} of {len(single)} feeds have exactly one instrument",
        metadata={"feeds": len(single), **({"without": table_metadata(wrong)} if wrong else {})},
    )
