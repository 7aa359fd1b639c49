"""The node ``report``: the pages of a day and its month, written for good, degraded and held days alike.

It depends on the lake alone, so a day that may not be published also has a page. Among the steps that are
ready to run it has the lowest priority, so that the page includes publications and comparisons.
"""

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.lake.store import GCS_SCHEME
from backfill_assets.orchestration import OWNERS, failures_as_dagster
from backfill_assets.partitions import daily
from backfill_assets.report.publish import write_reports

#: Google's address at which a person with access sees an object of a bucket.
BROWSABLE = "https://storage.cloud.google.com/"


@dg.asset(
    deps=["ticks", "candles"],
    partitions_def=daily,
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
    op_tags={"dagster/priority": "-3"},
    description=(
        "The page of the day: scores, verdicts, minutes, candles, silences and publications; and the "
        "overview of its month. Also written for held days."
    ),
)
def report(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """Write one HTML file per day to the lake."""
    with failures_as_dagster():
        store = lake.store()
        uri = store.uri_of(write_reports(store, lake.settings(), context.partition_key))
    if uri.startswith(GCS_SCHEME):
        page: dg.MetadataValue = dg.MetadataValue.url(BROWSABLE + uri.removeprefix(GCS_SCHEME))
    else:
        page = dg.MetadataValue.path(uri)
    return dg.MaterializeResult(metadata={"page": page})
