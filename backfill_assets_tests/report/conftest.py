"""Days of a month through the real pipeline: good ones, a degraded one, a held one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from backfill_assets.lake import paths
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import EXCHANGES, SYMBOLS, Pipeline, write_settings

GOOD, DEGRADED, HELD, NEVER_RUN = "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-09"
DAYS = ("2024-01-01", GOOD, DEGRADED, HELD)
GAP = 500
LIQUID, ILLIQUID = 12_000, 2_500


@dataclass
class Reports:
    """A pipeline whose days have run, the results of the runs, and the pages that they left."""

    pipeline: Pipeline
    results: dict[str, dg.ExecuteInProcessResult] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """The page of a day or of a month."""
        path = paths.day_report(name) if len(name) == 10 else paths.month_report(name)
        return Path(self.pipeline.store.uri_of(path))


def damage(pipeline: Pipeline) -> None:
    """One feed with a gap, one missing and one silent on a day, two exchanges missing on another."""
    pipeline.serve_changed("binance/trades/BTCUSDT", DEGRADED, lambda rows: rows[:4000] + rows[4000 + GAP :])
    pipeline.serve_changed(
        "kraken/trades/ETH-USDT", DEGRADED, lambda rows: [row for row in rows if hour(row) not in (10, 11)]
    )
    pipeline.with_fault("kraken/trades/XBT-USDT", DEGRADED, Fault(always=faults.not_found()))
    for symbol in SYMBOLS:
        pipeline.with_fault(f"coinbase/trades/{symbol}", HELD, Fault(always=faults.not_found()))
        binance = f"binance/trades/{symbol.replace('-', '')}"
        pipeline.with_fault(binance, HELD, Fault(always=faults.not_found()))


def hour(row: str) -> int:
    return int(row.split(",")[2]) // 3_600_000_000 % 24


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    folder = tmp_path_factory.mktemp("reports")
    rows = {(e, s): LIQUID if s == "BTC-USDT" else ILLIQUID for e in EXCHANGES for s in SYMBOLS}
    with TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as standin:
        made = Reports(Pipeline(write_settings(folder, standin), standin))
        damage(made.pipeline)
        for day in DAYS:
            made.results[day] = made.pipeline.run(day)
        yield made


@pytest.fixture
def copied(reports: Reports, tmp_path: Path) -> Pipeline:
    """The same lake and warehouse in a separate folder, for changes."""
    source = reports.pipeline.folder
    for name in ("lake", "warehouse"):
        shutil.copytree(source / name, tmp_path / name)
    file = tmp_path / "settings.yaml"
    file.write_text((source / "settings.yaml").read_text().replace(str(source), str(tmp_path)))
    return Pipeline(file, reports.pipeline.standin)
