"""The loops that make candles, compiled: trades into partials, and sorted candles into larger ones.

Both add in a fixed order, so the same input gives the same bits on every run and machine. Only the functions
that use this module import it, because importing numba takes about half a second.
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

#: Columns of the integer state: number of trades, first and last time, ids of the trades at open and close.
COUNT, FIRST, LAST, OPEN_ID, CLOSE_ID = range(5)
#: Columns of the float state: prices, then sums with their error terms, two columns each.
OPEN, HIGH, LOW, CLOSE, VOLUME, QUOTE, BUY, SELL = 0, 1, 2, 3, 4, 6, 8, 10
INTEGER_COLUMNS, FLOAT_COLUMNS = 5, 12

#: Codes of the taker's side; other codes count as neither.
SIDE_BUY, SIDE_SELL = 0, 1
#: Stands for "no numeric id"; such trades are ordered by their row alone.
NO_ID = -1
MINUTE_US = 60_000_000
#: More symbols than any file has: a minute and the number of a symbol are one integer.
MOST_SYMBOLS = 1 << 20


_I64, _I64_2, _F64_2 = nb.int64[::1], nb.int64[:, ::1], nb.float64[:, ::1]
#: Columns of Arrow tables are read-only.
_INTS, _FLOATS, _FLAGS, _BYTES, _CODES, _INTS_2, _FLOATS_2 = (
    nb.types.Array(kind, dimensions, "C", readonly=True)
    for kind, dimensions in (
        *((nb.int64, 1), (nb.float64, 1), (nb.boolean, 1), (nb.uint8, 1), (nb.int32, 1)),
        *((nb.int64, 2), (nb.float64, 2)),
    )
)


@nb.njit(inline="always")
def _add(floats, k, column, value):  # pragma: no cover
    """Add by two-sum, which keeps each addition's rounding error beside the sum (Knuth, TAOCP 4.2.2)."""
    total = floats[k, column]
    grown = total + value
    part = grown - total
    floats[k, column + 1] += (total - (grown - part)) + (value - part)
    floats[k, column] = grown


@nb.njit(inline="always")
def _slot_of(table, keys, key):  # pragma: no cover
    """Place of the key's state row in the table, or the place to insert it; the table has a free place."""
    mask = table.shape[0] - 1
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@kernel(nb.void(nb.int32[::1], _I64, nb.int64))
def index_keys(table, keys, count):  # pragma: no cover
    """Fill a table of free places (-1) with the numbers of the first ``count`` keys."""
    for row in range(count):
        table[_slot_of(table, keys, keys[row])] = row


@kernel(
    nb.types.UniTuple(nb.int64, 2)(
        _INTS, _INTS, _FLOATS, _FLOATS, _BYTES, _CODES, nb.int64, nb.int64,  # trades, start, stop
        _INTS, nb.boolean,  # symbol of each code, whether ids are an order
        nb.int64, nb.int64,  # first microsecond, first beyond
        _INTS, _INTS, _FLOATS, _FLAGS,  # contracts
        nb.int32[::1], _I64, nb.int64, _I64_2, _F64_2,  # state
    )
)  # fmt: skip
def accumulate(  # pragma: no cover
    time_us, ids, price, amount, side, codes, start, stop, symbol_of, by_id, first_us, beyond_us,
    contracts_from, since_us, multiplier, inverse, table, keys, count, integers, floats
):  # fmt: skip
    """Fold trades into the state rows of their symbol and minute.

    Returns the number of state rows and the number of the first trade left, which needs one more state row
    than there is room for.

    Parameters
    ----------
    codes, symbol_of
        A negative code leaves the trade out, and so does a code with a negative symbol.
    contracts_from, since_us, multiplier, inverse
        The contracts of symbol s are those from ``contracts_from[s]`` to before ``contracts_from[s + 1]``.
        The last one that has begun applies, or else the first. Base volume is ``amount * multiplier``, or
        ``amount * multiplier / price`` for inverse contracts, which makes their vwap the harmonic mean. A
        multiplier that is NaN makes the sums NaN.
    table, keys, count
        Open-addressing hash table of the state rows by key, minute and symbol; -1 is free.
    """
    last_key = np.int64(-1) << 62
    k = np.int64(0)
    minute = np.int64(0)
    minute_from = np.int64(0)
    minute_to = np.int64(0)
    for i in range(start, stop):
        t = time_us[i]
        p = price[i]
        a = amount[i]
        if codes[i] < 0 or not (LEAST_PRICE <= p <= MOST_PRICE and LEAST_AMOUNT <= a <= MOST_AMOUNT):
            continue
        s = symbol_of[codes[i]]
        if s < 0 or t < first_us or t >= beyond_us:
            continue
        if t < minute_from or t >= minute_to:
            minute = t // MINUTE_US
            minute_from = minute * MINUTE_US
            minute_to = minute_from + MINUTE_US
        key = minute * MOST_SYMBOLS + s
        if key != last_key:
            slot = _slot_of(table, keys, key)
            if table[slot] < 0:
                if count == keys.shape[0]:
                    return count, i
                table[slot] = count
                keys[count] = key
                count += 1
            k = np.int64(table[slot])
            last_key = key
        n = ids[i] if by_id else NO_ID
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
        unit = contracts_from[s]
        for later in range(unit + 1, contracts_from[s + 1]):
            if t >= since_us[later]:
                unit = later
        base = a * multiplier[unit]
        if inverse[unit]:
            base = base / p
        _add(floats, k, VOLUME, base)
        _add(floats, k, QUOTE, base * p)
        if side[i] == SIDE_BUY:
            _add(floats, k, BUY, base)
        elif side[i] == SIDE_SELL:
            _add(floats, k, SELL, base)
    return count, np.int64(stop)


@kernel(nb.void(_INTS, _INTS_2, _FLOATS_2, _I64_2, _F64_2))
def fold(group, integers, floats, out_integers, out_floats):  # pragma: no cover
    """Fold candle rows into larger ones; rows of a group are merged in their given order.

    That order also decides ties of time, except between two rows that both have ids.

    Columns are those of the partials, with the sums as plain values in ``VOLUME``, ``QUOTE``, ``BUY``,
    ``SELL`` and their error terms beside them.
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
                first == out_integers[k, FIRST] and NO_ID < integers[i, OPEN_ID] < out_integers[k, OPEN_ID]
            ):
                out_integers[k, FIRST] = first
                out_integers[k, OPEN_ID] = integers[i, OPEN_ID]
                out_floats[k, OPEN] = floats[i, OPEN]
            if last > out_integers[k, LAST] or (
                last == out_integers[k, LAST]
                and (integers[i, CLOSE_ID] >= out_integers[k, CLOSE_ID] or integers[i, CLOSE_ID] == NO_ID)
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
