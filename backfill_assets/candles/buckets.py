"""Read the states of a day's buckets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from backfill_assets.candles.query import insist_on_timeframe, made_day
from backfill_assets.days import MICROSECONDS_PER_SECOND, start_us
from backfill_assets.failures import PermanentFailure, printable
from backfill_assets.feeds import Feed
from backfill_assets.lake.store import Store
from backfill_assets.quality.bucket_states import (
    STATES,
    WITH_CANDLE,
    Codes,
    State,
    bucket_codes,
    codes_of,
    decode,
    states_of,
    together,
)
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES

if TYPE_CHECKING:
    pass


class Run(NamedTuple):
    """A run of equal buckets: their state, and the positions of the first and the last."""

    state: State
    provisional: bool
    #: For a bucket with trades: whether an unconfirmed spike set the high or low of one of its minutes.
    flagged: bool | None
    first: int
    last: int


class Alike(NamedTuple):
    """Runs of one market as arrays of equal length; ``flagged`` is false where there is no candle."""

    codes: Codes
    provisional: npt.NDArray[np.bool_]
    flagged: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MarketBuckets:
    """States of one market's buckets of one timeframe, from the day's first to its last."""

    exchange: str
    symbol: str
    timeframe: str
    codes: Codes
    #: Whether the first and the last bucket may still gain trades from files of the neighboring days.
    provisional: bool
    #: Positions of the buckets in which a minute's high or low is the price of an unconfirmed spike.
    flagged: frozenset[int] = frozenset()

    @property
    def states(self) -> tuple[State, ...]:
        """The states by name."""
        return states_of(self.codes)

    def runs(self) -> list[Run]:
        """Runs of equal buckets, in order of time."""
        alike = self.alike()
        columns = (alike.codes, alike.provisional, alike.flagged, alike.first, alike.last)
        return [
            Run(STATES[code], provisional, flagged if STATES[code] in WITH_CANDLE else None, first, last)
            for code, provisional, flagged, first, last in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def alike(self) -> Alike:
        """``runs`` as arrays."""
        provisional = np.zeros(len(self.codes), dtype=bool)
        provisional[[0, -1]] = self.provisional
        flagged = np.zeros(len(self.codes), dtype=bool)
        flagged[list(self.flagged)] = True
        flagged &= np.isin(self.codes, codes_of(WITH_CANDLE))
        changes = [np.diff(column) != 0 for column in (self.codes, provisional, flagged)]
        first = np.concatenate(([0], np.flatnonzero(np.logical_or.reduce(changes)) + 1))
        last = np.concatenate((first[1:] - 1, [len(self.codes) - 1]))
        return Alike(self.codes[first], provisional[first], flagged[first], first, last)


def buckets(
    store: Store,
    day: str,
    timeframe: str,
    exchange: str | None = None,
    symbol: str | None = None,
) -> list[MarketBuckets]:
    """Return the states of every market of the day, or of the named markets, by exchange and symbol.

    Raises
    ------
    PermanentFailure
        The timeframe is unknown, the day has no candles, or the day does not have the market.
    """
    insist_on_timeframe(timeframe)
    settled, measures = made_day(store, day)
    found = [
        market
        for market in market_buckets(measures.minutes, [timeframe], settled.sealed_feeds)
        if exchange in (None, market.exchange) and symbol in (None, market.symbol)
    ]
    if not found:
        wanted = " ".join(name for name in (exchange, symbol) if name)
        msg = f"{day} has no market {wanted}: leave --exchange and --symbol out to see all"
        raise PermanentFailure(msg)
    return found


def market_buckets(
    by_feed: Mapping[str, FeedMinutes], timeframes: Sequence[str], sealed: Collection[str]
) -> list[MarketBuckets]:
    """Return the states of every market by exchange, symbol and timeframe.

    The states of a market that is in several files (a group beside a pair, or both names of a rename) are as
    certain as these files together allow.

    Parameters
    ----------
    by_feed
        Minutes by the feed's name.
    sealed
        Names of the feeds that nothing outside the day can change.
    """
    minutes: dict[tuple[str, str], list[Codes]] = {}
    flagged: dict[tuple[str, str], set[int]] = {}
    provisional: set[tuple[str, str]] = set()
    for feed, found in by_feed.items():
        exchange = Feed.parse(feed).exchange
        for symbol, text in found.symbols.items():
            minutes.setdefault((exchange, symbol), []).append(decode(text))
            flagged.setdefault((exchange, symbol), set()).update(found.flagged.get(symbol, ()))
            if feed not in sealed:
                provisional.add((exchange, symbol))
    return [
        MarketBuckets(
            exchange,
            symbol,
            timeframe,
            bucket_codes(together(minutes[exchange, symbol]), timeframe),
            provisional=(exchange, symbol) in provisional,
            flagged=frozenset(
                minute * TIMEFRAMES[BASE_TIMEFRAME] // TIMEFRAMES[timeframe]
                for minute in flagged[exchange, symbol]
            ),
        )
        for exchange, symbol in sorted(minutes)
        for timeframe in timeframes
    ]


def write_buckets(found: list[MarketBuckets], day: str, out: TextIO) -> None:
    """Write one market run by run, or several markets as counts of each state."""
    if len(found) == 1:
        step_us = TIMEFRAMES[found[0].timeframe] * MICROSECONDS_PER_SECOND
        for run in found[0].runs():
            times = [start_us(day) + run.first * step_us, start_us(day) + (run.last + 1) * step_us]
            shown = " ".join(_minute(time_us) for time_us in times)
            marks = ["provisional"] * run.provisional + ["flagged"] * bool(run.flagged)
            line = "  ".join([f"{shown}  {run.last - run.first + 1:5}", run.state, *marks])
            out.write(f"{line}\n")
        return
    names = [printable(f"{b.exchange}/{b.symbol}") for b in found]
    width = max(len(name) for name in names)
    out.write(f"{'':{width}}  {'  '.join(STATES)}\n")
    for name, market in zip(names, found, strict=True):
        counts = "  ".join(f"{market.states.count(state):{len(state)}}" for state in STATES)
        out.write(f"{name:{width}}  {counts}\n")


def _minute(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us // MICROSECONDS_PER_SECOND, tz=UTC):%Y-%m-%dT%H:%M}"
