"""Trades of one microsecond: the order of rows decides, unless a law says that ids are in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_assets.candles.query import read_made
from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.lake.local import LocalStore
from backfill_assets_tests.candles.candle_lake import bring, made, partials_of
from backfill_assets_tests.candles.candle_samples import DAY, END, MINUTE, SECOND, START, Trade

#: Ids of three trades of one microsecond in the order of rows: neither increasing nor decreasing.
OF_ROWS = (20_000_000_002, 20_000_000_003, 20_000_000_001)
BY_ROW, BY_ID = (101.0, 103.0), (103.0, 102.0)


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        ("hyperliquid", BY_ROW),
        ("upbit", BY_ROW),
        ("nobody-knows", BY_ROW),
        ("kraken", BY_ROW),
        ("binance", BY_ID),
        ("binance-futures", BY_ID),
    ],
)
def test_open_and_close_are_those_of_the_venues_order(
    exchange: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    """No law of kraken's ids covers this day."""
    store, feed = LocalStore(tmp_path / "lake"), Feed(exchange, "trades", "BTCUSDT")
    trades = [
        Trade(START + minute * MINUTE, 101.0 + n, 1.0, id=str(base + 3 * minute))
        for minute in range(1440)
        for n, base in enumerate(OF_ROWS)
    ]
    bring(store, DAY, [(t.us, t) for t in trades], feed)
    candles = made(store, DAY, ["1m"])
    pairs = set(zip(candles["open"].to_pylist(), candles["close"].to_pylist(), strict=True))
    assert (candles.num_rows, pairs) == (1440, {expected})
    assert partials_of(store, DAY, feed).consistency == 1.0


@pytest.mark.parametrize("with_ids", [(True, True), (True, False), (False, True), (False, False)])
def test_over_midnight_the_files_decide_where_one_of_them_has_no_ids(
    with_ids: tuple[bool, bool], tmp_path: Path
) -> None:
    """The only trades of the day's last minute have one time; the second came in the next day's file."""
    store = LocalStore(tmp_path / "lake")
    one, other = (
        Trade(END - SECOND, price, 1.0, id=str(2000 + n) if with_ids[n] else None)
        for n, price in enumerate((101.0, 102.0))
    )
    own = [
        Trade(START + n * MINUTE, 100.0, 1.0, id=str(561 + n) if with_ids[0] else None) for n in range(1439)
    ]
    late = Trade(END + SECOND, 100.0, 1.0, id="2002" if with_ids[1] else None)
    bring(store, DAY, [(t.us, t) for t in (*own, one)])
    bring(store, shift(DAY, 1), [(END + 1, other), (late.us, late)])
    candles = made(store, DAY, ["1m"]).to_pylist()
    assert [candles[-1][name] for name in ("open", "close", "trade_count")] == [101.0, 102.0, 2]
    made(store, shift(DAY, 1))
    coverage = read_made(store, shift(DAY, 1), "coverage").sort_by("first_open_time").to_pylist()
    assert coverage[0]["previous_close"] == 102.0
