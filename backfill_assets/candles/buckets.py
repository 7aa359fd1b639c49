"""Looking at the states of a day's buckets, and a series without holes where the emptiness is proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, TextIO

from backfill_assets.candles.day import merged_candles
from backfill_assets.candles.measures import ensure_measures
from backfill_assets.candles.query import market_candles
from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.days import MICROSECONDS_PER_SECOND, shift, start_us
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake.store import Store
from backfill_assets.quality.coverage import STATES, State, bucket_states, decode, load_coverage
from backfill_assets.quality.day import judge
from backfill_assets.settings import TIMEFRAMES, Settings

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class MarketBuckets:
    """States of one market's buckets of one timeframe, from the day's first to its last."""

    exchange: str
    symbol: str
    timeframe: str
    states: tuple[State, ...]
    #: Whether the first and the last bucket may still gain trades from files of the neighbouring days.
    provisional: bool

    def runs(self) -> Iterator[tuple[State, bool, int, int]]:
        """Runs of one state: state, provisional, first bucket, last bucket."""
        last = len(self.states) - 1
        marked = [(s, self.provisional and i in (0, last)) for i, s in enumerate(self.states)]
        position = 0
        for (state, provisional), run in groupby(marked):
            length = sum(1 for _ in run)
            yield state, provisional, position, position + length - 1
            position += length


def buckets(
    store: Store,
    settings: Settings,
    day: str,
    timeframe: str,
    exchange: str | None = None,
    symbol: str | None = None,
) -> list[MarketBuckets]:
    """States of every market of the day, or of those named, by exchange and symbol.

    Raises
    ------
    PermanentFailure
        No such timeframe, or the day has no such market.
    """
    if timeframe not in TIMEFRAMES:
        msg = f"'{timeframe}' is no timeframe: choose from {', '.join(TIMEFRAMES)}"
        raise PermanentFailure(msg)
    judged = judge(store, day, settings.thresholds)
    if not judged.feeds:
        msg = f"the lake {store.uri} has nothing of {day}: run the day first"
        raise PermanentFailure(msg)
    ensure_measures(store, day, settings)
    found = []
    for feed in judged.feeds:
        record = load_coverage(store, feed.feed, day) if feed.feed.data_type == "trades" else None
        for name, runs in (record.symbols if record else {}).items():
            if exchange in (None, feed.feed.exchange) and symbol in (None, name):
                states = tuple(bucket_states(decode(runs), timeframe))
                found.append(
                    MarketBuckets(feed.feed.exchange, name, timeframe, states, provisional=not judged.sealed)
                )
    if not found:
        wanted = " ".join(name for name in (exchange, symbol) if name)
        msg = f"{day} has no market {wanted}: leave --exchange and --symbol out to see all"
        raise PermanentFailure(msg)
    return sorted(found, key=lambda b: (b.exchange, b.symbol))


def write_buckets(found: list[MarketBuckets], day: str, out: TextIO) -> None:
    """One market run by run; several as counts of each state."""
    if len(found) == 1:
        step_us = TIMEFRAMES[found[0].timeframe] * MICROSECONDS_PER_SECOND
        for state, provisional, first, last in found[0].runs():
            times = [start_us(day) + first * step_us, start_us(day) + (last + 1) * step_us]
            shown = " ".join(_minute(time_us) for time_us in times)
            mark = "  provisional" if provisional else ""
            out.write(f"{shown}  {last - first + 1:5}  {state}{mark}\n")
        return
    names = [f"{b.exchange}/{b.symbol}" for b in found]
    width = max(len(name) for name in names)
    out.write(f"{'':{width}}  {'  '.join(STATES)}\n")
    for name, market in zip(names, found, strict=True):
        counts = "  ".join(f"{market.states.count(state):{len(state)}}" for state in STATES)
        out.write(f"{name:{width}}  {counts}\n")


def filled_candles(
    store: Store, settings: Settings, day: str, exchange: str, symbol: str, timeframe: str
) -> pa.Table:
    """Candles of one market with a flat one, without volume, in every bucket that is proven to be empty.

    Its prices and its vwap are the close before it, its trade times its own start. Buckets that are empty
    without proof stay away, and so do those before the first known price.
    """
    import pyarrow as pa

    real = market_candles(store, settings, day, exchange, symbol, timeframe).to_pylist()
    market = buckets(store, settings, day, timeframe, exchange, symbol)[0]
    by_time = {row["open_time"]: row for row in real}
    close = _close_before(store, settings, day, exchange, symbol)
    step, rows = TIMEFRAMES[timeframe], []
    for index, state in enumerate(market.states):
        seconds = start_us(day) // MICROSECONDS_PER_SECOND + index * step
        opened = datetime.fromtimestamp(seconds, tz=UTC)
        row = by_time.get(opened)
        if row is not None:
            rows.append(row)
            close = row["close"]
        elif state == "proven_empty" and close is not None:
            rows.append(
                {
                    "date": opened.date(),
                    "exchange": exchange,
                    "symbol": symbol,
                    "timeframe": timeframe,
                    "open_time": opened,
                    **dict.fromkeys(("open", "high", "low", "close", "vwap"), close),
                    **dict.fromkeys(("volume", "quote_volume", "buy_volume", "sell_volume"), 0.0),
                    "trade_count": 0,
                    "first_trade_time": opened,
                    "last_trade_time": opened,
                }
            )
    return pa.Table.from_pylist(rows, schema=CANDLE_SCHEMA)


def _close_before(store: Store, settings: Settings, day: str, exchange: str, symbol: str) -> float | None:
    """Last price of the day before; None if the lake has none."""
    rows = merged_candles(store, shift(day, -1), settings, ["1d"], exchange).to_pylist()
    found = [float(row["close"]) for row in rows if row["symbol"] == symbol]
    return found[0] if found else None


def _minute(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us // MICROSECONDS_PER_SECOND, tz=UTC):%Y-%m-%dT%H:%M}"
