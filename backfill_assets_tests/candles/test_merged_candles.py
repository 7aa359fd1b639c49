"""Partials of three files become a day: every trade counts once, at every timeframe, with the same bits."""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backfill_assets.candles.merge import day_of_candles
from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.settings import TIMEFRAMES
from backfill_assets_tests.candles.candle_samples import (
    AFTER,
    BEFORE,
    DAY,
    END,
    MINUTE,
    SECOND,
    START,
    Trade,
    as_numbers,
    assert_same,
    numbered,
    partials_of,
    plain_candles,
)

DEFAULTS = ("1m", "5m", "15m", "1h", "4h", "1d")


def market(seed: int = 1, count: int = 3000) -> list[Trade]:
    """A day of trades of two symbols at odd prices, ordered by time."""
    chance = random.Random(seed)
    return sorted(
        (
            Trade(
                START + chance.randrange(END - START),
                round(chance.uniform(0.9, 1.1) * 42_000, 2),
                round(chance.expovariate(3) + 1e-8, 8),
                side=chance.choice(["buy", "sell", "unknown"]),
                symbol=chance.choice(["BTC-USDT", "ETH-USDT"]),
            )
            for _ in range(count)
        ),
        key=lambda t: t.us,
    )


def test_every_timeframe_is_what_plain_python_makes_of_the_trades(tmp_path: Path) -> None:
    trades = numbered(market())
    table = day_of_candles(DAY, [partials_of(tmp_path, trades)], list(TIMEFRAMES))
    assert table.schema.equals(CANDLE_SCHEMA)
    assert_same(as_numbers(table), plain_candles(trades, DAY, list(TIMEFRAMES)))


def test_rows_are_sorted_by_market_then_timeframe_then_time(tmp_path: Path) -> None:
    table = day_of_candles(DAY, [partials_of(tmp_path, market())], ("1d", "1m", "1h"))
    keys = [
        (r["exchange"], r["symbol"], TIMEFRAMES[r["timeframe"]], r["open_time"]) for r in table.to_pylist()
    ]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert set(table["date"].to_pylist()) == {date(2024, 1, 2)}
    assert table["open_time"].num_chunks == 1


@pytest.mark.parametrize(
    ("offset", "minute", "hour"),
    [
        (0, 0, 0),
        (MINUTE - 1, 0, 0),
        (MINUTE, MINUTE, 0),
        (60 * MINUTE - 1, 59 * MINUTE, 0),
        (60 * MINUTE, 60 * MINUTE, 60 * MINUTE),
        (END - START - 1, END - START - MINUTE, END - START - 60 * MINUTE),
    ],
)
def test_a_bucket_holds_its_start_and_not_its_end(
    offset: int, minute: int, hour: int, tmp_path: Path
) -> None:
    table = day_of_candles(DAY, [partials_of(tmp_path, [Trade(START + offset)])], ("1m", "1h", "1d"))
    opens = [int(t.timestamp() * SECOND) - START for t in table["open_time"].to_pylist()]
    assert opens == [minute, hour, 0]


def test_empty_buckets_have_no_row(tmp_path: Path) -> None:
    trades = [Trade(START), Trade(START + 10 * MINUTE)]
    assert day_of_candles(DAY, [partials_of(tmp_path, trades)], ("1m", "5m")).num_rows == 4


@pytest.mark.parametrize("offset", [-1, END - START])
def test_trades_of_the_neighbours_days_are_not_in_this_day(offset: int, tmp_path: Path) -> None:
    partials = partials_of(tmp_path, [Trade(START + offset)])
    assert partials.num_rows == 1
    assert day_of_candles(DAY, [partials], DEFAULTS).equals(CANDLE_SCHEMA.empty_table())


def test_a_day_without_files_is_a_table_without_rows() -> None:
    assert day_of_candles(DAY, [], DEFAULTS).equals(CANDLE_SCHEMA.empty_table())


def test_a_minute_split_over_three_files_is_one_candle(tmp_path: Path) -> None:
    late = numbered(
        [Trade(START + 5 * SECOND, 90.0, 1.0), Trade(START + 9 * SECOND, 105.0, 2.0, side="sell")], 50
    )
    before = numbered([Trade(START, 100.0, 4.0)], 20)
    after = numbered([Trade(START + 7 * SECOND, 120.0, 8.0), Trade(START + 10 * SECOND, 95.0, 16.0)], 90)
    # The files of both neighbor days may have minutes of this day; the day after rarely has such early ones.
    files = [
        partials_of(tmp_path, before, day=BEFORE, name="1"),
        partials_of(tmp_path, late, name="2"),
        partials_of(tmp_path, after, name="3"),
    ]
    candle = day_of_candles(DAY, files, ("1m",)).to_pylist()
    assert len(candle) == 1
    assert [candle[0][c] for c in ("open", "high", "low", "close")] == [100.0, 120.0, 90.0, 95.0]
    assert [candle[0][c] for c in ("volume", "buy_volume", "sell_volume")] == [31.0, 29.0, 2.0]
    assert candle[0]["trade_count"] == 5
    assert candle[0]["vwap"] == (400 + 90 + 210 + 960 + 1520) / 31
    assert candle[0]["first_trade_time"] == datetime(2024, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("earlier", "later", "first", "last"),
    [
        # At equal times the id decides, in any file.
        ("7", "8", 1.0, 2.0),
        ("8", "7", 2.0, 1.0),
        # Without ids the file of the earlier day comes first.
        (None, None, 1.0, 2.0),
    ],
)
def test_ties_across_files_go_by_id_and_then_by_the_files_day(
    earlier: str | None, later: str | None, first: float, last: float, tmp_path: Path
) -> None:
    files = [
        partials_of(tmp_path, [Trade(START, 1.0, id=earlier)], day=BEFORE, name="1"),
        partials_of(tmp_path, [Trade(START, 2.0, id=later)], name="2"),
    ]
    candle = day_of_candles(DAY, files, ("1m", "1d")).to_pylist()
    assert [(c["open"], c["close"]) for c in candle] == [(first, last)] * 2


def test_a_renamed_symbol_is_one_market(tmp_path: Path) -> None:
    """Both names have the canonical symbol, so their files are merged like any two."""
    files = [
        partials_of(tmp_path, [Trade(START, 1.0)], name="XBT"),
        partials_of(tmp_path, [Trade(START + 1, 2.0)], name="BTC"),
    ]
    candle = day_of_candles(DAY, files, ("1m",)).to_pylist()
    assert [(c["symbol"], c["open"], c["close"], c["trade_count"]) for c in candle] == [
        ("BTC-USDT", 1.0, 2.0, 2)
    ]


def test_markets_of_two_exchanges_stay_apart(tmp_path: Path) -> None:
    ours = partials_of(tmp_path, [Trade(START)])
    theirs = ours.set_column(0, "exchange", pa.array(["kraken"])).cast(ours.schema)
    assert day_of_candles(DAY, [theirs, ours], ("1m",))["exchange"].to_pylist() == ["binance", "kraken"]


def test_the_order_of_timeframes_and_what_else_is_asked_for_change_no_bit(tmp_path: Path) -> None:
    partials = [partials_of(tmp_path, numbered(market()))]
    whole = day_of_candles(DAY, partials, DEFAULTS)
    assert day_of_candles(DAY, partials, DEFAULTS[::-1]).equals(whole)
    for timeframe in DEFAULTS:
        alone = day_of_candles(DAY, partials, (timeframe,))
        assert alone.equals(whole.filter(pa.compute.equal(whole["timeframe"], timeframe)).combine_chunks())


def test_splitting_a_file_at_any_row_keeps_sums_to_a_billionth(tmp_path: Path) -> None:
    trades = numbered(market(count=400))
    whole = as_numbers(day_of_candles(DAY, [partials_of(tmp_path, trades)], DEFAULTS))
    for cut in (1, 13, 200, 399):
        files = [
            partials_of(tmp_path, trades[:cut], name="1"),
            partials_of(tmp_path, trades[cut:], name="2"),
        ]
        assert_same(as_numbers(day_of_candles(DAY, files, DEFAULTS)), whole)


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, Trade]]:
    """Trades around both midnights with their arrival times, up to four minutes off."""
    has_ids = draw(st.booleans())
    found = []
    for n in range(draw(st.integers(1, 25))):
        near = draw(st.sampled_from([START, START + 3 * MINUTE, END, END - MINUTE]))
        us = near + draw(st.integers(-5, 5)) * draw(st.sampled_from([1, SECOND, 20 * SECOND]))
        lag = draw(st.sampled_from([0, 1, 5 * SECOND, 4 * MINUTE, -4 * MINUTE]))
        price = draw(st.sampled_from([0.0, None]) if draw(st.integers(0, 9)) == 0 else st.floats(1e-8, 1e8))
        trade = Trade(
            us,
            price,
            draw(st.floats(1e-8, 1e8)),
            id=str(draw(st.integers(1, 10**6)) * 100 + n) if has_ids else None,
            side=draw(st.sampled_from(["buy", "sell", "unknown", None])),
            symbol=draw(st.sampled_from(["BTC-USDT", "ETH-USDT"])),
        )
        found.append((us + lag, trade))
    return sorted(found, key=lambda arrival: arrival[0])


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(found=arrivals())
@example(
    found=[(START - 1, Trade(START - 1, 2.0)), (START, Trade(START - 1, 3.0)), (END, Trade(END - 1, 4.0))]
)
def test_files_split_by_arrival_give_the_candles_of_one_file_with_all_trades(
    found: list[tuple[int, Trade]],
) -> None:
    by_day: dict[str, list[Trade]] = {BEFORE: [], DAY: [], AFTER: []}
    for arrived, trade in found:
        by_day[BEFORE if arrived < START else DAY if arrived < END else AFTER].append(trade)
    trades = [trade for _, trade in found]
    with tempfile.TemporaryDirectory() as folder:
        files = [partials_of(Path(folder), rows, day=day, name=day) for day, rows in by_day.items()]
        ours = day_of_candles(DAY, files, DEFAULTS)
        whole = day_of_candles(DAY, [partials_of(Path(folder), trades)], DEFAULTS)
        again = day_of_candles(DAY, files, DEFAULTS)
    assert_same(as_numbers(ours), as_numbers(whole))
    assert_same(as_numbers(ours), plain_candles(trades, DAY, DEFAULTS))
    assert again.equals(ours)
