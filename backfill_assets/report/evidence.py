"""What the page of a day shows of one feed: verdict, minutes, candles, silences, missing ids, rules.

Everything is read from the profile that the verdict rests on; rows are not looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import Version
from backfill_assets.quality.day import JudgedFeed
from backfill_assets.quality.profiles import FeedProfile, Gap, Hole
from backfill_assets.quality.rules import quality, row_rules, rule_score
from backfill_assets.quality.verdict import Verdict
from backfill_assets.report.minutes import MISSING, Minutes, allowed_silence_us, feed_minutes, uniform
from backfill_assets.settings import RowSettings, ThresholdSettings

#: Charts of one minute are 60 kB a market; with more markets than this the finest chart has five minutes.
MINUTE_CHARTS: Final = 20
#: The last is the one that is also shown as a table.
CHART_TIMEFRAMES: Final = ("1m", "5m", "1h")
SHOWN_GAPS: Final = 5
SHOWN_HOLES: Final = 5

Market = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GapLine:
    """A silence: when, how long, what is usual there, what is excused, and what it means."""

    start_us: int
    end_us: int
    usual_us: float
    allowed_us: float
    explanation: str
    #: Whether it counts against the feed.
    counts: bool


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of quality and how many rows break it."""

    name: str
    broken: int
    excused: int
    limit: float
    score: float


@dataclass(frozen=True, slots=True)
class Candle:
    """One bucket; ``time_us`` is its ``open_time``."""

    time_us: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


@dataclass(frozen=True, slots=True)
class FeedReport:
    """One expected feed of the day, with everything that its verdict rests on."""

    feed: Feed
    symbol: str
    verdict: Verdict
    accepted: bool
    #: ``yes``, ``not yet`` (accepted, but its table has no such day) or ``no``.
    published: str
    pending: bool
    minutes: Minutes | None
    gaps: tuple[GapLine, ...]
    gap_count: int
    holes: tuple[Hole, ...]
    hole_count: int
    rules: tuple[RuleLine, ...]
    candles: dict[str, tuple[Candle, ...]]


def candles_by_market(table: pa.Table) -> dict[Market, dict[str, tuple[Candle, ...]]]:
    """Candles of a table of ``CANDLE_SCHEMA`` by market and timeframe."""
    found: dict[Market, dict[str, list[Candle]]] = {}
    for (exchange, symbol, timeframe), candle in _rows(table):
        found.setdefault((exchange, symbol), {}).setdefault(timeframe, []).append(candle)
    return {market: {name: tuple(c) for name, c in frames.items()} for market, frames in found.items()}


def _rows(table: pa.Table) -> list[tuple[tuple[str, str, str], Candle]]:
    keys = zip(*(table[name].to_pylist() for name in ("exchange", "symbol", "timeframe")), strict=True)
    values = ("open", "high", "low", "close", "volume", "trade_count")
    times = table["open_time"].cast(pa.int64()).to_pylist()
    columns = zip(times, *(table[name].to_pylist() for name in values), strict=True)
    return [(key, Candle(*column)) for key, column in zip(keys, columns, strict=True)]


def feed_report(
    judged: JudgedFeed,
    day: str,
    thresholds: ThresholdSettings,
    candles: Mapping[Market, dict[str, tuple[Candle, ...]]],
    published: str,
) -> FeedReport:
    """Everything about one feed; ``candles`` are those of the whole day."""
    feed, verdict = judged.feed, judged.verdict
    version = _judged_version(judged)
    profile = FeedProfile.model_validate(version.profile) if version else None
    names = sorted({name for _, name in judged.symbols})
    symbol = names[0] if len(names) == 1 else feed.dataset_symbol
    accepted = judged.accepted is not None
    series = candles.get((feed.exchange, symbol), {}) if accepted and feed.data_type == "trades" else {}
    shown = CHART_TIMEFRAMES if len(candles) <= MINUTE_CHARTS else CHART_TIMEFRAMES[1:]
    symbols = profile.symbols if profile else ()
    gaps = [_gap(gap, s.holes, verdict.evidence_class, thresholds) for s in symbols for gap in s.gaps]
    gaps.sort(key=lambda g: (not g.counts, g.start_us - g.end_us, g.start_us))
    holes = [hole for s in symbols for hole in s.holes]
    holes.sort(key=lambda h: (h.first_missing - h.last_missing, h.after_us))
    return FeedReport(
        feed=feed,
        symbol=symbol,
        verdict=verdict,
        accepted=accepted,
        published=published,
        pending=judged.manifest.candidate is not None,
        minutes=_minutes(feed, day, profile, verdict, thresholds, series.get("1m", ())),
        gaps=tuple(gaps[:SHOWN_GAPS]),
        gap_count=sum(s.gap_count for s in symbols),
        holes=tuple(holes[:SHOWN_HOLES]),
        hole_count=sum(s.hole_count or 0 for s in symbols),
        rules=_rules(profile, thresholds.rows, grouped=feed.is_grouped),
        candles={name: series[name] for name in shown if name in series},
    )


def _minutes(
    feed: Feed,
    day: str,
    profile: FeedProfile | None,
    verdict: Verdict,
    thresholds: ThresholdSettings,
    candles: Sequence[Candle],
) -> Minutes | None:
    if profile is None:
        return uniform(MISSING)
    midnight = start_us(day)
    return feed_minutes(
        feed.exchange,
        day,
        profile,
        verdict.context,
        thresholds,
        grouped=feed.is_grouped,
        from_neighbours={(c.time_us - midnight) // MICROSECONDS_PER_MINUTE: c.trades for c in candles},
    )


def _judged_version(feed: JudgedFeed) -> Version | None:
    versions = (feed.manifest.accepted, feed.manifest.candidate)
    return next((v for v in versions if v is not None and v.content == feed.verdict.content), None)


def _gap(gap: Gap, holes: Sequence[Hole], evidence: str | None, thresholds: ThresholdSettings) -> GapLine:
    allowed = allowed_silence_us(gap.usual_us, thresholds)
    inside = [h for h in holes if h.after_us < gap.end_us and h.before_us > gap.start_us]
    if inside and evidence in ("A", "B"):
        lost = sum(h.last_missing - h.first_missing + 1 for h in inside)
        counts, text = True, f"{lost:,} ids are missing around it"
    elif evidence == "A":
        counts, text = False, "the ids before and after join: nothing was traded"
    elif gap.end_us - gap.start_us > allowed:
        counts = evidence == "C"
        text = "longer than is excused: counts as lost time" if counts else "no id is missing"
    else:
        counts, text = False, "as usual there"
    return GapLine(gap.start_us, gap.end_us, gap.usual_us, allowed, text, counts)


def _rules(profile: FeedProfile | None, limits: RowSettings, *, grouped: bool) -> tuple[RuleLine, ...]:
    if profile is None or not profile.rows:
        return ()
    counts = quality(profile, limits, grouped=grouped).counts
    return tuple(
        RuleLine(
            name=rule.name,
            broken=counts[rule.name],
            excused=rule.excused,
            limit=rule.limit,
            score=rule_score(rule, counts[rule.name], profile.rows, limits.minimum_rows),
        )
        for rule in row_rules(limits)
    )
