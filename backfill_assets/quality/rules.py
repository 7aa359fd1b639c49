"""How sound a feed's rows are: hard rules, a score per rule, and warnings.

A hard rule quarantines a feed by one broken row, because it means that the file is not what it is taken for.
A score falls from 1 to 0 as the rate of broken rows rises to the rule's limit:
``clip(1 - max(0, broken - excused) / max(rows, minimum_rows) / limit, 0, 1)``. The feed's quality is the
lowest score. The floor of 100,000 rows keeps one bad row from condemning a small feed. What is odd and may
still be true only warns; the sentences are in ``warnings``.
"""

from __future__ import annotations

from dataclasses import dataclass

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.id_laws import IdLaw
from backfill_assets.lake.evidence import SpikeEvidence
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.spikes import refuted_rows
from backfill_assets.quality.warnings import grid_is_stale, row_warnings, seconds
from backfill_assets.settings import RowSettings


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule: its name, how many broken rows are excused, and the rate at which the score is 0."""

    name: str
    excused: int
    limit: float


def row_rules(limits: RowSettings) -> tuple[Rule, ...]:
    """The rules with the limits of the settings."""
    return (
        Rule("invalid_price_or_amount", excused=0, limit=limits.invalid_limit),
        Rule("same_id_other_payload", excused=0, limit=limits.conflicting_limit),
        Rule("off_price_grid", excused=0, limit=limits.off_grid_limit),
        Rule("unconfirmed_spikes", excused=limits.spike_excused, limit=limits.spike_limit),
        Rule("crossed_quotes", excused=limits.crossed_excused, limit=limits.crossed_limit),
        Rule("rows_without_values", excused=limits.valueless_excused, limit=limits.valueless_limit),
    )


@dataclass(frozen=True, slots=True)
class Quality:
    """Score in [0, 1] (null without rows), counts per rule, broken hard rules and warnings as sentences."""

    score: float | None
    counts: dict[str, int]
    violations: tuple[str, ...]
    warnings: tuple[str, ...]
    #: The rule with the lowest score; null where no row breaks any.
    worst: str | None = None


def rule_score(rule: Rule, broken: int, rows: int, minimum_rows: int) -> float:
    """Score of one rule in [0, 1]."""
    rate = max(0, broken - rule.excused) / max(rows, minimum_rows)
    return min(1.0, max(0.0, 1 - rate / rule.limit))


def quality(
    profile: FeedProfile,
    limits: RowSettings | None = None,
    *,
    grouped: bool = False,
    spikes: SpikeEvidence | None = None,
    law: IdLaw | None = None,
) -> Quality:
    """Judge the rows of one feed by its profile.

    Parameters
    ----------
    grouped
        The file may hold symbols that we do not know.
    spikes
        What witnesses say of the profile's spikes; without it they cost nothing.
    law
        What is known of the venue's ids. Without a law an integer with two payloads is a fault, and a text
        is none: it may be the id of an order.
    """
    limits = limits or RowSettings()
    counts = {
        "invalid_price_or_amount": max(profile.invalid_price_rows, profile.invalid_amount_rows),
        "same_id_other_payload": sum(
            s.conflicting_rows
            for s in profile.symbols
            if (law.forbids_conflicts if law else s.numeric_ids == s.rows)
        ),
        "off_price_grid": sum(
            s.off_grid_rows or 0 for s in profile.symbols if not grid_is_stale(s, limits.stale_grid_share)
        ),
        "unconfirmed_spikes": sum(refuted_rows(s, spikes) for s in profile.symbols),
        "crossed_quotes": profile.crossed_rows,
        "rows_without_values": profile.valueless_rows,
    }
    scores = {
        rule.name: rule_score(rule, counts[rule.name], profile.rows, limits.minimum_rows)
        for rule in row_rules(limits)
    }
    worst = min(scores, key=lambda name: scores[name])
    return Quality(
        score=scores[worst] if profile.rows else None,
        counts=counts,
        violations=violations(profile, limits, grouped=grouped),
        warnings=row_warnings(profile, limits, grouped=grouped, spikes=spikes, law=law),
        worst=worst if scores[worst] < 1 else None,
    )


def violations(
    profile: FeedProfile, limits: RowSettings | None = None, *, grouped: bool = False
) -> tuple[str, ...]:
    """Broken hard rules, each as one sentence; one is enough to quarantine the feed."""
    limits = limits or RowSettings()
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
    offset = profile.clock_offset_p99_us or 0
    if offset > limits.clock_failure_seconds * MICROSECONDS_PER_SECOND:
        sentences.append(f"capture clock {seconds(offset)} behind the exchange")
    return tuple(sentences)
