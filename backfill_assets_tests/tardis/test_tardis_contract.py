"""The client against the stand-in, which keeps the vendor's contract: from universe to files."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from backfill_assets.failures import FeedAbsent, TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.settings import TardisSettings, UniverseEntry
from backfill_assets.standins.faults import (
    Fault,
    dataset_path,
    key_used_elsewhere,
    too_many_requests,
    unavailable,
)
from backfill_assets.standins.tardis import CSV_ONLY_KEY, TardisStandin
from backfill_assets.tardis import client as client_module
from backfill_assets.tardis.attempts import RunRefused
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets.tardis.metadata import ready
from backfill_assets.tardis.symbols import DayUniverse, resolve

FREE, PAID = "2024-01-01", "2024-01-02"
ADA = Feed("kraken", "trades", "ADA-USDT")
LOCAL = UniverseEntry(
    exchanges=("binance", "coinbase", "kraken"), symbols=("BTC-USDT", "ETH-USDT", "ADA-USDT")
)


@pytest.fixture(scope="module")
def running() -> Iterator[TardisStandin]:
    with TardisStandin(clock=lambda: datetime(2026, 8, 1, 12, tzinfo=UTC)) as server:
        yield server


@pytest.fixture
def standin(running, monkeypatch) -> Iterator[TardisStandin]:
    monkeypatch.setattr(client_module, "FIRST_WAIT_SECONDS", 0.02)
    running.forget_requests()
    yield running
    running.faults.clear()


def client_of(standin: TardisStandin, key: str = "standin-key", budget: float = 10) -> TardisClient:
    return TardisClient(
        TardisSettings(
            datasets_endpoint=f"{standin.url}/v1/datasets",
            api_endpoint=f"{standin.url}/v1",
            api_key=key,
            timeout_seconds=20,
            retry_budget_seconds=budget,
        )
    )


def universe_of(client: TardisClient, day: str, *entries: UniverseEntry) -> DayUniverse:
    exchanges = {exchange for entry in entries for exchange in entry.exchanges}
    return resolve(
        entries,
        day,
        {exchange: client.exchange_details(exchange) for exchange in exchanges},
        {exchange: client.instruments(exchange) for exchange in exchanges},
    )


@pytest.mark.parametrize("key", ["standin-key", CSV_ONLY_KEY, ""])
def test_the_free_day_of_the_local_universe_arrives_whatever_the_key_covers(standin, tmp_path, key):
    client = client_of(standin, key)
    universe = universe_of(client, FREE, LOCAL)
    assert (len(universe.expected), universe.not_listed) == (9, ())
    for feed, download in client.fetch([e.feed for e in universe.expected[-3:]], FREE, tmp_path):
        assert isinstance(download, Download)
        with gzip.open(download.path, "rt") as file:
            next(file)
            exchange, symbol = next(file).split(",")[:2]
        assert exchange == feed.exchange
        [names] = [dict(e.symbols) for e in universe.expected if e.feed == feed]
        assert symbol in names


@pytest.mark.parametrize("key", ["standin-key", CSV_ONLY_KEY])
def test_the_universe_is_the_same_from_instruments_and_from_guesses(standin, key):
    everything = LOCAL.model_copy(update={"exchanges": (*LOCAL.exchanges, "binance-futures")})
    futures = UniverseEntry(
        exchanges=("binance-futures",), symbols=("BTC-USDT",), data_types=("quotes", "liquidations")
    )
    groups = UniverseEntry(exchanges=("binance", "kraken"), symbols=("SPOT",))
    entries = (everything.model_copy(update={"symbols": ("BTC-USDT", "ETH-USDT")}), futures, groups)
    assert universe_of(client_of(standin, key), FREE, *entries) == universe_of(
        client_of(standin), FREE, *entries
    )


@pytest.mark.parametrize(("day", "symbol"), [("2026-07-09", "XBT-USDT"), ("2026-07-10", "BTC-USDT")])
def test_krakens_rename_is_followed_to_the_file(standin, tmp_path, day, symbol):
    client = client_of(standin)
    universe = universe_of(client, day, UniverseEntry(exchanges=("kraken",), symbols=("BTC-USDT",)))
    assert [e.feed.dataset_symbol for e in universe.expected] == [symbol]
    [(_, download)] = client.fetch([e.feed for e in universe.expected], day, tmp_path)
    assert isinstance(download, Download)


def test_a_group_arrives_with_the_symbols_it_was_said_to_hold(standin, tmp_path):
    client = client_of(standin)
    [expected] = universe_of(client, FREE, UniverseEntry(exchanges=("kraken",), symbols=("SPOT",))).expected
    [(_, download)] = client.fetch([expected.feed], FREE, tmp_path)
    with gzip.open(download.path, "rt") as file:
        next(file)
        assert {line.split(",")[1] for line in file} <= set(dict(expected.symbols))


def test_a_paid_day_without_a_key_says_what_to_set(standin, tmp_path):
    with pytest.raises(RunRefused, match=f"refuses {PAID} without an API key: set TARDIS_API_KEY"):
        list(client_of(standin, key="").fetch([ADA], PAID, tmp_path))


def test_a_day_outside_the_listing_is_absent(standin, tmp_path):
    [(_, result)] = client_of(standin).fetch([Feed("kraken", "trades", "XBT-USDT")], "2026-07-11", tmp_path)
    assert isinstance(result, FeedAbsent)


def test_readiness_follows_what_is_exported(standin):
    standin.faults.exported_until["kraken"] = PAID
    details = client_of(standin).exchange_details("kraken")
    assert ready(details, FREE)
    assert not ready(details, PAID)


def test_a_redirect_to_storage_is_followed(standin, tmp_path):
    path = dataset_path(ADA, PAID)
    standin.faults.put(path, Fault(redirect_to=f"/storage{path}"))
    [(_, result)] = client_of(standin).fetch([ADA], PAID, tmp_path)
    assert isinstance(result, Download)
    assert [request.status for request in standin.requests] == [302, 200]


def test_a_day_with_several_faults_arrives_whole_and_as_without_them(standin, tmp_path):
    [(_, undisturbed)] = client_of(standin).fetch([ADA], PAID, tmp_path)
    standin.forget_requests()
    refusals = (unavailable(), too_many_requests(1), key_used_elsewhere(1))
    standin.faults.put_dataset(ADA, PAID, Fault(refusals=refusals, cut_connection_at=1000, cuts=1))
    [(_, result)] = client_of(standin).fetch([ADA], PAID, tmp_path)
    assert result.path.read_bytes() == undisturbed.path.read_bytes()
    assert [request.status for request in standin.requests] == [503, 429, 403, 200, 200]


def test_a_key_in_use_elsewhere_for_long_is_handed_back_with_the_wait(standin, tmp_path):
    standin.faults.put_dataset(ADA, PAID, Fault(always=key_used_elsewhere(900)))
    [(_, result)] = client_of(standin).fetch([ADA], PAID, tmp_path)
    assert isinstance(result, TransientFailure)
    assert result.retry_after_seconds == 900
