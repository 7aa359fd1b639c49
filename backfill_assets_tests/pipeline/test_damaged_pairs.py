"""Two documents or files of one day are damaged together: the days beside it go on, and no rows leave.

The day before is published, the day after is fetched and comes next. The steps of their runs are called one
by one, so that a failure names its step; ``make storm`` has all pairs, every run has those that once failed
and a share of the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from itertools import combinations
from pathlib import Path

import pytest

from backfill_assets.automation.due import due_days
from backfill_assets.candles.build import build_candles
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.progress.stored_days import calendar
from backfill_assets.quality.settle import settle
from backfill_assets.report.publish import write_reports
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse.catalog import TABLES as CATALOG
from backfill_assets.warehouse.publisher import Publisher
from backfill_assets_tests.pipeline import test_damaged_documents as documents
from backfill_assets_tests.pipeline.conftest import Pipeline
from backfill_assets_tests.pipeline.test_damaged_documents import (
    AFTER,
    BEFORE,
    DAY,
    FEED,
    SYMBOLS,
    TABLES,
    TODAY,
    settings_of,
)
from backfill_assets_tests.pipeline.test_damaged_documents import running as running
from backfill_assets_tests.times import TIMES, takes_minutes

pytestmark = [pytest.mark.story, takes_minutes]

OTHER = Feed("binance", "trades", "ETHUSDT")
#: By kind, a path of the lake or a pattern that matches one file.
KINDS = {
    **documents.DOCUMENTS,
    "other manifest": paths.ticks_manifest(OTHER, DAY),
    "page": paths.day_report(DAY),
    "ticks": f"ticks/{FEED}/{DAY}/*.parquet",
    "partials": f"partials/{FEED}/{DAY}/*.parquet",
    "candles": f"candles/date={DAY}/*.parquet",
    "coverage": f"coverage/date={DAY}/*.parquet",
    "listing": f"instruments/binance/{DAY}/*.parquet",
}


def cut(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose(file: Path, _: Path) -> None:
    file.unlink()


def be_of_the_day_before(file: Path, lake: Path) -> None:
    """The same kind of document or file of another day, under the name of this one."""
    path = str(file.relative_to(lake)).replace(DAY, BEFORE)
    [other] = [lake / path] if (lake / path).exists() else (lake / path).parent.glob("*.parquet")
    file.write_bytes(other.read_bytes())


def link_to_itself(file: Path, _: Path) -> None:
    file.unlink()
    file.symlink_to(file)


HOWS: tuple[Callable[[Path, Path], None], ...] = (cut, lose, be_of_the_day_before)
PAIRS = [(how, *pair) for how in HOWS for pair in combinations(KINDS, 2)]
#: Each of these stopped a day beside it, or took rows out.
ONCE_FAILED = [
    *((cut, "settled day", other) for other in ("day record", "instruments", "manifest", "other manifest")),
    *((cut, "ticks", other) for other in ("measures", "partials")),
    *((lose, "settled day", other) for other in ("measures", "manifest", "other manifest", "instruments")),
    (lose, "instruments", "summary"),
    *((be_of_the_day_before, *pair) for pair in (("settled day", "measures"), ("manifest", "day record"))),
]
ONCE_FAILED += [(link_to_itself, *pair) for pair in (("settled day", "measures"), ("manifest", "summary"))]
SHARE = 1 if TIMES > 1 else 16


@pytest.fixture(scope="module")
def published(running: TardisStandin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published days, and the files of a third."""
    folder = tmp_path_factory.mktemp("published")
    made = Pipeline(settings_of(folder, running, *SYMBOLS), running)
    with chdir(folder):
        for day in (BEFORE, DAY):
            assert made.run(day).success
        assert documents.command(made, "baseline").exit_code == 0
        assert made.run(AFTER, select=["instruments", "ticks"]).success
    return folder


@pytest.fixture
def pipeline(running: TardisStandin, published: Path, tmp_path: Path) -> Iterator[Pipeline]:
    shutil.copytree(published, tmp_path / "copy")
    with chdir(tmp_path / "copy"):
        yield Pipeline(settings_of(tmp_path / "copy", running, *SYMBOLS), running)


def go_on_with(pipeline: Pipeline, day: str) -> None:
    """Settle, make and publish a day as a run does once its files are there."""
    store, settings = pipeline.store, pipeline.settings
    settle(store, day, settings.thresholds)
    build_candles(store, day, settings)
    publisher = Publisher(store, pipeline.warehouse, settings)
    for table in CATALOG:
        if table.name in TABLES:
            publisher.publish(table, day)
    write_reports(store, settings, day)


@pytest.mark.parametrize(
    ("how", "one", "another"),
    dict.fromkeys([*ONCE_FAILED, *PAIRS[::SHARE]]),
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_days_beside_go_on_and_nothing_leaves_the_warehouse(
    how: Callable[[Path, Path], None], one: str, another: str, pipeline: Pipeline
) -> None:
    lake = pipeline.folder / "lake"
    before = documents.tables(pipeline)
    candles = {day: pipeline.table("candles", day).height for day in (BEFORE, DAY)}
    for kind in (one, another):
        [file] = lake.glob(KINDS[kind])
        how(file, lake)
    for day in (AFTER, BEFORE):
        go_on_with(pipeline, day)
    after = documents.tables(pipeline)
    for table in ("trades", "instruments"):
        assert before[table].items() <= after[table].items(), table
    for day, rows in candles.items():
        assert pipeline.table("candles", day).height >= rows
    assert set(after["candles"]) == {BEFORE, DAY, AFTER}
    assert set(due_days(pipeline.store, TODAY, pipeline.settings)) <= {DAY}
    outcomes = {day.day: day.outcome for day in calendar(pipeline.store, pipeline.settings, BEFORE, AFTER)}
    assert (outcomes[BEFORE], outcomes[AFTER]) == ("published", "published")
