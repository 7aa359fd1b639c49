"""Each convention: a right candle agrees, and a wrong one differs.

``OURS`` has four traded minutes and an empty one.
"""

from __future__ import annotations

import ccxt
import pytest

from backfill_assets.references.conventions import CCXT, MASSIVE, OF_FILES, Convention, convention_of
from backfill_assets.venues import EXCHANGES
from backfill_assets_tests.references.candle_frames import OURS, Row, changed, compared
from backfill_assets_tests.test_docs import bare, table

FLAT = CCXT["binance"].convention
OPENS_AT_CLOSE = CCXT["bitget"].convention
OMITTED = CCXT["coinbase"].convention
CONTRACTS = CCXT["kucoin-futures"].convention

#: An empty minute in the form of Binance and Kraken.
FILLER: Row = (2, 102.5, 102.5, 102.5, 102.5, 0.0)
FILLED = [*OURS[:2], FILLER, *OURS[2:]]
#: The candles of ``OURS`` in the form of Bitget: the day before ended at 98.
AT_CLOSE: list[Row] = [
    (0, 98.0, 102.0, 98.0, 101.0, 1.0),
    (1, 101.0, 103.0, 100.0, 102.5, 2.0),
    FILLER,
    (3, 102.5, 105.0, 102.5, 104.5, 4.0),
    (4, 104.5, 104.6, 104.0, 104.2, 1.5),
]


@pytest.mark.parametrize("exchange", ["binance", "binance-futures", "binance-us", "kraken"])
def test_a_flat_minute_at_the_close_before_it_is_no_candle(exchange: str) -> None:
    found = compared(FILLED, CCXT[exchange].convention)
    assert (found["minutes"], found["equal"]) == (4, 4)


@pytest.mark.parametrize(
    ("theirs", "minutes", "equal"),
    [
        (changed(FILLED, 3, high=105.1), 4, 3),
        (changed(FILLED, 1, volume=2.1), 4, 3),
        # It has no volume but a moved price, so there were trades.
        (changed(FILLED, 2, high=103.0), 5, 4),
        # A filler has the close before it as its only price.
        (changed(FILLED, 2, open=99.0, high=99.0, low=99.0, close=99.0), 5, 4),
        # A minute that we have is empty at the source.
        (changed(FILLED, 4, open=104.5, high=104.5, low=104.5, close=104.5, volume=0.0), 4, 3),
    ],
)
def test_a_wrong_candle_of_a_source_that_fills_minutes_differs(
    theirs: list[Row], minutes: int, equal: int
) -> None:
    found = compared(theirs, FLAT)
    assert (found["minutes"], found["equal"]) == (minutes, equal)


def test_minutes_that_a_source_did_not_give_though_it_fills_are_not_compared() -> None:
    found = compared(FILLED[:3], FLAT)
    assert (found["minutes"], found["equal"]) == (2, 2)


def test_a_candle_that_opens_at_the_close_before_it_is_right() -> None:
    assert compared(AT_CLOSE, OPENS_AT_CLOSE, close_before=98.0)["share"] == 1.0
    # Our close of the day before is unknown, so the source's own open stands for it.
    assert compared(AT_CLOSE, OPENS_AT_CLOSE)["share"] == 1.0


@pytest.mark.parametrize(
    ("minute", "values"),
    [
        (0, {"open": 97.0, "low": 97.0}),
        (1, {"open": 100.5}),
        (3, {"low": 103.0}),
        (3, {"close": 104.6}),
        (4, {"high": 104.7}),
    ],
)
def test_a_wrong_candle_of_a_source_that_opens_at_the_close_differs(
    minute: int, values: dict[str, float]
) -> None:
    found = compared(changed(AT_CLOSE, minute, **values), OPENS_AT_CLOSE, close_before=98.0)
    assert (found["minutes"], found["equal"]) == (4, 3)


def test_our_way_of_opening_is_wrong_there_and_theirs_is_wrong_elsewhere() -> None:
    assert compared(FILLED, OPENS_AT_CLOSE, close_before=98.0)["equal"] == 0
    assert compared(AT_CLOSE, FLAT)["equal"] == 0


def test_a_source_that_omits_empty_minutes_agrees_without_them() -> None:
    assert compared(OURS, OMITTED)["share"] == 1.0


@pytest.mark.parametrize(
    ("theirs", "minutes", "equal"),
    [
        (OURS[:3], 4, 3),
        # Such a source fills no minute, so a candle there tells of trades.
        (FILLED, 5, 4),
        (changed(OURS, 1, low=99.9), 4, 3),
    ],
)
def test_a_wrong_candle_of_a_source_that_omits_differs(theirs: list[Row], minutes: int, equal: int) -> None:
    found = compared(theirs, OMITTED)
    assert (found["minutes"], found["equal"]) == (minutes, equal)


def test_volumes_in_contracts_are_those_in_base_currency() -> None:
    contracts: list[Row] = [(*row[:5], row[5] * 1_000) for row in OURS]
    assert compared(contracts, CONTRACTS, contract_size=0.001)["share"] == 1.0
    assert compared(contracts, CONTRACTS, contract_size=0.01)["equal"] == 0
    assert compared(changed(contracts, 3, volume=4_001.0), CONTRACTS, contract_size=0.001)["equal"] == 3
    assert compared(OURS, CONTRACTS, contract_size=0.001)["equal"] == 0
    # The contracts of an inverse market have another worth at each price, so only prices are compared.
    assert compared(contracts, CONTRACTS, contract_size=None)["share"] == 1.0
    assert compared(changed(contracts, 3, close=104.0), CONTRACTS, contract_size=None)["equal"] == 3


def test_candles_of_several_venues_are_near_and_have_minutes_of_their_own() -> None:
    near: list[Row] = [(row[0], *(price * 1.009 for price in row[1:5]), 77.0) for row in OURS]  # type: ignore[misc]
    found = compared([*near[:3], (700, 1.0, 1.0, 1.0, 1.0, 1.0)], MASSIVE)
    assert (found["minutes"], found["equal"]) == (3, 3)
    found = compared(changed(near, 3, low=near[2][3] * 0.97), MASSIVE)
    assert (found["minutes"], found["equal"]) == (4, 3)


def test_files_of_unknown_makers_may_fill_minutes_at_any_price() -> None:
    assert compared(changed(FILLED, 2, open=0.0, high=0.0, low=0.0, close=0.0), OF_FILES)["share"] == 1.0
    assert compared(OURS[:3], OF_FILES)["equal"] == 3


def test_what_differs_is_kept_with_both_candles() -> None:
    found = compared(changed(FILLED, 3, high=105.5), FLAT)
    [one] = found["differences"]
    assert one.time[11:16] == "00:03"
    assert one.ours == (104.0, 105.0, 103.0, 104.5, 4.0)
    assert one.theirs == (104.0, 105.5, 103.0, 104.5, 4.0)
    assert found["first_difference"][11:16] == "00:03"


@pytest.mark.parametrize("exchange", sorted(CCXT))
def test_each_row_of_the_table_is_an_exchange_that_ccxt_has_minutes_of_and_says_where_to_read(
    exchange: str,
) -> None:
    venue = CCXT[exchange]
    assert exchange in EXCHANGES
    client = getattr(ccxt, venue.name)()
    assert client.has["fetchOHLCV"]
    assert "1m" in client.timeframes
    assert venue.convention.source.startswith("https://")


def test_the_table_on_the_page_of_scores_is_that_of_the_code() -> None:
    words = {
        "flat": "flat, volume 0",
        "first_trade": "its first trade",
        "previous_close": "the close before it",
        "base": "base currency",
    }
    expected = {
        exchange: [venue.name, *(words.get(word, word) for word in (way.empty, way.opens_at, way.volume))]
        for exchange, venue in CCXT.items()
        for way in [venue.convention]
    }
    rows = table("docs/scores.md", "conventions")
    assert {bare(exchange): [bare(name), *ways] for exchange, name, *ways in rows} == expected


def test_the_vendor_says_where_to_read_too() -> None:
    assert MASSIVE.source.startswith("https://")
    assert isinstance(MASSIVE, Convention)


def test_a_page_says_how_each_source_makes_its_candles() -> None:
    words = {source: way.words for source, way in (("kraken", CCXT["kraken"].convention), ("", MASSIVE))}
    assert words == {
        "kraken": "minutes without trades are flat, with volume 0, a candle opens at its first trade, "
        "volumes in base currency, the newest 720 minutes only",
        "": "minutes without trades are left out, a candle opens at its first trade, volumes are not "
        "compared, made of several venues",
    }
    assert len({venue.convention.words for venue in CCXT.values()}) == 5
    assert convention_of("ccxt", "bitmex") is None
    assert convention_of("comparison.reference", "bitmex") is OF_FILES
