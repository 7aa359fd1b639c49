"""The verdict on a feed: a pure function of profile, context and thresholds.

A verdict is stored with the context it was made from and the hash of the rules, so that it can be computed
again and gives the same. Which feeds count is decided here and nowhere else; what that means for the day is
``scores``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from backfill_assets.feeds import Feed
from backfill_assets.quality.completeness import Completeness, Seam, Window, completeness
from backfill_assets.quality.profiles import FeedProfile, SymbolProfile
from backfill_assets.quality.rules import Quality, quality
from backfill_assets.settings import ThresholdSettings

#: Part of every verdict's rule hash; raised when a rule's meaning changes.
RULES_VERSION: Final = 2
#: More time lost in holes of the ids than this quarantines a feed, however few the ids.
LOSSY_LIMIT_US: Final = 10_000_000

Outcome = Literal["publish", "quarantine", "no_evidence", "missing"]


class Context(BaseModel):
    """What a verdict depends on besides the feed's own profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_start_us: int
    window_end_us: int
    #: Last ids of the accepted day before, and first ids of the accepted day after, by data set symbol.
    previous: dict[str, tuple[int, int]] = {}
    following: dict[str, tuple[int, int]] = {}


class Verdict(BaseModel):
    """The judgement of one feed's version on one day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    day: str
    #: sha256 of the judged file; null when the feed is missing.
    content: str | None
    rules: str
    outcome: Outcome
    completeness: float | None
    completeness_state: str
    evidence_class: str | None
    quality: float | None
    rows: int
    valid_rows: int
    missing_ids: int | None
    longest_hole: int | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    context: Context


def rules_hash(thresholds: ThresholdSettings) -> str:
    """Twelve hex digits that change whenever a threshold or the meaning of a rule changes."""
    text = f"{RULES_VERSION}:{thresholds.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def missing_verdict(feed: Feed, day: str, reason: str, context: Context, rules: str) -> Verdict:
    """The verdict on a feed that has no file: completeness 0."""
    return Verdict(
        feed=str(feed),
        day=day,
        content=None,
        rules=rules,
        outcome="missing",
        completeness=0.0,
        completeness_state="missing",
        evidence_class=None,
        quality=None,
        rows=0,
        valid_rows=0,
        missing_ids=None,
        longest_hole=None,
        reasons=(reason,),
        warnings=(),
        context=context,
    )


def judge_feed(
    feed: Feed,
    day: str,
    content: str,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
) -> Verdict:
    """Judge one version of one feed; a grouped file is as complete as its worst symbol with rows."""
    sound = quality(profile, thresholds.rows, grouped=feed.is_grouped)
    per_symbol = [
        _symbol_completeness(feed, day, symbol, profile, context, thresholds) for symbol in profile.symbols
    ] or [_without_ids(profile, context, thresholds)]
    whole = min(per_symbol, key=lambda c: (c.score is not None, c.score or 0.0))
    if profile.rows == 0 and _ids_join(context):
        whole = Completeness(score=1.0, evidence_class="A", state="proven")
    reasons = (*sound.violations, *_loss_reasons(per_symbol, thresholds), *_quality_reasons(sound))
    outcome: Outcome = "quarantine" if reasons else "no_evidence" if whole.score is None else "publish"
    if outcome == "no_evidence":
        reasons = ("the file is empty and no ids of the neighbours show that the day was",)
    missing = [c.missing_ids for c in per_symbol if c.missing_ids is not None]
    longest = [c.longest_hole for c in per_symbol if c.longest_hole is not None]
    return Verdict(
        feed=str(feed),
        day=day,
        content=content,
        rules=rules_hash(thresholds),
        outcome=outcome,
        completeness=whole.score,
        completeness_state=whole.state,
        evidence_class=whole.evidence_class,
        quality=sound.score,
        rows=profile.rows,
        valid_rows=sum(s.valid_rows for s in profile.symbols) if profile.symbols else profile.rows,
        missing_ids=sum(missing) if missing else None,
        longest_hole=max(longest) if longest else None,
        reasons=reasons,
        warnings=(*sound.warnings, *_completeness_warnings(per_symbol, thresholds)),
        context=context,
    )


def _symbol_completeness(
    feed: Feed,
    day: str,
    symbol: SymbolProfile,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
) -> Completeness:
    previous = context.previous.get(symbol.dataset_symbol)
    following = context.following.get(symbol.dataset_symbol)
    return completeness(
        feed.exchange,
        day,
        symbol,
        Window(context.window_start_us, context.window_end_us),
        Seam(*previous) if previous else None,
        Seam(*following) if following else None,
        thresholds,
        arrival_edges(profile, symbol, grouped=feed.is_grouped),
    )


def arrival_edges(profile: FeedProfile, symbol: SymbolProfile, *, grouped: bool) -> tuple[int, int]:
    """Time of the symbol's first and last row; in a grouped file only the exchange's time is known."""
    if grouped:
        return (symbol.first_trade_us or 0, symbol.last_trade_us or 0)
    return (profile.first_local_timestamp_us or 0, profile.last_local_timestamp_us or 0)


def _without_ids(profile: FeedProfile, context: Context, thresholds: ThresholdSettings) -> Completeness:
    """Data types without trades: only the silence at the day's edges is judged."""
    if (
        profile.rows == 0
        or profile.first_local_timestamp_us is None
        or profile.last_local_timestamp_us is None
    ):
        return Completeness(score=None, evidence_class=None, state="no_evidence")
    window = Window(context.window_start_us, context.window_end_us)
    usual = (profile.last_local_timestamp_us - profile.first_local_timestamp_us) / max(1, profile.rows - 1)
    excused = max(thresholds.silence_seconds * 1e6, thresholds.silence_factor * usual)
    edges = (
        profile.first_local_timestamp_us - window.start_us,
        window.end_us - profile.last_local_timestamp_us,
    )
    silence = sum(max(0, round(edge - excused)) for edge in edges)
    score = max(0.0, 1 - silence / window.length_us) if window.length_us else 1.0
    return Completeness(
        score=min(score, 0.99),
        evidence_class="C",
        state="estimated",
        silence_us=silence,
        uncalibrated=True,
    )


def _ids_join(context: Context) -> bool:
    """Whether the neighbours' ids show that nothing was traded in between, for every symbol they know."""
    shared = context.previous.keys() & context.following.keys()
    return bool(shared) and all(context.following[s][0] == context.previous[s][0] + 1 for s in shared)


def _loss_reasons(per_symbol: Sequence[Completeness], thresholds: ThresholdSettings) -> list[str]:
    reasons = []
    for found in per_symbol:
        missing, longest = found.missing_ids or 0, found.longest_hole or 0
        allowed = max(thresholds.missing_ids, thresholds.missing_ids_rate * (found.span or 0))
        if missing > allowed:
            reasons.append(f"{missing} ids are missing (at most {allowed:.0f} are excused)")
        elif longest > thresholds.longest_hole:
            reasons.append(f"{longest} ids in a row are missing (at most {thresholds.longest_hole})")
        elif found.lossy_us > LOSSY_LIMIT_US:
            reasons.append(f"{found.lossy_us / 1e6:.0f} s lie in holes of the ids (at most 10)")
        if found.repeated_ids > thresholds.repeated_ids:
            reasons.append(
                f"{found.repeated_ids} ids are the day before's too (at most {thresholds.repeated_ids})"
            )
    return reasons


def _quality_reasons(sound: Quality) -> list[str]:
    if sound.score is None or sound.score > 0 or sound.worst is None:
        return []
    return [f"quality is 0: {sound.counts[sound.worst]} rows break {sound.worst}"]


def _completeness_warnings(per_symbol: Sequence[Completeness], thresholds: ThresholdSettings) -> list[str]:
    warnings = []
    if any(c.uncalibrated for c in per_symbol):
        warnings.append(
            "uncalibrated: judged by silences, without the history that would show thinned-out data"
        )
    silence_us = sum(c.silence_us for c in per_symbol)
    if silence_us:
        excused = f"{thresholds.silence_seconds:g} s or {thresholds.silence_factor:g} usual gaps"
        warnings.append(f"{silence_us / 1e6:.0f} s of silence beyond {excused}")
    return warnings
