"""Trades of one microsecond: the order of rows decides, except where a law says that ids are an order."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake.local import LocalStore
from backfill_assets_tests.candles.candle_lake import bring, made, partials_of
from backfill_assets_tests.candles.candle_samples import DAY, MINUTE, START, Trade

#: Ids of three trades of one microsecond in the order of rows: neither up nor down.
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
    """On this day nothing is known of kraken's ids."""
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
