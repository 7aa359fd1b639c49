"""The checks of a day's ticks: files agree with their manifests, and are complete and sound.

``schema`` stops the run, because only a bug of this package makes it fail. The scores gate inside publishing,
which reads the verdicts; these checks show them, with ERROR if a day score is not above its threshold.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from backfill_assets.columns import described
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import FeedManifest, load_day_record, load_manifests
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.ranges import read_footer
from backfill_assets.lake.resource import LakeResource
from backfill_assets.lake.store import Store
from backfill_assets.orchestration import daily_checks
from backfill_assets.quality.findings import Finding
from backfill_assets.quality.pandera_checks import finding_check, score_check
from backfill_assets.quality.profile_schema import profile_finding, profile_row
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.settled import load_day
from backfill_assets.quality.verdict_schema import verdict_rows

KEY = dg.AssetKey("ticks")


@daily_checks(
    "ticks",
    {
        "schema": "Files have their data type's columns and the rows that manifest and profile count.",
        "completeness": "The day's completeness is above its threshold and no feed is missing or incomplete.",
        "quality": "The day's quality is above its threshold and no feed breaks a rule.",
    },
    blocking=("schema",),
)
def ticks_checks(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> Iterator[dg.AssetCheckResult]:
    """Report the findings from settling the day."""
    store, day = lake.store(), context.partition_key
    found = load_day(store, day)
    if found is None:
        msg = f"nothing is settled of {day}: materialize its ticks first"
        raise dg.Failure(description=msg, allow_retries=False)
    schema = found.settled.findings.get("schema")
    yield finding_check(KEY, "schema", schema if schema is not None else look_at_footers(store, day))
    for name in ("completeness", "quality"):
        yield score_check(KEY, name, found, verdict_rows(found), found.settled.findings[name])


def look_at_footers(store: Store, day: str) -> Finding:
    """Check the schema from footers, for files stored without facts about themselves."""
    record = load_day_record(store, day)

    def row(one: tuple[Feed, FeedManifest]) -> dict[str, Any] | None:
        feed, newest = one[0], one[1].newest
        if newest is None:
            return None
        footer = read_footer(store, paths.ticks_data(feed, day, newest.content))
        columns = described(footer.schema.to_arrow_schema())
        return profile_row(feed, newest, profile_of(newest), footer.num_rows, columns)

    manifests = load_manifests(store, record) if record else {}
    rows = parallel_map(row, manifests.items(), store.parallel_reads)
    return profile_finding(found for found in rows if found is not None)
