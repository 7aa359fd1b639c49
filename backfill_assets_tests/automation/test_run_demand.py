"""A run asks a cluster for resources by the files of the stored day nearest to its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_assets.automation.run_demand import (
    BYTES_PER_PROCESSOR,
    LEAST_MEMORY,
    MEMORY_PER_PROCESSOR,
    MOST_PROCESSORS,
    demand,
    demand_of_day,
)
from backfill_assets_tests.progress.planned_lake import SIZES, Lake

DAY = "2024-01-10"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.mark.parametrize(
    ("settled", "measured"),
    [
        (["2024-01-10", "2024-01-09"], "2024-01-10"),
        (["2024-01-11", "2024-01-09"], "2024-01-09"),
        (["2024-01-11", "2024-01-08"], "2024-01-11"),
        (["2024-01-17"], "2024-01-17"),
    ],
)
def test_the_nearest_day_is_measured_of_two_the_earlier(
    settled: list[str], measured: str, lake: Lake
) -> None:
    for day in settled:
        lake.run(day)
    found = demand_of_day(lake.store, DAY)
    assert found is not None
    assert (found.measured, found.expected_bytes) == (measured, sum(SIZES.values()))
    assert found.text == f"asks for 1 CPU and 1.6 GB of memory: the files of {measured} have 4.0 MB"


def test_days_of_another_week_and_runs_of_no_day_tell_nothing(lake: Lake) -> None:
    lake.run("2024-01-02")
    lake.run("2024-01-18")
    assert demand_of_day(lake.store, DAY) is None
    assert demand_of_day(lake.store, "") is None


@pytest.mark.parametrize(
    ("expected_bytes", "processors"),
    [
        (1, 1),
        (BYTES_PER_PROCESSOR, 1),
        (BYTES_PER_PROCESSOR + 1, 2),
        (100 * BYTES_PER_PROCESSOR, MOST_PROCESSORS),
    ],
)
def test_memory_grows_with_the_files_that_are_decoded_at_once(expected_bytes: int, processors: int) -> None:
    found = demand(DAY, expected_bytes)
    assert found.processors == processors
    assert found.memory == LEAST_MEMORY + processors * MEMORY_PER_PROCESSOR
