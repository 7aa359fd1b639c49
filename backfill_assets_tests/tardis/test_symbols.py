"""The required feeds of a day: resolution of the universe as of that day."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.settings import UniverseEntry
from backfill_assets.tardis.fallback import instruments_from_details
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument, InstrumentList
from backfill_assets.tardis.symbols import DayUniverse, NotListed, resolve

#: exchange, id, data set id, base, quote, kind, since, to, data types
MARKET = [
    ("binance", "btcusdt", "BTCUSDT", "BTC", "USDT", "spot", "2019-03-30", None, ["trades", "quotes"]),
    ("binance", "ethusdt", "ETHUSDT", "ETH", "USDT", "spot", "2019-03-30", None, ["trades", "quotes"]),
    ("binance", "solusdt", "SOLUSDT", "SOL", "USDT", "spot", "2020-08-11", "2024-01-10", ["trades"]),
    ("kraken", "XBT/USDT", "XBT-USDT", "XBT", "USDT", "spot", "2019-06-04", "2026-07-10", ["trades"]),
    ("kraken", "BTC/USDT", "BTC-USDT", "BTC", "USDT", "spot", "2026-07-10", None, ["trades"]),
    ("kraken", "XDG/USD", "XDG-USD", "XDG", "USD", "spot", "2019-06-04", None, []),
    (
        "bybit",
        "BTCUSDT",
        "BTCUSDT",
        "BTC",
        "USDT",
        "perpetual",
        "2020-05-28",
        None,
        ["trades", "liquidations"],
    ),
    ("bybit", "BTCUSDT-SPOT", "BTCUSDT-SPOT", "BTC", "USDT", "spot", "2021-12-04", None, ["trades"]),
    ("deribit", "BTC-14FEB25", "BTC-14FEB25", "BTC", "USD", "future", "2025-01-31", "2025-02-15", ["trades"]),
    ("deribit", "BTC-25APR25", "BTC-25APR25", "BTC", "USD", "future", "2025-01-01", "2025-04-26", ["trades"]),
    ("deribit", "BTC-PERPETUAL", "BTC-PERPETUAL", "BTC", "USD", "perpetual", "2019-03-30", None, ["trades"]),
]


def metadata(rows: list[tuple[Any, ...]]) -> tuple[dict[str, ExchangeDetails], dict[str, InstrumentList]]:
    details, instruments = {}, {}
    for exchange in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == exchange]
        details[exchange] = ExchangeDetails.model_validate(
            {
                "id": exchange,
                "datasets": {
                    "symbols": [
                        {
                            "id": row[2],
                            "type": row[5],
                            "availableSince": row[6],
                            "availableTo": row[7],
                            "dataTypes": row[8],
                        }
                        for row in own
                    ]
                },
            }
        )
        instruments[exchange] = InstrumentList(
            source="instruments",
            instruments=tuple(
                Instrument.model_validate(
                    {
                        "exchange": exchange,
                        "id": row[1],
                        "datasetId": row[2],
                        "baseCurrency": row[3],
                        "quoteCurrency": row[4],
                        "type": row[5],
                        "availableSince": row[6],
                        "availableTo": row[7],
                        "changes": row[9] if len(row) > 9 else [],
                    }
                )
                for row in own
            ),
        )
    return details, instruments


def universe_of(
    day: str,
    exchange: str,
    *symbols: str,
    types: tuple[str, ...] = ("trades",),
    kinds: tuple[str, ...] = ("spot", "perpetual"),
    rows: list[tuple[Any, ...]] = MARKET,
) -> DayUniverse:
    entry = UniverseEntry(exchanges=(exchange,), symbols=symbols, data_types=types, instrument_types=kinds)
    return resolve([entry], day, *metadata(rows))


def names(universe: DayUniverse) -> list[str]:
    return [str(expected.feed) for expected in universe.expected]


def test_a_pair_becomes_its_data_set_symbol_with_the_names_of_the_file():
    assert universe_of("2024-01-01", "kraken", "BTC-USDT") == DayUniverse(
        expected=(
            ExpectedFeed(
                Feed("kraken", "trades", "XBT-USDT"),
                (("XBT-USDT", "BTC-USDT"), ("XBT/USDT", "BTC-USDT")),
            ),
        ),
        not_listed=(),
    )


def test_one_name_is_enough_where_the_venue_and_the_vendor_agree():
    [expected] = universe_of("2024-01-01", "binance", "BTC-USDT").expected
    assert expected.symbols == (("BTCUSDT", "BTC-USDT"),)


@pytest.mark.parametrize(("day", "symbol"), [("2026-07-09", "XBT-USDT"), ("2026-07-10", "BTC-USDT")])
def test_a_renamed_pair_is_looked_up_as_of_the_day(day, symbol):
    assert names(universe_of(day, "kraken", "BTC-USDT")) == [f"kraken/trades/{symbol}"]


def test_a_rename_within_a_day_needs_both_files():
    rows = [
        ("kraken", "XBT/USDT", "XBT-USDT", "XBT", "USDT", "spot", "2019-06-04", "2026-07-10T09:00:00Z", []),
        ("kraken", "BTC/USDT", "BTC-USDT", "BTC", "USDT", "spot", "2026-07-10T09:00:00Z", None, []),
    ]
    found = universe_of("2026-07-10", "kraken", "BTC-USDT", rows=rows)
    assert names(found) == ["kraken/trades/BTC-USDT", "kraken/trades/XBT-USDT"]
    assert {canonical for feed in found.expected for _, canonical in feed.symbols} == {"BTC-USDT"}


def test_currency_aliases_apply_to_the_base():
    assert names(universe_of("2024-01-01", "kraken", "DOGE-USD")) == ["kraken/trades/XDG-USD"]


@pytest.mark.parametrize("day", ["2020-08-10", "2024-01-10"])
def test_a_symbol_of_other_days_is_not_listed_rather_than_missing(day):
    found = universe_of(day, "binance", "SOL-USDT")
    assert found.expected == ()
    assert found.not_listed == (NotListed("binance", "trades", "SOL-USDT"),)
    assert found.not_listed[0].reason == "listed from 2020-08-11 to 2024-01-10"


@pytest.mark.parametrize(
    ("last", "reason"), [("2024-01-10", " to 2024-01-10"), (None, "")], ids=["ended", "goes on"]
)
def test_a_group_of_many_instruments_says_when_it_ended(last, reason):
    rows = [
        ("x", *[f"A{n}"] * 3, "USDT", "spot", f"2020-08-1{n}", last if n else "2021-01-01", ["trades"])
        for n in range(5)
    ]
    found = universe_of("2019-01-01", "x", "SPOT", rows=rows)
    assert found.not_listed[0].reason == f"listed at times from 2020-08-10{reason}"


@pytest.mark.parametrize("day", ["2020-08-11", "2024-01-09"])
def test_first_and_last_listed_day_are_expected(day):
    assert names(universe_of(day, "binance", "SOL-USDT")) == ["binance/trades/SOLUSDT"]


def test_a_symbol_that_never_was_is_an_error_with_the_nearest_names():
    with pytest.raises(
        PermanentFailure, match=r"unknown symbol 'BTC-USDZ' on binance: did you mean BTC-USDT"
    ):
        universe_of("2024-01-01", "binance", "BTC-USDZ")


def test_a_symbol_without_its_dash_is_named_rightly():
    with pytest.raises(
        PermanentFailure, match=r"unknown symbol 'BTCUSDT' on binance: did you mean BTC-USDT\?"
    ):
        universe_of("2024-01-01", "binance", "BTCUSDT")


def test_a_symbol_like_nothing_else_says_what_there_is():
    with pytest.raises(PermanentFailure, match="for example BTC-USDT"):
        universe_of("2024-01-01", "binance", "QQQQ-ZZZZ")


def test_an_unknown_exchange_is_an_error_with_the_nearest_name():
    with pytest.raises(PermanentFailure, match="unknown exchange 'binanse': did you mean binance"):
        universe_of("2024-01-01", "binanse", "BTC-USDT")


@pytest.mark.parametrize(
    ("kinds", "symbol"), [(("spot", "perpetual"), "BTCUSDT-SPOT"), (("perpetual", "spot"), "BTCUSDT")]
)
def test_of_several_kinds_the_first_in_the_settings_is_taken(kinds, symbol):
    assert names(universe_of("2024-01-01", "bybit", "BTC-USDT", kinds=kinds)) == [f"bybit/trades/{symbol}"]


def test_a_kind_that_is_not_listed_yet_leaves_the_next():
    assert names(universe_of("2021-01-01", "bybit", "BTC-USDT")) == ["bybit/trades/BTCUSDT"]


def test_a_data_type_is_taken_from_the_kind_that_has_it():
    found = universe_of("2024-01-01", "bybit", "BTC-USDT", types=("trades", "liquidations"))
    assert names(found) == ["bybit/liquidations/BTCUSDT", "bybit/trades/BTCUSDT-SPOT"]


def test_a_data_type_that_nobody_has_is_not_listed():
    found = universe_of("2024-01-01", "binance", "BTC-USDT", types=("trades", "liquidations"))
    assert names(found) == ["binance/trades/BTCUSDT"]
    assert found.not_listed == (NotListed("binance", "liquidations", "BTC-USDT"),)
    assert found.not_listed[0].reason == "no liquidations data sets"


def test_a_pair_that_stands_for_several_contracts_is_an_error_that_names_them():
    with pytest.raises(PermanentFailure, match=r"several instruments \(BTC-14FEB25, BTC-25APR25\)"):
        universe_of("2025-02-01", "deribit", "BTC-USD", kinds=("future",))


def test_a_pair_with_one_contract_at_a_time_is_none():
    assert names(universe_of("2025-01-15", "deribit", "BTC-USD", kinds=("future",))) == [
        "deribit/trades/BTC-25APR25"
    ]


def test_contracts_of_a_kind_that_is_not_taken_are_no_obstacle():
    assert names(universe_of("2025-02-01", "deribit", "BTC-USD")) == ["deribit/trades/BTC-PERPETUAL"]


def test_a_pair_of_other_kinds_only_says_so():
    with pytest.raises(
        PermanentFailure, match="deribit has BTC-USD as future and perpetual only, not as spot"
    ):
        universe_of("2025-02-01", "deribit", "BTC-USD", kinds=("spot",))


def test_a_group_is_one_feed_with_every_symbol_listed_that_day():
    [expected] = universe_of("2024-01-10", "binance", "SPOT").expected
    assert expected == ExpectedFeed(
        Feed("binance", "trades", "SPOT"), (("BTCUSDT", "BTC-USDT"), ("ETHUSDT", "ETH-USDT"))
    )


def test_contracts_on_one_pair_keep_their_own_names_in_a_group():
    [expected] = universe_of("2025-02-01", "deribit", "FUTURES").expected
    assert expected.symbols == (("BTC-14FEB25", "BTC-14FEB25"), ("BTC-25APR25", "BTC-25APR25"))


def test_a_contract_keeps_its_name_in_a_group_on_days_when_it_is_alone():
    [expected] = universe_of("2025-01-15", "deribit", "FUTURES").expected
    assert expected.symbols == (("BTC-25APR25", "BTC-25APR25"),)


def test_two_listings_of_one_pair_at_once_keep_their_own_names_in_a_group():
    rows = [
        ("x", "BTCUSD", "BTCUSD", "BTC", "USD", "perpetual", "2020-01-01", None, []),
        ("x", "BTCUSD2", "BTCUSD2", "XBT", "USD", "perpetual", "2020-01-01", None, []),
        ("x", "ETHUSD", "ETHUSD", "ETH", "USD", "perpetual", "2020-01-01", None, []),
    ]
    [expected] = universe_of("2024-01-01", "x", "PERPETUALS", rows=rows).expected
    assert expected.symbols == (
        ("BTCUSD", "BTCUSD"), ("BTCUSD2", "BTCUSD2"), ("ETHUSD", "ETH-USD-PERP"),
    )  # fmt: skip


def markets(universe: DayUniverse) -> dict[str, set[str]]:
    return {str(e.feed): {market for _, market in e.symbols} for e in universe.expected}


def test_spot_and_perpetual_of_one_pair_are_two_markets():
    spot, perpetual = {"BTC-USDT"}, {"BTC-USDT-PERP"}
    grouped = universe_of("2024-01-01", "bybit", "SPOT", "PERPETUALS")
    assert markets(grouped) == {"bybit/trades/PERPETUALS": perpetual, "bybit/trades/SPOT": spot}
    by_kind = [
        universe_of("2024-01-01", "bybit", "BTC-USDT", kinds=(kind,)) for kind in ("spot", "perpetual")
    ]
    assert [markets(found) for found in by_kind] == [
        {"bybit/trades/BTCUSDT-SPOT": spot},
        {"bybit/trades/BTCUSDT": perpetual},
    ]


@pytest.mark.parametrize(
    ("exchange", "symbol", "feed", "market"),
    [
        ("bybit", "BTC-USDT-PERP", "BTCUSDT", "BTC-USDT-PERP"),
        ("deribit", "BTC-USD-PERP", "BTC-PERPETUAL", "BTC-USD-PERP"),
        ("deribit", "BTC-PERPETUAL", "BTC-PERPETUAL", "BTC-USD-PERP"),
        ("deribit", "BTC-25APR25", "BTC-25APR25", "BTC-25APR25"),
    ],
)
def test_a_contract_can_be_named_whatever_kinds_a_pair_may_mean(exchange, symbol, feed, market):
    found = universe_of("2025-02-01", exchange, symbol, kinds=("spot",))
    assert markets(found) == {f"{exchange}/trades/{feed}": {market}}


def test_a_pair_beside_its_group_is_in_the_file_of_the_group():
    for symbols in (["PERPETUALS", "BTC-USD"], ["BTC-USD", "PERPETUALS"]):
        assert names(universe_of("2025-02-01", "deribit", *symbols)) == ["deribit/trades/PERPETUALS"]
    beside = universe_of("2024-01-01", "bybit", "PERPETUALS", "BTC-USDT")
    assert names(beside) == ["bybit/trades/BTCUSDT-SPOT", "bybit/trades/PERPETUALS"], "the pair is spot here"


def test_a_pair_has_its_own_file_where_its_group_has_none_of_the_data_type():
    rows = [
        *MARKET,
        ("bybit", "PERPETUALS", "PERPETUALS", None, None, "perpetual", "2020-05-28", None, ["trades"]),
    ]
    found = universe_of(
        "2024-01-01", "bybit", "PERPETUALS", "BTC-USDT-PERP", types=("trades", "liquidations"), rows=rows
    )
    assert names(found) == ["bybit/liquidations/BTCUSDT", "bybit/trades/PERPETUALS"]


def test_a_group_that_the_vendor_lists_follows_its_own_dates():
    rows = [*MARKET, ("binance", "SPOT", "SPOT", None, None, "spot", "2022-01-01", None, ["trades"])]
    assert names(universe_of("2021-12-31", "binance", "SPOT", rows=rows)) == []
    found = universe_of("2022-01-01", "binance", "SPOT", types=("trades", "quotes"), rows=rows)
    assert names(found) == ["binance/trades/SPOT"]
    assert [one.reason for one in found.not_listed] == ["the group has files of trades only"]


def test_a_group_that_the_exchange_never_had_is_an_error():
    with pytest.raises(PermanentFailure, match="binance has no option data sets: remove OPTIONS"):
        universe_of("2024-01-01", "binance", "OPTIONS")


def test_a_changed_quote_currency_is_looked_up_as_of_the_day():
    changes = [{"until": "2023-01-01T00:00:00.000Z", "quoteCurrency": "BUSD"}]
    rows = [("x", "BTCQ", "BTCQ", "BTC", "USDT", "spot", "2020-01-01", None, [], changes)]
    assert names(universe_of("2022-12-31", "x", "BTC-BUSD", rows=rows)) == ["x/trades/BTCQ"]
    assert names(universe_of("2023-01-01", "x", "BTC-USDT", rows=rows)) == ["x/trades/BTCQ"]
    assert universe_of("2023-01-01", "x", "BTC-BUSD", rows=rows).not_listed == (
        NotListed("x", "trades", "BTC-BUSD"),
    )


def test_entries_that_overlap_give_each_feed_once_and_in_order():
    entry = UniverseEntry(exchanges=("binance",), symbols=("ETH-USDT", "BTC-USDT"))
    found = resolve([entry, entry], "2024-01-01", *metadata(MARKET))
    assert names(found) == ["binance/trades/BTCUSDT", "binance/trades/ETHUSDT"]


def test_guessed_instruments_resolve_to_the_same_feeds():
    details, _ = metadata(MARKET)
    guessed = {exchange: instruments_from_details(answer) for exchange, answer in details.items()}
    entry = UniverseEntry(exchanges=("binance", "kraken"), symbols=("BTC-USDT",))
    assert names(resolve([entry], "2024-01-01", details, guessed)) == [
        "binance/trades/BTCUSDT",
        "kraken/trades/XBT-USDT",
    ]


def test_an_exchange_without_currencies_is_not_said_to_have_no_data_sets():
    rows = [(*row[:3], None, None, *row[5:]) for row in MARKET if row[0] == "binance"]
    with pytest.raises(PermanentFailure, match=r"gives no currencies.*for example BTCUSDT, ETHUSDT, SOLUSDT"):
        universe_of("2024-01-01", "binance", "BTC-USDT", rows=rows)
