"""The order in which a day's files are fetched, and how many of them wait on the disk for decoding."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backfill_assets.days import utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord, ExpectedSymbols
from backfill_assets.quality.settle import settle
from backfill_assets.settings import (
    DuckDBWarehouse,
    LakeSettings,
    Settings,
    TardisSettings,
    UniverseEntry,
)
from backfill_assets.standins.faults import dataset_path
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.client import TardisClient
from backfill_assets.ticks import fetch

BEFORE, DAY = "2024-01-02", "2024-01-03"
EXCHANGES = ("binance", "coinbase", "kraken")
ROWS = {"ADA-USDT": 40, "BTC-USDT": 4_000, "ETH-USDT": 900, "SOL-USDT": 200}


@pytest.fixture
def house(tmp_path):
    """A stand-in of one exchange, and a way to fetch a day of it."""
    market = Market(
        rows={(exchange, symbol): rows for exchange in EXCHANGES for symbol, rows in ROWS.items()}
    )
    with TardisStandin(market, api_key="sk-test") as standin:
        yield House(standin, tmp_path)


class House:
    def __init__(self, standin, folder):
        self.standin, self.lake, self._folder = standin, folder / "lake", folder
        self.store = LocalStore(self.lake)

    def feed(self, symbol: str, exchange: str = "binance") -> Feed:
        listing = self.standin.source.stream(exchange, symbol).listing_on(DAY)
        return Feed(exchange, "trades", listing.dataset_symbol)

    def settings(self, **tardis) -> Settings:
        url = self.standin.url
        return Settings(
            name="test",
            universe=(UniverseEntry(exchanges=("binance",), symbols=("BTC-USDT",)),),
            lake=LakeSettings(uri=str(self._folder / "lake"), scratch=str(self._folder / "scratch")),
            warehouse=DuckDBWarehouse(kind="duckdb", folder=str(self._folder / "warehouse")),
            tardis=TardisSettings(
                datasets_endpoint=f"{url}/v1/datasets", api_endpoint=f"{url}/v1", api_key="sk-test", **tardis
            ),
            decode_threads=1,
        )

    def fetch(self, day: str, feeds: list[Feed], **tardis) -> list[Feed]:
        """Fetch and settle; returns the feeds in the order of their requests."""
        record = DayRecord(
            day=day,
            expected=tuple(ExpectedSymbols(feed=str(f), symbols=((f.dataset_symbol, "X-Y"),)) for f in feeds),
            recorded_at=utc_now(),
        )
        documents.update(self.store, paths.day_record(day), DayRecord, lambda _: record)
        settings, before = self.settings(**tardis), len(self.standin.requests)
        report = fetch.fetch_day(self.store, TardisClient(settings.tardis), record, settings)
        assert report.summary == f"{len(feeds)} fetched"
        settle(self.store, day, settings.thresholds)
        by_path = {dataset_path(feed, day): feed for feed in feeds}
        return [by_path[request.path] for request in self.standin.requests[before:]]


def test_the_largest_file_of_the_day_before_comes_first(house):
    feeds = ada, btc, eth, sol = [house.feed(symbol) for symbol in ROWS]
    assert house.fetch(BEFORE, feeds, concurrency=1) == feeds, "nothing is known of the day before"
    assert house.fetch(DAY, feeds, concurrency=1) == [btc, eth, sol, ada]


def test_a_feed_of_unknown_size_comes_before_those_that_are_known(house):
    ada, btc, _, sol = [house.feed(symbol) for symbol in ROWS]
    house.fetch(BEFORE, [ada, btc], concurrency=1)
    assert house.fetch(DAY, [ada, btc, sol], concurrency=1) == [sol, btc, ada]


def test_a_damaged_document_of_the_day_before_leaves_the_order(house):
    ada, btc, *_ = [house.feed(symbol) for symbol in ROWS]
    house.fetch(BEFORE, [ada, btc], concurrency=1)
    (house.lake / paths.settled_day(BEFORE)).write_bytes(b"{")
    assert house.fetch(DAY, [ada, btc], concurrency=1) == [ada, btc]


@pytest.mark.timeout(120)
def test_a_slow_decoder_holds_the_downloads_back_so_that_few_files_wait_on_the_disk(house, monkeypatch):
    """Twelve files, three downloads at once, one decoding thread that never finishes."""
    may_go_on, decode = threading.Event(), fetch.decode

    def slowly(*given, **more):
        assert may_go_on.wait(60)
        return decode(*given, **more)

    monkeypatch.setattr(fetch, "decode", slowly)
    feeds = [house.feed(symbol, exchange) for exchange in EXCHANGES for symbol in ROWS]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(house.fetch, DAY, feeds, concurrency=3)
        while len(house.standin.requests) < 3:
            assert not run.done()
            time.sleep(0.01)
        time.sleep(1)
        asked = len(house.standin.requests)
        may_go_on.set()
        assert sorted(run.result()) == sorted(feeds)
    assert asked <= 3 + fetch.FILES_PER_THREAD
