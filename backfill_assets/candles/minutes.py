"""The state of every minute of a day's markets, from the candles and the evidence of the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from backfill_assets.days import MICROSECONDS_PER_MINUTE, end_us, start_us
from backfill_assets.quality.bucket_states import Evidence, encode, minute_states
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.settled import SettledDay, SettledFeed, SymbolEvidence
from backfill_assets.quality.window import Range
from backfill_assets.settings import BASE_TIMEFRAME

if TYPE_CHECKING:
    import polars as pl

#: Minutes with a candle, and the low and the high of each.
Traded = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]
_NOTHING: Final[Traded] = (np.empty(0, np.int64), np.empty(0), np.empty(0))


def minutes_of_day(
    settled: SettledDay, neighbours: Sequence[SettledDay], candles: pl.DataFrame
) -> dict[str, FeedMinutes]:
    """Return the states by feed of trades, accepted or not.

    Parameters
    ----------
    neighbours
        The settled days before and after: gaps of their ids may reach into the day, and spikes of their files
        may set a high or low of the day.
    candles
        The day's candles, of every timeframe.
    """
    day, traded = settled.day, _traded(candles, start_us(settled.day))
    unconfirmed = _unconfirmed([*neighbours, settled])
    found = {}
    for feed in settled.feeds:
        if not feed.feed.type.makes_candles:
            continue
        out = tuple((first, after - 1) for first, after in feed.verdict.context.outages)
        symbols, flagged = {}, {}
        counted = {name for _, name in settled.counted_symbols(feed)}
        for symbol, evidence in sorted(feed.evidence.items()):
            if symbol not in counted:
                continue
            market = traded.get((feed.feed.exchange, symbol), _NOTHING)
            lost = (*evidence.lost, *_reaching(feed, symbol, neighbours, day))
            states = minute_states(market[0], Evidence(lost, evidence.proven, out), start_us(day))
            symbols[symbol] = encode(states)
            minutes = _set_by(unconfirmed.get((str(feed.feed), symbol), ()), market, start_us(day))
            if minutes:
                flagged[symbol] = minutes
        found[str(feed.feed)] = FeedMinutes(symbols=symbols, flagged=flagged)
    return found


def _traded(candles: pl.DataFrame, start: int) -> dict[tuple[str, str], Traded]:
    """The traded minutes of each market."""
    import polars as pl

    minute = ((pl.col("open_time").dt.epoch("us") - start) // MICROSECONDS_PER_MINUTE).alias("minute")
    base = candles.lazy().filter(pl.col("timeframe") == BASE_TIMEFRAME)
    markets = base.group_by("exchange", "symbol").agg(minute, "low", "high").collect()
    return {
        (exchange, symbol): (minutes.to_numpy(), low.to_numpy(), high.to_numpy())
        for exchange, symbol, minutes, low, high in zip(*markets, strict=True)
    }


def _unconfirmed(days: Sequence[SettledDay]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Time and price of the spikes that no witness has confirmed, by feed and symbol."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for settled in days:
        for feed in settled.feeds:
            for symbol, evidence in feed.evidence.items():
                if evidence.unconfirmed:
                    found.setdefault((str(feed.feed), symbol), []).extend(evidence.unconfirmed)
    return found


def _reaching(
    feed: SettledFeed, symbol: str, neighbours: Sequence[SettledDay], day: str
) -> tuple[Range, ...]:
    """Gaps of the neighboring days' ids that reach into the day: files are split by arrival."""
    first, last = start_us(day), end_us(day) - 1
    beside = [found for n in neighbours if (found := n.feed(feed.feed)) is not None]
    nothing = SymbolEvidence()
    return tuple(
        gap
        for found in beside
        for gap in found.evidence.get(symbol, nothing).reaching
        if gap[0] <= last and gap[1] >= first
    )


def _set_by(spikes: Sequence[tuple[int, float]], market: Traded, start: int) -> tuple[int, ...]:
    """Minutes of the day whose low or high is the price of a spike in them."""
    minutes, low, high = market
    found = set()
    for time_us, price in spikes:
        minute = (time_us - start) // MICROSECONDS_PER_MINUTE
        found.update(minutes[(minutes == minute) & ((low == price) | (high == price))].tolist())
    return tuple(sorted(found))
