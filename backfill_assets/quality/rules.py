"""How sound a feed's rows are: hard rules, a score per rule, and warnings.

One row that breaks a hard rule quarantines the feed, because the file is then not the feed's file of the day.
A score falls from 1 to 0 as the rate of broken rows rises to the rule's limit:
``clip(1 - max(0, broken - excused) / max(rows, minimum_rows) / limit, 0, 1)``. The feed's quality is the
lowest score. The floor of 100,000 rows keeps one bad row from condemning a small feed. Rules for replayed
books, and for prices beside trades, count seconds, levels, deletes and minutes instead of rows, each with its
own floor. Odd rows that may still be true only warn; the sentences are in ``warnings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.id_laws import IdLaw
from backfill_assets.lake.evidence import BesideTrades, SpikeEvidence
from backfill_assets.quality.beside_trades import judged_prices
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.spikes import refuted_rows
from backfill_assets.quality.warnings import grid_is_stale, is_habit, row_warnings, seconds
from backfill_assets.settings import RowSettings

Unit = Literal["rows", "seconds", "levels", "deletes", "minutes"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule: its name, how many broken rows are excused, and the rate at which the score is 0."""

    name: str
    excused: int
    limit: float
    #: The unit of its counts.
    unit: Unit = "rows"


def row_rules(limits: RowSettings) -> tuple[Rule, ...]:
    """The rules with the limits of the settings."""
    return (
        Rule("invalid_price_or_amount", excused=0, limit=limits.invalid_limit),
        Rule("same_id_other_payload", excused=0, limit=limits.conflicting_limit),
        Rule("off_price_grid", excused=0, limit=limits.off_grid_limit),
        Rule("unconfirmed_spikes", excused=limits.spike_excused, limit=limits.spike_limit),
        Rule("crossed_quotes", excused=limits.crossed_excused, limit=limits.crossed_limit),
        Rule("rows_without_values", excused=limits.valueless_excused, limit=limits.valueless_limit),
        Rule("contradictory_values", limits.odd_excused, limits.odd_limit),
        Rule("prices_apart", limits.odd_excused, limits.odd_limit),
        Rule("funding_off_the_hour", limits.odd_excused, limits.odd_limit),
        Rule("prices_off_trades", limits.off_trades_excused, limits.off_trades_limit, "minutes"),
        Rule("crossed_book", limits.crossed_book_excused, limits.crossed_book_limit, "seconds"),
        Rule("book_without_snapshot", limits.unknown_book_excused, limits.unknown_book_limit, "seconds"),
        Rule("diverged_snapshots", limits.diverged_excused, limits.diverged_limit, "levels"),
        Rule("deletes_of_absent_levels", 0, limits.absent_delete_limit, "deletes"),
    )


def sizes_of(
    profile: FeedProfile, limits: RowSettings, beside: BesideTrades | None = None
) -> dict[Unit, tuple[int, int]]:
    """By unit, how many the file has, and the floor of that number."""
    compared = judged_prices(beside, limits)
    return {
        "rows": (profile.rows, limits.minimum_rows),
        "seconds": (_seconds(sum(b.observed_us for b in profile.books)), limits.minimum_book_seconds),
        "levels": (sum(b.compared_levels for b in profile.books), limits.minimum_levels),
        "deletes": (sum(b.deletes for b in profile.books), limits.minimum_deletes),
        "minutes": (sum(one.minutes for one in compared), limits.minimum_minutes),
    }


def _seconds(microseconds: int) -> int:
    return round(microseconds / MICROSECONDS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Quality:
    """Score in [0, 1] (null without rows), counts per rule, broken hard rules and warnings as sentences."""

    score: float | None
    counts: dict[str, int]
    violations: tuple[str, ...]
    warnings: tuple[str, ...]
    #: The rule with the lowest score; null where all scores are 1.
    worst: str | None = None
    unit: Unit = "rows"


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
    beside: BesideTrades | None = None,
) -> Quality:
    """Judge the rows of one feed by its profile.

    Parameters
    ----------
    grouped
        Whether the file may have symbols that are not known.
    spikes
        The answers of witnesses on the profile's spikes; without them spikes cost nothing.
    law
        The law of the venue's ids. Without a law an integer id with two payloads is a fault, and a text id is
        not: it may be the id of an order.
    beside
        The comparison of the prices with the market's trades; without it they cost nothing.
    """
    limits = limits or RowSettings()
    counts = {
        "invalid_price_or_amount": max(profile.invalid_price_rows, profile.invalid_amount_rows)
        + sum(b.sideless_rows for b in profile.books),
        "same_id_other_payload": sum(
            s.conflicting_rows
            for s in profile.symbols
            if (law.forbids_conflicts if law else s.numeric_ids == s.rows)
        ),
        "off_price_grid": sum(
            s.off_grid_rows or 0 for s in profile.symbols if not grid_is_stale(s, limits.stale_grid_share)
        )
        + sum(b.off_grid_rows or 0 for b in profile.books if not grid_is_stale(b, limits.stale_grid_share)),
        "unconfirmed_spikes": sum(refuted_rows(s, spikes) for s in profile.symbols),
        "crossed_quotes": profile.crossed_rows,
        "rows_without_values": profile.valueless_rows,
        "contradictory_values": profile.odd_rows,
        "prices_apart": 0 if is_habit(profile.apart_rows, profile, limits) else profile.apart_rows,
        "funding_off_the_hour": (
            0 if is_habit(profile.off_hour_rows, profile, limits) else profile.off_hour_rows
        ),
        "prices_off_trades": sum(one.outside for one in judged_prices(beside, limits)),
        "crossed_book": sum(_seconds(b.stuck_us) for b in profile.books),
        "book_without_snapshot": sum(_seconds(b.unknown_us) for b in profile.books),
        "diverged_snapshots": sum(b.unexplained_levels for b in profile.books),
        "deletes_of_absent_levels": sum(
            max(0, b.absent_deletes - int(limits.absent_delete_share * b.deletes)) for b in profile.books
        ),
    }
    sizes = sizes_of(profile, limits, beside)
    scores = {rule.name: rule_score(rule, counts[rule.name], *sizes[rule.unit]) for rule in row_rules(limits)}
    worst = min(scores, key=lambda name: scores[name])
    return Quality(
        score=scores[worst] if profile.rows else None,
        counts=counts,
        violations=violations(profile, limits, grouped=grouped),
        warnings=row_warnings(profile, limits, grouped=grouped, spikes=spikes, law=law),
        worst=worst if scores[worst] < 1 else None,
        unit=next(rule.unit for rule in row_rules(limits) if rule.name == worst),
    )


def violations(
    profile: FeedProfile, limits: RowSettings | None = None, *, grouped: bool = False
) -> tuple[str, ...]:
    """Broken hard rules, one sentence each; one is enough to quarantine the feed."""
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
