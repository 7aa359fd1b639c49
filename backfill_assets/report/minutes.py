"""The minutes of a feed's day as a page shows them: what the lake's coverage says, with trades and marks.

No state is worked out here: those of accepted data are the coverage record's, and those of a version that
waits come from the same functions. Here they get letters, signs and words, the symbols of one file are laid
over each other, and what a reader has to be pointed at is marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE, end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.quality.bucket_states import (
    MINUTES,
    Evidence,
    State,
    evidence_of,
    minute_states,
    runs_of,
)
from backfill_assets.quality.completeness import evidence_class
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.verdict import Context

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MinuteState:
    """One state: the letter it is stored as, the sign and the words it is shown with."""

    code: str
    key: State
    name: str
    sign: str
    meaning: str


TRADED: Final = MinuteState("t", "traded", "traded", "", "trades; the darker, the more")
PARTIAL: Final = MinuteState("p", "traded_partial", "traded, with a loss", "!", "trades, and some are lost")
MISSING: Final = MinuteState(
    "m", "missing", "missing", "×", "no trades, where ids or the whole file are lost"
)
OUTAGE: Final = MinuteState("g", "outage", "outage", "‖", "no trades during an incident that was reported")
UNPROVEN: Final = MinuteState(
    "u", "empty_unproven", "empty, unproven", "?", "no trades; nothing proves that there were none"
)
EMPTY: Final = MinuteState("e", "proven_empty", "proven empty", "·", "no trades: the ids around it join")

#: In the order in which they are listed.
STATES: Final = (TRADED, EMPTY, UNPROVEN, OUTAGE, PARTIAL, MISSING)
BY_CODE: Final = {state.code: state for state in STATES}
BY_KEY: Final = {state.key: state for state in STATES}
#: What a reader has to be pointed at, worst first.
NOTABLE: Final = (MISSING, PARTIAL, OUTAGE)
#: Where symbols of one file differ, and none of them was traded: the first of them that applies.
_UNTRADED: Final = (MISSING, OUTAGE, UNPROVEN, EMPTY)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is put on the heat map of a feed: first minute, the one after the last, sign and words."""

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
        """How many minutes are in that state."""
        return self.states.count(state.code)

    def runs(self, *wanted: MinuteState) -> list[tuple[int, int, MinuteState]]:
        """Runs of minutes in one state, all or those wanted: first, after the last, state."""
        found, start = [], 0
        for i in range(1, len(self.states) + 1):
            if i == len(self.states) or self.states[i] != self.states[start]:
                state = BY_CODE[self.states[start]]
                if not wanted or state in wanted:
                    found.append((start, i, state))
                start = i
        return found

    def marks(self, silences: Iterable[Range] = ()) -> tuple[Mark, ...]:
        """What a reader has to be pointed at, worst first.

        Parameters
        ----------
        silences
            First minute and the one after the last of silences that count as lost time.
        """
        of_states = [Mark(a, b, s.sign, s.name) for state in NOTABLE for a, b, s in self.runs(state)]
        silent = [Mark(first, after, "~", "longer silent than excused") for first, after in silences]
        spikes = [Mark(m, m + 1, "▲", "unconfirmed spike is the high or low") for m in self.flagged]
        return (*of_states, *silent, *spikes)


def uniform(state: MinuteState) -> Minutes:
    """A day that is the same all over, such as that of a missing file."""
    return Minutes(state.code * MINUTES, (0,) * MINUTES)


def of_states(record: FeedMinutes, trades: Mapping[int, int]) -> Minutes:
    """The minutes of accepted data; ``trades`` by minute are those of the merged candles."""
    by_symbol = [
        "".join(BY_KEY[state].code * length for state, length in runs_of(text))
        for text in record.symbols.values()
    ]
    if len(by_symbol) == 1:
        [states] = by_symbol
    else:
        states = "".join(map(together, zip(*by_symbol, strict=True))) or UNPROVEN.code * MINUTES
    flagged = sorted({minute for minutes in record.flagged.values() for minute in minutes})
    return Minutes(states, tuple(trades.get(minute, 0) for minute in range(MINUTES)), tuple(flagged))


def of_version(
    feed: Feed, day: str, profile: FeedProfile, context: Context, legitimate_hole: int
) -> Minutes | None:
    """The minutes of one file by itself, such as one that waits; None where it counts no trades by minute."""
    start, end = start_us(day), end_us(day) - 1
    by_symbol, counts = [], []
    for symbol in profile.symbols:
        previous = context.previous.get(symbol.dataset_symbol)
        following = context.following.get(symbol.dataset_symbol)
        lost, proven = evidence_of(
            evidence_class(feed.exchange, day, symbol),
            symbol,
            (start, end),
            previous_id=previous[0] if previous else None,
            following_id=following[0] if following else None,
            legitimate_hole=legitimate_hole,
        )
        traded = [minute for minute, rows in enumerate(symbol.minute_rows) if rows]
        states = minute_states(traded, Evidence(lost=lost, proven=proven), start)
        by_symbol.append([BY_KEY[state].code for state in states])
        counts.append(symbol.minute_rows)
    if not by_symbol:
        return None
    return Minutes(
        "".join(map(together, zip(*by_symbol, strict=True))),
        tuple(map(sum, zip(*counts, strict=True))),
    )


def together(letters: Sequence[str]) -> str:
    """One state of a minute that the symbols of one file share; a loss beside trades stays visible."""
    found = set(letters)
    if found & {TRADED.code, PARTIAL.code}:
        return (PARTIAL if found & {PARTIAL.code, MISSING.code} else TRADED).code
    return next(state.code for state in _UNTRADED if state.code in found)


def summary(minutes: Iterable[Minutes]) -> dict[MinuteState, int]:
    """Minutes per state over several feeds; states that do not occur are left out."""
    counted = Counter(code for m in minutes for code in m.states)
    return {state: counted[state.code] for state in STATES if counted[state.code]}


def minutes_of(first_us: int, last_us: int, day: str) -> Range:
    """First minute of the day that a time range touches, and the one after the last."""
    start = start_us(day)
    first = max(0, min(MINUTES - 1, (first_us - start) // MICROSECONDS_PER_MINUTE))
    last = max(0, min(MINUTES - 1, (last_us - start) // MICROSECONDS_PER_MINUTE))
    return first, last + 1
