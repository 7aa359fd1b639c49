"""Shapes of the vendor's metadata, the requests for it, and the guesses that replace missing instruments."""

from __future__ import annotations

import json
import os
from asyncio import CancelledError
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.tardis import client as client_module
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.fallback import guess_currencies, instruments_from_details
from backfill_assets.tardis.metadata import (
    ExchangeDetails,
    Instrument,
    dataset_symbol,
    exported_until,
    listed_on,
    ready,
)

DETAILS = {
    "id": "binance",
    "name": "Binance",
    "enabled": True,
    "availableSince": "2017-08-17T00:00:00.000Z",
    "availableSymbols": [
        {"id": "btcusdt", "type": "spot", "availableSince": "2019-03-30T00:00:00.000Z"},
    ],
    "incidentReports": [
        {
            "from": "2020-01-01T10:00:00.000Z",
            "to": "2020-01-01T11:00:00.000Z",
            "status": "resolved",
            "details": "outage",
        }
    ],
    "datasets": {
        "formats": ["csv"],
        "exportedFrom": "2019-03-30T00:00:00.000Z",
        "exportedUntil": "2024-01-03T00:00:00.000Z",
        "symbols": [
            {"id": "SPOT", "type": "spot", "availableSince": "2019-03-30T00:00:00.000Z"},
            {
                "id": "BTCUSDT",
                "type": "spot",
                "dataTypes": ["trades"],
                "availableSince": "2019-03-30T00:00:00.000Z",
                "availableTo": "2026-07-17T00:00:00.000Z",
            },
        ],
    },
    "aNewField": {"of": "the vendor"},
}

INSTRUMENT = {
    "id": "btcusdt",
    "datasetId": "BTCUSDT",
    "exchange": "binance",
    "baseCurrency": "BTC",
    "quoteCurrency": "USDT",
    "type": "spot",
    "active": True,
    "availableSince": "2019-03-30T00:00:00.000Z",
    "priceIncrement": 0.01,
}


def real_instruments() -> list[Path]:
    root = os.environ.get("BACKFILL_REAL_DATA")
    if not root:
        return []
    return sorted(Path(root, "instruments").glob("instrument_*.json"))


@pytest.fixture
def bitmex() -> Instrument:
    """Bitmex' XBTUSD with the history of its real answer."""
    return Instrument.model_validate(
        {
            **INSTRUMENT,
            "id": "XBTUSD",
            "datasetId": "XBTUSD",
            "exchange": "bitmex",
            "type": "perpetual",
            "priceIncrement": 0.1,
            "amountIncrement": 100,
            "changes": [
                {"until": "2021-06-08T04:30:00.000Z", "amountIncrement": 1},
                {"until": "2024-07-31T04:00:00.000Z", "priceIncrement": 0.5},
            ],
        }
    )


def test_details_are_read_from_the_wire(vendor, answer, tardis_settings):
    vendor.scripts["/v1/exchanges/binance"] = [answer.json(DETAILS)]
    details = TardisClient(tardis_settings(api_key="")).exchange_details("binance")
    assert vendor.keys == [None]
    assert details.incident_reports[0].start == datetime(2020, 1, 1, 10, tzinfo=UTC)
    symbol = details.datasets.symbols[1]
    assert (symbol.id, symbol.data_types) == ("BTCUSDT", ("trades",))
    assert symbol.available_to == datetime(2026, 7, 17, tzinfo=UTC)


def test_a_day_is_ready_when_it_is_exported_to_its_end():
    details = ExchangeDetails.model_validate(DETAILS)
    assert exported_until(details) == datetime(2024, 1, 3, tzinfo=UTC)
    assert ready(details, "2024-01-02")
    assert not ready(details, "2024-01-03")


def test_an_exchange_that_never_exported_has_no_ready_day():
    assert not ready(ExchangeDetails(id="new"), "2024-01-02")


def test_an_unknown_exchange_is_permanent_and_says_where_to_correct_it(vendor, answer, tardis_settings):
    vendor.scripts["/v1/exchanges/binanse"] = [answer.error(404, 0, "unknown")]
    told = r"no exchange 'binanse', did you mean binance .* correct universe\.exchanges"
    with pytest.raises(PermanentFailure, match=told):
        TardisClient(tardis_settings()).exchange_details("binanse")
    assert len(vendor.paths) == 1


def test_a_client_that_was_stopped_asks_no_further_question(vendor, answer, tardis_settings):
    vendor.scripts["/v1/exchanges/binance"] = [answer(500)]
    client = TardisClient(tardis_settings(retry_budget_seconds=3_600))
    client.stop()
    with pytest.raises(CancelledError):
        client.exchange_details("binance")


def test_metadata_is_asked_for_again_like_files(vendor, answer, tardis_settings, monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT_SECONDS", 0.02)
    vendor.scripts["/v1/exchanges/binance"] = [answer.error(503, 0), answer(body=b"{"), answer.json(DETAILS)]
    assert TardisClient(tardis_settings()).exchange_details("binance").id == "binance"
    vendor.scripts["/v1/exchanges/binance"] = [answer.error(503, 0)]
    with pytest.raises(TransientFailure):
        TardisClient(tardis_settings(retry_budget_seconds=0.2)).exchange_details("binance")


def test_an_answer_of_unknown_form_is_permanent_and_names_the_field(vendor, answer, tardis_settings):
    vendor.scripts["/v1/instruments/binance"] = [answer.json({"instruments": [INSTRUMENT]})]
    with pytest.raises(PermanentFailure, match=r"instruments of binance in an unknown form: Input should be"):
        TardisClient(tardis_settings()).instruments("binance")
    details = {**DETAILS, "availableSince": "long ago"}
    vendor.scripts["/v1/exchanges/binance"] = [answer.json(details)]
    with pytest.raises(PermanentFailure, match=r"details of binance in an unknown form: availableSince"):
        TardisClient(tardis_settings()).exchange_details("binance")


def test_instruments_come_from_the_vendor_where_the_key_covers_them(vendor, answer, tardis_settings):
    vendor.scripts["/v1/instruments/binance"] = [answer.json([INSTRUMENT])]
    instruments = TardisClient(tardis_settings()).instruments("binance")
    assert instruments.source == "instruments"
    assert instruments.instruments[0].price_increment == 0.01
    assert vendor.keys == ["Bearer a-key"]


@pytest.mark.parametrize(("status", "key"), [(401, ""), (401, "csv-key"), (403, "csv-key")])
def test_instruments_are_guessed_where_the_key_does_not_cover_them(
    vendor, answer, tardis_settings, status, key
):
    vendor.scripts["/v1/instruments/binance"] = [answer.error(status, 0)]
    vendor.scripts["/v1/exchanges/binance"] = [answer.json(DETAILS)]
    instruments = TardisClient(tardis_settings(api_key=key)).instruments("binance")
    assert instruments.source == "exchange_details"
    [instrument] = instruments.instruments
    assert (instrument.id, instrument.dataset_symbol, instrument.canonical) == (
        "btcusdt",
        "BTCUSDT",
        "BTC-USDT",
    )
    assert instrument.price_increment is None


def test_instruments_that_fail_for_now_are_not_guessed(vendor, answer, tardis_settings):
    vendor.scripts["/v1/instruments/binance"] = [answer.error(503, 0)]
    with pytest.raises(TransientFailure):
        TardisClient(tardis_settings(retry_budget_seconds=0)).instruments("binance")
    assert vendor.paths == ["/v1/instruments/binance"]


def test_values_are_those_before_the_change_until_it_happens(bitmex):
    def values(year: int, month: int, day: int, hour: int) -> tuple[float | None, float | None]:
        then = bitmex.as_of(datetime(year, month, day, hour, tzinfo=UTC))
        return then.price_increment, then.amount_increment

    assert values(2021, 6, 8, 4) == (0.5, 1)
    assert values(2021, 6, 8, 5) == (0.5, 100)
    assert values(2024, 7, 31, 3) == (0.5, 100)
    assert values(2024, 7, 31, 4) == (0.1, 100)


def test_of_two_changes_of_one_value_the_next_one_counts():
    changes = [{"until": "2022-01-01", "makerFee": 1}, {"until": "2021-01-01", "makerFee": 2}]
    instrument = Instrument.model_validate({**INSTRUMENT, "makerFee": 0, "changes": changes})
    fees = [instrument.as_of(datetime(year, 6, 1, tzinfo=UTC)).maker_fee for year in (2020, 2021, 2022)]
    assert fees == [2, 1, 0]


@pytest.mark.parametrize(
    ("since", "to", "listed"),
    [
        ("2024-01-02", None, True),
        ("2024-01-01", "2024-01-02T00:00:01", True),
        ("2024-01-01", "2024-01-02", False),
        ("2024-01-02T23:59:59", None, True),
        ("2024-01-03", None, False),
    ],
)
def test_listing_touches_the_day_or_not(since, to, listed):
    begin = datetime.fromisoformat(since).replace(tzinfo=UTC)
    end = datetime.fromisoformat(to).replace(tzinfo=UTC) if to else None
    assert listed_on(begin, end, "2024-01-02") is listed


def test_times_without_a_zone_are_utc():
    instrument = Instrument.model_validate({**INSTRUMENT, "availableSince": "2019-03-30"})
    assert instrument.available_since == datetime(2019, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("own", "in_url"), [("xbt/usd", "XBT-USD"), ("a:b", "A-B"), ("BTC_USDC", "BTC_USDC")]
)
def test_data_set_symbols_are_written_as_the_vendor_does(own, in_url):
    assert dataset_symbol(own) == in_url


@pytest.mark.parametrize(
    ("symbol", "currencies"),
    [
        ("XBT/USD", ("XBT", "USD")),
        ("XBT-USD", ("XBT", "USD")),
        ("BTC_USDC", ("BTC", "USDC")),
        ("BTC_USDC-PERPETUAL", ("BTC", "USDC")),
        ("BTC-USDT-SWAP", ("BTC", "USDT")),
        ("BTCUSDT", ("BTC", "USDT")),
        ("btcusdt_230630", ("BTC", "USDT")),
        ("PF_XBTUSD", ("XBT", "USD")),
        ("XRPETH", ("XRP", "ETH")),
        ("SKL-EUR", ("SKL", "EUR")),
        ("BTC-PERPETUAL", None),
        ("BTC-PERP", None),
        ("BTC-14FEB25", None),
        ("USDT", None),
        ("", None),
    ],
)
def test_currencies_are_guessed_or_left_open(symbol, currencies):
    assert guess_currencies(symbol) == currencies


@pytest.mark.parametrize(
    ("exchange", "symbol", "currencies"),
    [
        ("upbit", "KRW-BTC", ("BTC", "KRW")),
        ("upbit", "BTC-ETH", ("ETH", "BTC")),
        ("upbit", "USDT-DOGE", ("DOGE", "USDT")),
        ("poloniex", "BTC_USDT", ("BTC", "USDT")),
        ("poloniex", "DOGE_BTC", ("DOGE", "BTC")),
        ("poloniex", "USDT_BTC", None),
        ("poloniex", "BTC_DOGE", None),
        ("phemex", "sBTCUSDT", ("BTC", "USDT")),
        ("phemex", "SOLUSD", ("SOL", "USD")),
        ("woo-x", "PERP_BTC_USDT", ("BTC", "USDT")),
        ("woo-x", "SPOT_BTC_USDT", ("BTC", "USDT")),
        ("okex-swap", "PERP-USDT-SWAP", ("PERP", "USDT")),
        ("coinbase", "PERP-USD", ("PERP", "USD")),
        ("bitflyer", "FX_BTC_JPY", ("BTC", "JPY")),
        ("huobi-dm", "BTC_CW", None),
    ],
)
def test_currencies_are_guessed_as_the_venue_writes_them(exchange, symbol, currencies):
    assert guess_currencies(symbol, exchange=exchange) == currencies


def test_a_base_known_from_other_symbols_settles_an_ambiguous_one():
    def details(*ids: str) -> ExchangeDetails:
        symbols = [{"id": id_, "type": "spot", "availableSince": "2019-03-30"} for id_ in ids]
        return ExchangeDetails.model_validate({"id": "x", "datasets": {"symbols": symbols}})

    guessed = instruments_from_details(details("DOTUSD", "DOTUSDT", "LUNTUSD", "BNBBUSD"))
    assert [i.canonical for i in guessed.instruments] == ["DOT-USD", "DOT-USDT", "LUN-TUSD", "BNB-BUSD"]


def test_kraken_tickers_get_their_usual_names():
    instrument = Instrument.model_validate({**INSTRUMENT, "baseCurrency": "XDG", "quoteCurrency": "XBT"})
    assert instrument.canonical == "DOGE-BTC"


@pytest.mark.skipif(not real_instruments(), reason="BACKFILL_REAL_DATA is not set")
@pytest.mark.parametrize("file", real_instruments(), ids=lambda path: path.stem)
def test_real_answers_are_read(file):
    wire = json.loads(file.read_text())
    instrument = Instrument.model_validate(wire)
    assert instrument.model_dump(by_alias=True, exclude_unset=True, mode="json").keys() == wire.keys()
    assert instrument.price_increment == wire["priceIncrement"]
    assert instrument.dataset_symbol == wire["datasetId"].upper()


@pytest.mark.skipif(not real_instruments(), reason="BACKFILL_REAL_DATA is not set")
def test_real_pairs_of_coinbase_and_kraken_are_guessed_right():
    root = Path(os.environ["BACKFILL_REAL_DATA"], "instruments")
    coinbase = json.loads((root / "coinbase_products_2021-04-17.json").read_text())
    for product in coinbase:
        assert guess_currencies(product["id"]) == (product["base_currency"], product["quote_currency"])
    kraken = json.loads((root / "kraken_AssetPairs_2021-04-17.json").read_text())["result"]
    for pair in kraken.values():
        if "wsname" in pair:
            assert guess_currencies(pair["wsname"]) == tuple(pair["wsname"].split("/"))
