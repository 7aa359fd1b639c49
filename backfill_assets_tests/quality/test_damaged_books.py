"""Every damage to a day of order books is found, or known to be invisible in a file; good days stay clean.

``quality`` is a lower score, ``completeness`` a lower score of completeness, ``warning`` a sentence that the
clean day does not have. ``unseen`` is a damage that one file of changes cannot show, as docs/scores.md says.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest

from backfill_assets.quality.verdict import Verdict
from backfill_assets_tests.quality.book_days import (
    DAMAGES,
    LIQUID,
    THIN,
    good_day,
    how_found,
    profile_of,
    verdict_of,
)

UNCALIBRATED: Final = (
    "uncalibrated: judged by silences, without the history that would show thinned-out data",
)
#: How each damage is found in a liquid and in a thin market.
FOUND: Final = {
    "lost deletes": ("quarantine", "quarantine"),
    "one lost message": ("unseen", "quality"),
    "a lost minute": ("quarantine", "unseen"),
    "a lost hour": ("quality", "quarantine"),
    "the first snapshot lost": ("quarantine", "quarantine"),
    "a later snapshot lost": ("unseen", "unseen"),
    "swapped sides": ("quarantine", "quarantine"),
    "mixed sides": ("quarantine", "quarantine"),
    "a doubled block": ("warning", "warning"),
    "a bid a decimal too high": ("quarantine", "quarantine"),
    "an ask a decimal too low": ("quarantine", "quarantine"),
    "an ask a decimal too high": ("warning", "warning"),
    "a bid a decimal too low": ("quality", "quality"),
    "negative amounts": ("quality", "quality"),
    "a price of zero": ("quality", "quality"),
    "the exchange's clock ahead": ("warning", "warning"),
    "shifted arrivals": ("quarantine", "quarantine"),
    "a frozen book": ("quarantine", "quarantine"),
    "a silent capture": ("quarantine", "quarantine"),
    "a cut end": ("completeness", "completeness"),
    "a lost side": ("quarantine", "quarantine"),
    "a shuffled hour": ("quarantine", "quarantine"),
    "an hour of prices ten times too high": ("quarantine", "quarantine"),
    "an old snapshot": ("quarantine", "quality"),
}
MARKETS: Final = {"liquid": LIQUID, "thin": THIN}


@cache
def clean(messages: int) -> Verdict:
    return verdict_of(profile_of([*good_day(messages)]))


def test_every_damage_is_expected_somewhere() -> None:
    assert FOUND.keys() == DAMAGES.keys()


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_book_is_found(damage: str, market: str) -> None:
    messages = MARKETS[market]
    verdict = verdict_of(profile_of(DAMAGES[damage]([*good_day(messages)])))
    assert how_found(verdict, clean(messages)) == FOUND[damage][[*MARKETS].index(market)], verdict


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_good_book_with_the_habits_of_venues_keeps_a_clean_verdict(seed: int, market: str) -> None:
    profile = profile_of([*good_day(MARKETS[market], seed)])
    verdict = verdict_of(profile)
    assert (verdict.outcome, verdict.quality, verdict.reasons) == ("publish", 1.0, ())
    assert verdict.warnings == UNCALIBRATED
    [book] = profile.books
    # The habits are there: moments of a locked book, deletes of absent levels, snapshots that differ.
    assert book.locked_us > 0
    assert book.absent_deletes + book.absent_deletes_beyond > 100
    assert book.compared_snapshots == 3
    assert {*book.minutes} <= {"c", "s", "v"}
