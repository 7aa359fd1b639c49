"""The silences of a feed's file, each with what is usual there, what is excused, and what it means.

Read from the profile and by the verdict's own window, so that the page blames what the score has blamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backfill_assets.quality.estimates import allowed_silence_us
from backfill_assets.quality.profiles import FeedProfile, Gap, Hole
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.quality.verdict import arrival_edges
from backfill_assets.quality.window import Window
from backfill_assets.settings import ThresholdSettings


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
    #: Whether ids say what it was.
    ids_missing: bool = False


def gap_lines(settled: SettledFeed, profile: FeedProfile, thresholds: ThresholdSettings) -> list[GapLine]:
    """The silences between rows, and where nothing but silences is judged those at the day's edges, too.

    Those that count against the feed come first, then the longest.
    """
    found = []
    for symbol in profile.symbols:
        window = settled.verdict.context.window_of(symbol, grouped=settled.feed.is_grouped)
        gaps = symbol.gaps
        if settled.verdict.evidence_class == "C":
            edges = arrival_edges(profile, symbol, grouped=settled.feed.is_grouped)
            usual_us = window.owed_us(*edges) / max(1, symbol.rows - 1)
            at_edges = ((window.start_us, edges[0]), (edges[1], window.end_us))
            gaps += tuple(
                Gap(start_us=start, end_us=end, usual_us=usual_us)
                for start, end in at_edges
                if end - start > allowed_silence_us(usual_us, thresholds)
            )
        found += [_gap(gap, symbol.holes, settled.verdict.evidence_class, window, thresholds) for gap in gaps]
    if profile.longest_gap is not None:
        gap = profile.longest_gap
        allowed = allowed_silence_us(gap.usual_us, thresholds)
        text = "the longest of the day"
        found.append(GapLine(gap.start_us, gap.end_us, gap.usual_us, allowed, text, counts=False))
    return sorted(found, key=lambda g: (not g.counts, g.start_us - g.end_us, g.start_us))


def _gap(
    gap: Gap,
    holes: Sequence[Hole],
    evidence: str | None,
    window: Window,
    thresholds: ThresholdSettings,
) -> GapLine:
    allowed = allowed_silence_us(gap.usual_us, thresholds)
    legitimate = thresholds.legitimate_hole if evidence == "B" else 0
    inside = [
        h
        for h in holes
        if h.after_us < gap.end_us
        and h.before_us > gap.start_us
        and h.last_missing - h.first_missing + 1 > legitimate
    ]
    by_ids, counts = bool(inside) and evidence in ("A", "B"), False
    if by_ids:
        lost = sum(h.last_missing - h.first_missing + 1 for h in inside)
        counts, text = True, f"{lost:,} ids are missing around it"
    elif evidence == "A":
        text = "the ids before and after join: nothing was traded"
    elif gap.end_us - gap.start_us <= allowed:
        text = "as usual there"
    elif evidence != "C":
        text = "no id is missing"
    elif window.owed_us(gap.start_us, gap.end_us) > allowed:
        counts, text = True, "longer than is excused: counts as lost time"
    else:
        text = "in a known outage: does not count"
    return GapLine(gap.start_us, gap.end_us, gap.usual_us, allowed, text, counts, by_ids)
