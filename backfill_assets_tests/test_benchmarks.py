"""The comparisons run, and a recipe that makes other candles is not compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.timeout(300)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=BENCHMARKS, capture_output=True, text=True, timeout=280
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


@pytest.mark.story
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
