"""The baseline: measures of published days, by which the feeds of other days are weighed and judged.

Only an explicit command makes a baseline, and each one has a version. If it were derived from the present
content of the lake, the score of a day would depend on the order in which days are run. A day's score
therefore changes only when a person makes a new baseline, and is the same for all readers until then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Final

from backfill_assets.days import shift
from backfill_assets.failures import Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Document
from backfill_assets.lake.store import Store
from backfill_assets.settings import HistorySettings

if TYPE_CHECKING:
    from backfill_assets.quality.settled import SettledDay

LOGGER: Final = logging.getLogger(__name__)
#: Pairs (venue's symbol, canonical symbol).
Symbols = Sequence[tuple[str, str]]


class Baseline(Document):
    """Measures of published days: notional by day and market (``exchange/SYMBOL``), others by day and series.

    Notional is in US dollars; a market whose quote currency had no dollar price on a day is left out of that
    day. Rows are those of the accepted file of every feed of any data type. Silences, in microseconds, are
    the longest of each market that trades seldom.
    """

    remedy: ClassVar[str] = "days are judged without one; 'backfill-assets baseline' measures them again"

    #: Grows by one each time the content changes.
    version: int = 0
    notional_usd: dict[str, dict[str, float]] = {}
    rows: dict[str, dict[str, int]] = {}
    silences: dict[str, dict[str, int]] = {}

    @property
    def days(self) -> frozenset[str]:
        """The days that were measured completely."""
        return frozenset(self.notional_usd.keys() & self.rows.keys())

    def with_days(
        self,
        notional: Mapping[str, Mapping[str, float]],
        rows: Mapping[str, Mapping[str, int]] | None = None,
        silences: Mapping[str, Mapping[str, int]] | None = None,
    ) -> Baseline:
        """Return the baseline with these days added, or replaced where it has them."""
        changed = self.model_copy(
            update={
                "notional_usd": _with(self.notional_usd, notional),
                "rows": _with(self.rows, rows or {}),
                "silences": _with(self.silences, silences or {}),
            }
        )
        return self if changed == self else changed.model_copy(update={"version": self.version + 1})

    def usual_rows(
        self, day: str, feeds: Iterable[tuple[Feed, Symbols]], history: HistorySettings
    ) -> dict[Feed, float]:
        """By feed, the median rows of the same weekday in the weeks before the day.

        Feeds with fewer than ``least_days`` such days, or a median below ``least_rows``, are left out.
        """
        before = [earlier for n in range(history.weeks) if (earlier := shift(day, -7 * (n + 1))) in self.rows]
        found = {}
        for feed, symbols in feeds:
            name = series(feed, symbols)
            counts = [self.rows[earlier][name] for earlier in before if name in self.rows[earlier]]
            if len(counts) >= history.least_days and median(counts) >= history.least_rows:
                found[feed] = float(median(counts))
        return found

    def known_silences(
        self, day: str, feeds: Iterable[tuple[Feed, Symbols]], history: HistorySettings
    ) -> dict[Feed, int]:
        """By feed, the longest silence on all days of the last ``weeks`` weeks before the day.

        Grouped feeds and feeds with fewer than ``least_days`` such days are left out.
        """
        first = shift(day, -7 * history.weeks)
        before = [silences for earlier, silences in self.silences.items() if first <= earlier < day]
        found = {}
        for feed, symbols in feeds:
            name = series(feed, symbols)
            known = [silences[name] for silences in before if name in silences]
            if len(known) >= history.least_days and not feed.is_grouped:
                found[feed] = max(known)
        return found

    def median_notional(self, day: str, days: int) -> dict[str, float]:
        """By market, the median over the last ``days`` days of the baseline that lie before ``day``.

        Days on which the market has no notional do not count, so a new listing begins with its own median.
        """
        before = sorted(d for d in self.notional_usd if d < day)[-days:]
        found: dict[str, list[float]] = {}
        for earlier in before:
            for market, notional in self.notional_usd[earlier].items():
                found.setdefault(market, []).append(notional)
        return {market: median(values) for market, values in found.items()}


def _with(
    known: Mapping[str, Mapping[str, Any]], days: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {day: dict(found) for day, found in sorted({**known, **days}.items())}


def market(exchange: str, symbol: str) -> str:
    """Name of a market in the baseline; canonical, so that a renamed symbol keeps its weight."""
    return f"{exchange}/{symbol}"


def series(feed: Feed, symbols: Symbols) -> str:
    """Name of a feed in the baseline's rows: also canonical; a grouped file has the name of its group."""
    names = {name for _, name in symbols}
    only = names.pop() if len(names) == 1 and not feed.is_grouped else feed.dataset_symbol
    return f"{feed.exchange}/{feed.data_type}/{only}"


def load_baseline(store: Store) -> Baseline:
    """Return the baseline; an empty one if none was made or the document cannot be read."""
    try:
        return documents.load(store, paths.baseline(), Baseline) or Baseline()
    except Unreadable as failure:
        LOGGER.warning("%s", failure)
        return Baseline()


def add_days(
    store: Store,
    notional: Mapping[str, Mapping[str, float]],
    rows: Mapping[str, Mapping[str, int]] | None = None,
    silences: Mapping[str, Mapping[str, int]] | None = None,
) -> Baseline:
    """Add days to the baseline and return it as it is now stored."""

    def change(found: Baseline | None) -> Baseline:
        return (found or Baseline()).with_days(notional, rows, silences)

    return documents.update(store, paths.baseline(), Baseline, change, anew=True) or Baseline()


def accepted_rows(day: SettledDay) -> dict[str, int]:
    """Rows of the day's accepted files by series, each trade once; empty files show nothing usual."""
    return {
        series(f.feed, f.symbols): f.accepted.rows - f.verdict.repeated_rows
        for f in day.feeds
        if f.accepted is not None and f.accepted.rows
    }


def longest_silences(day: SettledDay) -> dict[str, int]:
    """By series, the longest silence in the day's accepted files of markets that trade seldom."""
    return {
        series(f.feed, f.symbols): f.verdict.longest_silence_us
        for f in day.feeds
        if f.accepted is not None and f.verdict.longest_silence_us is not None
    }


def notional_of_feeds(
    baseline: Baseline, day: str, feeds: Sequence[tuple[Feed, Symbols]], days: int
) -> list[float]:
    """Median daily notional of each feed's markets, in US dollars; 0 where the baseline knows none.

    Parameters
    ----------
    feeds
        With pairs (venue's symbol, canonical symbol). A feed of any data type weighs as much as its market.
    """
    known = baseline.median_notional(day, days)
    return [
        sum(known.get(market(feed.exchange, name), 0.0) for name in sorted({name for _, name in symbols}))
        for feed, symbols in feeds
    ]
