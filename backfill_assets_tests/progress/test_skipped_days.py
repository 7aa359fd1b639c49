"""A backfill runs the days that are not good yet, and reports the known state of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backfill_assets.definitions import defs
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.service import Backfills, Conflict
from backfill_assets_tests.progress.planned_lake import ETH, Lake

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """The first day is good, the middle one was never run, and the last one lacks the file of a feed."""
    found = Lake(tmp_path / "lake")
    found.run(DAYS[0])
    found.run(DAYS[2], state="degraded", absent=(ETH,))
    return found


@pytest.fixture
def service(instance: dg.DagsterInstance, lake: Lake) -> Iterator[Backfills]:
    found = Backfills(instance, defs.resolve_asset_graph, lambda: lake.settings)
    yield found
    found.close()


def asked(**more: Any) -> BackfillRequest:
    return BackfillRequest.model_validate({"start": DAYS[0], "end": DAYS[2], **more})


def launched(instance: dg.DagsterInstance) -> list[list[str]]:
    """The days of Dagster's backfills."""
    return [
        sorted(
            {
                key
                for subset in b.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values()
                for key in subset.get_partition_keys()
            }
        )
        for b in instance.get_backfills()
        if b.asset_backfill_data is not None
    ]


def test_only_the_days_that_are_not_good_are_run(service: Backfills, instance: dg.DagsterInstance) -> None:
    job, _ = service.create(asked())
    assert launched(instance) == [DAYS[1:]]
    assert (job.total_days, job.skipped_days, job.finished_days, job.percent) == (3, 1, 1, 0)
    assert job.days_by_state == {"published": 1, "waiting": 2}
    first, *others = service.status(job.job_id).days
    assert [day.skipped for day in (first, *others)] == [True, False, False]
    assert first.stored is not None
    assert (first.stored.outcome, first.stored.quality) == ("published", 1.0)
    assert first.stored.verdicts == {"publish": 2}
    assert {(day.state, day.stored) for day in others} == {("waiting", None)}
    given = json.loads(service.status_json(job.job_id)[0])["days"][0]
    assert given["truth"]["outcome"] == "published", "the API's name of it"


@pytest.mark.parametrize("change", [{"all_days": True}, {"refresh": True}, {"symbols": ["BTC-USDT"]}])
def test_whoever_asks_for_more_gets_every_day(
    change: dict[str, Any], service: Backfills, instance: dg.DagsterInstance
) -> None:
    job, _ = service.create(asked(**change))
    assert launched(instance) == [DAYS]
    assert (job.skipped_days, job.finished_days) == (0, 0)


def test_where_every_day_is_good_the_job_has_ended_before_it_began(
    service: Backfills, instance: dg.DagsterInstance
) -> None:
    job, is_new = service.create(BackfillRequest.model_validate({"start": DAYS[0], "end": DAYS[0]}))
    assert is_new
    assert (job.state, job.percent, job.finished is not None) == ("succeeded", 100, True)
    assert launched(instance) == [[]], "it is on record, and the daemon has nothing to do"
    assert service.unfinished() == []
    assert service.status(job.job_id).days[0].skipped
    with pytest.raises(Conflict, match="nothing to retry"):
        service.retry(job.job_id)


def test_the_plan_counts_the_same_days(service: Backfills) -> None:
    plan = service.plan(asked())
    assert (plan.days_to_run, plan.days_good) == ((DAYS[1], DAYS[2]), 1)
