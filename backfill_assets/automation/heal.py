"""The job that asks for the missing ids of a day, and the question which days have some to ask for.

A run has no partition: pages and estimates take runs with one for runs of the day. A backfill of one day
publishes what has changed, so it is on the page and in ``recent`` like any other.
"""

import logging
from typing import Final

import dagster as dg

from backfill_assets.automation.run_order import priority_tags
from backfill_assets.automation.run_process import run_executor
from backfill_assets.failures import BackfillError
from backfill_assets.heal.healing import heal
from backfill_assets.heal.holes import feeds_to_heal
from backfill_assets.heal.sources import Budget
from backfill_assets.lake import documents
from backfill_assets.lake.resource import LakeResource
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.orchestration import TAG_RANGE, failures_as_dagster
from backfill_assets.report.month import documents_hash, documents_of, load_summary
from backfill_assets.settings import Settings

LOGGER: Final = logging.getLogger(__name__)
#: The day of a run of the job.
TAG_HEALED_DAY: Final = "backfill_assets/healed_day"


class HealConfig(dg.Config):
    """The day as YYYY-MM-DD."""

    day: str


@dg.op(description="Asks the exchanges for missing ids, and Dagster for a run that publishes the answers.")
def heal_day(context: dg.OpExecutionContext, config: HealConfig, lake: LakeResource) -> None:
    """Heal every feed of the day that has ids to ask for; fails if one of them stays unproven."""
    # Loads Dagster's machinery of backfills, which a run of a day never needs.
    from backfill_assets.automation.backfills import add_backfill, new_backfill_id

    store, settings, day = lake.store(), lake.settings(), config.day
    budget, missing = Budget(settings.heal.requests), 0
    with failures_as_dagster():
        before = _documents(store, day)
        feeds, problems = feeds_to_heal(store, settings, day)
        for name in feeds:
            try:
                done = heal(store, settings, day, name, budget)
            except BackfillError as failure:
                problems.append(f"{name}: {failure}")
                continue
            for line in done.lines:
                context.log.info(line)
            missing += done.still_missing
            problems += [f"{name}: {problem}" for problem in done.problems]
        now = _documents(store, day)
        # A run before this one may have been killed after it had settled the day.
        summary = load_summary(store, day)
        is_new = now != before or (summary is not None and summary.documents != now)
    published_by = ""
    if is_new:
        published_by = new_backfill_id(f"healed {day} {now}")
        tags = {TAG_RANGE: f"{day}..{day}", **priority_tags("catch_up")}
        graph = context.repository_def.asset_graph
        add_backfill(context.instance, graph, published_by, [day], tags, f"{day} healed")
    context.add_output_metadata(
        {"feeds": len(feeds), "still_missing": missing, "requests": budget.used, "backfill_id": published_by}
    )
    if problems:
        raise dg.Failure(description="still missing: " + "; ".join(problems), allow_retries=False)


@dg.job(
    name="heal",
    description="Missing ids of one day: asks the exchanges, then Dagster for a run of the day.",
    executor_def=run_executor,
    tags=priority_tags("catch_up"),
)
def heal_job() -> None:
    """Heals and ends."""
    heal_day()


def lacks_ids(store: Store, settings: Settings, day: str) -> bool:
    """Whether the day was settled and has missing ids that an exchange can be asked for."""
    try:
        feeds, unreadable = feeds_to_heal(store, settings, day)
    except BackfillError as failure:
        feeds, unreadable = [], [str(failure)]
    with bound(day=day):
        for problem in unreadable:
            # The next run of the day mends the document.
            LOGGER.warning("%s", problem)
    return bool(feeds)


def _documents(store: Store, day: str) -> str:
    return documents_hash([documents.digest(store, path) for path in documents_of(day)])
