"""How much of a feed's day is there, by the strongest evidence the feed has.

Three classes of evidence. **A**: ids are contiguous at the venue, so a gap proves a loss and its absence
proves completeness. **B**: ids with gaps that the venue leaves itself, up to a known length. **C**: no
usable ids; silences and counts can be judged (``estimates``), and such a score is never called proven.

Source of the constants: measured on real captures; see docs/scores.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from backfill_assets.days import end_us, start_us
from backfill_assets.quality.estimates import silence_score, unexcused_silences
from backfill_assets.quality.profiles import Silence, SymbolProfile
from backfill_assets.quality.window import Range, Window
from backfill_assets.settings import ThresholdSettings
from backfill_assets.venues import venue

EvidenceClass = Literal["A", "B", "C"]

#: ``proven``: every id is there and both seams join. ``head_proven``: the seam to the day after is open.
#: ``inner_proven``: every id is there between the first and the last row, the seam to the day before is open.
#: ``degraded``: ids are missing. ``estimated``: nothing is known to be missing, and nothing proves that.
#: ``no_evidence``: nothing to judge by.
CompletenessState = Literal[
    "proven", "head_proven", "inner_proven", "degraded", "estimated", "missing", "no_evidence"
]

#: Runs up to this length are counted by the profile, however many there are.
COUNTED_SHORT_GAP: Final = 5


@dataclass(frozen=True, slots=True)
class Seam:
    """What the neighbour's accepted file says about the border: its id nearest to ours, and its silence.

    ``id`` is the last id of the day before or the first id of the day after; ``silence_us`` is the time
    between the border and the neighbour's nearest row.
    """

    id: int
    silence_us: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """Score in [0, 1] or null, its class and state, and the counts it was made of."""

    score: float | None
    evidence_class: EvidenceClass | None
    state: CompletenessState
    #: Ids that should be there: from after the day before's last to the last; null without id evidence.
    span: int | None = None
    missing_ids: int | None = None
    longest_gap: int | None = None
    #: Time in gaps of the ids, and the ids in gaps that touch a known outage.
    lossy_us: int = 0
    outage_ids: int = 0
    #: Unexcused silences, and what of them lies in known outages and does not count.
    silence_us: int = 0
    outage_silence_us: int = 0
    repeated_ids: int = 0
    uncalibrated: bool = False


def id_class(exchange: str, day: str) -> EvidenceClass:
    """What the venue promises of the ids of its trades."""
    since = venue(exchange).contiguous_since
    if since is not None and day >= since:
        return "A"
    return "B" if venue(exchange).leaves_gaps else "C"


def evidence_class(exchange: str, day: str, profile: SymbolProfile) -> EvidenceClass:
    """Class of a symbol's evidence: the venue's promise, if every row carries the ids it speaks of."""
    if profile.rows == 0 or profile.numeric_ids != profile.rows or profile.missing_ids is None:
        return "C"
    return id_class(exchange, day)


def completeness(
    exchange: str,
    day: str,
    profile: SymbolProfile,
    window: Window,
    previous: Seam | None,
    following: Seam | None,
    thresholds: ThresholdSettings,
    edges: Range,
    thinning: float | None = None,
) -> Completeness:
    """Judge one symbol of one feed.

    Parameters
    ----------
    previous, following
        The seams to the accepted neighbours; ``None`` while they are not here.
    edges
        Arrival time of the symbol's first and last row, in microseconds.
    thinning
        Score of the file's rows against what is usual; ``None`` without history.

    Returns
    -------
    Completeness
        The score is null only if the symbol has no rows.
    """
    if profile.rows == 0:
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    kind = evidence_class(exchange, day, profile)
    if kind == "C":
        return by_estimate(profile.rows, profile.silences, window, thresholds, edges, thinning)
    return _by_ids(kind, day, profile, _judged(window, edges), previous, following, thresholds, edges)


def by_estimate(
    rows: int,
    silences: Iterable[Silence],
    window: Window,
    thresholds: ThresholdSettings,
    edges: Range,
    thinning: float | None,
) -> Completeness:
    """Judge rows without usable ids, of any data type, by silences and by their number."""
    window = _judged(window, edges)
    found = unexcused_silences(rows, silences, edges, window, thresholds)
    limit = thresholds.uncalibrated_cap if thinning is None else thinning
    return Completeness(
        score=min(silence_score(found.total_us, window), limit),
        evidence_class="C",
        state="estimated",
        silence_us=found.total_us,
        outage_silence_us=found.in_outages_us,
        uncalibrated=thinning is None,
    )


def over_nothing(
    exchange: str, day: str, previous: Mapping[str, Seam], following: Mapping[str, Seam]
) -> Completeness:
    """Judge a file without rows: complete if the ids around it join for every symbol that both sides know."""
    kind, shared = id_class(exchange, day), previous.keys() & following.keys()
    if kind == "C" or not shared or any(following[s].id != previous[s].id + 1 for s in shared):
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    return Completeness(score=1.0, evidence_class=kind, state="proven")


def without_rows(
    exchange: str, day: str, previous: Seam, following: Seam, thresholds: ThresholdSettings
) -> Completeness | None:
    """Judge a symbol that both neighbours of a grouped file have and it has not; None if that is right."""
    kind = id_class(exchange, day)
    lost = _gap(following.id - previous.id - 1, thresholds.legitimate_hole if kind == "B" else 0)
    if kind == "C" or not lost:
        return None
    return Completeness(
        score=0.0, evidence_class=kind, state="degraded", span=lost, missing_ids=lost, longest_gap=lost
    )


def _judged(window: Window, edges: Range) -> Window:
    """The window itself; from the first to the last row where nobody knows when the symbol was listed."""
    return window if window.is_listed else replace(window, start_us=edges[0], end_us=edges[1])


def _by_ids(
    kind: EvidenceClass,
    day: str,
    profile: SymbolProfile,
    window: Window,
    previous: Seam | None,
    following: Seam | None,
    thresholds: ThresholdSettings,
    edges: Range,
) -> Completeness:
    id_min, id_max = profile.id_min, profile.id_max
    if id_min is None or id_max is None:  # excluded by evidence_class: all ids are numeric and rows > 0
        return Completeness(score=None, evidence_class=kind, state="no_evidence")
    allowed = thresholds.legitimate_hole if kind == "B" else 0
    excused = _excused_ids(profile, allowed)
    missing = (profile.missing_ids or 0) - excused
    longest = profile.longest_gap or 0
    longest = longest if longest > allowed else 0
    lost = [h for h in profile.gaps if h.last_missing - h.first_missing + 1 > allowed]

    between = (
        id_min - previous.id - 1 if previous else None,
        following.id - id_max - 1 if following else None,
    )
    # Ids far behind the other side's are another count, or the same file again: they say nothing of the seam.
    meets = tuple(n is not None and n >= -thresholds.repeated_ids for n in between)
    joins = (
        meets[0] and between[0] is not None and between[0] <= allowed,
        meets[1] and between[1] is not None and between[1] <= allowed,
    )
    head, tail = (_gap(n or 0, allowed) for n in between)
    excused += sum(n for n, join in zip(between, joins, strict=True) if n is not None and join and n > 0)
    # A gap at midnight is the loss of the side that was silent there for longer, and counts once.
    midnights = (start_us(day), end_us(day))
    if previous and previous.silence_us > edges[0] - midnights[0]:
        head = 0
    if following and following.silence_us >= midnights[1] - edges[1]:
        tail = 0
    span = id_max - id_min + 1 + head + tail
    missing += head + tail

    found = unexcused_silences(profile.rows, (), edges, window, thresholds)
    unseen = sum(silence for silence, meet in zip(found.edges_us, meets, strict=True) if not meet)
    silent = sum(silence for silence, join in zip(found.edges_us, joins, strict=True) if not join)
    in_outages = [
        *(
            h.last_missing - h.first_missing + 1
            for h in lost
            if window.touches_outage(min(h.after_us, h.before_us), max(h.after_us, h.before_us))
        ),
        head if window.touches_outage(midnights[0], edges[0]) else 0,
        tail if window.touches_outage(edges[1], midnights[1]) else 0,
    ]
    return Completeness(
        score=min((span - missing) / span, silence_score(unseen, window)),
        evidence_class=kind,
        state=_state_by_ids(missing, excused, joins, is_listed=window.is_listed),
        span=span,
        missing_ids=missing,
        longest_gap=max(longest, head, tail),
        lossy_us=sum(window.owed_us(h.after_us, h.before_us) for h in lost),
        outage_ids=sum(in_outages),
        silence_us=silent,
        repeated_ids=max(0, previous.id - id_min + 1) if previous else 0,
    )


def _excused_ids(profile: SymbolProfile, allowed: int) -> int:
    """Missing ids in runs of at most ``allowed``; the profile counts those of up to 5, lists 1,000."""
    if allowed == COUNTED_SHORT_GAP:
        return profile.missing_in_short_gaps or 0
    lengths = (h.last_missing - h.first_missing + 1 for h in profile.gaps)
    return sum(length for length in lengths if length <= allowed)


def _state_by_ids(
    missing: int, excused: int, joins: tuple[bool, bool], *, is_listed: bool
) -> CompletenessState:
    if missing:
        return "degraded"
    if excused or not (all(joins) or is_listed):
        # Trades may be lost in gaps like the venue's own, or before and after what the file holds.
        return "estimated"
    if all(joins):
        return "proven"
    return "head_proven" if joins[0] else "inner_proven"


def _gap(ids: int, allowed: int) -> int:
    return ids if ids > allowed else 0
