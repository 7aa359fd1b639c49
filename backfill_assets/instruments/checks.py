"""Asset checks of a day's instruments."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from backfill_assets.instruments.findings import looked_at
from backfill_assets.lake.listing import load_instruments
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import daily_checks, table_metadata
from backfill_assets.quality.findings import together
from backfill_assets.quality.pandera_checks import finding_check

KEY = dg.AssetKey("instruments")


@daily_checks(
    "instruments",
    {
        "schema": "Columns, types and keys are right, increments positive, every row was listed on the day.",
        "expected_symbols": (
            "Every feed that the day must have is backed by exactly one instrument, and the day waits for no "
            "exchange."
        ),
    },
    blocking=("schema",),
)
def instruments_checks(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> Iterator[dg.AssetCheckResult]:
    """Report the findings stored with the instruments."""
    store, day = lake.store(), context.partition_key
    record = load_day_record(store, day)
    feeds = [e.feed for e in record.expected_feeds] if record else []
    manifests = [load_instruments(store, exchange, day) for exchange in (record.exchanges if record else ())]
    found = {m.exchange: looked_at(store, m) for m in manifests if m is not None}
    yield finding_check(KEY, "schema", together([one.schema_finding for one in found.values()]))

    listed = Counter(
        {(exchange, symbol): n for exchange, one in found.items() for symbol, n in one.listed.items()}
    )
    awaited = record.why_awaited if record else ()
    single = [feed for feed in feeds if not feed.is_grouped]
    wrong = [
        {"feed": str(feed), "instruments": listed[feed.exchange, feed.dataset_symbol]}
        for feed in single
        if listed[feed.exchange, feed.dataset_symbol] != 1
    ]
    yield dg.AssetCheckResult(
        asset_key=KEY,
        check_name="expected_symbols",
        passed=not wrong and not awaited,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            [f"{len(single) - len(wrong)} of {len(single)} feeds have exactly one instrument", *awaited]
        ),
        metadata={"feeds": len(single), **({"without": table_metadata(wrong)} if wrong else {})},
    )
