"""Why no table has Dagster's freshness badge: the badge looks at the latest run of any day.

When this test fails, Dagster has learned to look at partitions, and the tables can get the badge.
"""

import asyncio
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import CronFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time
from dagster._time import get_current_datetime

from backfill_assets.partitions import daily

YESTERDAY, LONG_AGO = "2024-03-01", "2023-03-01"


@dg.asset(
    partitions_def=daily,
    # In the tables between 09:00, when the schedule looks, and 10:00, every day.
    freshness_policy=dg.FreshnessPolicy.cron("0 10 * * *", timedelta(hours=1), "UTC"),
)
def candles(context: dg.AssetExecutionContext) -> None:
    """Held days fail on purpose."""
    if context.run.tags.get("held"):
        raise dg.Failure


def badge(instance: dg.DagsterInstance) -> FreshnessState:
    node = dg.Definitions(assets=[candles]).resolve_asset_graph().get(candles.key)
    return asyncio.run(
        CronFreshnessPolicyEvaluator().evaluate_freshness(LoadingContextForTest(instance), node)
    )


def run(instance: dg.DagsterInstance, day: str, **tags: str) -> None:
    dg.materialize([candles], partition_key=day, instance=instance, tags=tags, raise_on_error=False)


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def test_a_day_on_time_is_fresh_and_a_day_without_a_run_or_held_is_not(instance: dg.DagsterInstance) -> None:
    assert badge(instance) is FreshnessState.UNKNOWN
    run(instance, YESTERDAY)
    with freeze_time(get_current_datetime() + timedelta(minutes=1)):
        assert badge(instance) is FreshnessState.PASS
    with freeze_time(get_current_datetime() + timedelta(days=3)):
        assert badge(instance) is FreshnessState.FAIL
        run(instance, YESTERDAY, held="yes")
        assert badge(instance) is FreshnessState.FAIL


def test_a_backfill_of_an_old_day_makes_it_fresh_while_yesterday_is_not_there(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, LONG_AGO)
    assert YESTERDAY not in instance.get_materialized_partitions(candles.key)
    assert badge(instance) is FreshnessState.PASS
