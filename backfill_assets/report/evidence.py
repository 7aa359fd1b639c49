"""The content of a day's page on one feed: verdict, minutes, candles, silences, missing ids, rules.

Everything is read from the inputs of the verdict and from the coverage of the day; no rows are read again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.failures import Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Approval, Ids, Restatement
from backfill_assets.lake.manifests import FeedManifest
from backfill_assets.quality.book_minutes import BookMinutes
from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.profiles import FeedProfile, Gap, profile_of
from backfill_assets.quality.receipts import without, without_never_issued
from backfill_assets.quality.rules import quality, row_rules, rule_score, sizes_of
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.quality.verdict import Verdict
from backfill_assets.report.minutes import (
    MISSING,
    Mark,
    Minutes,
    minutes_of,
    of_books,
    of_states,
    of_version,
    uniform,
)
from backfill_assets.report.silences import SHOWN_SILENCES, SilenceLine, silence_lines
from backfill_assets.settings import RowSettings, ThresholdSettings

if TYPE_CHECKING:
    import pyarrow as pa

#: One-minute charts take 60 kB per market; with more markets than this the finest chart has five minutes.
MINUTE_CHARTS: Final = 20
#: The last is the one that is also shown as a table.
CHART_TIMEFRAMES: Final = ("1m", "5m", "1h")
FINEST: Final = CHART_TIMEFRAMES[0]
SHOWN_GAPS: Final = 5
SHOWN_HEALED: Final = 20

Market = tuple[str, str]
Fate = Literal["recovered", "recovered, not in the version shown", "never issued"]


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of quality, and the number of rows, or of its other unit, that break it."""

    name: str
    broken: int
    excused: int
    limit: float
    score: float
    unit: str


@dataclass(frozen=True, slots=True)
class HealedLine:
    """Consecutive ids on which a second source has answered, and where its answer is stored."""

    first_id: int
    last_id: int
    fate: Fate
    source: str
    asked_at: datetime
    #: Paths in the lake.
    answers: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many ids."""
        return self.last_id - self.first_id + 1


class Candle(NamedTuple):
    """One bucket; ``time_us`` is its ``open_time``."""

    time_us: int
    open: float
    high: float
    low: float
    close: float
    volume: float | None
    trade_count: int


@dataclass(frozen=True, slots=True)
class FeedReport:
    """One expected feed of the day, with everything on which its verdict rests."""

    feed: Feed
    symbol: str
    verdict: Verdict
    accepted: bool
    #: ``yes``, ``not yet`` (accepted, but its table lacks the day) or ``no``.
    published: str
    #: Content of the pending version; empty where none is pending.
    pending: str
    #: The approval by which the accepted version counts; null where its verdict decides.
    approval: Approval | None
    #: The change that the pending version would make; without one, the change that the accepted version made.
    restatement: Restatement | None
    #: Lowest and highest id of the accepted file; null where not every row has an integer id.
    id_range: tuple[int, int] | None
    #: sha256 of the vendor's file of the judged version; empty in days of an earlier version.
    raw_sha256: str
    #: Minutes of the feed in the tables; null where its data type is not counted by minute.
    minutes: Minutes | None
    #: Without an accepted version: minutes of the pending file by itself.
    waiting: Minutes | None
    marks: tuple[Mark, ...]
    #: For quotes and books, by canonical symbol.
    books: Mapping[str, BookMinutes]
    silences: tuple[SilenceLine, ...]
    silence_count: int
    gaps: tuple[Gap, ...]
    gap_count: int
    #: The newest answers first.
    healed: tuple[HealedLine, ...]
    healed_count: int
    rules: tuple[RuleLine, ...]
    candles: Mapping[str, tuple[Candle, ...]]


class DayCandles(NamedTuple):
    """Candles of a day by market: candles of the charts by timeframe, and the trades of each minute."""

    charts: Mapping[Market, Mapping[str, tuple[Candle, ...]]]
    trades: Mapping[Market, npt.NDArray[np.int64]]


def day_candles(tables: Mapping[str, pa.Table], day: str) -> DayCandles:
    """Candles of a day.

    Parameters
    ----------
    tables
        Tables with ``CANDLE_SCHEMA``, by timeframe, one for each of ``CHART_TIMEFRAMES``.
    """
    import polars as pl

    market, opened = ("exchange", "symbol"), pl.col("open_time").dt.epoch("us")
    frames = {name: pl.DataFrame(table).with_columns(time_us=opened) for name, table in tables.items()}
    minute = (pl.col("time_us") - start_us(day)) // MICROSECONDS_PER_MINUTE
    traded = frames[FINEST].group_by(market).agg(minute, "trade_count")
    trades = {}
    for exchange, symbol, minutes, counts in zip(*traded, strict=True):
        trades[exchange, symbol] = np.zeros(MINUTES, np.int64)
        trades[exchange, symbol][minutes] = counts
    charts: dict[Market, dict[str, tuple[Candle, ...]]] = defaultdict(dict)
    for name in CHART_TIMEFRAMES if len(trades) <= MINUTE_CHARTS else CHART_TIMEFRAMES[1:]:
        of_market = frames[name].group_by(market).agg("time_us", *Candle._fields[1:])
        for exchange, symbol, *columns in of_market.iter_rows():
            charts[exchange, symbol][name] = tuple(map(Candle, *columns))
    return DayCandles(charts, trades)


def feed_report(
    settled: SettledFeed,
    manifest: FeedManifest,
    day: str,
    thresholds: ThresholdSettings,
    candles: DayCandles,
    states: FeedMinutes | None,
    published: str,
) -> FeedReport:
    """Gather the content on one feed; ``candles`` are those of the whole day."""
    feed, verdict = settled.feed, settled.verdict
    version = manifest.version(verdict.content)
    profile = None
    if version is not None:
        with suppress(Unreadable):  # the day's document reports it
            profile = without_never_issued(profile_of(version), verdict.context.never_issued)
    names = sorted({name for _, name in settled.symbols})
    symbol = names[0] if len(names) == 1 else feed.dataset_symbol
    accepted = settled.accepted is not None
    has_chart = accepted and feed.type.makes_candles
    symbols = profile.symbols if profile else ()
    silences = silence_lines(settled, profile, thresholds) if profile else []
    gaps = [gap for s in symbols for gap in s.gaps]
    gaps.sort(key=lambda h: (h.first_missing - h.last_missing, h.after_us))
    healed = _healed(manifest, sorted((gap.first_missing, gap.last_missing) for gap in gaps))
    minutes = _minutes(settled, candles, states)
    waiting = None
    if profile is not None and not accepted:
        waiting = of_version(feed, day, profile, verdict.context, thresholds)
    lost = [minutes_of(s.start_us, s.end_us, day) for s in silences if s.counts and not s.ids_missing]
    shown_minutes = waiting or minutes
    return FeedReport(
        feed=feed,
        symbol=symbol,
        verdict=verdict,
        accepted=accepted,
        published=published,
        pending=settled.candidate.content if settled.candidate else "",
        id_range=settled.id_range,
        raw_sha256=settled.judged.raw_sha256 if settled.judged else "",
        approval=settled.approval,
        restatement=settled.restatement,
        minutes=minutes,
        waiting=waiting,
        marks=shown_minutes.marks(lost) if shown_minutes else (),
        books=settled.books if accepted else {},
        silences=tuple(silences[:SHOWN_SILENCES]),
        silence_count=sum(s.silence_count for s in symbols),
        gaps=tuple(gaps[:SHOWN_GAPS]),
        gap_count=sum(s.gap_count or 0 for s in symbols),
        healed=tuple(healed[:SHOWN_HEALED]),
        healed_count=len(healed),
        rules=_rules(profile, verdict, thresholds.rows, grouped=feed.is_grouped),
        candles=candles.charts.get((feed.exchange, symbol), {}) if has_chart else {},
    )


def _healed(manifest: FeedManifest, missing: Sequence[Ids]) -> list[HealedLine]:
    """The answers of second sources; ``missing`` are the ids that the version shown lacks."""
    feed, lines = Feed.parse(manifest.feed), list[HealedLine]()
    for receipt in reversed(manifest.receipts):
        answers = tuple(
            paths.receipt_data(feed, manifest.day, answer.content, receipt.ending)
            for answer in receipt.answers
        )
        for ids in sorted((*receipt.never_issued, *receipt.recovered)):
            fate: Fate = "never issued"
            if ids in receipt.recovered:
                is_here = without(ids, missing) == [ids]
                fate = "recovered" if is_here else "recovered, not in the version shown"
            lines.append(HealedLine(*ids, fate, receipt.asked, receipt.asked_at, answers))
    return lines


def _minutes(settled: SettledFeed, candles: DayCandles, states: FeedMinutes | None) -> Minutes | None:
    books = of_books(settled.books.values())
    if books is not None:
        return books
    if states is None:
        return uniform(MISSING) if settled.verdict.content is None else None
    markets = [(settled.feed.exchange, symbol) for symbol in states.symbols]
    trades = sum((candles.trades[m] for m in markets if m in candles.trades), np.zeros(MINUTES, np.int64))
    return of_states(states, trades.tolist())


def _rules(
    profile: FeedProfile | None, verdict: Verdict, limits: RowSettings, *, grouped: bool
) -> tuple[RuleLine, ...]:
    if profile is None or not profile.rows:
        return ()
    spikes = verdict.context.spikes.get(verdict.content or "")
    beside = verdict.context.beside_trades.get(verdict.content or "")
    counts = quality(profile, limits, grouped=grouped, spikes=spikes, beside=beside).counts
    sizes = sizes_of(profile, limits, beside)
    return tuple(
        RuleLine(
            name=rule.name,
            broken=counts[rule.name],
            excused=rule.excused,
            limit=rule.limit,
            score=rule_score(rule, counts[rule.name], *sizes[rule.unit]),
            unit=rule.unit,
        )
        for rule in row_rules(limits)
    )
