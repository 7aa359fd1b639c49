"""A row repeated with the same id and payload is one trade in candles, for every kind of id."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import SettledFeed, load_settled
from backfill_assets_tests.candles.candle_lake import bring, files, made, partials_of
from backfill_assets_tests.candles.candle_samples import (
    BEFORE,
    DAY,
    END,
    MINUTE,
    SECOND,
    START,
    Trade,
    as_numbers,
    assert_same,
    plain_candles,
)

Arrivals = list[tuple[int, Trade]]

MINUTES = 1440
#: Venues with their kinds of ids: a count, a UUID, a numeric hash, a hash that is not numeric.
IDS: dict[str, Callable[[int], str]] = {
    "binance": lambda n: str(1001 + n),
    "binance-futures": lambda n: str(1001 + n),
    "bitmex": lambda n: str(uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)),
    "hyperliquid": lambda n: str((n + 1) * 0x9E3779B97F4A7 % 10**15),
    "nobody-knows": lambda n: hashlib.sha256(str(n).encode()).hexdigest(),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def a_trade_a_minute(exchange: str = "binance") -> list[Trade]:
    return [
        Trade(
            START + n * MINUTE + 7,
            100.0 + n % 11,
            0.5 + n % 3,
            id=IDS[exchange](n),
            side=("buy", "sell")[n % 2],
        )
        for n in range(MINUTES)
    ]


def each_right_behind_itself(trades: list[Trade]) -> Arrivals:
    return [(t.us, t) for t in trades for _ in range(2)]


def all_again_at_the_end(trades: list[Trade]) -> Arrivals:
    return [(t.us, t) for t in trades] + [(END - SECOND, t) for t in trades]


def feed_of(store: Store, feed: Feed, day: str = DAY) -> SettledFeed:
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled else None
    assert found is not None
    return found


@pytest.mark.parametrize("twice", [each_right_behind_itself, all_again_at_the_end])
@pytest.mark.parametrize("exchange", IDS)
def test_a_file_in_which_every_row_comes_twice_gives_the_candles_of_its_trades(
    exchange: str, twice: Callable[[list[Trade]], Arrivals], store: Store
) -> None:
    feed, trades = Feed(exchange, "trades", "BTCUSDT"), a_trade_a_minute(exchange)
    bring(store, DAY, twice(trades), feed)
    candles = made(store, DAY, ["1m", "1d"])
    assert_same(as_numbers(candles), plain_rows(trades))
    assert candles["trade_count"].to_pylist()[-1] == MINUTES
    assert partials_of(store, DAY, feed).consistency == 1.0
    verdict = feed_of(store, feed).verdict
    assert (verdict.outcome, verdict.rows, verdict.repeated_rows) == ("publish", 2 * MINUTES, MINUTES)
    assert (
        f"{MINUTES} rows repeat an id with the same payload: each counts once in candles" in verdict.warnings
    )


def plain_rows(trades: list[Trade]) -> dict[tuple[str, str, int], dict[str, float]]:
    return plain_candles([replace(t, id=None) for t in trades], DAY, ["1m", "1d"])


def test_the_lake_keeps_the_rows_as_they_were_delivered(store: Store) -> None:
    feed = Feed("binance", "trades", "BTCUSDT")
    bring(store, DAY, each_right_behind_itself(a_trade_a_minute()), feed)
    accepted = feed_of(store, feed).accepted
    assert accepted is not None
    with store.local_copy(paths.ticks_data(feed, DAY, accepted.content)) as path:
        assert pq.read_metadata(path).num_rows == 2 * MINUTES


def test_rows_without_ids_stay_as_they_are(store: Store) -> None:
    """Three equal rows may be one order that was filled in three equal parts."""
    feed = Feed("coinbase", "trades", "BTC-USDT")
    trades = [replace(t, id=None) for t in a_trade_a_minute()]
    bring(store, DAY, each_right_behind_itself(trades), feed)
    assert made(store, DAY, ["1d"])["trade_count"].to_pylist() == [2 * MINUTES]
    verdict = feed_of(store, feed).verdict
    assert (verdict.outcome, verdict.quality, verdict.repeated_rows) == ("publish", 1.0, 0)
    counted = f"{2 * MINUTES} of {2 * MINUTES} rows without ids equal another one"
    assert any(warning.startswith(counted) for warning in verdict.warnings)


def test_a_few_equal_rows_without_ids_say_nothing(store: Store) -> None:
    """Kraken repeated 15 of 965 rows."""
    feed = Feed("kraken", "trades", "BTC-USDT")
    trades = [replace(t, id=None) for t in a_trade_a_minute()]
    bring(store, DAY, each_right_behind_itself(trades[:15]) + [(t.us, t) for t in trades[15:]], feed)
    assert not any("equal another" in warning for warning in feed_of(store, feed).verdict.warnings)


@pytest.mark.parametrize(
    "changes", [{"us": START + 8}, {"price": 99.0}, {"amount": 9.0}, {"side": "sell"}, {"side": "unknown"}]
)
@pytest.mark.parametrize("exchange", ["hyperliquid", "nobody-knows"])
def test_the_same_id_with_another_payload_is_another_trade(
    exchange: str, changes: dict[str, Any], store: Store
) -> None:
    """Three rows of one id and two payloads: the third repeats the first."""
    feed, trades = Feed(exchange, "trades", "BTCUSDT"), a_trade_a_minute(exchange)
    first, other = trades[0], replace(trades[0], **changes)
    rows = [(START + 9, t) for t in (first, other, first)] + [(t.us, t) for t in trades[1:]]
    bring(store, DAY, rows, feed)
    assert_same(as_numbers(made(store, DAY, ["1m", "1d"])), plain_rows([first, other, *trades[1:]]))
    assert partials_of(store, DAY, feed).consistency == 1.0
    verdict = feed_of(store, feed).verdict
    assert (verdict.outcome, verdict.quality, verdict.repeated_rows) == ("publish", 1.0, 1)


@pytest.mark.parametrize("exchange", IDS)
def test_over_midnight_they_count_once_too(exchange: str, store: Store) -> None:
    """The file of the next day begins with the last trades of the day before, which are sent again."""
    feed = Feed(exchange, "trades", "BTCUSDT")
    name = IDS[exchange]
    late = [Trade(START - SECOND + n, 100.0 + n, 1.0, id=name(n)) for n in range(30)]
    ours = [Trade(START + SECOND + n, 100.0 + n, 1.0, id=name(n)) for n in range(30, 90)]
    bring(store, BEFORE, [(t.us, t) for t in late], feed)
    bring(store, DAY, [(START + n, t) for n, t in enumerate(late)] + [(t.us, t) for t in ours], feed)
    assert made(store, BEFORE, ["1d"])["trade_count"].to_pylist() == [30]
    assert made(store, DAY, ["1d"])["trade_count"].to_pylist() == [60]
    assert partials_of(store, DAY, feed).consistency == 1.0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("exchange", IDS)
def test_a_trade_in_the_files_of_both_names_of_a_market_counts_once(
    exchange: str, order: tuple[int, int], store: Store
) -> None:
    """The symbol is renamed at noon; both files have the trades of the hour around it."""
    trades = a_trade_a_minute(exchange)
    files = (("XBT-USDT", trades[:750]), ("BTC-USDT", trades[690:]))
    for n in order:
        name, rows = files[n]
        bring(store, DAY, [(t.us, t) for t in rows], Feed(exchange, "trades", name), market="BTC-USDT")
    assert_same(as_numbers(made(store, DAY, ["1m", "1d"])), plain_rows(trades))
    for name, _ in files:
        assert partials_of(store, DAY, Feed(exchange, "trades", name)).consistency == 1.0


@pytest.mark.parametrize("exchange", IDS)
def test_a_trade_that_comes_again_under_the_new_name_of_a_market_counts_once(
    exchange: str, store: Store
) -> None:
    """The symbol is renamed at midnight."""
    days = [
        Trade(START + (n - MINUTES) * MINUTE, 100.0 + n % 7, id=IDS[exchange](n)) for n in range(2 * MINUTES)
    ]
    old, new = Feed(exchange, "trades", "XBT-USDT"), Feed(exchange, "trades", "BTC-USDT")
    bring(store, BEFORE, [(t.us, t) for t in days[:MINUTES]], old, market="BTC-USDT")
    again = [(START, t) for t in days[MINUTES - 4 : MINUTES]]
    bring(store, DAY, again + [(t.us, t) for t in days[MINUTES:]], new, market="BTC-USDT")
    for day, feed in ((BEFORE, old), (DAY, new)):
        assert made(store, day, ["1d"])["trade_count"].to_pylist() == [MINUTES]
        assert partials_of(store, day, feed).consistency == 1.0


def test_equal_rows_without_ids_in_the_files_of_both_names_are_two_trades(store: Store) -> None:
    trades = [replace(t, id=None) for t in a_trade_a_minute()]
    for name in ("XBT-USDT", "BTC-USDT"):
        rows = [(t.us, t) for t in trades]
        bring(store, DAY, rows[: 1000 if name[0] == "X" else None], Feed("kraken", "trades", name),
              market="BTC-USDT")  # fmt: skip
    assert made(store, DAY, ["1d"])["trade_count"].to_pylist() == [MINUTES + 1000]


@pytest.mark.parametrize("exchange", IDS)
def test_a_file_without_repeats_is_read_once(exchange: str, store: Store) -> None:
    feed = Feed(exchange, "trades", "BTCUSDT")
    bring(store, BEFORE, [(START - SECOND, Trade(START - SECOND, 1.0, 1.0, id=IDS[exchange](MINUTES)))], feed)
    bring(store, DAY, [(t.us, t) for t in a_trade_a_minute(exchange)], feed)
    (file,) = files(store, DAY)
    assert (file.repeats, file.overlaps) == (False, ())
