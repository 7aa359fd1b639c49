"""How much of a feed's day is there, by the strongest evidence the feed has.

Three classes of evidence. **A**: ids are contiguous at the venue, so a hole proves a loss and its absence
proves completeness. **B**: ids with holes that the venue leaves itself, up to a known length. **C**: no
usable ids; only silences can be judged, and a score from silences alone is never called proven.

Source of the constants: measured on real captures; see docs/scores.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.settings import ThresholdSettings

EvidenceClass = Literal["A", "B", "C"]

#: ``proven``: no id is missing and both seams join. ``head_proven``: the seam to the day after is open.
#: ``inner_proven``: no id is missing between the first and the last row, the seam to the day before is open.
#: ``degraded``: ids are missing. ``estimated``: judged by silences. ``no_evidence``: nothing to judge by.
CompletenessState = Literal[
    "proven", "head_proven", "inner_proven", "degraded", "estimated", "missing", "no_evidence"
]

#: Venues whose trade ids are contiguous per symbol, and since which day.
CONTIGUOUS_IDS: Final[dict[str, str]] = {"binance": "", "coinbase": "", "kraken": "2026-07-10"}
#: Venues that drop prints (insurance fund, liquidations) and leave short holes.
IDS_WITH_HOLES: Final = frozenset({"binance-futures"})

#: Runs up to this length are counted by the profile, however many there are.
COUNTED_SHORT_HOLE: Final = 5

#: A score from silences alone cannot see thinned-out data, so it never reaches 1 by itself.
UNCALIBRATED_CAP: Final = 0.99


@dataclass(frozen=True, slots=True)
class Seam:
    """What the neighbour's accepted file says about the border: its id nearest to ours, and its silence.

    ``id`` is the last id of the day before or the first id of the day after; ``silence_us`` is the time
    between the border and the neighbour's nearest row.
    """

    id: int
    silence_us: int


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the day in which the symbol could trade, in microseconds."""

    start_us: int
    end_us: int

    @property
    def length_us(self) -> int:
        """Length, never negative."""
        return max(0, self.end_us - self.start_us)


@dataclass(frozen=True, slots=True)
class Completeness:
    """Score in [0, 1] or null, its class and state, and the counts it was made of."""

    score: float | None
    evidence_class: EvidenceClass | None
    state: CompletenessState
    #: Ids that should be there: from after the day before's last to the last; null without id evidence.
    span: int | None = None
    missing_ids: int | None = None
    longest_hole: int | None = None
    lossy_us: int = 0
    silence_us: int = 0
    repeated_ids: int = 0
    uncalibrated: bool = False


def evidence_class(exchange: str, day: str, profile: SymbolProfile) -> EvidenceClass:
    """Class of a symbol's evidence: the venue's promise, if every row carries the ids it speaks of."""
    if profile.rows == 0 or profile.numeric_ids != profile.rows or profile.missing_ids is None:
        return "C"
    if exchange in CONTIGUOUS_IDS and day >= CONTIGUOUS_IDS[exchange]:
        return "A"
    return "B" if exchange in IDS_WITH_HOLES else "C"


def completeness(
    exchange: str,
    day: str,
    profile: SymbolProfile,
    window: Window,
    previous: Seam | None,
    following: Seam | None,
    thresholds: ThresholdSettings,
    edges: tuple[int, int],
) -> Completeness:
    """Judge one symbol of one feed.

    Parameters
    ----------
    previous, following
        The seams to the accepted neighbours; ``None`` while they are not here.
    edges
        Arrival time of the symbol's first and last row, in microseconds.

    Returns
    -------
    Completeness
        The score is null only if the symbol has no rows.
    """
    if profile.rows == 0:
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    kind = evidence_class(exchange, day, profile)
    edge_silences = _edge_silences(profile, window, edges, thresholds)
    if kind == "C":
        inner = (_unexcused(g.end_us - g.start_us, g.usual_us, thresholds) for g in profile.gaps)
        silence_us = sum(inner) + sum(edge_silences)
        score = _silence_score(silence_us, window)
        return Completeness(
            score=min(score, UNCALIBRATED_CAP),
            evidence_class="C",
            state="estimated",
            silence_us=silence_us,
            uncalibrated=True,
        )
    return _by_ids(kind, profile, window, previous, following, thresholds, edges, edge_silences)


def _by_ids(
    kind: EvidenceClass,
    profile: SymbolProfile,
    window: Window,
    previous: Seam | None,
    following: Seam | None,
    thresholds: ThresholdSettings,
    edges: tuple[int, int],
    edge_silences: tuple[int, int],
) -> Completeness:
    id_min, id_max = profile.id_min, profile.id_max
    if id_min is None or id_max is None:  # excluded by evidence_class: all ids are numeric and rows > 0
        return Completeness(score=None, evidence_class=kind, state="no_evidence")
    allowed = thresholds.legitimate_hole if kind == "B" else 0
    missing = (profile.missing_ids or 0) - _excused_ids(profile, allowed)
    longest = profile.longest_hole or 0
    longest = longest if longest > allowed else 0
    lost = [h for h in profile.holes if h.last_missing - h.first_missing + 1 > allowed]
    lossy_us = sum(max(0, h.before_us - h.after_us) for h in lost)

    head = _seam_hole(previous.id, id_min, allowed) if previous else 0
    tail = _seam_hole(id_max, following.id, allowed) if following else 0
    joins = (previous is not None and head == 0, following is not None and tail == 0)
    # A hole at midnight is the loss of the side that was silent there for longer, and counts once.
    if previous and previous.silence_us > edges[0] - window.start_us:
        head = 0
    if following and following.silence_us >= window.end_us - edges[1]:
        tail = 0
    span = id_max - id_min + 1 + head + tail
    missing += head + tail
    silence_us = sum(silence for silence, join in zip(edge_silences, joins, strict=True) if not join)
    score = (span - missing) / span
    if previous is None or following is None:
        unseen = sum(
            silence
            for silence, seam in zip(edge_silences, (previous, following), strict=True)
            if seam is None
        )
        score = min(score, _silence_score(unseen, window))
    return Completeness(
        score=score,
        evidence_class=kind,
        state=_state_by_ids(missing, joins),
        span=span,
        missing_ids=missing,
        longest_hole=max(longest, head, tail),
        lossy_us=lossy_us,
        silence_us=silence_us,
        repeated_ids=max(0, previous.id - id_min + 1) if previous else 0,
    )


def _excused_ids(profile: SymbolProfile, allowed: int) -> int:
    """Missing ids in runs of at most ``allowed``; the profile counts those of up to 5, lists 1,000."""
    if allowed == COUNTED_SHORT_HOLE:
        return profile.missing_in_short_holes or 0
    lengths = (h.last_missing - h.first_missing + 1 for h in profile.holes)
    return sum(length for length in lengths if length <= allowed)


def _state_by_ids(missing: int, joins: tuple[bool, bool]) -> CompletenessState:
    if missing:
        return "degraded"
    if all(joins):
        return "proven"
    return "head_proven" if joins[0] else "inner_proven"


def _seam_hole(earlier_id: int, later_id: int, allowed: int) -> int:
    hole = max(0, later_id - earlier_id - 1)
    return 0 if hole <= allowed else hole


def _edge_silences(
    profile: SymbolProfile,
    window: Window,
    edges: tuple[int, int],
    thresholds: ThresholdSettings,
) -> tuple[int, int]:
    """Unexcused microseconds before the first and after the last row, by the day's mean gap."""
    usual_us = (edges[1] - edges[0]) / max(1, profile.rows - 1)
    return (
        _unexcused(edges[0] - window.start_us, usual_us, thresholds),
        _unexcused(window.end_us - edges[1], usual_us, thresholds),
    )


def _unexcused(length_us: int, usual_us: float, thresholds: ThresholdSettings) -> int:
    excused = max(thresholds.silence_seconds * MICROSECONDS_PER_SECOND, thresholds.silence_factor * usual_us)
    return max(0, round(length_us - excused))


def _silence_score(silence_us: int, window: Window) -> float:
    return max(0.0, 1 - silence_us / window.length_us) if window.length_us else 1.0
