"""The unit of an amount, by the instruments' own terms and by the venues' table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backfill_assets.contracts import (
    VENUE_CONTRACTS,
    Contract,
    contracts_of,
    currencies_of,
    spot_contract,
)


def one(exchange: str, name: str, kind: str, **terms: Any) -> Contract:
    (found,) = contracts_of(exchange, {"instrument_id": name, "type": kind, **terms})
    return found


@pytest.mark.parametrize(
    ("exchange", "name", "expected"),
    [
        ("binance-futures", "btcusdt", (1, False, "", "")),
        ("binance-delivery", "btcusd_perp", (100, True, "BTC", "USD")),
        ("binance-delivery", "btcusd_240329", (100, True, "BTC", "USD")),
        ("binance-delivery", "ethusd_perp", (10, True, "ETH", "USD")),
        ("bybit", "BTCUSD", (1, True, "BTC", "USD")),
        ("bybit", "ETHUSDH24", (1, True, "ETH", "USD")),
        ("bybit", "BTCUSDT", (1, False, "BTC", "USDT")),
        ("bybit", "BTCPERP", (1, False, "BTC", "USDC")),
        ("bybit", "BTC-29MAR24", (1, False, "BTC", "USDC")),
        ("deribit", "BTC-PERPETUAL", (1, True, "BTC", "USD")),
        ("deribit", "ETH-28JUN24", (1, True, "ETH", "USD")),
        ("deribit", "SOL_USDC-PERPETUAL", (1, False, "SOL", "USDC")),
        ("deribit", "BTC-28JUN24-50000-C", (1, False, "BTC", "BTC")),
        ("deribit", "XRP_USDC-28JUN24-0d5-P", (1, False, "XRP", "USDC")),
        ("cryptofacilities", "PI_XBTUSD", (1, True, "BTC", "USD")),
        ("cryptofacilities", "FI_XBTUSD_240329", (1, True, "BTC", "USD")),
        ("cryptofacilities", "PF_ETHUSD", (1, False, "ETH", "USD")),
        ("bitmex", "XBTUSD", (1, True, "BTC", "USD")),
        ("bitmex", "XBTH24", (1, True, "BTC", "USD")),
        ("bitmex", "XBTUSDT", (1e-6, False, "BTC", "USDT")),
        ("huobi-dm-swap", "BTC-USD", (100, True, "BTC", "USD")),
        ("huobi-dm-swap", "ETH-USD", (10, True, "ETH", "USD")),
        ("huobi-dm", "BTC_CW", (100, True, "BTC", "USD")),
        ("huobi-dm", "ETH_NQ", (10, True, "ETH", "USD")),
    ],
)
def test_a_venue_of_the_table_tells_where_the_instruments_do_not(
    exchange: str, name: str, expected: tuple[float, bool, str, str]
) -> None:
    assert one(exchange, name, "perpetual") == Contract(*expected)


@pytest.mark.parametrize(
    ("exchange", "name", "kind"),
    [
        ("bitmex", "ETHUSD", "perpetual"),
        ("bitmex", "XBT_USDT", "spot"),
        ("okex-swap", "BTC-USDT-SWAP", "perpetual"),
        ("okex-swap", "BTC-USD-SWAP", "perpetual"),
        ("huobi-dm-linear-swap", "BTC-USDT", "perpetual"),
        ("gate-io-futures", "BTC_USD", "perpetual"),
        ("cryptofacilities", "PV_XRPXBT", "perpetual"),
        ("deribit", "BTC-FS-28MAR25_PERP", "combo"),
        ("bybit", "XBTUSD", "combo"),
        ("kraken", "PI_XBTUSD", "perpetual"),
    ],
)
def test_nobody_guesses_where_neither_tells(exchange: str, name: str, kind: str) -> None:
    assert not one(exchange, name, kind).is_known


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"contract_multiplier": 0.01, "inverse": False}, Contract(0.01, False, "BTC", "USD")),
        ({"contract_multiplier": 10.0, "inverse": True}, Contract(10.0, True, "BTC", "USD")),
        (
            {"contract_multiplier": 10.0, "contract_type": "inverse_future"},
            Contract(10.0, True, "BTC", "USD"),
        ),
        (
            {"contract_multiplier": 10.0, "contract_type": "linear_future"},
            Contract(10.0, False, "BTC", "USD"),
        ),
        ({"contract_multiplier": 10.0}, Contract(None, False, "BTC", "USD")),
        ({"inverse": True}, Contract(None, False, "BTC", "USD")),
        (
            {"contract_multiplier": 1.0, "inverse": False, "contract_type": "quanto_perpetual"},
            Contract(None, False, "BTC", "USD"),
        ),
        (
            {"contract_multiplier": 1.0, "inverse": False, "settlement_currency": "ETH"},
            Contract(None, False, "BTC", "USD"),
        ),
        (
            {"contract_multiplier": 1.0, "inverse": False, "settlement_currency": "USDT"},
            Contract(1.0, False, "BTC", "USD"),
        ),
        (
            {"contract_multiplier": 1.0, "inverse": True, "settlement_currency": "XBT"},
            Contract(1.0, True, "BTC", "USD"),
        ),
        (
            {"contract_multiplier": 1.0, "inverse": True, "contract_type": "spread"},
            Contract(None, False, "BTC", "USD"),
        ),
    ],
)
def test_the_instruments_tell_first(terms: dict[str, Any], expected: Contract) -> None:
    pair = {"base_currency": "XBT", "quote_currency": "USD"}
    assert one("somewhere", "BTCUSD", "future", **pair, **terms) == expected


@pytest.mark.parametrize(
    "terms",
    [{"inverse": False}, {"contract_multiplier": 10.0}, {"quanto": True, "settlement_currency": "ETH"}],
)
def test_the_table_is_silent_where_the_instruments_contradict_it(terms: dict[str, Any]) -> None:
    assert one("bybit", "BTCUSD", "perpetual").is_known
    assert one("bybit", "BTCUSD", "perpetual", inverse=True).is_known
    assert not one("bybit", "BTCUSD", "perpetual", **terms).is_known


@pytest.mark.parametrize(("inverse", "premium"), [(True, "BTC"), (False, "USD")])
def test_the_amount_of_an_option_is_of_its_underlying_and_inverse_is_its_premium(
    inverse: bool, premium: str
) -> None:
    terms = {"contract_multiplier": 0.01, "inverse": inverse, "base_currency": "BTC", "quote_currency": "USD"}
    assert one("okex-options", "BTC-USD-240628-50000-C", "option", **terms) == Contract(
        0.01, False, "BTC", premium
    )


def test_terms_that_change_make_one_contract_after_the_other() -> None:
    changes = [{"since_us": 5, "contract_multiplier": 10.0}, {"since_us": 7, "contract_multiplier": None}]
    row = {"instrument_id": "ADA-USDT-SWAP", "type": "perpetual", "inverse": False, "base_currency": "ADA"}
    found = contracts_of("okex-swap", {**row, "contract_changes": json.dumps(changes)})
    assert found == (Contract(10.0, base="ADA", since_us=5), Contract(None, base="ADA", since_us=7))


def test_a_market_without_a_contract_has_the_currencies_of_its_name() -> None:
    assert currencies_of("BTC-USDT", ()) == ("BTC", "USDT")
    assert currencies_of("BTC-USDT", (spot_contract("ETH-USD"),)) == ("ETH", "USD")


def test_every_entry_of_the_table_has_evidence() -> None:
    assert all("http" in entry.evidence or "Notional" in entry.evidence for entry in VENUE_CONTRACTS)
