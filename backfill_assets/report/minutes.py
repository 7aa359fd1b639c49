"""The minutes of a feed's day as a page shows them: the states of coverage, with trades and marks.

No state is computed here: the states of accepted data are in the coverage record, and those of a pending
version come from the same functions. Here states get letters, signs and words, the symbols of one file are
combined, and the minutes that need a reader's attention are marked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE, end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import law_of
from backfill_assets.quality.book_minutes import BookMinutes, book_minutes, of_file
from backfill_assets.quality.bucket_states import (
    MINUTES,
    Evidence,
    decode,
    evidence_of,
    letters_in,
    letters_of,
    minute_states,
    together,
)
from backfill_assets.quality.completeness import evidence_class, legitimate_gap
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.verdict import Context, seams_in
from backfill_assets.settings import ThresholdSettings

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MinuteState:
    """One state: its letter of ``bucket_states.LETTERS``, and the sign and the words that show it."""

    code: str
    name: str
    sign: str
    meaning: str


TRADED: Final = MinuteState("t", "traded", "", "trades; the darker, the more")
PARTIAL: Final = MinuteState("p", "traded, with a loss", "!", "trades, and some are lost")
MISSING: Final = MinuteState("m", "missing", "×", "no data where ids or the whole file are lost")
OUTAGE: Final = MinuteState("g", "outage", "‖", "no data during a reported incident")
UNPROVEN: Final = MinuteState("u", "empty, unproven", "?", "no trades; nothing proves that there were none")
EMPTY: Final = MinuteState("e", "proven empty", "·", "no trades: the ids around it join")

PROVEN_BOOK: Final = MinuteState("v", "book proven", "✓", "a snapshot or another feed shows the same book")
BOOK: Final = MinuteState("c", "book", "", "a valid book that nothing contradicts")
SILENT: Final = MinuteState("s", "book unchanged", "·", "no change of the book")
NO_BOOK: Final = MinuteState("n", "no book", "?", "no book is known yet, or no longer")
CROSSED: Final = MinuteState("x", "book crossed", "⇄", "crossed or locked for a second or longer")
DIVERGED: Final = MinuteState("d", "book diverged", "≠", "a snapshot or another feed shows another book")

#: In the order in which the legend lists them.
STATES: Final = (
    TRADED, EMPTY, UNPROVEN, PROVEN_BOOK, BOOK, SILENT, NO_BOOK, OUTAGE, PARTIAL, CROSSED, DIVERGED, MISSING,
)  # fmt: skip
BY_CODE: Final = {state.code: state for state in STATES}
#: States that need a reader's attention, worst first.
NOTABLE: Final = (MISSING, DIVERGED, PARTIAL, CROSSED, OUTAGE)
_RUN: Final = re.compile(r"(.)\1*")


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on the heat map of a feed: first minute, the minute after the last, sign and words."""

    first: int
    after: int
    sign: str
    words: str


@dataclass(frozen=True, slots=True)
class Minutes:
    """1,440 states as letters, the trades of each minute, and the minutes with an unconfirmed spike."""

    states: str
    trades: tuple[int, ...]
    flagged: tuple[int, ...] = ()

    def count(self, state: MinuteState) -> int:
        """How many minutes are in the state."""
        return self.states.count(state.code)

    def runs(self, *wanted: MinuteState) -> list[tuple[int, int, MinuteState]]:
        """Runs of minutes in one state, all or the wanted ones: first, minute after the last, state."""
        found = ((*run.span(), BY_CODE[run[1]]) for run in _RUN.finditer(self.states))
        return [run for run in found if not wanted or run[2] in wanted]

    def marks(self, silences: Iterable[Range] = ()) -> tuple[Mark, ...]:
        """The marks that need a reader's attention, worst first.

        Parameters
        ----------
        silences
            First minute and the minute after the last of silences that count as lost time.
        """
        notable = [state for state in NOTABLE if state.code in self.states]
        of_states = [Mark(a, b, s.sign, s.name) for state in notable for a, b, s in self.runs(state)]
        silent = [Mark(first, after, "~", "longer silent than excused") for first, after in silences]
        spikes = [Mark(m, m + 1, "▲", "unconfirmed spike is the high or low") for m in self.flagged]
        return (*of_states, *silent, *spikes)


def uniform(state: MinuteState) -> Minutes:
    """A day with one state in all minutes, such as that of a missing file."""
    return Minutes(state.code * MINUTES, (0,) * MINUTES)


def of_states(record: FeedMinutes, trades: Sequence[int]) -> Minutes:
    """The minutes of accepted data; ``trades`` has the trades of each minute in the merged candles."""
    if not record.symbols:
        return uniform(UNPROVEN)
    states = letters_of(together([decode(text) for text in record.symbols.values()]))
    flagged = sorted({minute for minutes in record.flagged.values() for minute in minutes})
    return Minutes(states, tuple(trades), tuple(flagged))


def of_books(books: Collection[BookMinutes]) -> Minutes | None:
    """The minutes of a file of quotes or books; None where they are not counted."""
    found = of_file(books)
    return Minutes(letters_in(found.states), (0,) * MINUTES) if found is not None else None


def of_version(
    feed: Feed, day: str, profile: FeedProfile, context: Context, thresholds: ThresholdSettings
) -> Minutes | None:
    """The minutes of one file by itself, such as a pending one; None where it is not counted by minute."""
    symbols = {one.symbol for one in (profile.books or profile.tops) if one.symbol}
    books = of_books(book_minutes(feed, symbols, day, profile, context, {}).values())
    if books is not None:
        return books
    start, end = start_us(day), end_us(day) - 1
    by_symbol = []
    law = law_of(thresholds.id_laws, feed, day)
    for symbol in profile.symbols:
        kind = evidence_class(law, symbol)
        lost, proven = evidence_of(
            kind,
            symbol,
            (start, end),
            seams_in(context, feed, day, profile, symbol, thresholds),
            legitimate_gap(kind, thresholds, symbol),
        )
        traded = [minute for minute, rows in enumerate(symbol.minute_rows) if rows]
        by_symbol.append(minute_states(traded, Evidence(lost=lost, proven=proven), start))
    if not by_symbol:
        return None
    counts = zip(*(symbol.minute_rows for symbol in profile.symbols), strict=True)
    return Minutes(letters_of(together(by_symbol)), tuple(map(sum, counts)))


def summary(minutes: Iterable[Minutes]) -> dict[MinuteState, int]:
    """Minutes per state over several feeds; states that do not occur are left out."""
    states = "".join(m.states for m in minutes)
    return {state: count for state in STATES if (count := states.count(state.code))}


def minutes_of(first_us: int, last_us: int, day: str) -> Range:
    """First minute of the day that a time range touches, and the minute after the last."""
    start = start_us(day)
    first = max(0, min(MINUTES - 1, (first_us - start) // MICROSECONDS_PER_MINUTE))
    last = max(0, min(MINUTES - 1, (last_us - start) // MICROSECONDS_PER_MINUTE))
    return first, last + 1
