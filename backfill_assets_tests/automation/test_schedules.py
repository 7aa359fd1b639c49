"""The days that the schedules ask for, judged by the traces of real runs in the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.schedules import schedule_execution_time_iterator

from backfill_assets import orchestration
from backfill_assets.automation.schedules import ask_again_for_exports, daily_0900_utc
from backfill_assets.definitions import build_definitions, defs
from backfill_assets.feeds import Feed
from backfill_assets.lake.resource import LakeResource
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin

NINE = datetime(2024, 1, 9, 9, tzinfo=UTC)
HALF_PAST_NINE = datetime(2024, 1, 9, 9, 30, tzinfo=UTC)
WEEK = [f"2024-01-0{day}" for day in range(2, 9)]
BTC, ETH, ADA = (Feed("binance", "trades", symbol) for symbol in ("BTCUSDT", "ETHUSDT", "ADAUSDT"))
#: The code location that a queued run names as its origin.
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="anything")), "repository"
    ),
    "day",
)


class Plant:
    """A lake, a warehouse and a stand-in that answers as on 2024-01-09 at 09:00."""

    def __init__(
        self, folder: Path, standin: TardisStandin, instance: dg.DagsterInstance, **changes: object
    ) -> None:
        self.standin = standin
        self.instance = instance
        self.file = folder / "settings.yaml"
        content = {
            "tardis": {
                "datasets_endpoint": f"{standin.url}/v1/datasets",
                "api_endpoint": f"{standin.url}/v1",
                "api_key": "standin-key",
                "retry_budget_seconds": 0,
            },
            "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT", "ADA-USDT"]}],
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
            **changes,
        }
        self.file.write_text(yaml.safe_dump(content))

    def run(self, day: str) -> bool:
        job = build_definitions(str(self.file)).resolve_job_def("day")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return job.execute_in_process(
            partition_key=day, run_config=quiet, instance=self.instance, raise_on_error=False
        ).success

    def tick(self, schedule: dg.ScheduleDefinition, at: datetime) -> dg.ScheduleExecutionData:  # type: ignore[name-defined]
        resources = {"lake": LakeResource(environment=str(self.file))}
        with dg.build_schedule_context(
            instance=self.instance,
            repository_def=defs.get_repository_def(),
            scheduled_execution_time=at,
            resources=resources,
        ) as context:
            return schedule.evaluate_tick(context)

    def asked_at_nine(self) -> list[str]:
        return sorted(str(r.partition_key) for r in self.tick(daily_0900_utc, NINE).run_requests or ())

    def asked_again(self) -> list[str]:
        found = self.tick(ask_again_for_exports, HALF_PAST_NINE)
        return sorted(str(request.partition_key) for request in found.run_requests or ())

    def fail(self, day: str, feeds: list[Feed], refusal: faults.Refusal) -> None:
        for feed in feeds:
            self.standin.faults.put_dataset(feed, day, Fault(always=refusal))


@pytest.fixture(scope="module")
def running() -> Iterator[TardisStandin]:
    small = Market(rows={("binance", symbol): 500 for symbol in ("BTC-USDT", "ETH-USDT", "ADA-USDT")})
    with TardisStandin(small, clock=lambda: NINE) as standin:
        yield standin


@pytest.fixture
def make_plant(
    tmp_path: Path, running: TardisStandin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Plant]]:
    monkeypatch.setattr(orchestration, "STEP_RETRY_SECONDS", 0.01)
    # A schedule opens the instance by its reference, which one in memory does not have.
    (tmp_path / "home").mkdir()
    quiet: Any = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides=quiet) as instance:
        yield lambda **changes: Plant(tmp_path, running, instance, **changes)
    running.faults.clear()


@pytest.fixture
def plant(make_plant: Callable[..., Plant]) -> Plant:
    return make_plant()


def test_with_an_empty_lake_the_last_seven_days_are_due(plant):
    assert plant.asked_at_nine() == WEEK
    assert plant.asked_again() == []


def test_the_look_back_is_a_setting(make_plant):
    assert make_plant(schedule={"look_back_days": 2}).asked_at_nine() == WEEK[-2:]


@pytest.mark.story
def test_published_days_are_not_asked_for_until_one_of_their_tables_is_not_out(plant):
    assert plant.run("2024-01-05")
    assert plant.run("2024-01-08")
    assert plant.asked_at_nine() == [day for day in WEEK if day not in ("2024-01-05", "2024-01-08")]

    [entry] = (plant.file.parent / "lake").glob("publications/candles/*05*")
    entry.unlink()
    assert "2024-01-05" in plant.asked_at_nine()
    assert "2024-01-08" not in plant.asked_at_nine()


def test_a_held_day_is_not_asked_for_again(plant):
    plant.fail("2024-01-08", [BTC, ETH], faults.not_found())
    assert not plant.run("2024-01-08")
    assert plant.asked_at_nine() == WEEK[:-1]


@pytest.mark.story
def test_a_degraded_day_is_asked_for_again_only_if_its_feed_may_come_yet(plant):
    plant.fail("2024-01-07", [BTC], faults.not_found())
    assert plant.run("2024-01-07")
    plant.fail("2024-01-08", [BTC], faults.server_error())
    assert plant.run("2024-01-08"), "after the last try the day goes on without the feed"
    assert plant.asked_at_nine() == [*WEEK[:-2], "2024-01-08"]

    plant.standin.faults.clear()
    assert plant.run("2024-01-08")
    assert "2024-01-08" not in plant.asked_at_nine()


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (dg.DagsterRunStatus.QUEUED, False),
        (dg.DagsterRunStatus.NOT_STARTED, False),
        (dg.DagsterRunStatus.STARTING, False),
        (dg.DagsterRunStatus.STARTED, False),
        (dg.DagsterRunStatus.SUCCESS, True),
        (dg.DagsterRunStatus.FAILURE, True),
        (dg.DagsterRunStatus.CANCELED, True),
    ],
)
def test_a_day_that_is_being_run_is_not_doubled(plant, status, asked):
    plant.instance.add_run(
        dg.DagsterRun(
            job_name="day",
            run_id=str(uuid4()),
            status=status,
            tags={"dagster/partition": "2024-01-08"},
            remote_job_origin=ORIGIN,
        )
    )
    assert ("2024-01-08" in plant.asked_at_nine()) is asked
    assert plant.asked_at_nine()[:6] == WEEK[:6], "the run concerns its own day"


def test_when_every_due_day_is_being_run_the_tick_says_so(make_plant):
    plant = make_plant(schedule={"look_back_days": 1})
    plant.instance.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            run_id=str(uuid4()),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": "2024-01-08", "dagster/backfill": "b"},
        )
    )
    tick = plant.tick(daily_0900_utc, NINE)
    assert (tick.run_requests, tick.skip_message) == ([], "already running: 2024-01-08")


@pytest.mark.story
def test_a_day_that_was_not_exported_is_asked_for_every_half_hour_until_it_is(plant):
    plant.standin.faults.exported_until["binance"] = "2024-01-08"
    assert not plant.run("2024-01-08")
    assert plant.asked_again() == ["2024-01-08"]
    assert plant.asked_at_nine() == WEEK, "the next day at nine it is still due"

    assert not plant.run("2024-01-08")
    assert plant.asked_again() == ["2024-01-08"], "asking in vain changes nothing"

    plant.standin.faults.clear()
    assert plant.run("2024-01-08")
    assert plant.asked_again() == []
    assert plant.tick(ask_again_for_exports, HALF_PAST_NINE).skip_message == "nothing is due"


@pytest.mark.parametrize(
    "refusal", [faults.server_error(), faults.Refusal(403, 0, "no"), faults.not_found()], ids=str
)
def test_a_day_without_metadata_is_asked_for_every_half_hour_until_they_are_there(plant, refusal):
    plant.standin.faults.put("/v1/exchanges/binance", Fault(always=refusal))
    assert not plant.run("2024-01-08")
    assert plant.asked_again() == ["2024-01-08"]
    plant.standin.faults.clear()
    assert plant.run("2024-01-08")
    assert plant.asked_again() == []


def test_requests_name_the_day_and_differ_between_ticks(plant):
    first = (plant.tick(daily_0900_utc, NINE).run_requests or [])[0]
    again = (plant.tick(daily_0900_utc, NINE).run_requests or [])[0]
    later = (plant.tick(daily_0900_utc, NINE.replace(day=10)).run_requests or [])[1]
    assert first.partition_key == later.partition_key == "2024-01-08"
    assert first.run_key == again.run_key == "2024-01-08@2024-01-09T09:00:00+00:00"
    assert later.run_key != first.run_key, "a key that was used would never be asked for again"


def test_yesterday_is_asked_for_first_and_goes_before_the_days_that_are_made_up_for(plant):
    found = plant.tick(daily_0900_utc, NINE).run_requests or []
    asked = [(request.partition_key, request.tags["dagster/priority"]) for request in found]
    assert asked == [("2024-01-08", "30"), *((day, "20") for day in WEEK[-2::-1])]


def _times(schedule: dg.ScheduleDefinition, count: int) -> list[str]:
    midnight = datetime(2024, 1, 9, tzinfo=UTC).timestamp()
    ticks = islice(
        schedule_execution_time_iterator(midnight, schedule.cron_schedule, schedule.execution_timezone), count
    )
    return [f"{tick.astimezone(UTC):%d %H:%M}" for tick in ticks]


def test_the_day_is_asked_for_at_nine_utc_and_exports_half_hourly_until_half_past_eleven_at_night():
    assert _times(daily_0900_utc, 3) == ["09 09:00", "10 09:00", "11 09:00"]
    half_hours = [f"09 {hour:02}:{minute:02}" for hour in range(9, 24) for minute in (0, 30)][1:]
    assert _times(ask_again_for_exports, len(half_hours) + 1) == [*half_hours, "10 09:30"]
    assert half_hours[0] == "09 09:30"
    assert half_hours[-1] == "09 23:30"


def test_both_schedules_are_on_from_the_start_and_run_the_day():
    for name in ("daily_0900_utc", "ask_again_for_exports"):
        schedule = defs.resolve_schedule_def(name)
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "UTC"
        assert schedule.job_name == "day"
