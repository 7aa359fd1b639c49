"""What every minute of a feed's day was: traded, empty, or lost, as far as its evidence can tell.

Pure functions of a profile and the context of its verdict. A minute without trades is only called empty for
sure where the venue's ids join across it; where there are no such ids it is unproven, and where the silence
is longer than is usual there it is called silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.quality.completeness import evidence_class
from backfill_assets.quality.profiles import FeedProfile, Hole, SymbolProfile
from backfill_assets.quality.verdict import Context, arrival_edges
from backfill_assets.settings import ThresholdSettings

MINUTES: Final = 1440


@dataclass(frozen=True, slots=True)
class MinuteState:
    """One state: the letter it is stored as, the sign and the words it is shown with."""

    code: str
    name: str
    sign: str
    meaning: str


TRADED: Final = MinuteState("t", "traded", "", "trades; the darker, the more")
PARTIAL: Final = MinuteState("p", "traded, ids missing", "!", "trades, and ids that no row carries")
MISSING: Final = MinuteState("m", "missing", "×", "no trades, though ids or the whole file say there were")
SILENT: Final = MinuteState("s", "silent", "~", "no trades for longer than is usual there, and no ids")
UNPROVEN: Final = MinuteState("u", "empty, unproven", "?", "no trades; nothing proves that there were none")
EMPTY: Final = MinuteState("e", "proven empty", "·", "no trades: the ids before and after join")
OUTSIDE: Final = MinuteState("o", "outside listing", "–", "the symbol was not listed")

#: In the order in which they are listed.
STATES: Final = (TRADED, EMPTY, UNPROVEN, SILENT, PARTIAL, MISSING, OUTSIDE)
BY_CODE: Final = {state.code: state for state in STATES}
#: Which state a minute has where the symbols of one file differ.
PRECEDENCE: Final = (PARTIAL, TRADED, MISSING, SILENT, UNPROVEN, EMPTY, OUTSIDE)
#: What a reader has to be pointed at, worst first.
NOTABLE: Final = (MISSING, SILENT, PARTIAL)


@dataclass(frozen=True, slots=True)
class Minutes:
    """1,440 states as letters, and the trades of each minute."""

    states: str
    trades: tuple[int, ...]

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


def uniform(state: MinuteState) -> Minutes:
    """A day that is the same all over, such as that of a missing file."""
    return Minutes(state.code * MINUTES, (0,) * MINUTES)


def feed_minutes(
    exchange: str,
    day: str,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
    *,
    grouped: bool,
    from_neighbours: Mapping[int, int] | None = None,
) -> Minutes | None:
    """States of a feed's minutes; None where the profile counts no trades by minute.

    Parameters
    ----------
    from_neighbours
        Trades by minute in the merged candles: a minute that this file is silent about may lie in another
        day's file.
    """
    if not profile.symbols:
        return uniform(UNPROVEN) if profile.rows == 0 else None
    each = [
        _symbol_minutes(exchange, day, s, profile, context, thresholds, grouped=grouped)
        for s in profile.symbols
    ]
    trades = [sum(counts) for counts in zip(*(m.trades for m in each), strict=True)]
    states = [_together(letters) for letters in zip(*(m.states for m in each), strict=True)]
    for minute, count in (from_neighbours or {}).items():
        if not trades[minute]:
            trades[minute] = count
            states[minute] = PARTIAL.code if states[minute] == MISSING.code else TRADED.code
    return Minutes("".join(states), tuple(trades))


def summary(minutes: Iterable[Minutes]) -> dict[MinuteState, int]:
    """Minutes per state over several feeds; states that do not occur are left out."""
    counted = Counter(code for m in minutes for code in m.states)
    return {state: counted[state.code] for state in STATES if counted[state.code]}


def _together(letters: Sequence[str]) -> str:
    """One state of a minute that several symbols share; a loss beside trades stays visible."""
    found = set(letters)
    if TRADED.code in found and MISSING.code in found:
        return PARTIAL.code
    return next(state.code for state in PRECEDENCE if state.code in found)


def _symbol_minutes(
    exchange: str,
    day: str,
    symbol: SymbolProfile,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
    *,
    grouped: bool,
) -> Minutes:
    midnight = start_us(day)
    states = [TRADED.code if count else UNPROVEN.code for count in symbol.minute_rows]

    def mark(start: int, end: int, state: MinuteState, traded: MinuteState | None = None) -> None:
        """Give untraded minutes that the range touches a state, and traded ones another."""
        first = max(0, (start - midnight) // MICROSECONDS_PER_MINUTE)
        last = min(MINUTES - 1, (end - midnight) // MICROSECONDS_PER_MINUTE)
        for minute in range(first, last + 1):
            if not symbol.minute_rows[minute]:
                states[minute] = state.code
            elif traded is not None:
                states[minute] = traded.code

    edges = arrival_edges(profile, symbol, grouped=grouped)
    day_end = midnight + MINUTES * MICROSECONDS_PER_MINUTE - 1
    kind = evidence_class(exchange, day, symbol)
    if kind == "C":
        usual = (edges[1] - edges[0]) / max(1, symbol.rows - 1)
        silences = [(g.start_us, g.end_us, g.usual_us) for g in symbol.gaps]
        silences += [(context.window_start_us, edges[0], usual), (edges[1], context.window_end_us, usual)]
        for start, end, usual_us in silences:
            if end - start > allowed_silence_us(usual_us, thresholds):
                mark(start, end, SILENT)
    else:
        allowed = thresholds.legitimate_hole if kind == "B" else 0
        joins_before, joins_after = _joins(symbol, context, allowed)
        if kind == "A":
            # Ids prove emptiness only as far as all holes are listed.
            listed = len(symbol.holes) == (symbol.hole_count or 0)
            proven_to = edges[1] if listed else max(_range(symbol.holes[-1]))
            mark(midnight if joins_before else edges[0], proven_to, EMPTY)
            if listed and joins_after:
                mark(edges[1], day_end, EMPTY)
        for hole in symbol.holes:
            if hole.last_missing - hole.first_missing + 1 > allowed:
                mark(*_range(hole), MISSING, PARTIAL)
        if joins_before is False:
            mark(midnight, edges[0] - 1, MISSING)
        if joins_after is False:
            mark(edges[1] + 1, day_end, MISSING)
    if context.window_start_us > midnight:
        mark(midnight, context.window_start_us - 1, OUTSIDE)
    if context.window_end_us <= day_end:
        mark(context.window_end_us, day_end, OUTSIDE)
    return Minutes("".join(states), symbol.minute_rows)


def allowed_silence_us(usual_us: float, thresholds: ThresholdSettings) -> float:
    """How long a silence is excused where rows usually come ``usual_us`` apart."""
    return max(thresholds.silence_seconds * 1e6, thresholds.silence_factor * usual_us)


def _range(hole: Hole) -> tuple[int, int]:
    return min(hole.after_us, hole.before_us), max(hole.after_us, hole.before_us)


def _joins(symbol: SymbolProfile, context: Context, allowed: int) -> tuple[bool | None, bool | None]:
    """Whether the ids join to the day before and the day after; None where these are not known."""
    before = context.previous.get(symbol.dataset_symbol)
    after = context.following.get(symbol.dataset_symbol)
    joins_before = joins_after = None
    if before is not None and symbol.id_min is not None:
        joins_before = symbol.id_min - before[0] - 1 <= allowed
    if after is not None and symbol.id_max is not None:
        joins_after = after[0] - symbol.id_max - 1 <= allowed
    return joins_before, joins_after
