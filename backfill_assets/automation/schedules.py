"""When days are requested: all due days at 09:00 UTC, and days that wait for an exchange every half hour.

Dagster does not make up for ticks missed while it was down, so each tick looks back over the last days and
requests every day that is not published and may have new data.
"""

from collections.abc import Iterator
from typing import Final

import dagster as dg

from backfill_assets.automation.due import awaiting_export, due_days
from backfill_assets.automation.jobs import day_job
from backfill_assets.automation.run_order import priority_tags
from backfill_assets.days import shift
from backfill_assets.lake.resource import LakeResource

#: Runs that will publish the day or fail; another request meanwhile would do the work twice.
_IN_PROGRESS: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


@dg.schedule(
    name="daily_0900_utc",
    job=day_job,
    cron_schedule="0 9 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Requests yesterday, and each recent day that is not published and may have new data.",
)
def daily_0900_utc(
    context: dg.ScheduleEvaluationContext, lake: LakeResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yield run requests for the due days."""
    settings = lake.settings()
    now = context.scheduled_execution_time
    yield from _requests(context, due_days(lake.store(), now.date(), settings))


@dg.schedule(
    name="ask_again_for_exports",
    job=day_job,
    cron_schedule=["30 9 * * *", "0,30 10-23 * * *"],
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Requests each recent day that waits for an exchange to export its data or to answer.",
)
def ask_again_for_exports(
    context: dg.ScheduleEvaluationContext, lake: LakeResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yield run requests for the days that wait for an exchange."""
    settings = lake.settings()
    now = context.scheduled_execution_time
    yield from _requests(context, awaiting_export(lake.store(), now.date(), settings))


def _requests(
    context: dg.ScheduleEvaluationContext, days: list[str]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    idle = [day for day in days if not _in_progress(context.instance, day)]
    if not idle:
        yield dg.SkipReason("nothing is due" if not days else f"already running: {', '.join(days)}")
    moment = context.scheduled_execution_time
    yesterday = shift(moment.date().isoformat(), -1)
    # Yesterday goes first: a place may be free, and the daemon makes and starts runs one by one.
    for day in reversed(idle):
        yield dg.RunRequest(
            run_key=f"{day}@{moment.isoformat()}",
            partition_key=day,
            tags=priority_tags("daily" if day == yesterday else "catch_up"),
        )


def _in_progress(instance: dg.DagsterInstance, day: str) -> bool:
    filters = dg.RunsFilter(statuses=list(_IN_PROGRESS), tags={"dagster/partition": day})
    return instance.get_runs_count(filters) > 0


SCHEDULES: Final = (daily_0900_utc, ask_again_for_exports)
