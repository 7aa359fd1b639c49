"""The jobs: one day of every asset, and a range of days as one backfill on a real instance."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from starlette.testclient import TestClient

from backfill_assets.automation.dagster_ui import dagster_ui
from backfill_assets.days import shift, utc_now
from backfill_assets.definitions import defs

REPOSITORY = Path(__file__).parents[2]
LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    with dg.DagsterInstance.get() as opened:
        yield opened


def test_every_way_of_starting_dagster_gives_the_code_location_one_name(instance):
    by_module = ModuleTarget("backfill_assets.definitions", None, None, None)
    by_file = WorkspaceFileTarget([str(REPOSITORY / "workspace.yaml")])
    names = {origin.location_name for way in (by_module, by_file) for origin in way.create_origins()}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    with dagster_ui(instance, "/dagster", lambda _: False, lambda _: True) as ui:
        [entry] = (
            TestClient(ui)
            .post("/dagster/graphql", json={"query": LOCATIONS})
            .json()["data"]["workspaceOrError"]["locationEntries"]
        )
    assert {*names, project["code_location_name"], entry["name"]} == {"backfill_assets.definitions"}


def request_range(instance: dg.DagsterInstance, start: str, end: str) -> dg.JobExecutionResult:
    """Run the job from the code location, which it asks for its assets, as a launched run does."""
    config = {
        "ops": {"request_days": {"config": {"start": start, "end": end}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    location = ReconstructableRepository.for_module("backfill_assets.definitions", "defs")
    job = location.get_reconstructable_job("range")
    return dg.execute_job(job, instance=instance, run_config=config, raise_on_error=False)


def test_the_day_job_has_every_asset_and_every_check():
    day = defs.resolve_job_def("day")
    everything = defs.resolve_asset_graph()
    assert day.asset_layer.executable_asset_keys == everything.materializable_asset_keys
    assert set(day.asset_layer.asset_graph.asset_check_keys) == set(everything.asset_check_keys)
    assert day.tags["dagster/max_runtime"] == "21600"
    assert "dagster/priority" not in day.tags, "a backfill of the job has its tags, too"


def test_a_range_is_one_backfill_of_all_assets_with_every_day_of_it(instance):
    result = request_range(instance, "2024-01-30", "2024-02-02")
    assert result.success
    [backfill] = instance.get_backfills()
    [output] = [event for event in result.all_node_events if event.is_successful_output]
    assert output.step_output_data.metadata["backfill_id"].value == backfill.backfill_id
    assert backfill.title == "2024-01-30 to 2024-02-02"
    assert backfill.tags["backfill_assets/range"] == "2024-01-30..2024-02-02"
    assert backfill.tags["dagster/priority"] == "0"
    assert defs.resolve_job_def("range").tags["dagster/priority"] == "10", "it waits behind no backfill"
    assert backfill.asset_backfill_data is not None
    subset = backfill.asset_backfill_data.target_subset
    assert subset.asset_keys == defs.resolve_asset_graph().materializable_asset_keys
    days = ["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02"]
    for partitions in subset.partitions_subsets_by_asset_key.values():
        assert sorted(partitions.get_partition_keys()) == days


def test_a_range_may_be_one_day_and_end_yesterday(instance):
    yesterday = shift(utc_now().date().isoformat(), -1)
    assert request_range(instance, yesterday, yesterday).success
    assert len(instance.get_backfills()) == 1


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2024-01-03", "2024-01-01", "the range ends (2024-01-01) before it starts (2024-01-03): swap them"),
        ("2024-1-1", "2024-01-03", "'2024-1-1' is not a day: write it as YYYY-MM-DD, for example 2024-01-01"),
        ("2024-01-01", "yesterday", "'yesterday' is not a day: write it as YYYY-MM-DD"),
        ("2019-03-29", "2019-04-01", "2019-03-29 cannot be run: days go from 2019-03-30 to "),
        ("2024-01-01", "2099-01-01", "2099-01-01 cannot be run: days go from 2019-03-30 to "),
    ],
)
def test_a_bad_range_fails_in_one_line_without_a_retry_and_asks_for_nothing(instance, start, end, message):
    result = request_range(instance, start, end)
    assert not result.success
    data = result.failure_data_for_node("request_days")
    assert data is not None
    assert data.user_failure_data is not None
    description = data.user_failure_data.description or ""
    assert description.startswith(message)
    assert "\n" not in description
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert instance.get_backfills() == []


def test_today_has_not_ended_and_cannot_be_run(instance):
    today = utc_now().date().isoformat()
    assert not request_range(instance, today, today).success
    assert instance.get_backfills() == []
