"""The silences of a feed's file, each with the usual length there, the excused length, and its meaning.

They are read from the profile and judged in the verdict's own window, so that the page agrees with the score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Final

from backfill_assets.quality.completeness import legitimate_gap
from backfill_assets.quality.estimates import allowed_silence_us
from backfill_assets.quality.profiles import FeedProfile, Gap, Silence, SymbolProfile
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.quality.verdict import arrival_edges, seams_in
from backfill_assets.quality.window import Window
from backfill_assets.settings import ThresholdSettings

SHOWN_SILENCES: Final = 5


@dataclass(frozen=True, slots=True)
class SilenceLine:
    """A silence: its start and end, the usual length there, the excused length, and its meaning."""

    start_us: int
    end_us: int
    usual_us: float
    allowed_us: float
    explanation: str
    #: Whether it counts against the feed.
    counts: bool
    #: Whether missing ids explain it.
    ids_missing: bool = False


def silence_lines(
    settled: SettledFeed, profile: FeedProfile, thresholds: ThresholdSettings
) -> list[SilenceLine]:
    """The silences between rows; where only silences are judged, those at the day's edges, too.

    Those that count against the feed come first, then the longest.
    """
    found: list[SilenceLine] = []
    for symbol in profile.symbols:
        window = settled.verdict.context.window_of(symbol, grouped=settled.feed.is_grouped)
        silences = list(symbol.silences)
        if settled.verdict.evidence_class == "C":
            edges = arrival_edges(profile, symbol, grouped=settled.feed.is_grouped)
            usual_us = window.owed_us(*edges) / max(1, symbol.rows - 1)
            at_edges = ((window.start_us, edges[0]), (edges[1], window.end_us))
            silences += [
                Silence(start_us=start, end_us=end, usual_us=usual_us)
                for start, end in at_edges
                if end - start > allowed_silence_us(usual_us, thresholds)
            ]
        kind = settled.verdict.evidence_class
        if kind != "C":
            found += _at_midnight(settled, profile, symbol, thresholds)
        if kind != "C" and not symbol.gaps:
            # None of them counts, so the longest are enough; a sparse feed has a thousand.
            silences = nlargest(SHOWN_SILENCES, silences, key=lambda s: (s.end_us - s.start_us, -s.start_us))
        legitimate = legitimate_gap("B", thresholds, symbol) if kind == "B" else 0
        lost = [h for h in symbol.gaps if h.last_missing - h.first_missing + 1 > legitimate]
        found += [_silence(silence, lost, kind, window, thresholds) for silence in silences]
    if profile.longest_silence is not None:
        silence = profile.longest_silence
        allowed = allowed_silence_us(silence.usual_us, thresholds)
        text = "the longest of the day"
        found.append(
            SilenceLine(silence.start_us, silence.end_us, silence.usual_us, allowed, text, counts=False)
        )
    return sorted(found, key=lambda g: (not g.counts, g.start_us - g.end_us, g.start_us))


def _at_midnight(
    settled: SettledFeed, profile: FeedProfile, symbol: SymbolProfile, thresholds: ThresholdSettings
) -> Iterator[SilenceLine]:
    """The edges that count as lost until ids join over midnight."""
    feed, context = settled.feed, settled.verdict.context
    seams = seams_in(context, feed, settled.verdict.day, profile, symbol, thresholds)
    window = context.window_of(symbol, grouped=feed.is_grouped)
    first, last = arrival_edges(profile, symbol, grouped=feed.is_grouped)
    usual_us = window.owed_us(first, last) / max(1, symbol.rows - 1)
    edges = ((window.start_us, first), (last, window.end_us))
    for (start, end), lost_us in zip(edges, seams.lost_us, strict=True):
        if lost_us:
            text = "no ids join over midnight: counts as lost time"
            yield SilenceLine(start, end, usual_us, end - start - lost_us, text, counts=True)


def _silence(
    silence: Silence,
    lost: Sequence[Gap],
    evidence: str | None,
    window: Window,
    thresholds: ThresholdSettings,
) -> SilenceLine:
    allowed = allowed_silence_us(silence.usual_us, thresholds)
    inside = [h for h in lost if h.after_us < silence.end_us and h.before_us > silence.start_us]
    by_ids, counts = bool(inside) and evidence in ("A", "B"), False
    if by_ids:
        missing = sum(h.last_missing - h.first_missing + 1 for h in inside)
        counts, text = True, f"{missing:,} ids are missing around it"
    elif evidence == "A":
        text = "the ids before and after join: nothing was traded"
    elif silence.end_us - silence.start_us <= allowed:
        text = "as usual there"
    elif evidence != "C":
        text = "no id is missing"
    elif window.owed_us(silence.start_us, silence.end_us) > allowed:
        counts, text = True, "longer than excused: counts as lost time"
    else:
        text = "in a known outage: does not count"
    return SilenceLine(silence.start_us, silence.end_us, silence.usual_us, allowed, text, counts, by_ids)
