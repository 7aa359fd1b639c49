"""Tickers and liquidations beside the trades of their market: good files are green, other prices red."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import PricesBesideTrades
from backfill_assets.lake.manifests import load_manifest, update_manifest
from backfill_assets.quality.minute_numbers import read_numbers
from backfill_assets.quality.verdict import Verdict
from backfill_assets.standins.market import Market
from backfill_assets_tests.quality.filed_days import FiledDays

DAY: Final = "2024-01-02"
TRADES: Final = Feed.parse("binance-futures/trades/BTCUSDT")
TICKER: Final = Feed.parse("binance-futures/derivative_ticker/BTCUSDT")
LIQUIDATIONS: Final = Feed.parse("binance-futures/liquidations/BTCUSDT")
NAMES: Final = {"BTCUSDT": "BTC-USDT-PERP"}
MARKET: Final = Market(seed=5, rows={("binance-futures", "BTC-USDT"): 3_000})
#: Price columns of the feeds; the ticker has about two rows a minute.
PRICES: Final = {TICKER: ("last_price", "index_price", "mark_price"), LIQUIDATIONS: ("price",)}

Row = dict[str, str]
Damage = Callable[[Row], Row | None]


def clean(row: Row) -> Row:
    return row


def scaled(factor: float, *columns: str) -> Damage:
    return lambda row: {**row, **{c: f"{float(row[c]) * factor:.8f}" for c in columns if row[c]}}


def at_noon(damage: Damage, minutes: int) -> Damage:
    """Apply the damage in so many minutes from noon on."""
    first = start_us(DAY) + 720 * MICROSECONDS_PER_MINUTE
    last = first + minutes * MICROSECONDS_PER_MINUTE
    return lambda row: damage(row) if first <= int(row["timestamp"]) < last else row


def raw(feed: Feed, damage: Damage = clean) -> bytes:
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(MARKET.dataset(feed, DAY)).decode())))
    return file_of([*rows[0]], [changed for row in rows if (changed := damage(row)) is not None])


def file_of(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), 1, mtime=0)


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    return FiledDays(tmp_path)


def beside(lake: FiledDays, feed: Feed) -> list[PricesBesideTrades]:
    manifest = load_manifest(lake.store, feed, DAY)
    assert manifest.newest is not None
    return [*manifest.beside_trades[manifest.newest.content].prices]


def verdict(lake: FiledDays, feed: Feed, damage: Damage = clean, trades: Damage | None = clean) -> Verdict:
    """The verdict on the feed's file beside the trades' file; None stores no trades."""
    if trades is not None:
        lake.bring(TRADES, DAY, raw(TRADES, trades), NAMES)
    lake.bring(feed, DAY, raw(feed, damage), NAMES)
    lake.compare_with_trades(DAY)
    return lake.settled(feed, DAY).verdict


def of_trades(found: Verdict) -> list[str]:
    return [sentence for sentence in found.warnings if re.search("(the|these|with) trades", sentence)]


@pytest.mark.parametrize("feed", PRICES)
def test_clean_files_are_beside_the_trades_in_every_minute(feed: Feed, lake: FiledDays) -> None:
    found = verdict(lake, feed)
    assert (found.outcome, found.quality, of_trades(found)) == ("publish", 1.0, [])
    compared = beside(lake, feed)
    assert [(one.column, one.outside, one.first) for one in compared] == [
        (column, 0, None) for column in sorted(PRICES[feed])
    ]
    assert min(one.minutes for one in compared) > (1_100 if feed == TICKER else 40)
    assert of_trades(lake.settled(TRADES, DAY).verdict) == []


@pytest.mark.parametrize(
    ("feed", "damage"),
    [
        (LIQUIDATIONS, scaled(10, "price")),
        (LIQUIDATIONS, scaled(0.1, "price")),
        (LIQUIDATIONS, scaled(1.4, "price")),
        # All prices of the row agree with each other, so the file alone does not show the damage.
        (TICKER, scaled(10, "last_price", "index_price", "mark_price")),
        (TICKER, scaled(1 / 16, "last_price", "index_price", "mark_price")),
        (TICKER, scaled(1.03, "last_price")),
    ],
)
def test_prices_of_another_market_are_red(feed: Feed, damage: Damage, lake: FiledDays) -> None:
    found = verdict(lake, feed, damage)
    assert (found.outcome, found.quality) == ("quarantine", 0.0)
    assert found.reasons[0].endswith("minutes break prices_off_trades")
    assert "one of both files is damaged" in of_trades(found)[0]
    # Nothing tells which of both is damaged: the trades are published and warn.
    trades = lake.settled(TRADES, DAY).verdict
    assert trades.outcome == "publish"
    assert of_trades(trades)[0].startswith(f"in {feed} the ")


def test_trades_of_another_market_are_said_of_both(lake: FiledDays) -> None:
    found = verdict(lake, TICKER, trades=scaled(10, "price"))
    assert found.quality == 0.0
    assert "of these trades" not in of_trades(found)[0]
    said = of_trades(lake.settled(TRADES, DAY).verdict)
    assert [sentence.split(" is in ")[0] for sentence in said] == [
        f"in {TICKER} the {column.replace('_', ' ')}" for column in sorted(PRICES[TICKER])
    ]


@pytest.mark.parametrize(("minutes", "least", "most"), [(3, 1.0, 1.0), (30, 0.8, 0.9), (300, 0.0, 0.0)])
def test_some_minutes_are_excused_and_more_cost_quality(
    minutes: int, least: float, most: float, lake: FiledDays
) -> None:
    found = verdict(lake, TICKER, at_noon(scaled(1.03, "last_price"), minutes))
    assert found.quality is not None
    assert least <= found.quality <= most
    [said] = of_trades(found)
    assert said.startswith("the last price is in ")
    assert "minutes, first at 12:00, more than 1% from the trades" in said


@pytest.mark.parametrize(
    ("feed", "damage"),
    [
        # The price at which the position is bankrupt, a premium in a crash, a late last price.
        (LIQUIDATIONS, scaled(1.2, "price")),
        (TICKER, scaled(1.3, "index_price", "mark_price")),
        (TICKER, scaled(1.005, "last_price")),
    ],
)
def test_prices_within_their_tolerance_are_green(feed: Feed, damage: Damage, lake: FiledDays) -> None:
    found = verdict(lake, feed, damage)
    assert (found.quality, of_trades(found)) == (1.0, [])


def test_an_index_of_another_unit_is_the_contracts_own(lake: FiledDays) -> None:
    found = verdict(lake, TICKER, scaled(1_000, "index_price"))
    assert found.quality == 1.0
    assert of_trades(found) == [
        "the index price is far from the trades in nearly all minutes: it may have another unit"
    ]
    assert of_trades(lake.settled(TRADES, DAY).verdict) == []


@pytest.mark.parametrize("feed", PRICES)
def test_without_trades_nothing_is_compared_and_that_is_said(feed: Feed, lake: FiledDays) -> None:
    found = verdict(lake, feed, scaled(10, *PRICES[feed]), trades=None)
    assert (found.outcome, found.quality) == ("publish", 1.0)
    assert of_trades(found) == [
        "prices are not compared with trades: the day has no stored minutes of their market"
    ]


def thin(row: Row) -> Row | None:
    """Keep the trades of one minute in each hour."""
    return row if (int(row["timestamp"]) // MICROSECONDS_PER_MINUTE) % 60 == 30 else None


def beside_hours(columns: Sequence[str]) -> Damage:
    """Use another market's prices in all minutes without a near trade."""
    wrong = scaled(10, *columns)
    return lambda row: (
        row if 28 < (int(row["timestamp"]) // MICROSECONDS_PER_MINUTE) % 60 < 32 else wrong(row)
    )


@pytest.mark.parametrize("feed", PRICES)
def test_minutes_without_trades_are_not_called_wrong(feed: Feed, lake: FiledDays) -> None:
    """Move the prices by more than their tolerance while there are no trades."""
    found = verdict(lake, feed, beside_hours(PRICES[feed]), trades=thin)
    assert found.quality == 1.0
    assert {one.outside for one in beside(lake, feed)} == {0}
    assert max(one.minutes for one in beside(lake, feed)) <= 3 * 24


def made(columns: Sequence[str], rows: Sequence[tuple[int, dict[str, object]]]) -> bytes:
    """A file of rows at these minutes of the day."""
    common = {"exchange": "binance-futures", "symbol": "BTCUSDT"}
    found = []
    for minute, values in rows:
        time = start_us(DAY) + minute * MICROSECONDS_PER_MINUTE + 1_000_000
        times = {"timestamp": time, "local_timestamp": time + 1_000}
        found.append({name: str({**common, **times, **values}.get(name, "")) for name in columns})
    return file_of(columns, found)


TRADE_COLUMNS: Final = ("exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount")
TICKER_COLUMNS: Final = (
    *TRADE_COLUMNS[:4], "funding_timestamp", "funding_rate", "predicted_funding_rate", "open_interest",
    "last_price", "index_price", "mark_price",
)  # fmt: skip


@pytest.mark.parametrize(
    ("last", "minutes", "outside"),
    [
        # The trade of minute 900 is the last one from then on, and perhaps a moment before by another clock.
        ([(601, 100.0), (899, 100.0), (900, 100.0), (901, 110.0)], 4, 0),
        ([(899, 110.0), (900, 110.0)], 2, 0),
        ([(601, 105.0), (901, 100.0)], 2, 2),
        # Hours without trades, the time before the first, and that minute itself cannot be judged.
        ([(10, 55.0), (599, 55.0), (600, 55.0), (602, 105.0), (898, 105.0), (1_300, 105.0)], 0, 0),
    ],
)
def test_the_last_price_is_that_of_the_last_trade(
    last: list[tuple[int, float]], minutes: int, outside: int, lake: FiledDays
) -> None:
    trades = [(600, 100.0), (900, 110.0)]
    rows = [
        (at, {"id": 7 + n, "side": "buy", "price": price, "amount": 1})
        for n, (at, price) in enumerate(trades)
    ]
    lake.bring(TRADES, DAY, made(TRADE_COLUMNS, rows), NAMES)
    tickers = made(TICKER_COLUMNS, [(at, {"last_price": price}) for at, price in last])
    lake.bring(TICKER, DAY, tickers, NAMES)
    lake.compare_with_trades(DAY)
    [found] = beside(lake, TICKER)
    assert (found.column, found.minutes, found.outside) == ("last_price", minutes, outside)


def test_equal_prices_agree_without_any_tolerance(lake: FiledDays) -> None:
    rows = lake.settings.thresholds.rows.model_copy(update={"last_price_tolerance": 0.0})
    thresholds = lake.settings.thresholds.model_copy(update={"rows": rows})
    lake.settings = lake.settings.model_copy(update={"thresholds": thresholds})
    # Apart from each other, so that each has its own trade alone beside it.
    prices = [(10 * n, 42_000 + n / 10) for n in range(20)]
    trades = [(at, {"id": at, "side": "buy", "price": price, "amount": 1}) for at, price in prices]
    lake.bring(TRADES, DAY, made(TRADE_COLUMNS, trades), NAMES)
    tickers = made(TICKER_COLUMNS, [(at + 1, {"last_price": price}) for at, price in prices])
    lake.bring(TICKER, DAY, tickers, NAMES)
    lake.compare_with_trades(DAY)
    [found] = beside(lake, TICKER)
    assert (found.minutes, found.outside) == (20, 0)


def test_a_few_liquidations_of_another_market_are_red(lake: FiledDays) -> None:
    lake.bring(TRADES, DAY, raw(TRADES), NAMES)
    rows = [(60 * n, {"side": "buy", "price": 1.5, "amount": 1}) for n in range(5)]
    lake.bring(LIQUIDATIONS, DAY, made(TRADE_COLUMNS, rows), NAMES)
    lake.compare_with_trades(DAY)
    found = lake.settled(LIQUIDATIONS, DAY).verdict
    assert found.quality == pytest.approx(1 - 2 / 60 / 0.05)
    assert of_trades(found)[0].startswith(
        "the price is in 5 of 5 minutes, first at 00:00, more than 25% from"
    )


def test_the_prices_of_an_inverse_contract_are_compared_as_they_are(lake: FiledDays) -> None:
    """Amounts of inverse contracts are in dollars, their prices as those of all contracts."""
    trades, liquidations = Feed.parse("bitmex/trades/XBTUSD"), Feed.parse("bitmex/liquidations/XBTUSD")
    names = {"XBTUSD": "BTC-USD-PERP"}

    def of_bitmex(feed: Feed, damage: Damage = clean) -> bytes:
        return raw(
            feed, lambda row: damage({**row, "exchange": "bitmex", "symbol": "XBTUSD", "amount": "100"})
        )

    lake.bring(trades, DAY, of_bitmex(TRADES), names)
    lake.bring(liquidations, DAY, of_bitmex(LIQUIDATIONS), names)
    lake.compare_with_trades(DAY)
    found = lake.settled(liquidations, DAY).verdict
    assert (found.quality, of_trades(found)) == (1.0, [])

    def inverse(row: Row) -> Row:
        return {**row, "price": f"{1 / float(row['price']):.12f}"}

    inverted = of_bitmex(LIQUIDATIONS, inverse)
    lake.bring(liquidations, DAY, inverted, names)
    lake.compare_with_trades(DAY)
    assert beside(lake, liquidations)[0].outside > 40


def test_trades_of_another_exchange_or_market_are_not_asked(lake: FiledDays) -> None:
    lake.bring(Feed.parse("binance/trades/BTCUSDT"), DAY, raw(TRADES), {"BTCUSDT": "BTC-USDT-PERP"})
    lake.bring(Feed.parse("binance-futures/trades/ETHUSDT"), DAY, raw(TRADES), {"BTCUSDT": "ETH-USDT-PERP"})
    lake.bring(LIQUIDATIONS, DAY, raw(LIQUIDATIONS), NAMES)
    lake.compare_with_trades(DAY)
    assert [one.minutes for one in beside(lake, LIQUIDATIONS)] == [0]


@pytest.fixture
def refreshed(lake: FiledDays) -> FiledDays:
    """A good day whose trades came again ten times too high, as a version that waits."""
    assert verdict(lake, TICKER).quality == 1.0
    lake.bring(TRADES, DAY, raw(TRADES, scaled(10, "price")), NAMES)
    lake.compare_with_trades(DAY)
    return lake


def test_a_bad_refresh_of_the_trades_takes_nothing_back(refreshed: FiledDays) -> None:
    found = refreshed.settled(TICKER, DAY).verdict
    assert (found.outcome, found.quality, of_trades(found)) == ("publish", 1.0, [])


def test_a_ticker_that_comes_last_is_beside_every_version_of_the_trades(lake: FiledDays) -> None:
    for factor in (1, 10):
        lake.bring(TRADES, DAY, raw(TRADES, scaled(factor, "price")), NAMES)
    assert verdict(lake, TICKER, trades=None).quality == 1.0


def test_what_agreed_with_trades_that_are_held_no_more_still_agrees(refreshed: FiledDays) -> None:
    update_manifest(
        refreshed.store, TRADES, DAY, lambda held: held.model_copy(update={"versions": held.versions[1:]})
    )
    assert refreshed.compare_with_trades(DAY) == 1
    assert refreshed.settled(TICKER, DAY).verdict.quality == 1.0


def test_a_damaged_ticker_is_red_though_the_first_half_hour_of_trades_agreed_with_it(lake: FiledDays) -> None:
    def half_an_hour(row: Row) -> Row | None:
        return row if int(row["timestamp"]) < start_us(DAY) + 30 * MICROSECONDS_PER_MINUTE else None

    damage = at_noon(scaled(10, *PRICES[TICKER]), 600)
    assert verdict(lake, TICKER, damage, trades=half_an_hour).quality == 1.0
    assert verdict(lake, TICKER, damage).outcome == "quarantine"
    found = beside(lake, TICKER)
    # As in a lake that is compared once, when all files are here.
    update_manifest(lake.store, TICKER, DAY, lambda held: held.model_copy(update={"beside_trades": {}}))
    lake.compare_with_trades(DAY)
    assert beside(lake, TICKER) == found


def test_a_minute_has_the_lowest_and_the_highest_of_its_prices(lake: FiledDays) -> None:
    prices = [(0, 5.0), (0, 3.0), (0, 0.0), (0, 4.0), (7, -1.0), (8, 2.0), (1_439, 9.0), (1_440, 1.0)]
    rows = made(TRADE_COLUMNS, [(at, {"side": "buy", "price": price, "amount": 1}) for at, price in prices])
    lake.bring(LIQUIDATIONS, DAY, rows, NAMES)
    newest = load_manifest(lake.store, LIQUIDATIONS, DAY).newest
    assert newest is not None
    [bands] = read_numbers(lake.store, DAY, [(LIQUIDATIONS, newest)])[LIQUIDATIONS, newest.content] or ()
    assert bands.bands("price").tolist() == [(0, 3.0, 5.0), (8, 2.0, 2.0), (1_439, 9.0, 9.0)]


def test_good_trades_that_come_later_bring_the_ticker_back(lake: FiledDays) -> None:
    assert verdict(lake, TICKER, trades=scaled(10, "price")).outcome == "quarantine"
    lake.bring(TRADES, DAY, raw(TRADES), NAMES)
    lake.compare_with_trades(DAY)
    assert lake.settled(TICKER, DAY).verdict.outcome == "publish"


def test_what_still_holds_is_not_compared_again_and_no_tick_file_is_opened(lake: FiledDays) -> None:
    lake.bring(TRADES, DAY, raw(TRADES), NAMES)
    lake.bring(TICKER, DAY, raw(TICKER), NAMES)
    for feed in (TRADES, TICKER):
        newest = load_manifest(lake.store, feed, DAY).newest
        assert newest is not None
        (lake.folder / "lake" / paths.ticks_data(feed, DAY, newest.content)).unlink()
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [1, 0]
    lake.bring(LIQUIDATIONS, DAY, raw(LIQUIDATIONS), NAMES)
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [1, 0]
    assert beside(lake, TICKER)[0].outside == 0


def test_minutes_that_are_damaged_are_asked_for_again(lake: FiledDays) -> None:
    lake.bring(TRADES, DAY, raw(TRADES), NAMES)
    lake.bring(TICKER, DAY, raw(TICKER), NAMES)
    newest = load_manifest(lake.store, TRADES, DAY).newest
    assert newest is not None
    assert newest.candles is not None
    file = lake.folder / "lake" / paths.partials_data(TRADES, DAY, newest.candles.file.content)
    whole = file.read_bytes()
    file.unlink()
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [1, 1]
    assert {one.minutes for one in beside(lake, TICKER)} == {0}
    file.write_bytes(whole)
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [1, 0]
    assert min(one.minutes for one in beside(lake, TICKER)) > 1_100
