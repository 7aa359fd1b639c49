"""The comparisons run, and a recipe that makes other candles is not compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backfill_assets_tests.times import takes_minutes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.timeout(900)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=BENCHMARKS, capture_output=True, text=True, timeout=880
    )


def test_trades_are_compared_with_every_recipe() -> None:
    done = run("trades.py", "--rows", "20000", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    cases = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert cases[1:] == ["inflate", "core", "checked", "polars", "duckdb", "pandas"]


@pytest.mark.parametrize("column, change", [("close", 0.01), ("volume", 1e-6), ("trade_count", 1)])
def test_a_recipe_with_other_candles_is_refused(tmp_path: Path, column: str, change: float) -> None:
    made = pl.DataFrame(
        {
            "timeframe": ["1m", "1d"],
            "open_time": [60, 0],
            **{name: [1.0, 2.0] for name in ("open", "high", "low", "close")},
            **{name: [0.5, 1.0] for name in ("volume", "quote_volume", "buy_volume", "sell_volume")},
            "trade_count": [3, 5],
        }
    )
    made.write_parquet(tmp_path / "core.parquet")
    made.reverse().write_parquet(tmp_path / "polars.parquet")
    code = f"import trades, pathlib; trades.same_candles(pathlib.Path({str(tmp_path)!r}), ['core', 'polars'])"
    assert run("-c", code).returncode == 0
    made.with_columns(pl.col(column) + change).write_parquet(tmp_path / "polars.parquet")
    refused = run("-c", code)
    assert refused.returncode == 1
    assert refused.stderr.startswith("polars has")


# --- on paper ----------------------------------------------------------------------------------------------

SCALE = """
import json, sys
from scale import DataType, Units, Work, estimate
given = json.loads(sys.argv[1])
types = {"a": DataType(2e6, 10, 3), "b": DataType(1e6, 20, 6)}
units = Units(types, 7, 0.5, **given["units"])
found = estimate(Work(given["days"], given["symbols"], ("a", "b")), units, given["workers"])
money = [found.machines, found.download, found.load, found.storage_month]
print(json.dumps({"hours": found.hours, "binds": found.binds, "of": found.hours_of, "money": money}))
"""


def paper(workers: int = 1, days: int = 100, symbols: int = 10, **units: float) -> dict[str, Any]:
    given = {"workers": workers, "days": days, "symbols": symbols, "units": units}
    done = run("-c", SCALE, json.dumps(given))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_hours_and_money_are_those_of_the_units() -> None:
    found = paper(
        worker_cores=2,
        worker_mbit=80,
        place_mbit=800,
        requests_per_minute=10,
        requests_per_file=1,
        lake_per_download=2,
        loads_per_table_and_day=100,
        loads_of_a_partition=3,
        core_per_hour=1,
        storage_per_gb_month=1,
        download_per_gb=1,
        load_per_tb=1_000,
    )
    # 1,000 days of symbols: 12 s of rows and two feeds of half a second each; 40 MB.
    assert found["of"] == pytest.approx(
        {
            "CPU": (1_000 * 13 + 100 * 7) / 2 / 3600,
            "worker's network": 40_000 / 10 / 3600,
            "network": 40_000 / 100 / 3600,
            "vendor's rate": 2_000 / 10 / 60,
            "BigQuery's loads": 48.0,
        }
    )
    assert (found["hours"], found["binds"]) == (48.0, "BigQuery's loads")
    assert found["money"] == pytest.approx([96, 40, 80, 160]), "machines, download, load, a month of storage"


def test_more_workers_are_never_slower_and_no_shared_limit_gives_way() -> None:
    several = [paper(workers) for workers in (1, 3, 10, 99, 100, 1_000)]
    hours = [found["hours"] for found in several]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] > hours[1]
    for limit in ("network", "vendor's rate", "BigQuery's loads"):
        assert len({found["of"][limit] for found in several}) == 1
    # 99 workers take as long as 50: a day is one run. More workers than days change nothing.
    assert several[3]["of"]["CPU"] == pytest.approx(paper(50)["of"]["CPU"])
    assert several[4] == several[5]


@pytest.mark.parametrize(
    ("binds", "units"),
    [
        ("CPU", {}),
        ("vendor's rate", {"requests_per_minute": 0.1}),
        ("worker's network", {"worker_mbit": 1}),
        ("network", {"place_mbit": 0.5}),
        ("BigQuery's loads", {"loads_per_table_and_day": 30}),
    ],
)
def test_the_limit_that_takes_longest_binds(binds: str, units: dict[str, float]) -> None:
    easy = {"requests_per_minute": 1e9, "worker_mbit": 1e9, "place_mbit": 1e9, "loads_per_table_and_day": 1e9}
    found = paper(**{**easy, **units})
    assert (found["binds"], found["hours"]) == (binds, max(found["of"].values()))


def test_a_year_of_500_symbols_on_paper_is_a_table_from_measured_units() -> None:
    done = run("scale.py")
    assert done.returncode == 0, done.stderr
    assert "547,500 files" in done.stdout
    page = BENCHMARKS.parent / "docs" / "performance.md"
    assert done.stdout in page.read_text(), "docs/performance.md has what 'python benchmarks/scale.py' prints"
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[-3:]] == ["1", "10", "100"]
    for wrong in (
        ["--workers", "0"],
        ["--data-types", "tea"],
        ["--type", "a=1"],
        ["--requests-per-minute", "0"],
    ):
        refused = run("scale.py", *wrong)
        assert (refused.returncode, refused.stdout) == (2, "")


def test_new_figures_renew_what_follows_from_them_on_paper(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(
        "Above.\n<!-- figures: written by make bench -->old<!-- end of figures -->\nBetween.\n"
        "<!-- on paper: written by make bench -->old<!-- end of paper -->\nBelow.\n"
    )
    lines = f"json.load(open({str(BENCHMARKS.parent / 'docs' / 'performance.json')!r}))['lines']"
    done = run("-c", f"import bench, json, pathlib; bench.write(pathlib.Path({str(tmp_path)!r}), {lines})")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert run("scale.py").stdout in text
    assert "-->old<!--" not in text
    assert [line for line in text.splitlines() if line in ("Above.", "Between.", "Below.")] == [
        "Above.",
        "Between.",
        "Below.",
    ]


@pytest.mark.story
@takes_minutes
def test_all_comparisons_make_a_page_with_figures_and_a_plot(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("Above.\n<!-- figures: written by make bench -->old<!-- end of figures -->\nBelow.\n")
    done = run("bench.py", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "performance.json").read_text())["lines"]
    assert all(line["seconds"] > 0 and line["ratio"] > 0 for line in lines)
    text = page.read_text()
    assert (text[:7], text[-8:]) == ("Above.\n", "\nBelow.\n")
    assert "old" not in text
    assert all(f"### {line['work']}" in text and f"| {line['case']} |" in text for line in lines)
    assert "days in the lake</text>" in (tmp_path / "performance.svg").read_text()
