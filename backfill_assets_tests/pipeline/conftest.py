"""The whole pipeline on loopback: a stand-in for the vendor, lake and warehouse in a folder, Dagster."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from backfill_assets.definitions import build_definitions
from backfill_assets.feeds import Feed
from backfill_assets.lake.store import Store, open_store
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.report.month import build_version
from backfill_assets.settings import Settings, load_settings
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse.protocol import Warehouse, open_warehouse

EXCHANGES = ("binance", "coinbase", "kraken")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "ADA-USDT")
ROWS = 3_000


@dataclass
class FinishedDays:
    """Days with which many tests begin: each process of the tests runs them once, and then copies them.

    A run of a copied day may write its page again, so tests of runs with nothing to do make their own days.
    """

    folder: Path
    #: By days, settings without the parts that differ between tests, and market (kept, so that its id
    #: stays its own).
    made: dict[tuple[tuple[str, ...], str, int], tuple[Pipeline, object]] = field(default_factory=dict)

    def put(self, pipeline: Pipeline, days: tuple[str, ...]) -> None:
        """Put the finished days into a pipeline that has no days yet, and whose vendor has no fault."""
        standin = pipeline.standin
        assert standin is not None
        faults = standin.faults
        assert (faults._by_path, faults.exported_until, faults.incidents) == ({}, {}, {})
        assert not (pipeline.folder / "lake").exists()
        settings = pipeline.file.read_text().replace(str(pipeline.folder), "").replace(standin.url, "")
        key = (days, settings, id(standin.source))
        if key in self.made:
            _copy(self.made[key][0], pipeline)
            return
        for day in days:
            assert Pipeline(pipeline.file, standin).run(day).success
        standin.forget_requests()
        kept = self.folder / f"days-{len(self.made)}"
        kept.mkdir()
        text = pipeline.file.read_text().replace(str(pipeline.folder), str(kept))
        (kept / pipeline.file.name).write_text(text)
        self.made[key] = Pipeline(kept / pipeline.file.name), standin.source
        _copy(pipeline, self.made[key][0])


def _copy(source: Pipeline, target: Pipeline) -> None:
    """Copy lake and warehouse, and let all their paths name the copy.

    The ledger names the folder of the partitions, summaries have its digest, and the views name their files.
    """
    for name in ("lake", "warehouse"):
        shutil.copytree(source.folder / name, target.folder / name)
    moves = {
        f'"{source.folder}/': f'"{target.folder}/',
        f'"{build_version(source.settings)}"': f'"{build_version(target.settings)}"',
    }
    for file in (target.folder / "lake").rglob("*.json"):
        before = file.read_text()
        after = before
        for old, new in moves.items():
            after = after.replace(old, new)
        if after != before:
            file.write_text(after)
    target.warehouse.ensure_views()


@dataclass
class Pipeline:
    """One environment: its settings file, its stand-in, and the definitions that work on it."""

    file: Path
    standin: TardisStandin | None = None
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    finished: FinishedDays | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.file)

    @property
    def store(self) -> Store:
        return open_store(self.settings.lake)

    @property
    def warehouse(self) -> Warehouse:
        return open_warehouse(self.settings.warehouse)

    @property
    def folder(self) -> Path:
        return self.file.parent

    def run(
        self, day: str, select: list[str] | None = None, **ticks_config: Any
    ) -> dg.ExecuteInProcessResult:
        """Run the day's job, or only some of its assets with their checks."""
        defs = build_definitions(str(self.file))
        job = defs.resolve_job_def("day")
        config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        if ticks_config:
            config["ops"] = {"ticks": {"config": ticks_config}}
        return job.execute_in_process(
            partition_key=day,
            run_config=config,
            instance=self.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name.split("/")) for name in select] if select else None,
        )

    def begin_after(self, *days: str) -> None:
        """Begin with these days finished, as their first runs left them."""
        assert self.finished is not None
        self.finished.put(self, days)

    def run_apart(self, day: str) -> dg.ExecuteInProcessResult:
        """Run the day on its own instance, because an instance in memory takes one run at a time."""
        return Pipeline(self.file, self.standin).run(day)

    def settled(self, day: str) -> Day:
        """The day as its run has settled it."""
        found = load_day(self.store, day)
        assert found is not None
        return found

    def table(self, name: str, day: str) -> pl.DataFrame:
        """The day's partition as the embedded warehouse has it; no rows if it was never published."""
        file = self.folder / "warehouse" / name / f"{day}.parquet"
        return pl.read_parquet(file) if file.exists() else pl.DataFrame()

    def partition_bytes(self, name: str) -> dict[str, bytes]:
        """Every published partition of a table, byte for byte."""
        folder = self.folder / "warehouse" / name
        return {file.stem: file.read_bytes() for file in folder.glob("20*.parquet")}

    def with_fault(self, feed: str, day: str, fault: Fault) -> None:
        assert self.standin is not None
        self.standin.faults.put_dataset(Feed.parse(feed), day, fault)

    def heal(self) -> None:
        assert self.standin is not None
        self.standin.faults.clear()

    def serve_changed(self, feed: str, day: str, change: Callable[[list[str]], list[str]]) -> None:
        """Serve the day's file with its lines (the header left out) changed."""
        assert self.standin is not None
        body = self.standin.source.dataset(Feed.parse(feed), day)
        lines = gzip.decompress(body).decode().splitlines()
        changed = "\n".join([lines[0], *change(lines[1:]), ""])
        self.with_fault(feed, day, Fault(body=gzip.compress(changed.encode(), mtime=0)))

    @property
    def downloads(self) -> list[str]:
        """Paths of the data sets that runs asked for."""
        assert self.standin is not None
        return [r.path for r in self.standin.requests if "/datasets/" in r.path]


MakePipeline = Callable[..., Pipeline]


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Check results by ``asset:check``."""
    return {
        f"{check.asset_key.to_user_string()}:{check.check_name}": check
        for check in result.get_asset_check_evaluations()
    }


@pytest.fixture(name="checks_of")
def checks_of_fixture() -> Callable[[dg.ExecuteInProcessResult], dict[str, dg.AssetCheckEvaluation]]:
    return checks_of


@pytest.fixture(scope="session")
def market() -> Market:
    """A market of small days."""
    return Market(rows={(exchange, symbol): ROWS for exchange in EXCHANGES for symbol in SYMBOLS})


@pytest.fixture
def standin(market: Market) -> Iterator[TardisStandin]:
    """Answers as on 2024-02-10 at noon."""
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as running:
        yield running


def write_settings(folder: Path, standin: TardisStandin, **changes: Any) -> Path:
    """A settings file in the folder, for a lake and a warehouse beside it."""
    content = {
        "tardis": {
            "datasets_endpoint": f"{standin.url}/v1/datasets",
            "api_endpoint": f"{standin.url}/v1",
            "api_key": "standin-key",
            "retry_budget_seconds": 0,
        },
        "universe": [{"exchanges": list(EXCHANGES), "symbols": list(SYMBOLS), "data_types": ["trades"]}],
        "lake": {"uri": str(folder / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
        **changes,
    }
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="session")
def finished_days(tmp_path_factory: pytest.TempPathFactory) -> FinishedDays:
    return FinishedDays(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def make_pipeline(tmp_path: Path, finished_days: FinishedDays) -> MakePipeline:
    """Makes environments: one folder, settings file, lake and warehouse each."""

    def make(standin: TardisStandin, name: str = "pipeline", **changes: Any) -> Pipeline:
        folder = tmp_path / name
        folder.mkdir()
        return Pipeline(write_settings(folder, standin, **changes), standin, finished=finished_days)

    return make


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, standin: TardisStandin) -> Pipeline:
    """The local universe on small days."""
    return make_pipeline(standin)
