"""How sound the rows of a feed are: hard rules, and one score per rule from its rate of broken rows.

A score falls from 1 to 0 as the rate of broken rows rises to the rule's limit:
``clip(1 - max(0, broken - excused) / max(rows, 100,000) / limit, 0, 1)``. The feed's quality is the lowest
score. The floor of 100,000 rows keeps one bad row from condemning a small feed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.quality.profiles import FeedProfile

MINIMUM_ROWS: Final = 100_000
#: A capture clock may run behind the exchange's: 1.27 s was seen in real captures.
CLOCK_WARNING_US: Final = MICROSECONDS_PER_SECOND // 2
CLOCK_FAILURE_US: Final = 5 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule: its name, how many broken rows are excused, and the rate at which the score is 0."""

    name: str
    excused: int
    limit: float


INVALID_VALUES: Final = Rule("invalid_price_or_amount", excused=0, limit=1e-4)
CONFLICTING_IDS: Final = Rule("same_id_other_payload", excused=0, limit=1e-5)
CROSSED: Final = Rule("crossed_quotes", excused=3, limit=1e-3)
RULES: Final = (INVALID_VALUES, CONFLICTING_IDS, CROSSED)


@dataclass(frozen=True, slots=True)
class Quality:
    """Score in [0, 1] (null without rows), counts per rule, broken hard rules and warnings as sentences."""

    score: float | None
    counts: dict[str, int]
    violations: tuple[str, ...]
    warnings: tuple[str, ...]


def rule_score(rule: Rule, broken: int, rows: int) -> float:
    """Score of one rule in [0, 1]."""
    rate = max(0, broken - rule.excused) / max(rows, MINIMUM_ROWS)
    return min(1.0, max(0.0, 1 - rate / rule.limit))


def quality(profile: FeedProfile, *, grouped: bool = False) -> Quality:
    """Judge the rows of one feed by its profile; a grouped file may hold symbols we do not know."""
    counts = {
        INVALID_VALUES.name: max(profile.invalid_price_rows, profile.invalid_amount_rows),
        CONFLICTING_IDS.name: sum(s.conflicting_rows for s in profile.symbols),
        CROSSED.name: profile.crossed_rows,
    }
    score = min(rule_score(rule, counts[rule.name], profile.rows) for rule in RULES) if profile.rows else None
    return Quality(score, counts, violations(profile, grouped=grouped), _warnings(profile, grouped=grouped))


def violations(profile: FeedProfile, *, grouped: bool = False) -> tuple[str, ...]:
    """Broken hard rules, each as one sentence; one is enough to quarantine the feed."""
    outside = profile.local_before_day + profile.local_after_day
    found = (
        (profile.implausible_times, "rows whose times are not microseconds since the epoch"),
        (outside, "rows that arrived outside the file's day"),
        (profile.local_decreases, "rows that arrived before the row above them"),
        (profile.wrong_exchange_rows, "rows of another exchange"),
        (0 if grouped else profile.unknown_symbol_rows, "rows of a symbol that is not this feed's"),
        (profile.misplaced_rows, "rows stamped further outside the day than the seam window"),
    )
    sentences = [f"{count} {what}" for count, what in found if count]
    if (profile.clock_offset_p99_us or 0) > CLOCK_FAILURE_US:
        sentences.append(f"capture clock {_seconds(profile.clock_offset_p99_us)} behind the exchange")
    return tuple(sentences)


def _warnings(profile: FeedProfile, *, grouped: bool) -> tuple[str, ...]:
    warnings = []
    offset = profile.clock_offset_p99_us or 0
    if CLOCK_WARNING_US < offset <= CLOCK_FAILURE_US:
        warnings.append(f"capture clock {_seconds(offset)} behind the exchange")
    duplicates = sum(s.duplicate_rows for s in profile.symbols)
    if duplicates:
        warnings.append(f"{duplicates} rows repeat an id with the same payload")
    if grouped and profile.unknown_symbol_rows:
        warnings.append(f"{profile.unknown_symbol_rows} rows of symbols that the instruments do not list")
    return tuple(warnings)


def _seconds(microseconds: int | None) -> str:
    return f"{(microseconds or 0) / MICROSECONDS_PER_SECOND:.2f} s"
