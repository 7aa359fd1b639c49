"""The scores of a day and its state: pure functions of the verdicts on its feeds and their consistencies.

Half of every feed's weight is equal and half is by notional, so that ten small markets cannot hide the loss
of a large one, nor the reverse. A score without evidence is null and is never averaged away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.verdict import Verdict
from backfill_assets.settings import OverallSettings, ThresholdSettings

DayState = Literal["published", "degraded", "held", "missing"]


class DayLimits(Document):
    """The thresholds of a day's scores, as stored in its document."""

    day_completeness: float
    day_quality: float
    day_consistency: float
    hold_below: float
    strict: bool
    notional_weight: float

    @classmethod
    def of(cls, thresholds: ThresholdSettings) -> DayLimits:
        """The limits from the settings."""
        return cls(**{name: getattr(thresholds, name) for name in cls.model_fields})


class DayScores(Document):
    """Scores and state of a day; a score without evidence is null."""

    state: DayState
    completeness: float | None
    quality: float | None
    #: Over the accepted feeds from which candles are made; null until all of them were compared.
    consistency: float | None = None
    #: Share of the expected feeds that are accepted.
    accepted_share: float
    #: The same share by notional; null where the baseline has no notional of any feed.
    accepted_notional: float | None = None
    reasons: tuple[str, ...]
    #: One per feed, in the order of the verdicts; they add up to 1.
    weights: tuple[float, ...] = ()
    #: One per feed; null where candles were not compared.
    consistencies: tuple[float | None, ...] = ()


class Overall(Document):
    """One number for a day, computed in two ways, with its parts; null where a part is null.

    ``product`` is Π partʷ, ``weighted_sum`` is Σ w·part. A part of 0 makes the product 0, but only lowers
    the sum.
    """

    ticks: float | None
    candles: float | None
    instruments: float | None
    warehouse: float | None
    product: float | None
    weighted_sum: float | None


def feed_weights(notional: Sequence[float], notional_weight: float) -> tuple[float, ...]:
    """Weights that add up to 1, partly equal and partly by notional; all equal where no notional is known."""
    count, total = len(notional), math.fsum(notional)
    if total <= 0:
        return (1 / count,) * count if count else ()
    return tuple((1 - notional_weight) / count + notional_weight * n / total for n in notional)


def judge_day(
    verdicts: Sequence[Verdict],
    accepted: Sequence[bool],
    thresholds: ThresholdSettings | DayLimits,
    *,
    consistencies: Sequence[float | None] = (),
    notional: Sequence[float] = (),
    awaited: Sequence[str] = (),
    left_out: Sequence[bool] = (),
) -> DayScores:
    """Compute the scores of a day from its feeds' verdicts.

    Completeness is over the expected feeds; quality and consistency are over the accepted feeds.

    Parameters
    ----------
    accepted
        Which feeds have an accepted version.
    consistencies
        Consistency of each feed's accepted version; null where it was not compared. Until all are compared,
        the day's consistency is null and does not affect the state: publishing compares first.
    notional
        Median daily notional of each feed, 0 where unknown.
    awaited
        Why exchanges are awaited whose feeds are not among the verdicts: without them no day is complete.
    left_out
        Which feeds do not affect the day's consistency unless they have one: their volumes are unknown.
    """
    if not verdicts:
        # All feeds were dropped or none was listed, so no file is missing, unless exchanges are awaited.
        return DayScores(
            state="missing" if awaited else "published",
            completeness=None,
            quality=None,
            accepted_share=0.0 if awaited else 1.0,
            reasons=tuple(awaited) or ("no feed is expected of the day",),
        )
    known = list(notional) or [0.0] * len(verdicts)
    measured = list(consistencies) or [None] * len(verdicts)
    weights = feed_weights(known, thresholds.notional_weight)
    # Equal weights are 1 each instead of 1/n: rounding must not lift a score that is at its threshold.
    summed = weights if math.fsum(known) > 0 else (1.0,) * len(verdicts)
    taken = [i for i, is_accepted in enumerate(accepted) if is_accepted]
    silent = list(left_out) or [False] * len(verdicts)
    compared = [
        i
        for i in taken
        if DATA_TYPES[Feed.parse(verdicts[i].feed).data_type].makes_candles
        and not (silent[i] and measured[i] is None)
    ]
    scores = {
        "completeness": _mean([v.completeness for v in verdicts], summed),
        "quality": _mean([_quality(verdicts[i]) for i in taken], [summed[i] for i in taken]),
        "consistency": _mean([measured[i] for i in compared], [summed[i] for i in compared]),
    }
    low = _too_low(scores, thresholds)
    share = sum(accepted) / len(accepted)
    by_notional = math.fsum(known[i] for i in taken) / math.fsum(known) if math.fsum(known) > 0 else None
    hold = _hold_reasons(accepted, by_notional, thresholds.hold_below)
    if hold or (thresholds.strict and low):
        state: DayState = "held"
    else:
        state = "published" if all(accepted) and not low and not awaited else "degraded"
    return DayScores(
        state=state,
        **scores,
        accepted_share=share,
        accepted_notional=by_notional,
        reasons=(*hold, *low, *awaited),
        weights=weights,
        consistencies=tuple(measured),
    )


def overall(
    scores: DayScores,
    instruments: float | None,
    warehouse: float | None,
    weights: OverallSettings,
) -> Overall:
    """Combine a day's parts.

    Parameters
    ----------
    instruments
        Share of the expected symbols that have exactly one instrument.
    warehouse
        1 if every table of the day is published and was read back, else 0.
    """
    ticks = None
    if scores.completeness is not None and scores.quality is not None:
        ticks = min(scores.completeness, scores.quality)
    elif scores.completeness == 0:
        # No feed was accepted, so there is no quality; the ticks are missing, not unknown.
        ticks = 0.0
    parts = (
        (ticks, weights.ticks),
        (scores.consistency, weights.candles),
        (instruments, weights.instruments),
        (warehouse, weights.warehouse),
    )
    known = [(score, weight) for score, weight in parts if score is not None]
    whole = len(known) == len(parts)
    return Overall(
        ticks=ticks,
        candles=scores.consistency,
        instruments=instruments,
        warehouse=warehouse,
        product=math.prod(score**weight for score, weight in known) if whole else None,
        weighted_sum=math.fsum(score * weight for score, weight in known) if whole else None,
    )


def instruments_share(expected: Sequence[Feed], listed: Sequence[tuple[str, str]]) -> float | None:
    """Share of the expected symbols with exactly one row of (exchange, data set symbol) among ``listed``.

    Grouped files have no instrument of their own and are left out; null if no other feed is expected.
    """
    rows = Counter(listed)
    symbols = {(feed.exchange, feed.dataset_symbol) for feed in expected if not feed.is_grouped}
    return sum(rows[symbol] == 1 for symbol in symbols) / len(symbols) if symbols else None


def _mean(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Weighted mean; null if there is no score, or if one is null."""
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return None
    total = math.fsum(weights)
    if total <= 0:
        return math.fsum(known) / len(known)
    return min(1.0, math.fsum(s * w for s, w in zip(known, weights, strict=True)) / total)


def _quality(verdict: Verdict) -> float | None:
    """Quality of the feed; 1 for a file that is proven to be rightly empty, since no row of it is broken."""
    proven_empty = verdict.rows == 0 and verdict.completeness_state == "proven"
    return 1.0 if proven_empty else verdict.quality


def _too_low(scores: dict[str, float | None], thresholds: ThresholdSettings | DayLimits) -> list[str]:
    limits = {
        "completeness": thresholds.day_completeness,
        "quality": thresholds.day_quality,
        "consistency": thresholds.day_consistency,
    }
    return [
        f"{name} {'has no evidence' if score is None else f'{score:.4f}'} (threshold {limits[name]:g})"
        for name, score in scores.items()
        if (score is None and name != "consistency") or (score is not None and score <= limits[name])
    ]


def _hold_reasons(accepted: Sequence[bool], by_notional: float | None, limit: float) -> list[str]:
    reasons = []
    if sum(accepted) / len(accepted) < limit:
        reasons.append(f"only {sum(accepted)} of {len(accepted)} feeds are accepted (hold_below {limit:g})")
    if by_notional is not None and by_notional < limit:
        share = f"{by_notional:.1%} of the usual notional"
        reasons.append(f"the accepted feeds make only {share} (hold_below {limit:g})")
    return reasons
