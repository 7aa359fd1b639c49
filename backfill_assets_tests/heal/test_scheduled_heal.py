"""The schedule heals settled days once, if the settings say so, and asks for a run that publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._core.definitions.reconstruct import ReconstructableRepository

from backfill_assets.automation.heal import TAG_HEALED_DAY
from backfill_assets.automation.schedules import heal_missing_ids
from backfill_assets.cli import main
from backfill_assets.definitions import defs
from backfill_assets.heal.holes import feeds_to_heal
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import load_manifest, update_manifest
from backfill_assets.lake.resource import LakeResource
from backfill_assets.quality.settle import settle
from backfill_assets.rule_set import RULES_VERSION
from backfill_assets.settings import load_settings
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets_tests.heal.healed_lake import (
    AFTER,
    BEFORE,
    BINANCE,
    CANONICAL,
    COINBASE,
    DAY,
    THRESHOLDS,
    Damage,
    HealedLake,
    id_at,
    traded,
    vendor_file,
    without_ids,
)

NOON = datetime(2024, 1, 4, 12, tzinfo=UTC)
TRADES_OF_COINBASE = "/coinbaseexchange/products/BTC-USD/trades"


class Plant:
    """A damaged lake with a settings file, a stand-in of the exchange and an instance of Dagster on disk."""

    def __init__(
        self, lake: HealedLake, folder: Path, instance: dg.DagsterInstance, *, daily: bool = True
    ) -> None:
        self.lake, self.instance = lake, instance
        self.file = folder / "settings.yaml"
        url = lake.standin.url
        content = {
            "universe": [{"exchanges": ["coinbase"], "symbols": ["BTC-USD"]}],
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
            "thresholds": {"rules": "rules.yaml"},
            "heal": {"daily": daily, "exchange_endpoint": url, "archive_endpoint": url},
        }
        self.file.write_text(yaml.safe_dump(content))
        rules = {"version": RULES_VERSION, "lossy_seconds": THRESHOLDS.lossy_seconds}
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        settle(lake.store, DAY, load_settings(self.file).thresholds)

    def tick(self, at: datetime = NOON) -> dg.ScheduleExecutionData:  # type: ignore[name-defined]
        with dg.build_schedule_context(
            instance=self.instance,
            repository_def=defs.get_repository_def(),
            scheduled_execution_time=at,
            resources={"lake": LakeResource(environment=str(self.file))},
        ) as context:
            return heal_missing_ids.evaluate_tick(context)

    def run(self, request: dg.RunRequest) -> dg.JobExecutionResult:
        """Run the tick's request from the code location, as a launched run does."""
        location = ReconstructableRepository.for_module("backfill_assets.definitions", "defs")
        job = location.get_reconstructable_job("heal")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return dg.execute_job(
            job,
            instance=self.instance,
            run_config={**request.run_config, **quiet},
            tags=dict(request.tags),
            raise_on_error=False,
        )

    @property
    def asked(self) -> list[str]:
        return [path for path in self.lake.standin.requests if path.startswith(TRADES_OF_COINBASE)]


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def plant_of(
    running: ExitStack,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Damage = lambda trades: trades,
    *,
    daily: bool = True,
    **lake: Any,
) -> Plant:
    made = HealedLake.of(folder, damage, **lake)
    running.enter_context(made.standin)
    (folder / "home").mkdir()
    quiet: Any = {"telemetry": {"enabled": False}}
    instance = running.enter_context(dg.DagsterInstance.local_temp(str(folder / "home"), overrides=quiet))
    plant = Plant(made, folder, instance, daily=daily)
    monkeypatch.setenv("BACKFILL_ENV", str(plant.file))
    return plant


def test_a_day_with_missing_ids_is_healed_once_and_a_run_that_publishes_it_is_asked_for(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700, 1_500), never=(2_000,))
    [request] = plant.tick().run_requests or ()
    assert request.run_config == {"ops": {"heal_day": {"config": {"day": DAY}}}}
    assert plant.lake.standin.requests == [], "a tick asks no exchange"
    result = plant.run(request)
    assert result.success
    assert len(plant.asked) == 3, "one request for each hole"
    verdict = plant.lake.found.verdict
    assert (verdict.missing_ids, verdict.healed_rows, verdict.never_issued_ids) == (0, 2, 1)

    [backfill] = plant.instance.get_backfills()
    assert (backfill.title, backfill.tags["dagster/priority"]) == (f"{DAY} healed", "20")
    assert backfill.asset_backfill_data is not None
    subset = backfill.asset_backfill_data.target_subset
    assert subset.asset_keys == defs.resolve_asset_graph().materializable_asset_keys
    for partitions in subset.partitions_subsets_by_asset_key.values():
        assert list(partitions.get_partition_keys()) == [DAY]
    [output] = [event for event in result.all_node_events if event.is_successful_output]
    metadata = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert metadata["backfill_id"] == backfill.backfill_id
    assert (metadata["feeds"], metadata["still_missing"]) == (1, 0)

    # Neither a later tick nor the same run repeated asks for another run.
    assert plant.tick(NOON.replace(hour=13)).skip_message == "no id is to be asked for"
    assert plant.run(request).success
    assert len(plant.asked) == 3
    assert len(plant.instance.get_backfills()) == 1


def test_ids_that_stay_missing_fail_the_run_and_are_not_asked_for_again(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    plant.lake.standin.faults.put(TRADES_OF_COINBASE, Fault(always=faults.not_found()))
    [request] = plant.tick().run_requests or ()
    result = plant.run(request)
    assert not result.success
    failure = result.failure_data_for_node("heal_day")
    assert failure is not None
    assert failure.user_failure_data is not None
    description = failure.user_failure_data.description or ""
    assert description.startswith(f"still missing: {COINBASE}: id {id_at(700)}: the public trades of ")
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert plant.instance.get_backfills() == [], "nothing has changed"
    assert plant.tick(NOON.replace(hour=13)).run_requests == []
    assert feeds_to_heal(plant.lake.store, plant.lake.settings, DAY) == ([str(COINBASE)], [])


def test_days_without_missing_ids_ask_nobody_and_without_the_setting_no_day_does(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = plant_of(running, tmp_path / "whole", monkeypatch)
    assert whole.tick().skip_message == "no id is to be asked for"
    (tmp_path / "off").mkdir()
    off = plant_of(running, tmp_path / "off", monkeypatch, without_ids(700), daily=False)
    assert off.tick().skip_message == "heal.daily is off"
    assert off.lake.standin.requests == whole.lake.standin.requests == []


def test_a_day_that_is_being_run_is_healed_later(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    run = dg.DagsterRun(
        job_name="day",
        run_id=str(uuid4()),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": DAY},
    )
    plant.instance.add_run(run)
    assert plant.tick().skip_message == f"at work: {DAY}"
    plant.instance.report_run_canceled(run)
    assert len(plant.tick().run_requests or ()) == 1


def test_one_day_at_a_time_is_healed_because_each_run_keeps_the_limit_of_requests_by_itself(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    trades = traded(BEFORE)
    del trades[700]
    names = {COINBASE.dataset_symbol: CANONICAL[COINBASE]}
    plant.lake.days.bring(COINBASE, BEFORE, vendor_file(COINBASE, trades), names)
    # The whole file of that day is here no more.
    update_manifest(
        plant.lake.store,
        COINBASE,
        BEFORE,
        lambda held: held.model_copy(update={"versions": held.versions[-1:]}),
    )
    settle(plant.lake.store, BEFORE, load_settings(plant.file).thresholds)
    [request] = plant.tick().run_requests or ()
    assert request.tags[TAG_HEALED_DAY] == DAY
    run = dg.DagsterRun(
        job_name="heal", run_id=str(uuid4()), status=dg.DagsterRunStatus.STARTED, tags={TAG_HEALED_DAY: DAY}
    )
    plant.instance.add_run(run)
    assert plant.tick().skip_message == "a day is being healed"
    plant.instance.report_run_canceled(run)
    [request] = plant.tick().run_requests or ()
    assert request.tags[TAG_HEALED_DAY] == BEFORE


def test_the_command_without_a_feed_heals_every_feed_that_has_ids_to_ask_for(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    found = CliRunner().invoke(main, ["heal", "--date", DAY])
    assert (found.exit_code, f"{COINBASE} of {DAY}: 1 id is missing in 1 hole" in found.output) == (0, True)
    again = CliRunner().invoke(main, ["heal", "--date", DAY])
    assert (again.exit_code, again.output) == (0, "no id is to be asked for\n")
    assert len(plant.asked) == 1


def test_the_command_goes_on_behind_a_feed_that_cannot_be_healed(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    lake, names = plant.lake, {feed: {feed.dataset_symbol: CANONICAL[feed]} for feed in (BINANCE, COINBASE)}
    for feed, symbols in names.items():
        lake.days.bring(feed, DAY, vendor_file(feed, without_ids(700)(traded(DAY, feed))), symbols)
    settle(lake.store, DAY, load_settings(plant.file).thresholds)
    newest = load_manifest(lake.store, BINANCE, DAY).newest
    assert newest is not None
    (tmp_path / "lake" / paths.ticks_data(BINANCE, DAY, newest.content)).unlink()
    found = CliRunner().invoke(main, ["heal", "--date", DAY])
    assert found.exit_code == 1
    assert f"{BINANCE} of {DAY}: " in found.output
    assert "1 row recovered, 0 ids never issued, 0 ids still missing" in found.output
    assert lake.found.verdict.missing_ids == 0


def test_a_document_that_cannot_be_read_is_named_and_ends_no_other_day_or_feed(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = plant_of(running, tmp_path, monkeypatch, without_ids(700))
    lake = plant.lake
    names = {BINANCE.dataset_symbol: CANONICAL[BINANCE]}
    lake.days.bring(BINANCE, DAY, vendor_file(BINANCE, without_ids(700)(traded(DAY, BINANCE))), names)
    settle(lake.store, DAY, load_settings(plant.file).thresholds)
    damaged = {BEFORE: paths.settled_day(BEFORE), DAY: paths.ticks_manifest(BINANCE, DAY)}
    for path in damaged.values():
        (tmp_path / "lake" / path).write_bytes(b"{")
    assert plant.tick().run_requests, "the other feed has ids to ask for"
    found = CliRunner().invoke(main, ["heal", "--date", BEFORE, "--end", AFTER])
    assert found.exit_code == 1
    for day, path in damaged.items():
        told = f"{day}: {lake.store.uri_of(path)}: cannot be read as "
        assert len([line for line in found.stderr.splitlines() if line.startswith(told)]) == 1
    assert f"{COINBASE} of {DAY}: 1 id is missing in 1 hole" in found.stdout
    assert lake.found.verdict.missing_ids == 0
    (tmp_path / "lake" / paths.settled_day(BEFORE)).write_bytes(b"{")
    alone = CliRunner().invoke(main, ["heal", "--date", BEFORE, "--feed", str(COINBASE)])
    assert alone.exit_code == 1
    assert paths.settled_day(BEFORE) in alone.stderr
    assert "nothing is recorded" not in alone.stderr


def test_the_schedule_runs_from_noon_on_and_is_on_where_the_setting_is() -> None:
    schedule = defs.resolve_schedule_def("heal_missing_ids")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 12-23 * * *", "UTC")
    assert schedule.job_name == "heal"
