"""The metrics of days are stored ones, and dashboard and rules name only existing metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from backfill_assets.alerts.incidents import TITLES
from backfill_assets.lake import documents, paths
from backfill_assets.progress import day_metrics
from backfill_assets.progress.day_metrics import STATES, DayMetrics
from backfill_assets.progress.metrics import Metrics
from backfill_assets.progress.model import StoredState
from backfill_assets.progress.service import Backfills
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.presence import published_lag
from backfill_assets_tests.progress.planned_lake import BTC, ETH, NOW, PACED_SECONDS, SIZES, Lake

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "monitoring"
DAYS = [f"2024-02-{day}" for day in range(23, 30)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    for day in DAYS[:-1]:
        found.run(day)
    return found


def no_graph() -> Any:
    raise AssertionError


@pytest.fixture
def service(lake: Lake) -> Iterator[Backfills]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Backfills(instance, no_graph, lambda: lake.settings)


def scrape(service: Backfills, now: datetime = NOW) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(DayMetrics(service, lambda: now))
    lines = generate_latest(registry).decode().splitlines()
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if not line.startswith("#")}


def test_yesterday_is_told_with_states_feeds_rows_bytes_and_scores(lake: Lake, service: Backfills) -> None:
    lake.run(DAYS[-1], state="degraded", absent=(ETH,))
    found = scrape(service)
    assert found['backfill_day_state{days_ago="1",state="degraded"}'] == 1
    assert found['backfill_day_state{days_ago="1",state="published"}'] == 0
    assert sum(v for k, v in found.items() if "backfill_day_state" in k and 'state="published"' in k) == 6
    assert found['backfill_yesterday_feeds{verdict="publish"}'] == 1
    assert found['backfill_yesterday_feeds{verdict="missing"}'] == 1
    assert found["backfill_yesterday_feeds_accepted"] == 1
    assert found["backfill_yesterday_rows"] == SIZES[BTC] // 10
    assert found["backfill_yesterday_raw_bytes"] == SIZES[BTC]
    assert found["backfill_yesterday_rate_limit_wait_seconds"] == PACED_SECONDS
    assert 0 < found['backfill_yesterday_score{score="completeness"}'] < 1


def test_a_day_that_was_not_run_is_missing_and_has_no_numbers(service: Backfills) -> None:
    found = scrape(service)
    assert found['backfill_day_state{days_ago="1",state="missing"}'] == 1
    assert not any(name.startswith("backfill_yesterday") for name in found)


def published_at(lake: Lake, day: str, *moments: datetime) -> None:
    """Let the day's tables be published at these moments; the remaining tables have the last one."""
    tables = ("instruments", "candles", "coverage", "quality")
    for table, moment in zip(tables, (*moments, *[moments[-1]] * 4), strict=False):
        entry = ledger.entry(lake.store, table, day)
        assert entry is not None
        assert entry.published is not None
        published = entry.published.model_copy(update={"published_at": moment})
        changed = entry.model_copy(update={"published": published})
        path = paths.publication(table, day)
        documents.update(lake.store, path, ledger.Entry, lambda _, changed=changed: changed)  # type: ignore[misc]


def test_the_lag_is_from_nine_to_the_last_publication(lake: Lake) -> None:
    lake.run(DAYS[-1])
    nine = datetime(2024, 3, 1, 9, tzinfo=UTC)
    published_at(lake, DAYS[-1], nine, nine + timedelta(minutes=30), nine + timedelta(minutes=10))
    assert published_lag(lake.store, DAYS[-1]) == timedelta(minutes=30)
    lake.run("2024-02-22", tables=("trades", "candles"))
    assert published_lag(lake.store, "2024-02-22") is None


def test_days_are_read_once_a_minute(lake: Lake, service: Backfills, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = DayMetrics(service, lambda: NOW)
    assert [family.name for family in collector.collect()] == ["backfill_day_state"]
    lake.run(DAYS[-1])
    assert len(list(collector.collect())) == 1
    monkeypatch.setattr(day_metrics, "SECONDS", -1)
    assert len(list(collector.collect())) > 1


def test_a_lake_that_cannot_be_read_leaves_the_other_metrics(tmp_path: Path, service: Backfills) -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(day_metrics, "look_back", lambda *_: ["2024-02-30"])
    try:
        text = generate_latest(Metrics(service).registry).decode()
    finally:
        monkey.undo()
    assert "backfill_jobs" in text
    assert "backfill_day_state" not in text


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alert_rules.yaml").read_text())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
    ]


def test_dashboard_and_rules_name_metrics_labels_and_values_that_there_are(
    lake: Lake, service: Backfills
) -> None:
    lake.run(DAYS[-1])
    published_at(lake, DAYS[-1], NOW)
    metrics = Metrics(service, lambda: NOW)
    metrics.requests.labels("GET", "/", "200").inc()
    metrics.seconds.labels("GET", "/").observe(0.1)
    text = generate_latest(metrics.registry).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    named = set()
    for expression in expressions():
        for name, labels in re.findall(r"\b(backfill_(?!assets\b)\w+)(?:\{([^}]*)\})?", expression):
            named.add(name)
            of_name = [line for line in lines if re.match(rf"{name}[{{ ]", line)]
            assert of_name, f"no such metric: {name}"
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', labels):
                values = {found for line in of_name for found in re.findall(rf'{label}="([^"]*)"', line)}
                assert set(value.split("|")) <= values, (name, label, value)
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            assert all(any(f'{g.strip()}="' in line for line in lines) for g in grouped.split(","))
    own = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("backfill_")}
    untold = {name for name in own - named if not name.endswith(("_total", "_created", "_sum", "_count"))}
    assert untold == set()


def test_the_table_of_metrics_has_every_one_of_the_service_and_no_other(
    lake: Lake, service: Backfills
) -> None:
    lake.run(DAYS[-1])
    published_at(lake, DAYS[-1], NOW)
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics(service, lambda: NOW).registry.collect()
        if family.name.startswith("backfill_")
    }
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    _, _, table = page.partition("<!-- table: metrics -->\n")
    named = re.findall(r"`(backfill_\w+)`", table.partition("\n\n")[0])
    assert sorted(named) == sorted(found)


def test_the_numbers_of_the_rules_are_those_of_settings_and_code(lake: Lake) -> None:
    by_name = {
        rule["alert"]: rule["expr"]
        for group in yaml.safe_load((MONITORING / "alert_rules.yaml").read_text())["groups"]
        for rule in group["rules"]
    }
    assert by_name["BackfillCompletenessLow"].endswith(f"< {lake.settings.thresholds.day_completeness}")
    rules = set(
        re.findall(r"[a-z_]+", by_name["BackfillDayNotPublished"].partition('rule=~"')[2].partition('"')[0])
    )
    assert rules <= set(TITLES)
    assert set(STATES) == {value for kind in get_args(StoredState) for value in get_args(kind)}
