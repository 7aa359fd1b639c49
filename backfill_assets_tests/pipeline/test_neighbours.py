"""A bad day beside good ones: they stay published, and final rows never change."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, cast

import duckdb
import polars as pl
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE
from backfill_assets.warehouse.protocol import Warehouse
from backfill_assets.warehouse.publisher import Publisher, made_fingerprint
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline
from backfill_assets_tests.times import TIMES, takes_minutes

pytestmark = [pytest.mark.story, takes_minutes]

BEFORE, DAY, AFTER = DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
FEED = "binance/trades/BTCUSDT"
OTHER = "binance/trades/ETHUSDT"
MADE = ["instruments", "ticks", "candles"]
SMALL = {"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"], "data_types": ["trades"]}


@pytest.fixture
def standin() -> Iterator[TardisStandin]:
    market = Market(rows={("binance", "BTC-USDT"): 4_000, ("binance", "ETH-USDT"): 200})
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as running:
        yield running


@pytest.fixture
def small(make_pipeline: MakePipeline, standin: TardisStandin) -> Callable[[str], Pipeline]:
    return lambda name: make_pipeline(standin, name=name, universe=[SMALL])


def shifted(lines: list[str]) -> list[str]:
    """Add a billion to every id."""
    cells = [line.split(",") for line in lines]
    return [",".join([*c[:4], str(int(c[4]) + 10**9), *c[5:]]) for c in cells]


def cut_off(lines: list[str]) -> list[str]:
    return lines[: len(lines) // 2]


def rows(pipeline: Pipeline, day: str) -> dict[str, int]:
    """Rows of the feed's market in the day's tables."""
    found = {}
    for table in ("trades", "candles"):
        frame = pipeline.table(table, day)
        ours = frame.filter(symbol="BTC-USDT") if len(frame) else frame
        found[table] = len(ours)
    return found


def final_candles(pipeline: Pipeline) -> set[tuple[object, ...]]:
    with duckdb.connect(str(pipeline.folder / "warehouse" / "warehouse.duckdb"), read_only=True) as db:
        names = {row[0] for row in db.execute("SELECT view_name FROM duckdb_views()").fetchall()}
        return {*db.execute("FROM candles_final").fetchall()} if "candles_final" in names else set()


def outcome(pipeline: Pipeline, day: str, feed: str = FEED) -> tuple[str, bool]:
    found = pipeline.settled(day).settled.feed(Feed.parse(feed))
    assert found is not None
    return found.verdict.outcome, found.accepted is not None


def test_a_day_after_with_other_ids_takes_nothing_out_of_the_warehouse(small):
    pipeline = small("shifted")
    assert pipeline.run(BEFORE).success
    before = rows(pipeline, BEFORE)
    assert min(before.values()) > 100
    pipeline.serve_changed(FEED, DAY, shifted)
    assert pipeline.run(DAY).success
    assert outcome(pipeline, BEFORE) == outcome(pipeline, DAY) == ("publish", True)
    pipeline.heal()
    assert pipeline.run(DAY, refresh=True, feeds=[FEED]).success
    assert pipeline.run(BEFORE).success
    # Trades that arrived after midnight may have been added to the last minute.
    assert rows(pipeline, BEFORE) == before
    (warning,) = pipeline.settled(DAY).settled.feed(Feed.parse(FEED)).verdict.warnings
    assert "ids lie between its ids and those of the day before: midnight is not proven" in warning


def test_a_day_that_is_cut_off_waits_and_is_never_published_first(small):
    pipeline = small("cut-off")
    pipeline.serve_changed(FEED, DAY, cut_off)
    for day in DAYS:
        assert pipeline.run(day).success
        if day != BEFORE:
            assert outcome(pipeline, DAY) == ("quarantine", False)
            assert rows(pipeline, DAY)["trades"] == 0
    pipeline.heal()
    assert pipeline.run(DAY, refresh=True, feeds=[FEED]).success
    assert outcome(pipeline, DAY) == ("publish", True)
    assert rows(pipeline, DAY)["trades"] > 100


def test_a_day_beside_a_404_is_not_final_and_its_other_feeds_are(small):
    pipeline = small("absent")
    pipeline.with_fault(FEED, AFTER, Fault(always=not_found()))
    for day in (*DAYS, "2024-01-04"):
        assert pipeline.run(day).success
    first = final_candles(pipeline)
    assert {(str(row[0]), row[2]) for row in first} == {(DAY, "ETH-USDT"), (AFTER, "ETH-USDT")}
    coverage = pipeline.table("coverage", DAY).group_by("symbol").agg(pl.col("provisional").any())
    assert dict(coverage.iter_rows()) == {"BTC-USDT": True, "ETH-USDT": False}
    pipeline.heal()
    assert pipeline.run(AFTER).success
    assert first < final_candles(pipeline)
    assert {(str(row[0]), row[2]) for row in final_candles(pipeline)} == {
        (day, symbol) for day in (DAY, AFTER) for symbol in ("BTC-USDT", "ETH-USDT")
    }


@pytest.mark.parametrize(
    ("damage", "bad"), [(shifted, DAY), (cut_off, BEFORE), (None, AFTER)], ids=["ids", "cut off", "404"]
)
def test_in_some_orders_days_end_in_the_same_tables_and_what_is_final_never_changes(damage, bad, small):
    """One of the days is bad in its first run, or absent, and runs again at the end.

    ``quality/test_settled_days`` has all orders and many more files; ``make storm`` has half of them here.
    """
    ends = []
    orders = [*itertools.permutations(DAYS)][::2]
    if TIMES == 1:
        orders = [orders[0], orders[1 + (damage is None)]]
    for number, order in enumerate(orders):
        pipeline = small(f"order-{number}")
        if damage is None:
            pipeline.with_fault(FEED, bad, Fault(always=not_found()))
        else:
            pipeline.serve_changed(FEED, bad, damage)
        final: set[tuple[object, ...]] = set()
        published: set[str] = set()
        for day in (*order, bad):
            assert pipeline.run(day).success
            now = final_candles(pipeline)
            assert final <= now, f"rows that were final changed with {day}"
            final = now
            for seen in published:
                assert rows(pipeline, seen)["trades"] > 0, f"{seen} was taken back by {day}"
            published |= {seen for seen in DAYS if rows(pipeline, seen)["trades"]}
            if day == bad and damage is None:
                pipeline.heal()
        pipeline.heal()
        ends.append({table: pipeline.partition_bytes(table) for table in ("trades", "candles", "coverage")})
    assert all(end == ends[0] for end in ends)
    assert set(ends[0]["candles"]) == set(DAYS)


@pytest.fixture(scope="module")
def in_order() -> dict[str, dict[str, dict[str, bytes]]]:
    """By damage: every partition after the days in order; the first test that needs it fills it."""
    return {}


@pytest.mark.parametrize("table", [CANDLES, COVERAGE], ids=lambda table: table.name)
@pytest.mark.parametrize("when", ["fence", "replace_partition"])
def test_a_day_that_is_made_anew_while_it_is_published_is_published_as_it_is_then(small, table, when):
    pipeline = small("anew")
    assert pipeline.run(DAY, MADE).success
    folder = pipeline.folder / "lake" / table.name / f"date={DAY}"
    before = [*folder.iterdir()]

    class Disturbed:
        """The warehouse; it runs the day after before the first call of ``when``."""

        def __getattr__(self, name: str) -> Any:
            if name == when and [*folder.iterdir()] == before:
                assert pipeline.run(AFTER, MADE).success
                assert [*folder.iterdir()] != before
            return getattr(warehouse, name)

    with closing(pipeline.warehouse) as warehouse:
        Publisher(pipeline.store, cast(Warehouse, Disturbed()), pipeline.settings).publish(table, DAY)
    [file] = folder.iterdir()
    assert pipeline.table(table.name, DAY).height == pl.read_parquet(file, hive_partitioning=False).height > 0
    entry = ledger.entry(pipeline.store, table.name, DAY)
    assert entry is not None
    assert (entry.state, entry.fingerprint) == ("done", made_fingerprint(table, pipeline.settled(DAY)))


@pytest.mark.parametrize("seed", range(TIMES))
def test_days_in_parallel_in_any_order_end_as_in_order_beside_a_bad_one(seed, small, in_order):
    """Each day runs twice, at most three at once; the bad one runs once more when its file is repaired."""
    tables = ("instruments", "trades", "candles", "coverage", "quality")
    days = [*DAYS, "2024-01-04"][: 4 if TIMES > 1 else 3]
    dice = random.Random(seed)
    damage, bad, order = dice.choice([shifted, cut_off]), dice.choice(DAYS), days * 2
    dice.shuffle(order)

    def run(name: str, days: list[str], at_once: int) -> Pipeline:
        pipeline = small(name)
        pipeline.serve_changed(FEED, bad, damage)
        with ThreadPoolExecutor(at_once) as pool:
            assert all(result.success for result in pool.map(pipeline.run_apart, days))
        return pipeline

    key = f"{damage.__name__} {bad}"
    if key not in in_order:
        pipeline = run("in-order", days, 1)
        in_order[key] = {table: pipeline.partition_bytes(table) for table in tables}
    pipeline = run("parallel", order, 3)
    assert {table: pipeline.partition_bytes(table) for table in tables} == in_order[key]
    pipeline.heal()
    assert pipeline.run(bad, refresh=True, feeds=[FEED]).success
    assert outcome(pipeline, bad) == ("publish", True)
    assert rows(pipeline, bad)["trades"] > 100
