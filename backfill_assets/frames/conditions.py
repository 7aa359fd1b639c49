"""The condition of each day of a range, in one word per feed or market.

API, Python and command line all give these answers, made from quality rows, coverage and ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from backfill_assets.days import day_range, shift
from backfill_assets.failures import BadInput
from backfill_assets.frames.data import Data
from backfill_assets.frames.states import CONDITIONS, WITH_ROWS, Condition, State
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.settings import BigQueryWarehouse
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import COVERAGE

if TYPE_CHECKING:
    from backfill_assets.lake.store import Store
    from backfill_assets.settings import Settings

#: Most feeds times days in one answer; about a year of fifty feeds.
MOST_FEED_DAYS: Final = 20_000


#: The condition words, as the OpenAPI document describes them.
_WORDS: Final = "; ".join(f"{word}: {meaning}" for word, meaning in CONDITIONS.items())
_Word = Annotated[Condition, Field(description=_WORDS)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class MarketDay(_Answer):
    """A day of one market.

    Attributes
    ----------
    buckets
        Count of the day's buckets in each state of ``docs/scores.md``; empty where no rows are published.
    last_modified
        When candles and coverage of the day were last published; null if they never were.
    generated
        Whether the prices come from the stand-in for Tardis and are not market prices.
    """

    day: str
    condition: _Word
    state: State
    sealed: bool
    reasons: str
    buckets: dict[str, int]
    last_modified: AwareDatetime | None
    generated: bool


class MarketCoverage(_Answer):
    """A range of one market; ``condition`` is the worst of its days, ``last_modified`` the latest."""

    exchange: str
    symbol: str
    timeframe: str
    condition: _Word
    last_modified: AwareDatetime | None
    days: tuple[MarketDay, ...]


class FeedDay(_Answer):
    """A day of one feed: its row in table ``quality``, with ``condition`` and ``last_modified``."""

    day: str
    condition: _Word
    last_modified: AwareDatetime | None
    verdict: str | None = None
    day_state: str | None = None
    sealed: bool | None = None
    pending_content: str | None = None
    completeness: float | None = None
    completeness_state: str | None = None
    quality: float | None = None
    rows: int | None = None
    missing_ids: int | None = None
    first_id: int | None = None
    last_id: int | None = None
    raw_sha256: str | None = None
    content: str | None = None
    generated: bool | None = None
    book_minutes: str | None = None
    valid_book_share: float | None = None
    longest_unchanged_seconds: float | None = None
    unchanged_at_end_seconds: float | None = None
    reasons: str | None = None
    warnings: str | None = None


class FeedRange(_Answer):
    """A range of one feed; ``condition`` is the worst of its days, ``last_modified`` the latest."""

    exchange: str
    data_type: str
    dataset_symbol: str
    symbol: str
    condition: _Word
    last_modified: AwareDatetime | None
    days: tuple[FeedDay, ...]


class QualityAnswer(_Answer):
    """All feeds expected on any day of the range, in order."""

    feeds: tuple[FeedRange, ...]


def open_tables(settings: Settings) -> Data:
    """Open the tables of the embedded warehouse; with BigQuery, the lake, so that reading costs no query."""
    return Data(settings, "lake" if isinstance(settings.warehouse, BigQueryWarehouse) else "warehouse")


def market_coverage(
    data: Data, exchange: str, symbol: str, first: str, last: str, timeframe: str
) -> MarketCoverage:
    """Condition, last change and bucket states of one market, day by day; both days are included.

    Raises
    ------
    BadInput
        The timeframe is not stored, or days of the range were run but none has the market.
    """
    data.insist_on_stored(timeframe)
    states = data.market_states(COVERAGE, exchange, symbol, day_range(first, last))
    rows = data.coverage_of(exchange, symbol, timeframe, [d.day for d in states if d.state in WITH_ROWS])
    counts: dict[str, dict[str, int]] = {}
    found = rows.select("date", "state", "buckets").collect().group_by("date", "state").sum()
    for day, state, buckets in found.sort("date", "state").iter_rows():
        counts.setdefault(day.isoformat(), {})[state] = buckets
    changed = last_changes(data.store, [COVERAGE.name], [state.day for state in states])
    days = tuple(
        MarketDay(
            day=one.day,
            condition=one.condition,
            state=one.state,
            sealed=one.sealed,
            reasons=one.reasons,
            buckets=counts.get(one.day, {}),
            last_modified=changed.get((COVERAGE.name, one.day)),
            generated=one.is_generated,
        )
        for one in states
    )
    return MarketCoverage(exchange=exchange, symbol=symbol, timeframe=timeframe, **_together(days), days=days)


def feed_quality(
    data: Data, first: str, last: str, *, exchange: str = "", symbol: str = "", data_type: str = ""
) -> QualityAnswer:
    """Condition, last change and evidence of each feed, day by day; both days are included.

    Raises
    ------
    BadInput
        No day that was run has such a feed, or the answer would exceed ``MOST_FEED_DAYS``.
    """
    frame = data.quality(
        first, shift(last, 1), exchange=exchange, symbol=symbol, data_type=data_type
    ).to_polars()
    key = ("exchange", "data_type", "dataset_symbol")
    by_feed: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for row in frame.sort(*key, "date").iter_rows(named=True):
        by_feed.setdefault(tuple(row[name] for name in key), {})[row["date"].isoformat()] = row
    days = day_range(first, last)
    if len(by_feed) * len(days) > MOST_FEED_DAYS:
        msg = (
            f"{len(by_feed)} feeds over {len(days)} days are more than {MOST_FEED_DAYS:,} rows: "
            "choose exchange, symbol or data_type, or fewer days"
        )
        raise BadInput(msg)
    changed = last_changes(data.store, sorted({feed[1] for feed in by_feed}), days)
    return QualityAnswer(
        feeds=tuple(_feed_range(feed, rows, days, changed) for feed, rows in by_feed.items())
    )


def last_changes(store: Store, tables: Sequence[str], days: Sequence[str]) -> dict[tuple[str, str], datetime]:
    """When the partition of each table and day was last published, from the ledger."""
    wanted = [(table, day) for table in tables for day in days]
    entries = parallel_map(lambda one: ledger.entry(store, *one), wanted, store.parallel_reads)
    return {
        one: entry.published.published_at
        for one, entry in zip(wanted, entries, strict=True)
        if entry is not None and entry.published is not None
    }


def _feed_range(
    feed: tuple[str, ...],
    rows: Mapping[str, Mapping[str, Any]],
    days: Sequence[str],
    changed: Mapping[tuple[str, str], datetime],
) -> FeedRange:
    exchange, data_type, dataset_symbol = feed
    found = []
    for day in days:
        row = rows.get(day, {"condition": "missing"})
        values = {name: row[name] for name in FeedDay.model_fields if name in row}
        found.append(FeedDay(day=day, last_modified=changed.get((data_type, day)), **values))
    return FeedRange(
        exchange=exchange,
        data_type=data_type,
        dataset_symbol=dataset_symbol,
        symbol=next(iter(rows.values()))["symbol"],
        **_together(found),
        days=tuple(found),
    )


def _together(days: Iterable[MarketDay | FeedDay]) -> dict[str, Any]:
    """The worst condition and the latest change."""
    order = list(CONDITIONS)
    found = list(days)
    changes = [day.last_modified for day in found if day.last_modified is not None]
    return {
        "condition": max((day.condition for day in found), key=order.index),
        "last_modified": max(changes, default=None),
    }
