"""Compares a day's candles with every source, in a document that the check, the page and ``doctor`` read.

The document has a hash of its inputs: if they are unchanged, no data file is opened. The run of a day changes
candles of the days around it, so these days are compared again, without asking a source.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.candles.build import REACH
from backfill_assets.candles.comparison import agrees
from backfill_assets.candles.query import made_day, read_made
from backfill_assets.days import shift
from backfill_assets.failures import DamagedFile, PermanentFailure
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.reference import ReferenceDirectory, directories_of
from backfill_assets.quality.settled import SettledDay
from backfill_assets.references.answers import CandleApi
from backfill_assets.references.compare import ANOTHER_MARKET, ComparedMarket, compare_market
from backfill_assets.references.conventions import OF_FILES
from backfill_assets.references.fetched import (
    REFERENCES_VERSION,
    FetchedDay,
    Market,
    fetch_day,
    load_fetched,
    read_fetched,
)
from backfill_assets.references.sources import apis_of
from backfill_assets.settings import BASE_TIMEFRAME, ComparisonSettings, Settings

if TYPE_CHECKING:
    import polars as pl

LOGGER: Final = logging.getLogger(__name__)
#: Most markets that one line names.
_NAMED: Final = 5


class DayComparison(Derived):
    """The comparison of a day with its sources.

    Attributes
    ----------
    inputs
        Hash of all inputs of the comparison.
    markets
        The compared markets, by source, exchange and symbol.
    partly
        One line for each reason why a source that keeps only the newest minutes did not give the whole day
        of a market, with the minutes that it gave.
    not_compared
        One line for each reason why a source has no candles of a market; these need no repair.
    failures
        One line for each source or service that failed or has nothing, with the remedy.
    """

    day: str
    inputs: str = ""
    markets: tuple[ComparedMarket, ...] = ()
    partly: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def low(self, limits: ComparisonSettings) -> list[ComparedMarket]:
        """The markets that agree too little."""
        return [one for one in self.markets if not agrees(one.model_dump(), limits)]


def load_comparison(store: Store, day: str) -> DayComparison | None:
    """Return the day's comparison; None if there is none."""
    return documents.load(store, paths.comparison(day), DayComparison)


def has_sources(limits: ComparisonSettings) -> bool:
    """Whether the settings name a source."""
    return bool(directories_of(limits) or apis_of(limits))


def compare_days(store: Store, day: str, settings: Settings) -> DayComparison | None:
    """Fetch the day's missing answers and compare it, then the days whose candles its run has changed.

    Returns
    -------
    DayComparison | None
        None if the settings name no source and never did.

    Raises
    ------
    PermanentFailure
        The day has no candles yet.
    """
    found = _compare(store, day, settings, may_ask=True)
    for other in (shift(day, days) for days in REACH):
        if load_comparison(store, other) is not None:
            try:
                _compare(store, other, settings, may_ask=False)
            except PermanentFailure as failure:
                LOGGER.warning("%s is not compared again beside %s: %s", other, day, failure)
    return found


def _compare(store: Store, day: str, settings: Settings, *, may_ask: bool) -> DayComparison | None:
    former = load_comparison(store, day)
    if not has_sources(settings.comparison) and former is None:
        return None
    settled, _ = made_day(store, day)
    markets = _traded_markets(settled)
    apis = apis_of(settings.comparison)
    fetched = [
        (api, fetch_day(store, api, day, markets) if may_ask else load_fetched(store, api.name, day))
        for api in apis
    ]
    exchanges = frozenset(f.feed.exchange for f in settled.feeds if f.feed.type.makes_candles)
    directories = directories_of(settings.comparison)
    work = _Work(store, day, settings.comparison, exchanges, markets, directories, fetched)
    inputs = work.inputs()
    if former is not None and former.inputs == inputs:
        return former
    made = work.made(inputs)
    documents.update(store, paths.comparison(day), DayComparison, lambda _: made)
    return made


def _traded_markets(settled: SettledDay) -> list[Market]:
    """Exchange and canonical symbol of every market whose trades count, sorted."""
    feeds = [f for f in settled.feeds if f.feed.type.makes_candles and f.accepted is not None]
    return sorted({(f.feed.exchange, name) for f in feeds for _, name in settled.counted_symbols(f)})


@dataclass(slots=True)
class _Work:
    """One day with its sources."""

    store: Store
    day: str
    limits: ComparisonSettings
    #: The exchanges of the day's feeds of trades, including feeds that do not count.
    exchanges: frozenset[str]
    #: The markets whose trades count.
    markets: Sequence[Market]
    directories: Sequence[ReferenceDirectory]
    fetched: Sequence[tuple[CandleApi, FetchedDay]]
    compared: list[ComparedMarket] = field(default_factory=list)
    #: Markets by the reason why they are compared in part, are not compared, or failed.
    part: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    absent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def inputs(self) -> str:
        """Hash of candles, answers, files and limits."""
        made = [load_measures(self.store, day) for day in (shift(self.day, -1), self.day)]
        parts: list[Any] = [
            REFERENCES_VERSION,
            self.limits.model_dump(mode="json"),
            sorted(self.exchanges),
            self.markets,
            [one.candles.content if one is not None and one.candles is not None else "" for one in made],
            [one.model_dump(mode="json") for _, one in self.fetched],
            [
                (one.trouble(), [one.digest(*market, self.day) for market in self.markets])
                for one in self.directories
            ],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def made(self, inputs: str) -> DayComparison:
        import polars as pl

        frame = pl.DataFrame(read_made(self.store, self.day, "candles"))
        frame = frame.filter(pl.col("timeframe") == BASE_TIMEFRAME)
        minutes: dict[Market, pl.DataFrame] = {
            (str(exchange), str(symbol)): part
            for (exchange, symbol), part in frame.partition_by("exchange", "symbol", as_dict=True).items()
        }
        for directory in self.directories:
            self._with_directory(directory, minutes)
        for api, fetched in self.fetched:
            self._with_api(api, fetched, minutes)
        return DayComparison(
            day=self.day,
            inputs=inputs,
            markets=tuple(self.compared),
            partly=tuple(_lines(self.part)),
            not_compared=tuple(_lines(self.absent)),
            failures=tuple(_lines(self.failed)),
        )

    def _with_directory(self, directory: ReferenceDirectory, minutes: dict[Market, pl.DataFrame]) -> None:
        if trouble := directory.trouble():
            self.failed[trouble] = []
            return
        for market in self.markets:
            if (ours := minutes.get(market)) is None:
                continue
            try:
                theirs = directory.minutes(*market, self.day)
            except PermanentFailure as failure:
                self.failed[str(failure)] = []
                continue
            if theirs is None:
                self.absent[f"{directory.key} has no file of the day"].append(_name(market))
            else:
                found = compare_market(ours, theirs, OF_FILES, self.limits)
                self._add(directory.key, market, found)

    def _with_api(self, api: CandleApi, fetched: FetchedDay, minutes: dict[Market, pl.DataFrame]) -> None:
        try:
            theirs = read_fetched(self.store, api.name, fetched)
        except DamagedFile as failure:
            self.failed[f"{failure}: the next run of the day asks {api.name} again"] = []
            return
        known = {one.market: one for one in fetched.markets}
        before: dict[Market, float] | None = None
        asked = [market for market in self.markets if market in minutes and api.asked_for(market[0])]
        if not any(map(api.asked_for, self.exchanges)):
            self.failed[
                f"comparison.sources: {api.name} names no exchange of the day: correct its exchanges"
            ] = []
        for market in asked:
            convention, answer = api.convention(market[0]), known.get(market)
            if convention is None:
                reason = (
                    f"{api.name}: how {market[0]} makes its candles is not known (references/conventions.py)"
                )
                self.absent[reason].append(_name(market))
                continue
            if answer is None:
                self.failed[f"{api.name} was not asked yet: the next run of the day asks it"].append(
                    _name(market)
                )
                continue
            reason = answer.reason if api.name in answer.reason[:40] else f"{api.name}: {answer.reason}"
            # A source that keeps only the newest minutes has given all that it has, and will not give more.
            if answer.is_out_of_reach or (answer.state == "partial" and convention.reach_minutes):
                self.part[reason].append(_name(market))
            elif answer.state == "absent":
                self.absent[reason].append(_name(market))
            elif answer.state != "whole":
                self.failed[reason].append(_name(market))
            if market in theirs:
                if convention.opens_at == "previous_close" and before is None:
                    before = self._closes_before()
                found = compare_market(
                    minutes[market],
                    theirs[market],
                    convention,
                    self.limits,
                    contract_size=answer.contract_size,
                    close_before=(before or {}).get(market),
                )
                self._add(api.name, market, found)
        if asked and all(m in known and known[m].is_unknown for m in asked if api.convention(m[0])):
            self.failed[
                f"{api.name} has none of the day's markets: correct or remove it in comparison.sources"
            ] = []

    def _add(self, source: str, market: Market, found: dict[str, Any]) -> None:
        exchange, symbol = market
        one = ComparedMarket(source=source, exchange=exchange, symbol=symbol, **found)
        self.compared.append(one)
        if not one.minutes:
            self.failed[f"{source} and this day have no minute in common"].append(_name(market))
        elif one.apart > ANOTHER_MARKET:
            reason = f"{source}: prices are {one.apart:.0%} apart, which looks like another market"
            self.failed[reason].append(_name(market))

    def _closes_before(self) -> dict[Market, float]:
        """Our last price of each market on the day before, if that day has candles."""
        import polars as pl

        before = shift(self.day, -1)
        measures = load_measures(self.store, before)
        if measures is None or measures.candles is None:
            return {}
        frame = pl.DataFrame(read_made(self.store, before, "candles"))
        last = (
            frame.filter(pl.col("timeframe") == BASE_TIMEFRAME)
            .sort("open_time")
            .group_by("exchange", "symbol")
        )
        closes = last.agg(pl.col("close").last()).iter_rows()
        return {(exchange, symbol): close for exchange, symbol, close in closes}


def _name(market: Market) -> str:
    return " ".join(market)


def _lines(reasons: dict[str, list[str]]) -> Iterator[str]:
    """Each reason once, with its first markets."""
    for reason, markets in reasons.items():
        named = ", ".join(markets[:_NAMED])
        more = f" and {len(markets) - _NAMED} more" if markets[_NAMED:] else ""
        yield f"{named}{more}{': ' if named else ''}{reason}"
