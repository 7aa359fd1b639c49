"""What the page of a day shows of one feed: verdict, minutes, candles, silences, missing ids, rules.

Everything is read from what the verdict rests on and from the coverage of the day; rows are not looked at
again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.failures import Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import Approval, Restatement
from backfill_assets.lake.manifests import FeedManifest
from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.profiles import FeedProfile, Gap, profile_of
from backfill_assets.quality.receipts import without_never_issued
from backfill_assets.quality.rules import quality, row_rules, rule_score, sizes_of
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.quality.verdict import Verdict
from backfill_assets.report.minutes import (
    MISSING,
    Mark,
    Minutes,
    minutes_of,
    of_states,
    of_version,
    uniform,
)
from backfill_assets.report.silences import SHOWN_SILENCES, SilenceLine, silence_lines
from backfill_assets.settings import RowSettings, ThresholdSettings

if TYPE_CHECKING:
    import pyarrow as pa

#: Charts of one minute are 60 kB a market; with more markets than this the finest chart has five minutes.
MINUTE_CHARTS: Final = 20
#: The last is the one that is also shown as a table.
CHART_TIMEFRAMES: Final = ("1m", "5m", "1h")
FINEST: Final = CHART_TIMEFRAMES[0]
SHOWN_GAPS: Final = 5

Market = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of quality and how many rows, or what else it counts, break it."""

    name: str
    broken: int
    excused: int
    limit: float
    score: float
    unit: str


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
    """One expected feed of the day, with everything that its verdict rests on."""

    feed: Feed
    symbol: str
    verdict: Verdict
    accepted: bool
    #: ``yes``, ``not yet`` (accepted, but its table has no such day) or ``no``.
    published: str
    #: Content of the version that waits; empty where none does.
    pending: str
    #: Why the accepted version counts by somebody's wish; null where its verdict decides.
    approval: Approval | None
    #: What the version that waits would change, else what the accepted one has changed.
    restatement: Restatement | None
    #: Lowest and highest id of the accepted file; null where not every row has an integer.
    id_range: tuple[int, int] | None
    #: sha256 of the vendor's file of the judged version; empty in days of an earlier version.
    raw_sha256: str
    #: What the tables have of it; null where its data type is not counted by minute.
    minutes: Minutes | None
    #: Without an accepted version: the file that waits, by itself.
    waiting: Minutes | None
    marks: tuple[Mark, ...]
    silences: tuple[SilenceLine, ...]
    silence_count: int
    gaps: tuple[Gap, ...]
    gap_count: int
    rules: tuple[RuleLine, ...]
    candles: Mapping[str, tuple[Candle, ...]]


class DayCandles(NamedTuple):
    """Candles of a day by market: those of the charts by timeframe, and the trades of each minute."""

    charts: Mapping[Market, Mapping[str, tuple[Candle, ...]]]
    trades: Mapping[Market, npt.NDArray[np.int64]]


def day_candles(tables: Mapping[str, pa.Table], day: str) -> DayCandles:
    """Candles of a day.

    Parameters
    ----------
    tables
        Of ``CANDLE_SCHEMA``, by each of ``CHART_TIMEFRAMES``.
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
    """Everything about one feed; ``candles`` are those of the whole day."""
    feed, verdict = settled.feed, settled.verdict
    version = manifest.version(verdict.content)
    profile = None
    if version is not None:
        with suppress(Unreadable):  # the day's document says so
            profile = without_never_issued(profile_of(version), verdict.context.never_issued)
    names = sorted({name for _, name in settled.symbols})
    symbol = names[0] if len(names) == 1 else feed.dataset_symbol
    accepted = settled.accepted is not None
    has_chart = accepted and feed.type.makes_candles
    symbols = profile.symbols if profile else ()
    silences = silence_lines(settled, profile, thresholds) if profile else []
    gaps = [gap for s in symbols for gap in s.gaps]
    gaps.sort(key=lambda h: (h.first_missing - h.last_missing, h.after_us))
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
        silences=tuple(silences[:SHOWN_SILENCES]),
        silence_count=sum(s.silence_count for s in symbols),
        gaps=tuple(gaps[:SHOWN_GAPS]),
        gap_count=sum(s.gap_count or 0 for s in symbols),
        rules=_rules(profile, verdict, thresholds.rows, grouped=feed.is_grouped),
        candles=candles.charts.get((feed.exchange, symbol), {}) if has_chart else {},
    )


def _minutes(settled: SettledFeed, candles: DayCandles, states: FeedMinutes | None) -> Minutes | None:
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
