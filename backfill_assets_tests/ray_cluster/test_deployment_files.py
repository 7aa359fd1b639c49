"""The files of ``deploy/ray``, as far as they can be checked without a cloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from backfill_assets.automation.run_demand import (
    BYTES_PER_PROCESSOR,
    LEAST_MEMORY,
    MEMORY_PER_PROCESSOR,
    MOST_PROCESSORS,
    demand,
)
from backfill_assets.orchestration import DAGSTER_YAML
from backfill_assets.readable_numbers import bytes_text

RAY = Path(__file__).parents[2] / "deploy" / "ray"
#: Tools and settings that only other machines need.
OF_RAY = {"run_launcher", "compute_logs"}


def content(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_the_settings_of_dagster_are_those_of_one_machine_but_for_the_launcher_and_what_watches_it() -> None:
    shipped, of_ray = content(DAGSTER_YAML), content(RAY / "dagster.yaml")
    differ = {key for key in shipped.keys() | of_ray.keys() if shipped.get(key) != of_ray.get(key)}
    assert differ == OF_RAY | {"run_monitoring"}
    assert of_ray["run_monitoring"] == shipped["run_monitoring"] | {"poll_interval_seconds": 5}


def test_dagster_loads_them_and_ray_is_asked_for_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_ray", reason="needs Ray: make ray installs it")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    (tmp_path / "dagster.yaml").symlink_to(RAY / "dagster.yaml")
    with dg.DagsterInstance.get() as instance:
        launcher: Any = instance.run_launcher
        assert (launcher.num_cpus, launcher.memory) == (1, LEAST_MEMORY + MEMORY_PER_PROCESSOR)


def test_ray_takes_the_cluster_file_and_refuses_a_misspelt_key() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="needs Ray: make ray installs it")
    found = content(RAY / "cluster.yaml")
    util.validate_config(util.prepare_config(found))
    with pytest.raises(Exception, match="max_wrkers"):
        util.validate_config(util.prepare_config({**found, "max_wrkers": 1}))


def test_the_page_has_the_demand_that_is_made() -> None:
    page = (RAY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:up to ([\d.]+ GB)|more) \| (\d) \| ([\d.]+ GB) \|$", page, re.MULTILINE)
    made = [demand("2024-01-01", n * BYTES_PER_PROCESSOR) for n in range(1, MOST_PROCESSORS + 1)]
    sizes = [bytes_text(one.expected_bytes) for one in made[:-1]]
    assert rows == [
        (size, str(one.processors), bytes_text(one.memory))
        for size, one in zip([*sizes, ""], made, strict=True)
    ]


def test_what_ray_brings_is_pinned() -> None:
    lines = (RAY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", pin)] == []
    assert {"ray", "dagster-ray"} <= {pin.partition("==")[0] for pin in pins}
