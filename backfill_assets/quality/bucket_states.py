"""The state of every bucket of a market's day: traded or not, and how sure that is.

A candle table has no row for an empty bucket, so a reader cannot tell a quiet minute from a lost one. The
states tell. They are stored for the base timeframe, run by run; the states of larger buckets follow from
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from backfill_assets.days import MICROSECONDS_PER_DAY, MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND
from backfill_assets.quality.completeness import EvidenceClass
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.quality.seams import Seams
from backfill_assets.quality.window import Range
from backfill_assets.settings import TIMEFRAMES

#: In order of precedence. ``traded_partial``: there are trades, but ids or a file are lost there too.
#: ``proven_empty``: every id around it is present and none lies in it. ``outage``: no trades during a known
#: outage. ``missing``: no trades, where ids or the whole file are lost. ``empty_unproven``: no trades, and no
#: ids that would prove that there were none.
State = Literal["traded_partial", "traded", "proven_empty", "outage", "missing", "empty_unproven"]
STATES: Final[tuple[State, ...]] = (
    "traded_partial", "traded", "proven_empty", "outage", "missing", "empty_unproven",
)  # fmt: skip

#: States of a bucket that has a candle.
WITH_CANDLE: Final[tuple[State, ...]] = ("traded", "traded_partial")

#: Positions in ``STATES``, one per bucket.
Codes = npt.NDArray[np.uint8]

MINUTES: Final = MICROSECONDS_PER_DAY // MICROSECONDS_PER_MINUTE

#: One letter per state, in the order of ``STATES``.
LETTERS: Final = "ptegmu"
#: A run of minutes is written as the letter of its state and the number of minutes.
_RUN: Final = re.compile(r"([a-z])(\d+)")
_EQUAL: Final = re.compile(r"(.)\1*")
#: The code of each letter, by the letter's character code.
_CODES: Final = np.zeros(128, np.uint8)
_CODES[list(LETTERS.encode())] = range(len(LETTERS))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Time ranges of a market's day that are lost, proven or outages; microseconds, both ends included."""

    lost: tuple[Range, ...] = ()
    proven: tuple[Range, ...] = ()
    outages: tuple[Range, ...] = ()


def evidence_of(
    kind: EvidenceClass | None,
    profile: SymbolProfile,
    day: Range,
    seams: Seams | None,
    allowed: int,
) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Ranges in which ids are lost, and in which the ids prove that every trade is there.

    Parameters
    ----------
    kind
        Class of the symbol's ids: A proves completeness, B only shows losses, C shows nothing.
    day
        First and last microsecond.
    seams
        The midnights; None to look only between the rows.
    allowed
        The longest run of missing ids that is not a loss, by ``completeness.legitimate_gap``.
    """
    first, last = profile.first_trade_us, profile.last_trade_us
    if kind not in ("A", "B") or profile.id_min is None or first is None or last is None:
        return (), ()
    lost = [(h.after_us, h.before_us) for h in profile.gaps if h.last_missing - h.first_missing + 1 > allowed]
    midnights = (day[0], first), (last, day[1])
    if seams is not None:
        lost += [edge for edge, lost_us in zip(midnights, seams.lost_us, strict=True) if lost_us]
    all_listed = (profile.gap_count or 0) <= len(profile.gaps)
    if kind == "B" or not all_listed:
        return tuple(lost), ()
    joined = [(first, last)]
    if seams is not None:
        joined += [edge for edge, ids in zip(midnights, seams.between, strict=True) if ids == 0]
    return tuple(lost), tuple(joined)


def minute_states(traded: Iterable[int], evidence: Evidence, start_us: int) -> Codes:
    """States of the day's minutes.

    Parameters
    ----------
    traded
        Minutes of the day that have a candle.
    start_us
        First microsecond of the day.
    """
    with_trades = np.zeros(MINUTES, np.bool_)
    with_trades[list(traded)] = True
    lost, out = (touched(ranges, start_us) for ranges in (evidence.lost, evidence.outages))
    proven = _inside(evidence.proven, start_us) & ~lost
    # The first state that applies; if none does, the minute is ``empty_unproven``, the last of ``STATES``.
    applies = [with_trades & lost, with_trades, proven, out, lost]
    found: Codes = np.select(applies, range(len(applies)), len(applies)).astype(np.uint8)
    return found


def bucket_codes(minutes: Codes, timeframe: str) -> Codes:
    """States of a larger timeframe's buckets.

    A bucket with trades is partial if any of its minutes is partial or missing; a bucket without trades is
    proven empty only if all of its minutes are.
    """
    step = TIMEFRAMES[timeframe] * MICROSECONDS_PER_SECOND // MICROSECONDS_PER_MINUTE
    return minutes if step == 1 else _together(minutes, step)


def together(feeds: Sequence[Codes]) -> Codes:
    """States of a market's minutes by several files, as sure as all of the files allow."""
    return feeds[0] if len(feeds) == 1 else _together(np.stack(feeds, axis=1).ravel(), len(feeds))


def codes_of(states: Iterable[State]) -> Codes:
    """States by their names as codes."""
    return np.array([STATES.index(state) for state in states], dtype=np.uint8)


def states_of(codes: Codes) -> tuple[State, ...]:
    """The names of codes."""
    return tuple(STATES[code] for code in codes.tolist())


def letters_of(codes: Codes) -> str:
    """Codes as text, one of ``LETTERS`` per bucket."""
    return np.frombuffer(LETTERS.encode(), np.uint8)[codes].tobytes().decode()


def encode(codes: Codes) -> str:
    """Codes as text, run by run: ``m600t840``."""
    return runs_of(letters_of(codes))


def decode(text: str) -> Codes:
    """An encoded text as codes, one per minute."""
    letters = np.frombuffer(letters_in(text).encode(), np.uint8)
    return _CODES[letters]


def runs_of(letters: str) -> str:
    """Letters of any states as text, run by run."""
    return "".join(f"{run[1]}{len(run[0])}" for run in _EQUAL.finditer(letters))


def letters_in(runs: str) -> str:
    """The letters of a text by ``runs_of``."""
    return "".join(letter * int(length) for letter, length in _RUN.findall(runs))


def _together(codes: Codes, step: int) -> Codes:
    """One state for every ``step`` codes in any order; a shorter remainder at the end has one, too."""
    starts = np.arange(0, len(codes), step)
    traded_partial, traded, proven_empty, missing = (
        STATES.index(state) for state in ("traded_partial", "traded", "proven_empty", "missing")
    )
    with_trades = np.logical_or.reduceat((codes == traded_partial) | (codes == traded), starts)
    lossy = np.logical_or.reduceat((codes == traded_partial) | (codes == missing), starts)
    proven = np.logical_and.reduceat(codes == proven_empty, starts)
    # The other states come after these in STATES, the more telling first.
    others = np.minimum.reduceat(np.where(codes > proven_empty, codes, len(STATES)), starts)
    found = np.where(
        with_trades, np.where(lossy, traded_partial, traded), np.where(proven, proven_empty, others)
    )
    return found.astype(np.uint8)


def touched(ranges: Iterable[Range], start_us: int) -> npt.NDArray[np.bool_]:
    """Minutes that share a moment with a range."""
    found = np.zeros(MINUTES, np.bool_)
    for first, last in ranges:
        low = max(0, (first - start_us) // MICROSECONDS_PER_MINUTE)
        found[low : max(0, (last - start_us) // MICROSECONDS_PER_MINUTE + 1)] = True
    return found


def _inside(ranges: Sequence[Range], start_us: int) -> npt.NDArray[np.bool_]:
    """Minutes that lie wholly in the union of adjoining ranges."""
    found = np.zeros(MINUTES, np.bool_)
    if ranges:
        # The ranges are the file's own span and its joined sides, so their union is one range.
        low, high = min(first for first, _ in ranges), max(last for _, last in ranges)
        first = -((start_us - low) // MICROSECONDS_PER_MINUTE)
        found[max(0, first) : max(0, (high + 1 - start_us) // MICROSECONDS_PER_MINUTE)] = True
    return found
