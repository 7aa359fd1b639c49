"""How much of a feed's day is present, by the strongest evidence that the feed has.

There are three classes of evidence. **A**: the venue's ids are contiguous, so a gap proves a loss and its
absence proves completeness. **B**: the venue itself leaves gaps in the ids, up to a known length. **C**:
there are no usable ids; silences and counts are judged (``estimates``), and such a score is never called
proven.

The constants were measured on real captures; see docs/scores.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from backfill_assets.id_laws import EvidenceClass as EvidenceClass
from backfill_assets.id_laws import IdLaw
from backfill_assets.quality.estimates import longest_silence_us, silence_score, unexcused_silences
from backfill_assets.quality.profiles import Silence, SymbolProfile
from backfill_assets.quality.seams import Seams
from backfill_assets.quality.window import Range, Window
from backfill_assets.settings import ThresholdSettings

#: ``proven``: every id is present and both midnights join. ``head_proven``: only the midnight before joins.
#: ``inner_proven``: every id is present between the first and the last row, but the midnight before does not
#: join. ``degraded``: ids are missing. ``estimated``: nothing is known to be missing, and nothing proves it.
#: ``no_evidence``: there is nothing to judge by.
CompletenessState = Literal[
    "proven", "head_proven", "inner_proven", "degraded", "estimated", "missing", "no_evidence"
]

#: The profile counts all runs up to this length, without a bound on their number.
COUNTED_SHORT_GAP: Final = 5


@dataclass(frozen=True, slots=True)
class Completeness:
    """Score in [0, 1] or null, its class and state, and the counts behind it."""

    score: float | None
    evidence_class: EvidenceClass | None
    state: CompletenessState
    #: Ids from the lowest to the highest; null without id evidence.
    span: int | None = None
    missing_ids: int | None = None
    longest_gap: int | None = None
    #: Time in gaps of the ids, and the ids in gaps that touch a known outage.
    lossy_us: int = 0
    outage_ids: int = 0
    #: Time in unexcused silences, and the part in known outages, which does not count.
    silence_us: int = 0
    outage_silence_us: int = 0
    #: The longest silence, for a market that trades too seldom to be judged by its own silences.
    longest_silence_us: int | None = None
    #: Null without id evidence.
    seams: Seams | None = None
    uncalibrated: bool = False
    #: The score without the history, by the file and the neighbors' ids alone; null with too few rows.
    own_score: float | None = None
    #: For symbols of grouped files: the name, and the length of time that the scores are shares of.
    dataset_symbol: str = ""
    window_us: int = 0


def id_class(law: IdLaw | None) -> EvidenceClass:
    """Evidence class that the venue promises for the ids of its trades."""
    return law.evidence_class if law is not None else "C"


def evidence_class(law: IdLaw | None, profile: SymbolProfile) -> EvidenceClass:
    """Class of a symbol's evidence: the class that the venue promises, if every row has such an id."""
    if profile.rows == 0 or profile.numeric_ids != profile.rows or profile.missing_ids is None:
        return "C"
    return id_class(law)


def completeness(
    law: IdLaw | None,
    profile: SymbolProfile,
    window: Window,
    seams: Seams,
    thresholds: ThresholdSettings,
    edges: Range,
    thinning: float | None = None,
    *,
    is_live: bool = False,
    known_silence_us: int | None = None,
) -> Completeness:
    """Judge one symbol of one feed.

    Parameters
    ----------
    law
        The law of the venue's ids on the day; None if none is known.
    seams
        The midnights, as the symbol's ids show them.
    edges
        Arrival time of the symbol's first and last row, in microseconds.
    thinning
        Score of the file's row count against the usual count; ``None`` without history.
    is_live
        Whether other markets of the venue show that its capture never stopped.
    known_silence_us
        The longest silence in the feed's history; ``None`` without history.

    Returns
    -------
    Completeness
        The score is null if nothing tells whether rows are missing: the file has no rows, or as in
        ``by_estimate``.
    """
    if profile.rows == 0:
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    kind = evidence_class(law, profile)
    if kind == "C":
        silences = profile.silences
        return by_estimate(
            profile.rows,
            silences,
            window,
            thresholds,
            edges,
            thinning,
            is_live=is_live,
            known_silence_us=known_silence_us,
        )
    return _by_ids(kind, profile, judged_window(window, edges), seams, thresholds)


def legitimate_gap(
    kind: EvidenceClass, thresholds: ThresholdSettings, profile: SymbolProfile | None = None
) -> int:
    """The longest run of missing ids that venues of the class leave themselves.

    0 where the file has so many such runs that the venue cannot have left them: thinned data consists of
    them.
    """
    allowed = thresholds.legitimate_hole if kind == "B" else 0
    if not allowed or profile is None:
        return allowed
    most = max(allowed, thresholds.legitimate_share * _span(profile))
    return allowed if _ids_in_short_gaps(profile, allowed) <= most else 0


def _span(profile: SymbolProfile) -> int:
    """Ids from the lowest to the highest."""
    return (profile.id_max or 0) - (profile.id_min or 0) + 1


def by_estimate(
    rows: int,
    silences: Iterable[Silence],
    window: Window,
    thresholds: ThresholdSettings,
    edges: Range,
    thinning: float | None,
    *,
    is_live: bool = False,
    known_silence_us: int | None = None,
) -> Completeness:
    """Judge rows of any data type without usable ids by silences and by their number.

    A market that trades a few times a day is silent for hours, so the silences of its file alone tell
    nothing. With fewer rows than a history of counts needs, its longest silence is compared with the longest
    of its history. Without a history, the score is null unless the venue's capture is known to have run.
    """
    window = judged_window(window, edges)
    if thinning is None and rows < thresholds.history.least_rows:
        return _of_few_rows(
            longest_silence_us(silences, edges, window), window, thresholds, known_silence_us, is_live=is_live
        )
    found = unexcused_silences(rows, silences, edges, window, thresholds)
    limit = thresholds.uncalibrated_cap if thinning is None else thinning
    own_score = silence_score(found.total_us, window)
    return Completeness(
        score=min(own_score, limit),
        evidence_class="C",
        state="estimated",
        silence_us=found.total_us,
        outage_silence_us=found.in_outages_us,
        uncalibrated=thinning is None,
        own_score=own_score if rows >= thresholds.history.least_rows else None,
    )


def _of_few_rows(
    longest_us: int, window: Window, thresholds: ThresholdSettings, known_us: int | None, *, is_live: bool
) -> Completeness:
    if known_us is None:
        return Completeness(
            thresholds.uncalibrated_cap if is_live else None,
            evidence_class="C",
            state="estimated" if is_live else "no_evidence",
            longest_silence_us=longest_us,
            uncalibrated=True,
        )
    beyond_us = max(0, round(longest_us - thresholds.edge_factor * known_us))
    return Completeness(
        min(silence_score(beyond_us, window), thresholds.uncalibrated_cap),
        evidence_class="C",
        state="estimated",
        silence_us=beyond_us,
        longest_silence_us=longest_us,
    )


def over_nothing(law: IdLaw | None, previous: Sequence[int], following: Sequence[int]) -> Completeness:
    """Judge a file of one symbol without rows: it is complete if the ids of the days around it join."""
    kind = id_class(law)
    if kind == "C" or not any(after == before + 1 for before in previous for after in following):
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    return Completeness(score=1.0, evidence_class=kind, state="proven")


def judged_window(window: Window, edges: Range) -> Window:
    """The window itself; where the symbol's listing is unknown, from the first to the last row."""
    return window if window.is_listed else replace(window, start_us=edges[0], end_us=edges[1])


def _by_ids(
    kind: EvidenceClass,
    profile: SymbolProfile,
    window: Window,
    seams: Seams,
    thresholds: ThresholdSettings,
) -> Completeness:
    allowed = legitimate_gap(kind, thresholds, profile)
    excused = _ids_in_short_gaps(profile, allowed)
    missing = (profile.missing_ids or 0) - excused
    longest = profile.longest_gap or 0
    lost = [h for h in profile.gaps if h.last_missing - h.first_missing + 1 > allowed]
    span = _span(profile)
    score = min((span - missing) / span, silence_score(sum(seams.silence_us), window))
    return Completeness(
        score=score,
        evidence_class=kind,
        state=_state_by_ids(missing, excused + seams.excused_ids, seams.joins, is_listed=window.is_listed),
        span=span,
        missing_ids=missing,
        longest_gap=longest if longest > allowed else 0,
        lossy_us=sum(window.owed_us(h.after_us, h.before_us) for h in lost),
        outage_ids=sum(
            h.last_missing - h.first_missing + 1
            for h in lost
            if window.touches_outage(min(h.after_us, h.before_us), max(h.after_us, h.before_us))
        ),
        silence_us=sum(seams.silence_us),
        seams=seams,
        own_score=score,
    )


def _ids_in_short_gaps(profile: SymbolProfile, allowed: int) -> int:
    """Missing ids in runs of at most ``allowed``; the profile counts runs of up to 5 and lists 1,000."""
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
        # Trades may be lost in gaps like the venue's own, or before the first and after the last row.
        return "estimated"
    if all(joins):
        return "proven"
    return "head_proven" if joins[0] else "inner_proven"
