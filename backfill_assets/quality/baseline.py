"""The baseline: what published days were like, so that another day's feeds can be weighed by it.

Made by an explicit command only and versioned. Were it read off whatever the lake holds at the moment, the
score of a day would depend on the order in which days are run; so a day's score changes with its baseline
when somebody makes a new one, and is the same for everybody until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import Store


class Baseline(BaseModel):
    """Daily notional in US dollars by day and market (``exchange/SYMBOL``), of published days.

    A market whose quote currency had no dollar price on a day is left out of that day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Grows by one whenever the content changes.
    version: int = 0
    notional_usd: dict[str, dict[str, float]] = {}

    def with_days(self, days: Mapping[str, Mapping[str, float]]) -> Baseline:
        """After measuring these days (again)."""
        merged = {**self.notional_usd, **{day: dict(markets) for day, markets in days.items()}}
        if merged == self.notional_usd:
            return self
        return Baseline(version=self.version + 1, notional_usd=dict(sorted(merged.items())))

    def median_notional(self, day: str, days: int) -> dict[str, float]:
        """By market, the median over the last ``days`` days of the baseline that lie before ``day``.

        Days on which the market has no notional are no days of it: a listing begins with its own median.
        """
        before = sorted(d for d in self.notional_usd if d < day)[-days:]
        found: dict[str, list[float]] = {}
        for earlier in before:
            for market, notional in self.notional_usd[earlier].items():
                found.setdefault(market, []).append(notional)
        return {market: median(values) for market, values in found.items()}


def market(exchange: str, symbol: str) -> str:
    """Name of a market in the baseline; canonical, so that a renamed symbol keeps its weight."""
    return f"{exchange}/{symbol}"


def load_baseline(store: Store) -> Baseline:
    """Return the baseline; an empty one if none was made."""
    return documents.load(store, paths.baseline(), Baseline)[0] or Baseline()


def add_days(store: Store, days: Mapping[str, Mapping[str, float]]) -> Baseline:
    """Add days to the baseline and return it as it is now stored."""

    def change(found: Baseline | None) -> Baseline:
        return (found or Baseline()).with_days(days)

    return documents.update(store, paths.baseline(), Baseline, change) or Baseline()


def notional_of_feeds(
    store: Store, day: str, feeds: Sequence[tuple[Feed, Sequence[tuple[str, str]]]], days: int
) -> list[float]:
    """Median daily notional of each feed's markets, in US dollars; 0 where the baseline knows none.

    Parameters
    ----------
    feeds
        With pairs (venue's symbol, canonical symbol). A feed of any data type weighs as its market does.
    """
    known = load_baseline(store).median_notional(day, days)
    return [
        sum(known.get(market(feed.exchange, name), 0.0) for name in sorted({name for _, name in symbols}))
        for feed, symbols in feeds
    ]
