"""The proof that an answer of a second source gives about a run of missing ids: a pure function of rows.

An answer counts only if it shows the whole run: it has the ids on both sides, and these are the trades that
the file has there. Then each missing id is either in the answer or was never issued. A smaller answer proves
nothing, because an answer of another market, a page that was cut and a source that drops trades look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND, MICROSECONDS_PER_SECOND, iso_time
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.lake.evidence import Ids, TradeRow
from backfill_assets.quality.receipts import without

#: The time of a recovered trade lies between those of its neighbors, give or take this: the clocks of one
#: venue's machines differ by less.
SLACK_US: Final = 60 * MICROSECONDS_PER_SECOND
#: Longest time between trades that are summed up (Binance's futures) under the time of one of them.
SUMMED_UP_US: Final = 100 * MICROSECONDS_PER_MILLISECOND
#: Values that tell the taker's side; rows with another value are compared without it.
_SIDES: Final = ("buy", "sell")


class Unproven(PermanentFailure):
    """The answer proves nothing about the ids; the message says why."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A run of missing ids, and the file's rows before and after it."""

    before: TradeRow
    after: TradeRow

    @property
    def ids(self) -> Ids:
        """The first and the last missing id."""
        return self.before.id + 1, self.after.id - 1

    @property
    def times_us(self) -> tuple[int, int]:
        """First and last time at which they can have been traded, both included."""
        first, last = sorted((self.before.time_us, self.after.time_us))
        return first, last


@dataclass(frozen=True, slots=True)
class Issued:
    """Consecutive ids that the source has: one trade, or several that it has summed up at one price."""

    first_id: int
    last_id: int
    time_us: int
    side: str
    price: float
    amount: float

    @property
    def is_one(self) -> bool:
        """Whether it is one trade, whose amount is known."""
        return self.first_id == self.last_id


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome for each missing id, in one of three groups."""

    never_issued: tuple[Ids, ...]
    recovered: tuple[TradeRow, ...]
    #: Ids that the source has, but whose amounts the answer does not tell.
    summed_up: tuple[Ids, ...]


def conclude(hole: Hole, issued: Sequence[Issued]) -> Conclusion:
    """Divide the missing ids into never issued, recovered and summed up.

    Parameters
    ----------
    issued
        All trades that the source has from before the hole to after it, in any order.

    Raises
    ------
    Unproven
        The answer does not show the whole hole, or it is of another market.
    """
    first, last = hole.ids
    rows = sorted(issued, key=lambda i: i.first_id)
    for one, other in pairwise(rows):
        if other.first_id <= one.last_id:
            msg = f"the answer has the id {other.first_id} twice"
            raise Unproven(msg)
    _insist_on_row(rows, hole.before, "before")
    _insist_on_row(rows, hole.after, "after")
    inside = [row for row in rows if row.last_id >= first and row.first_id <= last]
    known = [(row.first_id, row.last_id) for row in inside]
    recovered = tuple(_trade(row, hole) for row in inside if row.is_one)
    summed_up = tuple((max(row.first_id, first), min(row.last_id, last)) for row in inside if not row.is_one)
    return Conclusion(tuple(without((first, last), known)), recovered, summed_up)


def _insist_on_row(rows: Sequence[Issued], own: TradeRow, side: str) -> None:
    """Raise unless the source has the file's row, with the same price, time and side."""
    found = next((row for row in rows if row.first_id <= own.id <= row.last_id), None)
    if found is None:
        msg = f"the answer has no id {side} the hole: {own.id} is in the file"
        raise Unproven(msg)
    differs = [
        f"{name} {theirs} and {ours} in the file"
        for name, theirs, ours, is_same in (
            ("price", found.price, own.price, found.price == own.price),
            ("side", found.side, own.side, found.side == own.side or own.side not in _SIDES),
            ("amount", found.amount, own.amount, _holds_amount(found, own)),
            ("time", iso_time(found.time_us), iso_time(own.time_us), _is_same_time(found, own)),
        )
        if not is_same
    ]
    if differs:
        msg = f"the answer is of another market: the trade {own.id} has {differs[0]}"
        raise Unproven(msg)


def _holds_amount(found: Issued, own: TradeRow) -> bool:
    return found.amount == own.amount if found.is_one else found.amount >= own.amount


def _is_same_time(found: Issued, own: TradeRow) -> bool:
    """Whether the times are equal; sources have milliseconds or microseconds, and trades may share a time."""
    differ_by = MICROSECONDS_PER_MILLISECOND + (0 if found.is_one else SUMMED_UP_US)
    return abs(found.time_us - own.time_us) < differ_by


def _trade(row: Issued, hole: Hole) -> TradeRow:
    begin, end = hole.times_us
    is_sane = SANE_PRICE[0] <= row.price <= SANE_PRICE[1] and SANE_AMOUNT[0] <= row.amount <= SANE_AMOUNT[1]
    if not (begin - SLACK_US <= row.time_us <= end + SLACK_US and is_sane):
        msg = (
            f"the trade {row.first_id} of the answer cannot be the missing one: {row.amount:g} at "
            f"{row.price:g}, {iso_time(row.time_us)}"
        )
        raise Unproven(msg)
    return TradeRow(id=row.first_id, time_us=row.time_us, side=row.side, price=row.price, amount=row.amount)
