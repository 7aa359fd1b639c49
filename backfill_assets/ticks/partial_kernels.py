"""The two loops that make candles, compiled: trades into partials, and sorted candles into larger ones.

Both add in one fixed order, so the same input gives the same bits on every run and machine. Imported only by
the functions that use it, because importing numba takes about half a second.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.ticks.jit import kernel

LEAST_PRICE, MOST_PRICE = SANE_PRICE
LEAST_AMOUNT, MOST_AMOUNT = SANE_AMOUNT

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Columns of the integer state: trades, first and last time, ids of the trades at open and close.
COUNT, FIRST, LAST, OPEN_ID, CLOSE_ID = range(5)
#: Columns of the float state: prices, then sums with their error terms, two columns each.
OPEN, HIGH, LOW, CLOSE, VOLUME, QUOTE, BUY, SELL = 0, 1, 2, 3, 4, 6, 8, 10
INTEGER_COLUMNS, FLOAT_COLUMNS = 5, 12

#: Codes of the taker's side; others count as neither.
SIDE_BUY, SIDE_SELL = 0, 1
#: Stands for "no numeric id"; such trades are ordered by their row alone.
NO_ID = -1


_I64_2, _F64_2 = nb.int64[:, ::1], nb.float64[:, ::1]
#: Columns of Arrow tables are read-only.
_INTS, _FLOATS, _FLAGS, _INTS_2, _FLOATS_2 = (
    nb.types.Array(kind, dimensions, "C", readonly=True)
    for kind, dimensions in ((nb.int64, 1), (nb.float64, 1), (nb.boolean, 1), (nb.int64, 2), (nb.float64, 2))
)


@nb.njit(inline="always")
def _add(floats, k, column, value):  # pragma: no cover
    """Two-sum: the rounding error of every addition is kept beside the sum (Knuth, TAOCP 4.2.2)."""
    total = floats[k, column]
    grown = total + value
    part = grown - total
    floats[k, column + 1] += (total - (grown - part)) + (value - part)
    floats[k, column] = grown


@kernel(
    nb.void(
        _INTS, _INTS, _FLOATS, _FLOATS, _INTS, _INTS, _INTS,  # trades
        _FLOATS, _FLAGS, _I64_2, _F64_2,  # contracts, state
    )
)  # fmt: skip
def accumulate(  # pragma: no cover
    time_us, ids, price, amount, side, unit, row, multiplier, inverse, integers, floats
):
    """Fold each trade into the state row ``row``; a negative one leaves it out.

    ``multiplier`` and ``inverse`` have one value per contract, which ``unit`` names. Base volume is
    ``amount * multiplier``, or ``amount * multiplier / price`` for inverse contracts, whose vwap is thereby
    the harmonic mean. A multiplier that is NaN makes the sums NaN.
    """
    for i in range(len(time_us)):
        t = time_us[i]
        p = price[i]
        a = amount[i]
        k = row[i]
        if k < 0 or not (LEAST_PRICE <= p <= MOST_PRICE and LEAST_AMOUNT <= a <= MOST_AMOUNT):
            continue
        n = ids[i]
        if integers[k, COUNT] == 0:
            integers[k, FIRST] = t
            integers[k, LAST] = t
            integers[k, OPEN_ID] = n
            integers[k, CLOSE_ID] = n
            floats[k, OPEN] = p
            floats[k, HIGH] = p
            floats[k, LOW] = p
            floats[k, CLOSE] = p
        else:
            if t < integers[k, FIRST] or (t == integers[k, FIRST] and n < integers[k, OPEN_ID]):
                integers[k, FIRST] = t
                integers[k, OPEN_ID] = n
                floats[k, OPEN] = p
            if t > integers[k, LAST] or (t == integers[k, LAST] and n >= integers[k, CLOSE_ID]):
                integers[k, LAST] = t
                integers[k, CLOSE_ID] = n
                floats[k, CLOSE] = p
            floats[k, HIGH] = max(floats[k, HIGH], p)
            floats[k, LOW] = min(floats[k, LOW], p)
        integers[k, COUNT] += 1
        base = a * multiplier[unit[i]]
        if inverse[unit[i]]:
            base = base / p
        _add(floats, k, VOLUME, base)
        _add(floats, k, QUOTE, base * p)
        if side[i] == SIDE_BUY:
            _add(floats, k, BUY, base)
        elif side[i] == SIDE_SELL:
            _add(floats, k, SELL, base)


@kernel(nb.void(_INTS, _INTS_2, _FLOATS_2, _I64_2, _F64_2))
def fold(group, integers, floats, out_integers, out_floats):  # pragma: no cover
    """Fold candle rows into larger ones; rows of a group are merged in the order they come.

    Columns are those of the partials, the sums as plain values in ``VOLUME``, ``QUOTE``, ``BUY``, ``SELL``
    with their error terms beside them.
    """
    for i in range(len(group)):
        k = group[i]
        first = integers[i, FIRST]
        last = integers[i, LAST]
        if out_integers[k, COUNT] == 0:
            out_integers[k, FIRST] = first
            out_integers[k, LAST] = last
            out_integers[k, OPEN_ID] = integers[i, OPEN_ID]
            out_integers[k, CLOSE_ID] = integers[i, CLOSE_ID]
            out_floats[k, OPEN] = floats[i, OPEN]
            out_floats[k, HIGH] = floats[i, HIGH]
            out_floats[k, LOW] = floats[i, LOW]
            out_floats[k, CLOSE] = floats[i, CLOSE]
        else:
            if first < out_integers[k, FIRST] or (
                first == out_integers[k, FIRST] and integers[i, OPEN_ID] < out_integers[k, OPEN_ID]
            ):
                out_integers[k, FIRST] = first
                out_integers[k, OPEN_ID] = integers[i, OPEN_ID]
                out_floats[k, OPEN] = floats[i, OPEN]
            if last > out_integers[k, LAST] or (
                last == out_integers[k, LAST] and integers[i, CLOSE_ID] >= out_integers[k, CLOSE_ID]
            ):
                out_integers[k, LAST] = last
                out_integers[k, CLOSE_ID] = integers[i, CLOSE_ID]
                out_floats[k, CLOSE] = floats[i, CLOSE]
            out_floats[k, HIGH] = max(out_floats[k, HIGH], floats[i, HIGH])
            out_floats[k, LOW] = min(out_floats[k, LOW], floats[i, LOW])
        out_integers[k, COUNT] += integers[i, COUNT]
        for column in (VOLUME, QUOTE, BUY, SELL):
            _add(out_floats, k, column, floats[i, column])
            out_floats[k, column + 1] += floats[i, column + 1]
