"""Sources over HTTP, by the real clients: their candles, and the messages when they give none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.lake import paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.references.answers import CandleApi
from backfill_assets.references.ccxt_source import CcxtCandles
from backfill_assets.references.conventions import CCXT
from backfill_assets.references.fetched import fetch_day, load_fetched, read_fetched
from backfill_assets.references.massive_source import MassiveCandles
from backfill_assets.settings import CcxtSource, MassiveSource
from backfill_assets_tests.emulators.candle_sources import (
    BROKEN,
    CONTRACT,
    KEY,
    PAGE,
    TOO_OFTEN,
    Answer,
    Candle,
    CandleSources,
    as_json,
    milliseconds,
)
from backfill_assets_tests.references.candle_frames import DAY

BTC, ETH = ("binance", "BTC-USDT"), ("binance", "ETH-USDT")
#: All minutes but every seventh.
TRADED: list[Candle] = [
    (milliseconds(DAY, minute), 100.0 + minute, 101.0 + minute, 99.0 + minute, 100.5 + minute, 1.25)
    for minute in range(1440)
    if minute % 7
]
#: Candles of Bitget, whose perpetual and spot market have one id.
PERPETUAL: list[Candle] = [(row[0], *(price + 7 for price in row[1:5]), 2.5) for row in TRADED]  # type: ignore[misc]


@pytest.fixture
def sources() -> Iterator[CandleSources]:
    spot = {"BTC-USDT": TRADED, "ETH-USDT": TRADED}
    truth = {name: dict(spot) for name in ("binance", "binanceus", "kraken", "coinbaseexchange", "bitget")}
    truth["bitget"]["BTC-USDT-PERP"] = PERPETUAL
    truth |= {name: {"BTC-USDT-PERP": TRADED} for name in ("binanceusdm", "kucoinfutures")}
    with CandleSources(truth={**truth, "massive": {"BTC-USD": TRADED}}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


Api = Callable[[], CandleApi]


@pytest.fixture
def ccxt_api(sources: CandleSources) -> Api:
    return lambda: CcxtCandles(CcxtSource(kind="ccxt", endpoint=sources.url))


@pytest.fixture
def massive_api(sources: CandleSources) -> Api:
    return lambda: MassiveCandles(MassiveSource(kind="massive", endpoint=sources.url, api_key=KEY))


@pytest.mark.parametrize(
    ("exchange", "symbol", "asked", "rows"),
    [
        ("binance", "BTC-USDT", "BTC/USDT", 1440),
        ("binance-futures", "BTC-USDT-PERP", "BTC/USDT:USDT", 1440),
        ("kraken", "BTC-USDT", "BTC/USDT", 1440),
        ("binance-us", "BTC-USDT", "BTC/USDT", 1440),
        ("bitget", "BTC-USDT", "BTC/USDT", 1440),
        ("bitget-futures", "BTC-USDT-PERP", "BTC/USDT:USDT", 1440),
        ("coinbase", "BTC-USDT", "BTC/USDT", len(TRADED)),
        ("kucoin-futures", "BTC-USDT-PERP", "BTC/USDT:USDT", len(TRADED)),
    ],
)
def test_ccxt_gives_the_day_of_each_exchange(
    ccxt_api: Api, exchange: str, symbol: str, asked: str, rows: int
) -> None:
    answer = ccxt_api().fetch(exchange, symbol, DAY)
    assert (answer.state, answer.asked, answer.reason) == ("whole", asked, "")
    assert answer.minutes is not None
    assert answer.minutes.height == rows
    found = [row[1:] for row in answer.minutes.iter_rows() if row[5]]
    scale = 1 / CONTRACT if exchange == "kucoin-futures" else 1
    assert answer.contract_size == (CONTRACT if scale > 1 else 1)
    truth = PERPETUAL if exchange == "bitget-futures" else TRADED
    assert [row[3:] for row in found] == [(row[4], row[5] * scale) for row in truth]


def test_every_exchange_of_the_table_has_a_stand_in() -> None:
    marks = test_ccxt_gives_the_day_of_each_exchange.pytestmark  # type: ignore[attr-defined]
    assert {exchange for mark in marks for exchange, *_ in mark.args[1]} == {*CCXT}


def test_massive_gives_the_day_page_by_page(massive_api: Api, sources: CandleSources) -> None:
    answer = massive_api().fetch("coinbase", "BTC-USD", DAY)
    assert (answer.state, answer.asked) == ("whole", "X:BTCUSD")
    assert answer.minutes is not None
    assert [row[1:] for row in answer.minutes.iter_rows()] == [row[1:] for row in TRADED]
    assert len(sources.requests) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TOO_OFTEN, "answered that it is asked too often (429): the next run of the day asks again"),
        (BROKEN, "500"),
        (PAGE, "not JSON and begins with '<!doctype html>"),
    ],
)
@pytest.mark.parametrize("where", ["exchangeInfo", "klines"])
def test_an_exchange_that_does_not_answer_is_said(
    ccxt_api: Api, sources: CandleSources, fault: Answer, said: str, where: str
) -> None:
    sources.faults[where] = fault
    with pytest.raises(TransientFailure) as failure:
        ccxt_api().fetch(*BTC, DAY)
    assert str(failure.value).startswith(f"ccxt: binance was asked for BTC-USDT of {DAY} and ")
    assert said in str(failure.value)
    assert str(failure.value).endswith("the next run of the day asks again")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TOO_OFTEN, "answered that it is asked too often (429): the next run of the day asks again"),
        (BROKEN, "500"),
        (PAGE, "not JSON and begins with '<!doctype html>"),
        (as_json({"ticker": "X:ETHUSD", "results": []}), "answered with candles of X:ETHUSD"),
        (as_json([1]), "answered in an unknown form"),
    ],
)
def test_a_vendor_that_does_not_answer_is_said(
    massive_api: Api, sources: CandleSources, fault: Answer, said: str
) -> None:
    sources.faults["aggs"] = fault
    with pytest.raises(TransientFailure) as failure:
        massive_api().fetch("coinbase", "BTC-USD", DAY)
    assert str(failure.value).startswith(f"massive: was asked for X:BTCUSD of {DAY} and ")
    assert said in str(failure.value)
    assert str(failure.value).endswith("the next run of the day asks again")
    assert len(sources.requests) == 1


def test_candles_in_another_form_are_said(ccxt_api: Api, sources: CandleSources) -> None:
    for rows in ([["x", "y"]], [[milliseconds(DAY), "1", None, "1", "1", "1"]], {"rows": 1}):
        sources.faults["klines"] = as_json(rows)
        answers = []
        try:
            answers.append(ccxt_api().fetch(*BTC, DAY).state)
        except TransientFailure as failure:
            answers.append(str(failure))
        assert answers == ["empty"] or "binance was asked for BTC-USDT" in answers[0]


def test_a_list_without_markets_is_no_answer(ccxt_api: Api, sources: CandleSources) -> None:
    sources.faults["exchangeInfo"] = as_json({"symbols": []})
    with pytest.raises(TransientFailure, match="and lists no markets"):
        ccxt_api().fetch(*BTC, DAY)


def test_services_that_are_not_there_are_said(
    ccxt_api: Api, massive_api: Api, sources: CandleSources
) -> None:
    sources.__exit__()
    with pytest.raises(TransientFailure, match=r"binance was asked for .* did not answer"):
        ccxt_api().fetch(*BTC, DAY)
    with pytest.raises(TransientFailure, match=r"X:BTCUSD of .* did not answer"):
        massive_api().fetch("coinbase", "BTC-USD", DAY)


def test_a_source_without_the_market_without_candles_or_with_a_part_of_them_says_so(
    ccxt_api: Api, massive_api: Api, sources: CandleSources
) -> None:
    absent = ccxt_api().fetch("binance", "ADA-USDT", DAY)
    assert (absent.state, absent.reason) == (
        "absent",
        "binance lists no spot market ADA/USDT any more, or never did",
    )
    assert "no perpetual BTC/USDT" in ccxt_api().fetch("binance", "BTC-USDT-PERP", DAY).reason
    sources.faults["klines"] = as_json([])
    empty = ccxt_api().fetch(*BTC, DAY)
    assert (empty.state, empty.reason) == ("empty", "gave no candle of the day")
    del sources.faults["klines"]
    sources.faults["klines.*limit=440"] = as_json([])
    partial = ccxt_api().fetch(*BTC, DAY)
    assert partial.state == "partial"
    assert partial.reason == "gave 1,000 of 1,440 minutes, and only these are compared"
    assert massive_api().fetch("coinbase", "ETH-USD", DAY).state == "empty"
    assert massive_api().fetch("binance-futures", "BTC-USDT-PERP", DAY).state == "absent"


def test_kraken_has_the_newest_twelve_hours_only(ccxt_api: Api, sources: CandleSources) -> None:
    sources.now = milliseconds(DAY, 1440 + 120)
    partial = ccxt_api().fetch("kraken", "BTC-USDT", DAY)
    assert partial.state == "partial"
    assert partial.reason == (
        "gave 600 of 1,440 minutes, and only these are compared: it has the newest 720 minutes only"
    )
    sources.now = milliseconds(DAY, 3 * 1440)
    absent = ccxt_api().fetch("kraken", "BTC-USDT", DAY)
    assert (absent.state, absent.reason) == (
        "absent",
        "gave 0 of 1,440 minutes: it has the newest 720 minutes only",
    )


def test_a_key_is_needed_must_be_right_and_is_never_shown(sources: CandleSources) -> None:
    def ask(key: str) -> str:
        source = MassiveCandles(MassiveSource(kind="massive", endpoint=sources.url, api_key=key))
        with pytest.raises(PermanentFailure) as failure:
            source.fetch("coinbase", "BTC-USD", DAY)
        return str(failure.value)

    assert "massive needs a key: set MASSIVE_API_KEY" in ask("${NO_SUCH_KEY_HERE:-}")
    said = ask("a-mistyped-key-of-somebody")
    assert "refuses the key" in said
    assert "a-mistyped-key" not in said


@pytest.mark.parametrize("kind", ["ccxt", "massive"])
def test_the_token_in_the_path_of_an_endpoint_is_never_shown(kind: str, sources: CandleSources) -> None:
    token = "planted-path-token"
    sources.faults["/not-json/"] = Answer(200, f"<b>/{token}/".encode(), "text/html")
    endpoints = (f"{sources.url}/{token}", f"{sources.url}/{token}/not-json", f"http://127.0.0.1:1/{token}")
    for endpoint in endpoints:
        api: CandleApi = CcxtCandles(CcxtSource(kind="ccxt", endpoint=endpoint))
        if kind == "massive":
            api = MassiveCandles(MassiveSource(kind="massive", endpoint=endpoint, api_key=KEY))
        with pytest.raises(TransientFailure) as failure:
            api.fetch("binance", "BTC-USDT", DAY)
        assert token not in str(failure.value)


@pytest.mark.parametrize("library", ["ccxt", "massive"])
def test_a_source_without_its_library_says_what_installs_it(
    library: str, ccxt_api: Api, massive_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    api = {"ccxt": ccxt_api, "massive": massive_api}[library]()
    with pytest.raises(PermanentFailure) as failure:
        api.fetch("binance", "BTC-USDT", DAY)
    assert str(failure.value) == (
        f"comparison.sources: {library} is not installed: pip install 'backfill-assets[reference]'"
    )


# --- kept answers ------------------------------------------------------------------------------------------


def test_what_was_fetched_is_kept_and_nobody_is_asked_again(
    ccxt_api: Api, sources: CandleSources, store: LocalStore
) -> None:
    absent = ("binance", "ADA-USDT")
    first = fetch_day(store, ccxt_api(), DAY, [absent, BTC, ETH])
    assert [(one.market, one.state) for one in first.markets] == [
        (absent, "absent"),
        (BTC, "whole"),
        (ETH, "whole"),
    ]
    assert len(sources.requests) == 1 + 2 * 2
    sources.requests.clear()
    assert fetch_day(store, ccxt_api(), DAY, [absent, BTC, ETH]) == first
    assert sources.requests == []
    sources.__exit__()
    assert read_fetched(store, "ccxt", load_fetched(store, "ccxt", DAY))[BTC].height == 1440


def test_a_failed_service_is_asked_once_a_run_and_again_by_the_next_while_others_go_on(
    ccxt_api: Api, sources: CandleSources, store: LocalStore
) -> None:
    sources.faults["/binance/"] = TOO_OFTEN
    kraken = ("kraken", "BTC-USDT")
    found = {one.market: one for one in fetch_day(store, ccxt_api(), DAY, [BTC, ETH, kraken]).markets}
    assert {market: one.state for market, one in found.items()} == {
        BTC: "failed",
        ETH: "failed",
        kraken: "whole",
    }
    assert sum("/binance/" in path for path in sources.requests) == 1
    sources.faults.clear()
    sources.requests.clear()
    again = fetch_day(store, ccxt_api(), DAY, [BTC, ETH, kraken])
    assert {one.state for one in again.markets} == {"whole"}
    assert not any("/kraken/" in path for path in sources.requests)


def test_a_part_of_a_day_is_kept_and_made_whole(
    ccxt_api: Api, sources: CandleSources, store: LocalStore
) -> None:
    second = f"startTime={milliseconds(DAY, 1000)}"
    sources.faults[second] = as_json([])
    [partial] = fetch_day(store, ccxt_api(), DAY, [BTC]).markets
    assert (partial.state, partial.rows) == ("partial", 1000)
    sources.faults = {"klines": BROKEN}
    [still] = fetch_day(store, ccxt_api(), DAY, [BTC]).markets
    assert (still.state, still.rows) == ("partial", 1000)
    assert "500" in still.reason
    sources.faults.clear()
    [whole] = fetch_day(store, ccxt_api(), DAY, [BTC]).markets
    assert (whole.state, whole.rows) == ("whole", 1440)


def test_a_damaged_file_is_fetched_again(ccxt_api: Api, sources: CandleSources, store: LocalStore) -> None:
    first = fetch_day(store, ccxt_api(), DAY, [BTC])
    assert first.file is not None
    path = Path(store.uri_of(paths.reference_data("ccxt", DAY, first.file.content)))
    path.write_bytes(path.read_bytes()[:-1])
    sources.requests.clear()
    again = fetch_day(LocalStore(Path(store.uri)), ccxt_api(), DAY, [BTC])
    assert len(sources.requests) == 3
    assert again == first
    assert read_fetched(store, "ccxt", again)[BTC].height == 1440
