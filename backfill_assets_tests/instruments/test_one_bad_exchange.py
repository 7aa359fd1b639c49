"""One exchange's metadata is wrong in every way: its feeds wait or are complete, and so are all others."""

from __future__ import annotations

import copy
import gzip
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.failures import NotExportedYet, PermanentFailure, TransientFailure
from backfill_assets.instruments.recording import RecordedDay, record_day
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.settings import TardisSettings, UniverseEntry
from backfill_assets.tardis.client import TardisClient
from backfill_assets_tests.tardis.raw_vendor import RawVendor, Script, http

DAY = "2024-01-02"
BAD_FEEDS = ["binance/trades/BTCUSDT", "binance/trades/ETHUSDT"]
GOOD_FEEDS = ["kraken/trades/BTCUSDT", "kraken/trades/ETHUSDT"]
UNIVERSE = [UniverseEntry(exchanges=("binance", "kraken"), symbols=("BTC-USDT", "ETH-USDT"))]
SINCE = "2019-03-30T00:00:00.000Z"


def details_of(exchange: str) -> dict[str, Any]:
    symbols = [{"id": f"{base}USDT", "type": "spot", "availableSince": SINCE} for base in ("BTC", "ETH")]
    return {
        "id": exchange,
        "enabled": True,
        "availableSince": SINCE,
        "availableSymbols": symbols,
        "incidentReports": [
            {"from": "2024-01-02T10:00:00Z", "to": "2024-01-02T11:00:00Z", "status": "resolved"}
        ],
        "datasets": {
            "exportedFrom": SINCE,
            "exportedUntil": "2024-02-01T00:00:00.000Z",
            "symbols": [{**symbol, "dataTypes": ["trades"]} for symbol in symbols],
        },
    }


def instruments_of(exchange: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{base}USDT",
            "datasetId": f"{base}USDT",
            "exchange": exchange,
            "baseCurrency": base,
            "quoteCurrency": "USDT",
            "type": "spot",
            "active": True,
            "availableSince": SINCE,
            "priceIncrement": 0.01,
        }
        for base in ("BTC", "ETH")
    ]


def answered(content: object) -> bytes:
    return http(200, json.dumps(content).encode())


#: Answers in place of the whole document; with each of them the exchange waits.
WHOLE: dict[str, Script] = {
    "500": http(500, b'{"code": 500, "message": "bug"}'),
    "503": http(503),
    "429": http(429, b"", "Retry-After: 9999"),
    "400": http(400, b'{"code": 100, "message": "no"}'),
    "404": http(404),
    "410": http(410),
    "204": http(204),
    "a redirect to nowhere": http(302, b"", "Location: http://127.0.0.1:99999/"),
    "HTML": http(200, b"<html>busy</html>", "Content-Type: text/html"),
    "nothing": http(200),
    "null": http(200, b"null"),
    "a number": http(200, b"7"),
    "a text": http(200, b'"binance"'),
    "deep JSON": http(200, b"[" * 200_000),
    "deep JSON that ends": http(200, b"[" * 100_000 + b"]" * 100_000),
    "JSON cut off": http(200, b'{"id": "bin'),
    "no UTF-8": http(200, b'{"id": "\xff"}'),
    "a broken gzip": http(200, gzip.compress(b"{}")[:-9], "Content-Encoding: gzip"),
    "no gzip": http(200, b"{}", "Content-Encoding: gzip"),
    "Brotli": http(200, b"\x0b\x01\x80{}\x03", "Content-Encoding: br"),
    "a cut body": http(200, b"{}", length=100),
    "no HTTP": b"hello\r\n",
}

Change = Callable[[dict[str, Any]], None]


def put(place: str, value: object) -> Change:
    """Change the value at a path such as ``datasets.symbols.0.type``; ``-`` as value removes it."""

    def change(content: Any) -> None:
        *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        for part in path:
            content = content[part]
        if value == "-":
            del content[last]
        else:
            content[last] = value

    return change


#: Changes of the details that make the exchange wait.
COSTLY: dict[str, Change] = {
    "the details have no id": put("id", "-"),
    "the data sets are null": put("datasets", None),
    "the data sets are a text": put("datasets", "none"),
    "the data sets are empty": put("datasets", {}),
    "the symbols are a text": put("datasets.symbols", "BTCUSDT"),
    "the symbols are null": put("datasets.symbols", None),
    "the symbols are none": put("datasets.symbols", []),
    "not exported yet": put("datasets.exportedUntil", "2024-01-02T00:00:00.000Z"),
    "never exported": put("datasets.exportedUntil", None),
    "exported until somewhen": put("datasets.exportedUntil", "soon"),
    "a configured symbol has no date": put("datasets.symbols.0.availableSince", "long ago"),
}
#: Changes of the details that cost an entry, or nothing.
CHEAP: dict[str, Change] = {
    "an incident without an end": put("incidentReports.0.to", "-"),
    "an incident whose end is null": put("incidentReports.0.to", None),
    "an incident that is a text": put("incidentReports.0", "maintenance"),
    "incidents that are null": put("incidentReports", None),
    "available symbols that are null": put("availableSymbols", None),
    "an available symbol without type": put("availableSymbols.0.type", "-"),
    "data types that are null": put("datasets.symbols.0.dataTypes", None),
    "a field nobody knows": put("novelty", {"of": ["the", "vendor"]}),
}
#: Changes of the instruments that cost an entry, or nothing.
ODD_INSTRUMENTS: dict[str, Change] = {
    "an instrument without type": put("0.type", "-"),
    "an instrument of a new type": put("0.type", "lottery"),
    "an instrument without id": put("0.id", "-"),
    "an instrument that is null": put("0", None),
    "an instrument whose date is none": put("0.availableSince", "yesterday"),
    "an increment that is no number": put("0.priceIncrement", float("nan")),
    "an infinite increment": put("0.priceIncrement", float("inf")),
    "an increment of 1e308": put("0.priceIncrement", 1e308),
    "an increment of zero": put("0.priceIncrement", 0),
    "a multiplier below zero": put("0.contractMultiplier", -1),
    "an odd change": put("0.changes", [{"priceIncrement": 1}]),
    "changes that are null": put("0.changes", None),
}


@pytest.fixture
def bad_vendor() -> Iterator[RawVendor]:
    with RawVendor() as running:
        for exchange in ("binance", "kraken"):
            running.scripts[f"/v1/exchanges/{exchange}"] = answered(details_of(exchange))
            running.scripts[f"/v1/instruments/{exchange}"] = answered(instruments_of(exchange))
        yield running


def recorded(vendor: RawVendor, folder: Path) -> RecordedDay:
    settings = TardisSettings(
        api_endpoint=f"{vendor.url}/v1", api_key="k", timeout_seconds=5, retry_budget_seconds=0
    )
    return record_day(LocalStore(folder), TardisClient(settings), DAY, UNIVERSE)


def feeds_of(recorded: RecordedDay, exchange: str) -> list[str]:
    return [e.feed for e in recorded.record.expected if e.feed.startswith(exchange)]


def is_whole(recorded: RecordedDay) -> bool:
    return any(m.exchange == "kraken" and m.rows == 2 for m in recorded.manifests)


@pytest.mark.parametrize("document", ["exchanges", "instruments"])
@pytest.mark.parametrize("fault", WHOLE)
def test_an_exchange_that_cannot_be_asked_is_waited_for_and_costs_no_other(
    bad_vendor, tmp_path, fault, document
):
    bad_vendor.scripts[f"/v1/{document}/binance"] = WHOLE[fault]
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "kraken") == GOOD_FEEDS
    assert is_whole(found)
    assert found.record.awaiting_export == ("binance",)
    [reason] = found.record.why_awaited
    assert "binance" in reason
    assert reason.isprintable()


@pytest.mark.parametrize("fault", COSTLY)
def test_details_that_do_not_say_what_there_is_are_waited_for(bad_vendor, tmp_path, fault):
    details = details_of("binance")
    COSTLY[fault](details)
    bad_vendor.scripts["/v1/exchanges/binance"] = answered(details)
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "kraken") == GOOD_FEEDS
    assert found.record.awaiting_export == ("binance",)
    assert feeds_of(found, "binance") == []


@pytest.mark.parametrize("fault", CHEAP)
def test_an_odd_entry_of_the_details_costs_that_entry(bad_vendor, tmp_path, fault):
    details = details_of("binance")
    CHEAP[fault](details)
    bad_vendor.scripts["/v1/exchanges/binance"] = answered(details)
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "binance") == BAD_FEEDS
    assert feeds_of(found, "kraken") == GOOD_FEEDS
    assert found.record.awaiting_export == ()


@pytest.mark.parametrize("fault", ODD_INSTRUMENTS)
def test_an_odd_instrument_is_guessed_and_the_others_are_as_told(bad_vendor, tmp_path, fault):
    instruments = copy.deepcopy(instruments_of("binance"))
    ODD_INSTRUMENTS[fault](instruments)
    bad_vendor.scripts["/v1/instruments/binance"] = answered(instruments)
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "binance") == BAD_FEEDS
    assert feeds_of(found, "kraken") == GOOD_FEEDS
    assert found.record.awaiting_export == ()
    assert len(found.unreadable) == (0 if fault == "changes that are null" else 1)


def test_an_instrument_that_is_named_twice_is_one(bad_vendor, tmp_path):
    bad_vendor.scripts["/v1/instruments/binance"] = answered(instruments_of("binance") * 2)
    found = recorded(bad_vendor, tmp_path)
    assert [m.rows for m in found.manifests] == [2, 2]


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_does_not_cover_instruments_has_them_guessed(bad_vendor, tmp_path, status):
    bad_vendor.scripts["/v1/instruments/binance"] = http(status)
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "binance") == BAD_FEEDS
    assert [m.source for m in found.manifests] == ["exchange_details", "instruments"]


def test_an_exchange_that_closed_before_the_day_lists_nothing_and_is_not_waited_for(bad_vendor, tmp_path):
    details = details_of("binance")
    details["availableTo"] = details["datasets"]["exportedUntil"] = "2023-06-01T00:00:00.000Z"
    bad_vendor.scripts["/v1/exchanges/binance"] = answered(details)
    found = recorded(bad_vendor, tmp_path)
    assert feeds_of(found, "binance") == []
    assert found.record.not_listed == ("binance/trades/BTC-USDT", "binance/trades/ETH-USDT")
    assert found.record.awaiting_export == ()
    assert feeds_of(found, "kraken") == GOOD_FEEDS


def test_an_exchange_that_comes_back_adds_its_feeds(bad_vendor, tmp_path):
    good = bad_vendor.scripts["/v1/exchanges/binance"]
    bad_vendor.scripts["/v1/exchanges/binance"] = http(500)
    recorded(bad_vendor, tmp_path)
    bad_vendor.scripts["/v1/exchanges/binance"] = good
    found = recorded(bad_vendor, tmp_path)
    assert [e.feed for e in found.record.expected] == [*BAD_FEEDS, *GOOD_FEEDS]
    assert found.record.awaiting_export == ()


def test_an_exchange_whose_feeds_of_the_day_are_known_is_not_waited_for(bad_vendor, tmp_path):
    recorded(bad_vendor, tmp_path)
    bad_vendor.scripts["/v1/exchanges/binance"] = http(500)
    found = recorded(bad_vendor, tmp_path)
    assert [e.feed for e in found.record.expected] == [*BAD_FEEDS, *GOOD_FEEDS]
    assert found.record.awaiting_export == ()


@pytest.mark.parametrize(
    ("status", "failure"), [(500, TransientFailure), (404, PermanentFailure)], ids=["passing", "lasting"]
)
def test_a_day_that_knows_no_exchange_fails_and_says_what_it_waits_for(bad_vendor, tmp_path, status, failure):
    for exchange in ("binance", "kraken"):
        bad_vendor.scripts[f"/v1/exchanges/{exchange}"] = http(status)
    with pytest.raises(failure, match="binance, kraken"):
        recorded(bad_vendor, tmp_path)
    record = load_day_record(LocalStore(tmp_path), DAY)
    assert record is not None
    assert record.awaiting_export == ("binance", "kraken")
    assert [a.is_passing for a in record.awaited] == [True, True]


@pytest.mark.timeout(60, method="thread")
def test_a_signal_ends_the_questions_of_every_exchange(bad_vendor, tmp_path):
    """A vendor that is away is asked for minutes; a run that a signal ends does not wait for that."""
    for exchange in ("binance", "kraken"):
        bad_vendor.scripts[f"/v1/exchanges/{exchange}"] = http(500)
    settings = TardisSettings(api_endpoint=f"{bad_vendor.url}/v1", retry_budget_seconds=3_600)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    others = set(threading.enumerate())
    before = signal.signal(signal.SIGUSR1, interrupt)
    soon = threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1))
    soon.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            record_day(LocalStore(tmp_path), TardisClient(settings), DAY, UNIVERSE)
    finally:
        soon.join()
        signal.signal(signal.SIGUSR1, before)
    assert [t.name for t in threading.enumerate() if t.name.startswith("tardis") and t not in others] == []


def test_a_day_that_no_exchange_has_exported_asks_for_no_retry(bad_vendor, tmp_path):
    for exchange in ("binance", "kraken"):
        details = details_of(exchange)
        details["datasets"]["exportedUntil"] = "2024-01-02T00:00:00.000Z"
        bad_vendor.scripts[f"/v1/exchanges/{exchange}"] = answered(details)
    with pytest.raises(NotExportedYet, match="binance, kraken"):
        recorded(bad_vendor, tmp_path)


def test_a_symbol_that_no_whole_listing_has_is_the_fault_of_the_settings(bad_vendor, tmp_path):
    settings = TardisSettings(api_endpoint=f"{bad_vendor.url}/v1", retry_budget_seconds=0)
    universe = [UniverseEntry(exchanges=("binance", "kraken"), symbols=("BTC-USDC",))]
    with pytest.raises(PermanentFailure, match="did you mean BTC-USDT"):
        record_day(LocalStore(tmp_path), TardisClient(settings), DAY, universe)


NO_CURRENCIES = [{**one, "baseCurrency": None, "quoteCurrency": None} for one in instruments_of("binance")]
UNRESOLVED = {"no currencies": NO_CURRENCIES, "an entry that is gone": instruments_of("binance")[1:]}


@pytest.mark.parametrize("fault", UNRESOLVED)
def test_an_exchange_without_a_symbol_of_the_universe_costs_no_other(bad_vendor, tmp_path, fault):
    bad_vendor.scripts["/v1/instruments/binance"] = answered(UNRESOLVED[fault])
    found = recorded(bad_vendor, tmp_path)
    assert [e.feed for e in found.record.expected] == GOOD_FEEDS
    assert is_whole(found)
    [awaited] = found.record.awaited
    assert (awaited.exchange, awaited.is_passing) == ("binance", False)
    assert awaited.reason.startswith("unknown symbol 'BTC-USDT' on binance: ")


@pytest.mark.parametrize("name", ["..", ".", "..\\..\\x", "C:\\x\n", "a\0b", "a b", "%2e%2e", "X" * 5_000])
def test_a_data_set_that_no_folder_can_be_named_after_costs_its_exchange_alone(bad_vendor, tmp_path, name):
    instruments, details = instruments_of("binance"), details_of("binance")
    put("0.datasetId", name)(instruments)
    put("datasets.symbols.0.id", name)(details)
    bad_vendor.scripts["/v1/instruments/binance"] = answered(instruments)
    bad_vendor.scripts["/v1/exchanges/binance"] = answered(details)
    found = recorded(bad_vendor, tmp_path)
    assert [e.feed for e in found.record.expected] == GOOD_FEEDS
    assert is_whole(found)
    [awaited] = found.record.awaited
    assert "cannot be a name in the lake" in awaited.reason
    assert awaited.reason.isprintable()


@pytest.mark.parametrize("name", ["../../x", "/etc/x"])
def test_a_data_set_that_is_named_like_a_path_has_a_name_without_its_slashes(bad_vendor, tmp_path, name):
    instruments, details = instruments_of("binance"), details_of("binance")
    put("0.datasetId", name)(instruments)
    put("datasets.symbols.0.id", name)(details)
    bad_vendor.scripts["/v1/instruments/binance"] = answered(instruments)
    bad_vendor.scripts["/v1/exchanges/binance"] = answered(details)
    found = recorded(bad_vendor, tmp_path)
    assert f"binance/trades/{name.replace('/', '-').upper()}" in feeds_of(found, "binance")
    assert feeds_of(found, "kraken") == GOOD_FEEDS


@pytest.mark.parametrize("fault", UNRESOLVED)
def test_a_recorded_day_goes_on_as_recorded_and_says_which_symbol_has_gone(bad_vendor, tmp_path, fault):
    before = recorded(bad_vendor, tmp_path)
    bad_vendor.scripts["/v1/instruments/binance"] = answered(UNRESOLVED[fault])
    found = recorded(bad_vendor, tmp_path)
    assert found.record == before.record
    assert "unknown symbol 'BTC-USDT' on binance" in found.unreadable[-1]
    bad_vendor.scripts["/v1/instruments/kraken"] = answered(UNRESOLVED[fault])
    assert recorded(bad_vendor, tmp_path).record == before.record


def test_new_symbols_of_a_recorded_exchange_wait_beside_its_recorded_feeds(bad_vendor, tmp_path, monkeypatch):
    recorded(bad_vendor, tmp_path)
    more = UniverseEntry(exchanges=("binance",), symbols=("BTC-USDTT",))
    monkeypatch.setattr(sys.modules[__name__], "UNIVERSE", [*UNIVERSE, more])
    found = recorded(bad_vendor, tmp_path)
    assert [e.feed for e in found.record.expected] == [*BAD_FEEDS, *GOOD_FEEDS]
    assert found.record.awaiting_export == ("binance",)
    assert "did you mean BTC-USDT" in found.record.why_awaited[0]
