"""The jobs: one day of all assets, a range of days as a backfill, and the missing ids of a day (``heal``)."""

from typing import Final

import dagster as dg

from backfill_assets.automation.heal import heal_job
from backfill_assets.automation.run_order import priority_tags
from backfill_assets.automation.run_process import run_executor
from backfill_assets.orchestration import TAG_RANGE, failures_as_dagster

#: Longest run of a day; the monitoring in dagster.yaml ends longer runs.
MAX_RUNTIME_SECONDS: Final = 6 * 3600

day_job = dg.define_asset_job(
    "day",
    selection=dg.AssetSelection.all(),
    tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS)},
    description="One UTC day: instruments, ticks, candles, checks, publication.",
)


class RangeConfig(dg.Config):
    """First and last day, both included, as YYYY-MM-DD."""

    start: str
    end: str


@dg.op(description="Asks Dagster for a backfill of the days, one run per day.")
def request_days(context: dg.OpExecutionContext, config: RangeConfig) -> str:
    """Return the id of the backfill, which is shown under Runs, Backfills."""
    # Loads Dagster's backfill machinery, which a run of a day never needs.
    from backfill_assets.automation.backfills import add_backfill, checked_days, new_backfill_id

    with failures_as_dagster():
        days = checked_days(config.start, config.end)
    backfill_id = new_backfill_id()
    tags = {TAG_RANGE: f"{config.start}..{config.end}", **priority_tags("backfill")}
    title = f"{config.start} to {config.end}"
    add_backfill(context.instance, context.repository_def.asset_graph, backfill_id, days, tags, title)
    context.log.info("backfill %s: %s to %s", backfill_id, config.start, config.end)
    context.add_output_metadata({"backfill_id": backfill_id})
    return backfill_id


@dg.job(
    name="range",
    description="A range of days as a Dagster backfill: one run per day.",
    executor_def=run_executor,
    # The request takes no time; its days have the priority of a backfill.
    tags=priority_tags("awaited"),
)
def range_job() -> None:
    """Launch the backfill and end; Dagster makes its runs."""
    request_days()


JOBS: Final = (day_job, range_job, heal_job)
