"""The feeds that a day must have: the universe of the settings, resolved as of the day.

Pure functions of settings and the vendor's metadata. A canonical symbol names a pair forever, but the data
set symbol behind it changes (Kraken's ``XBT/USDT`` became ``BTC/USDT`` on 2026-07-10). So the pair is looked
up by base and quote currency among the instruments listed on that day. Fetching and storing use feeds only.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import Final, TypeVar

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import GROUPED_SYMBOLS, ExpectedFeed, Feed
from backfill_assets.settings import UniverseEntry
from backfill_assets.tardis.metadata import (
    DatasetSymbol,
    ExchangeDetails,
    Instrument,
    InstrumentList,
    dataset_symbol,
    day_bounds,
    listed_on,
)

T = TypeVar("T")

GROUP_KINDS: Final = {"SPOT": "spot", "FUTURES": "future", "PERPETUALS": "perpetual", "OPTIONS": "option"}
GROUP_OF_KIND: Final = {kind: group for group, kind in GROUP_KINDS.items()}


@dataclass(frozen=True, order=True, slots=True)
class NotListed:
    """A configured combination that the vendor does not have on this day, though it has on others."""

    exchange: str
    data_type: str
    symbol: str
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class DayUniverse:
    """The feeds that the day must have, and the configured ones that do not exist on it; both sorted."""

    expected: tuple[ExpectedFeed, ...]
    not_listed: tuple[NotListed, ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    """One data set symbol in one stretch of time, with the instrument behind it as of the day."""

    instrument: Instrument
    dataset: DatasetSymbol
    #: Every pair that it ever had.
    canonicals: frozenset[str]
    #: Every symbol that its market ever had.
    markets: frozenset[str]
    #: Whether its rows are only in the file of its kind, as with Deribit's options, and not in its own.
    only_in_group: bool = False

    @property
    def symbol(self) -> str:
        return dataset_symbol(self.dataset.id)

    @property
    def column_values(self) -> frozenset[str]:
        """Possible values of the file's ``symbol`` column: the venue's own name, in either spelling."""
        ids = (self.instrument.id, self.instrument.dataset_id, self.dataset.id)
        return frozenset(name.upper() for name in ids if name)

    def has(self, data_type: str) -> bool:
        return not self.dataset.data_types or data_type in self.dataset.data_types

    def means(self, symbol: str) -> bool:
        """Whether the symbol stands for this listing as of the day."""
        return symbol in (GROUP_OF_KIND.get(self.instrument.type), self.instrument.canonical, *self.own_names)

    @property
    def own_names(self) -> tuple[str | None, ...]:
        """Names that no spot market has."""
        return () if self.instrument.type == "spot" else (self.instrument.market, self.symbol)

    def is_named(self, symbol: str) -> bool:
        """Whether the symbol is, or once was, the listing's pair or market, or is its data set symbol."""
        return symbol in self.canonicals or symbol in self.markets or symbol in self.own_names

    def listed(self, day: str) -> bool:
        return listed_on(self.dataset.available_since, self.dataset.available_to, day)

    def overlaps(self, other: _Listing) -> bool:
        ours, theirs = self.dataset, other.dataset
        return (ours.available_to is None or theirs.available_since < ours.available_to) and (
            theirs.available_to is None or ours.available_since < theirs.available_to
        )


def of_exchanges(universe: Sequence[UniverseEntry], exchanges: Collection[str]) -> list[UniverseEntry]:
    """The part of the universe for these exchanges."""
    own = [(entry, tuple(e for e in entry.exchanges if e in exchanges)) for entry in universe]
    return [entry.model_copy(update={"exchanges": those}) for entry, those in own if those]


def resolve(
    universe: Sequence[UniverseEntry],
    day: str,
    details: Mapping[str, ExchangeDetails],
    instruments: Mapping[str, InstrumentList],
) -> DayUniverse:
    """Resolve the universe as of a day.

    A symbol that is listed at another time is ``not_listed``. If a rename falls within the day, both files
    are expected. A symbol in an expected group has no file of its own, because its rows would count twice.

    Raises
    ------
    PermanentFailure
        An exchange has no metadata, a symbol never existed at the exchange (the message has the nearest
        names), or a pair stands for several contracts at the same time.
    """
    listings = {
        exchange: _listings(_known(details, exchange), _known(instruments, exchange), day)
        for exchange in sorted({exchange for entry in universe for exchange in entry.exchanges})
    }
    expected: dict[Feed, set[tuple[str, str]]] = {}
    not_listed: set[NotListed] = set()
    for entry in universe:
        for exchange, data_type in product(entry.exchanges, entry.data_types):
            keys = _keys([x for x in listings[exchange] if x.has(data_type) and x.listed(day)])
            for symbol in entry.symbols:
                candidates = _candidates(symbol, entry, exchange, listings[exchange])
                found = [c for c in candidates if c.has(data_type) and c.listed(day) and c.means(symbol)]
                is_group = symbol in GROUPED_SYMBOLS
                if is_group and not _serves_group(details[exchange], symbol, data_type, day):
                    found = []
                if not found:
                    lacking = _lacks_type(details[exchange], symbol, data_type, day) if is_group else ""
                    reason = lacking or _why_not(candidates, data_type)
                    not_listed.add(NotListed(exchange, data_type, symbol, reason))
                for listing in found if is_group else _preferred(found, entry, exchange, symbol):
                    feed = Feed(exchange, data_type, symbol if is_group else listing.symbol)
                    pairs = {(value, keys[listing.symbol]) for value in listing.column_values}
                    expected.setdefault(feed, set()).update(pairs)
    return DayUniverse(
        expected=tuple(
            ExpectedFeed(feed, tuple(sorted(pairs)))
            for feed, pairs in sorted(expected.items())
            if not any(pairs <= expected.get(group, set()) for group in groups_beside(feed))
        ),
        not_listed=tuple(sorted(not_listed)),
    )


def groups_beside(feed: Feed) -> list[Feed]:
    """Grouped feeds whose files may contain the rows of a single-symbol feed."""
    if feed.is_grouped:
        return []
    return [Feed(feed.exchange, feed.data_type, group) for group in GROUPED_SYMBOLS]


def _known(metadata: Mapping[str, T], exchange: str) -> T:
    if exchange not in metadata:
        close = difflib.get_close_matches(exchange, metadata)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else "correct universe.exchanges in the settings"
        )
        msg = f"unknown exchange '{exchange}': {hint}"
        raise PermanentFailure(msg)
    return metadata[exchange]


def _listings(details: ExchangeDetails, instruments: InstrumentList, day: str) -> list[_Listing]:
    """Return instruments with data sets, one entry for each stretch of time in which they have them."""
    stretches: dict[str, list[DatasetSymbol]] = {}
    for dataset in details.datasets.symbols:
        stretches.setdefault(dataset_symbol(dataset.id), []).append(dataset)
    groups = {GROUP_KINDS[d.id]: d for d in details.datasets.symbols if d.id in GROUP_KINDS}
    start, _ = day_bounds(day)
    ends = details.ended
    listings = []
    for instrument in instruments.instruments:
        own = stretches.get(instrument.dataset_symbol)
        group = groups.get(instrument.type)
        for dataset in own or ([_member(group, instrument)] if group else ()):
            # An instrument first listed during the day has its first values before the midnight that ends the
            # day.
            as_of_day = instrument.as_of(max(start, instrument.available_since))
            if ends is not None and (dataset.available_to is None or dataset.available_to > ends):
                dataset = dataset.model_copy(update={"available_to": ends})
            canonicals, markets = _names(instrument)
            listings.append(_Listing(as_of_day, dataset, canonicals, markets, only_in_group=own is None))
    return listings


def _member(group: DatasetSymbol, instrument: Instrument) -> DatasetSymbol:
    """The part of a kind's file about one instrument: the group's data types while it is listed."""
    return group.model_copy(
        update={
            "id": instrument.dataset_symbol,
            "available_since": max(group.available_since, instrument.available_since),
            "available_to": instrument.available_to,
        }
    )


def _names(instrument: Instrument) -> tuple[frozenset[str], frozenset[str]]:
    """Return the pairs and markets that the instrument ever had."""
    moments = [change.until - timedelta(microseconds=1) for change in instrument.changes]
    versions = [instrument, *(instrument.as_of(moment) for moment in moments)]
    return (
        frozenset(version.canonical for version in versions if version.canonical),
        frozenset(version.market for version in versions if version.market),
    )


def _candidates(
    symbol: str, entry: UniverseEntry, exchange: str, listings: Sequence[_Listing]
) -> list[_Listing]:
    """Return the listings that the symbol has named on this exchange at any time; never empty."""
    if symbol in GROUPED_SYMBOLS:
        members = [x for x in listings if x.instrument.type == GROUP_KINDS[symbol]]
        if not members:
            msg = (
                f"{exchange} has no {GROUP_KINDS[symbol]} data sets: remove {symbol} from its universe entry"
            )
            raise PermanentFailure(msg)
        return members
    named = [x for x in listings if x.is_named(symbol) and not x.only_in_group]
    if not named:
        raise PermanentFailure(_unknown_symbol(symbol, exchange, listings))
    # A pair may be of any kind; every other name belongs to one kind.
    wanted = [x for x in named if symbol not in x.canonicals or x.instrument.type in entry.instrument_types]
    if not wanted:
        kinds = " and ".join(sorted({x.instrument.type for x in named}))
        msg = (
            f"{exchange} has {symbol} as {kinds} only, not as {' or '.join(entry.instrument_types)}: "
            f"change instrument_types of the universe entry, or remove the symbol"
        )
        raise PermanentFailure(msg)
    return wanted


def _unknown_symbol(symbol: str, exchange: str, listings: Sequence[_Listing]) -> str:
    known = sorted({name for listing in listings for name in (*listing.canonicals, *listing.markets)})
    symbols = sorted({listing.symbol for listing in listings})
    by_spelling = {_bare(name): name for name in known}
    if _bare(symbol) in by_spelling:
        hint = f"did you mean {by_spelling[_bare(symbol)]}?"
    elif close := difflib.get_close_matches(symbol, known, n=3, cutoff=0.7):
        hint = f"did you mean {' or '.join(close)}?"
    elif known:
        hint = f"remove it from the universe; the exchange has for example {', '.join(known[:3])}"
    elif symbols:
        hint = (
            f"the vendor gives no currencies; name its data set symbols, for example {', '.join(symbols[:3])}"
        )
    else:
        hint = "remove it from the universe; no instrument of the exchange has data sets"
    return f"unknown symbol '{symbol}' on {exchange}: {hint}"


def _bare(name: str) -> str:
    return name.replace("-", "").replace("_", "")


def _preferred(found: Sequence[_Listing], entry: UniverseEntry, exchange: str, symbol: str) -> list[_Listing]:
    """Return the listings of the first kind in the entry's order; several only if one follows the other."""
    kinds = {x.instrument.type for x in found}
    kind = next((k for k in entry.instrument_types if k in kinds), None)
    chosen = [x for x in found if x.instrument.type == kind or symbol not in x.canonicals]
    if any(a.symbol != b.symbol and a.overlaps(b) for a, b in combinations(chosen, 2)):
        names = ", ".join(sorted({x.symbol for x in chosen}))
        groups = {GROUP_OF_KIND.get(x.instrument.type, "") for x in chosen} - {""}
        msg = (
            f"{symbol} on {exchange} stands for several instruments ({names}): write the names of those that "
            f"are wanted, or take them all with the group symbol {' or '.join(sorted(groups))}"
        )
        raise PermanentFailure(msg)
    return chosen


def _serves_group(details: ExchangeDetails, group: str, data_type: str, day: str) -> bool:
    """Whether the group has a file; if the vendor does not list the group itself, its members decide."""
    own = [s for s in details.datasets.symbols if s.id.upper() == group]
    return not own or any(
        listed_on(s.available_since, s.available_to, day) and (not s.data_types or data_type in s.data_types)
        for s in own
    )


def _lacks_type(details: ExchangeDetails, group: str, data_type: str, day: str) -> str:
    """The data types of a group that has files on the day, but none of the wanted type; else empty."""
    own = [s for s in details.datasets.symbols if s.id.upper() == group]
    there = [s for s in own if listed_on(s.available_since, s.available_to, day)]
    types = sorted({data_type for s in there for data_type in s.data_types})
    return f"the group has files of {', '.join(types)} only" if types and data_type not in types else ""


def _keys(listed: Sequence[_Listing]) -> dict[str, str]:
    """Return the symbol of each listing's market, by data set symbol.

    Contracts that share a pair keep their data set symbols; otherwise their trades would end in one candle.
    """
    holders: dict[str, list[_Listing]] = {}
    for listing in listed:
        holders.setdefault(listing.instrument.market or "", []).append(listing)
    keys: dict[str, str] = {}
    for market, sharing in holders.items():
        for listing in sharing:
            is_shared = any(x.symbol != listing.symbol and x.overlaps(listing) for x in sharing)
            keys[listing.symbol] = market if market and not is_shared else listing.symbol
    return keys


def _why_not(candidates: Sequence[_Listing], data_type: str) -> str:
    stretches = {(c.dataset.available_since, c.dataset.available_to) for c in candidates if c.has(data_type)}
    if not stretches:
        return f"no {data_type} data sets"
    if len(stretches) > 3:
        ends = [to for _, to in stretches if to is not None]
        last = max(ends) if len(ends) == len(stretches) else None
        return "listed at times " + _stretch(min(since for since, _ in stretches), last)
    return "listed " + " and ".join(sorted(_stretch(since, to) for since, to in stretches))


def _stretch(since: datetime, to: datetime | None) -> str:
    return f"from {since:%Y-%m-%d}" + (f" to {to:%Y-%m-%d}" if to else "")
