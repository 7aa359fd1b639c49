"""When days are requested: all due days at 09:00 UTC, and days that wait for an exchange every half hour.

With ``heal.daily``, days with missing ids are healed from noon on. Dagster does not make up for ticks missed
while it was down, so each tick looks back over the last days and requests every day that is not published and
may have new data.
"""

from collections.abc import Iterator
from typing import Final

import dagster as dg

from backfill_assets.automation.due import awaiting_export, due_days, look_back
from backfill_assets.automation.heal import TAG_HEALED_DAY, heal_job, lacks_ids
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


@dg.schedule(
    name="heal_missing_ids",
    job=heal_job,
    # From noon on: yesterday was run at 09:00, and archives have its file by then.
    cron_schedule="0 12-23 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="With `heal.daily`: each of the last days whose missing ids no exchange was asked for, once.",
)
def heal_missing_ids(
    context: dg.ScheduleEvaluationContext, lake: LakeResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yield a run request for the newest day with missing ids to ask for; each day is requested once.

    One run at a time heals, because each keeps the exchange's limit of requests by itself.
    """
    settings = lake.settings()
    if not settings.heal.daily:
        yield dg.SkipReason("heal.daily is off")
        return
    healing = dg.RunsFilter(job_name=heal_job.name, statuses=list(_IN_PROGRESS))
    if context.instance.get_runs_count(healing):
        yield dg.SkipReason("a day is being healed")
        return
    store, today = lake.store(), context.scheduled_execution_time.date()
    days = [
        day
        for day in look_back(today, settings)
        if not _was_healed(context.instance, day) and lacks_ids(store, settings, day)
    ]
    idle = [day for day in days if not _in_progress(context.instance, day)]
    if not idle:
        yield dg.SkipReason("no id is to be asked for" if not days else f"at work: {', '.join(days)}")
    for day in idle[-1:]:
        yield dg.RunRequest(
            run_key=day,
            run_config={"ops": {"heal_day": {"config": {"day": day}}}},
            tags={TAG_HEALED_DAY: day},
        )


def _was_healed(instance: dg.DagsterInstance, day: str) -> bool:
    """Whether the schedule has asked for it: a run key holds for one tick only."""
    filters = dg.RunsFilter(job_name=heal_job.name, tags={TAG_HEALED_DAY: day})
    return instance.get_runs_count(filters) > 0


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


SCHEDULES: Final = (daily_0900_utc, ask_again_for_exports, heal_missing_ids)
