"""When the feeds of a day were owed: their listing and the known outages, by the lake's instruments.

It is separate from ``context``, which gathers this and more, because it reads another kind of file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backfill_assets.contracts import TERMS, Contracts, contracts_of
from backfill_assets.days import end_us, start_us, time_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.listing import load_instruments, read_table
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.window import Range, Window, clipped

_LISTING: Final = [
    "dataset_symbol",
    "available_since",
    "listing",
    "available_to",
    "expiry",
    "instrument_id",
    "base_currency",
    *TERMS,
    "contract_changes",
]


@dataclass(frozen=True, slots=True)
class Owed:
    """A feed's window; for a grouped file also the windows of symbols that were not listed all day."""

    window: Window
    symbol_windows: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listings:
    """The listings of a day, by its instruments.

    Attributes
    ----------
    owed
        When each feed was owed.
    listed
        (exchange, data set symbol) of every row.
    contracts
        By exchange and either name of a symbol, the contracts in which its amounts are given.
    """

    owed: Mapping[Feed, Owed]
    listed: Sequence[tuple[str, str]]
    contracts: Mapping[str, Mapping[str, Contracts]]


@dataclass(frozen=True, slots=True)
class _Listings:
    """The listings of an exchange: windows by data set symbol (None: no instruments), and outages."""

    windows: Mapping[str, Range] | None
    outages: tuple[Range, ...]
    listed: tuple[str, ...] = ()
    contracts: Mapping[str, Contracts] = field(default_factory=dict)


def listings_on(store: Store, feeds: Iterable[Feed], day: str) -> Listings:
    """Read the day's instruments of the feeds' exchanges.

    A feed whose symbol the day's instruments lack counts as not listed. In a lake without the day's
    instruments every feed counts as listed all day, which is the strictest assumption.
    """
    feeds = list(feeds)
    exchanges = sorted({feed.exchange for feed in feeds})
    found = parallel_map(lambda exchange: _listings(store, exchange, day), exchanges, store.parallel_reads)
    known = dict(zip(exchanges, found, strict=True))
    whole = (start_us(day), end_us(day))
    return Listings(
        owed={feed: _owed(feed, known[feed.exchange], whole) for feed in feeds},
        listed=[(exchange, symbol) for exchange, one in known.items() for symbol in one.listed],
        contracts={exchange: one.contracts for exchange, one in known.items()},
    )


def _owed(feed: Feed, known: _Listings, day: Range) -> Owed:
    windows = known.windows or {}
    start, end = day if feed.is_grouped else windows.get(feed.dataset_symbol, day)
    is_listed = feed.is_grouped or known.windows is None or feed.dataset_symbol in windows
    window = Window(start, end, clipped(known.outages, start, end), is_listed)
    partly = {symbol: times for symbol, times in windows.items() if times != day} if feed.is_grouped else {}
    return Owed(window, partly)


def _listings(store: Store, exchange: str, day: str) -> _Listings:
    manifest = load_instruments(store, exchange, day)
    if manifest is None:
        return _Listings(None, ())
    start, end = start_us(day), end_us(day)
    windows: dict[str, Range] = {}
    table = read_table(store, manifest)
    rows = table.select([name for name in _LISTING if name in table.column_names]).to_pylist()
    for row in rows:
        opened, closed = _times(row, "available_since", "listing"), _times(row, "available_to", "expiry")
        window = (max([start, *opened]), min([end, *closed]))
        # A symbol that was listed twice on the day: from the first listing to the end of the last.
        other = windows.get(row["dataset_symbol"], window)
        windows[row["dataset_symbol"]] = (min(window[0], other[0]), max(window[1], other[1]))
    outages = tuple((outage.start_us, outage.end_us) for outage in manifest.outages)
    return _Listings(
        windows, outages, tuple(row["dataset_symbol"] for row in rows), _contracts(exchange, rows)
    )


def _contracts(exchange: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Contracts]:
    found = {}
    for row in rows:
        found[row["instrument_id"].upper()] = found[row["dataset_symbol"]] = contracts_of(exchange, row)
    return found


def _times(row: Mapping[str, Any], *columns: str) -> list[int]:
    return [time_us(row[column]) for column in columns if row[column] is not None]
