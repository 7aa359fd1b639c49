# mypy: disable-error-code="no-untyped-def"
"""Counts contradictions in single rows, compiled: levels out of order, prices apart, options out of range.

A null (NaN, or ``NULL_TIME``) never contradicts. Each row is judged on its own; the lowest and highest prices
of minutes are stored for a comparison with the trades.
"""

from __future__ import annotations

from typing import Final

import numba as nb
import numpy as np

from backfill_assets.ticks.jit import kernel

NULL_TIME: Final = np.iinfo(np.int64).min
HOUR_US: Final = 3_600_000_000
#: A funding time that is off the hour by less than this counts as on the hour.
ON_THE_HOUR_US: Final = 60_000_000
#: Funding is at most days ahead; a time further ahead, or one more than an hour ago, is not a funding time.
FUNDING_AHEAD_US: Final = 8 * 86_400_000_000
#: In percent; implied volatilities reach hundreds in the hours before expiry.
MOST_VOLATILITY: Final = 5_000.0
#: Deltas of options whose premium is paid in the underlying exceed [-1, 1] by their price.
MOST_DELTA: Final = 2.0

# Number columns of each data type, in the order of its CSV file.
T_LAST, T_INDEX, T_MARK = 3, 4, 5
(
    O_STRIKE, O_BID, O_BID_VOLATILITY, O_ASK, O_ASK_VOLATILITY, O_MARK_VOLATILITY, O_UNDERLYING, O_DELTA,
    O_GAMMA, O_VEGA,
) = 0, 3, 5, 6, 8, 10, 11, 12, 13, 14  # fmt: skip
#: Columns of a level of a snapshot: ask price, ask amount, bid price, bid amount.
PER_LEVEL: Final = 4

MINUTE_US: Final = 60_000_000
MINUTES: Final = 1_440

_I64, _F64_2 = nb.int64[::1], nb.float64[:, ::1]
_I32, _F64, _F64_3 = nb.int32[::1], nb.float64[::1], nb.float64[:, :, ::1]


@kernel(nb.int64(_F64_2, nb.int64, nb.int64))
def count_out_of_order(values, start, stop):
    """Count snapshot rows whose asks do not rise or bids do not fall, or with an amount not above zero."""
    found = 0
    for i in range(start, stop):
        wrong = False
        for at in range(0, values.shape[0], PER_LEVEL):
            wrong |= values[at + 1, i] <= 0.0 or values[at + 3, i] <= 0.0
            if at > 0:
                wrong |= values[at, i] <= values[at - PER_LEVEL, i]
                wrong |= values[at + 2, i] >= values[at + 2 - PER_LEVEL, i]
        found += wrong
    return found


@kernel(nb.int64(_F64_2, nb.int64, nb.int64, nb.float64))
def count_apart(values, start, stop, apart):
    """Count rows of tickers with a price that is not positive, or two that are relatively further apart."""
    found = 0
    for i in range(start, stop):
        least = np.inf
        most = -np.inf
        for column in (T_LAST, T_INDEX, T_MARK):
            price = values[column, i]
            if not np.isnan(price):
                least = min(least, price)
                most = max(most, price)
        found += least <= 0.0 or most > least * (1.0 + apart)
    return found


@kernel(nb.int64(_I64, _I64, nb.int64, nb.int64))
def count_off_the_hour(times, due, start, stop):
    """Count rows of tickers whose next funding is not on an hour, has passed, or is many days ahead."""
    found = 0
    for i in range(start, stop):
        if due[i] != NULL_TIME:
            off = due[i] % HOUR_US
            ahead = due[i] - times[i]
            is_off = ON_THE_HOUR_US < off < HOUR_US - ON_THE_HOUR_US
            found += is_off or ahead < -HOUR_US or ahead > FUNDING_AHEAD_US
    return found


@nb.njit(inline="always")
def _outside(value, least, most):
    """Whether the value is not null and outside its range."""
    return value < least or value > most


@kernel(nb.int64(_I64, _I64, _F64_2, nb.int64, nb.int64))
def count_impossible_options(times, due, values, start, stop):
    """Count options rows with a bid above the ask, a value out of range, or an hour or more after expiry."""
    found = 0
    for i in range(start, stop):
        found += (
            values[O_BID, i] > values[O_ASK, i]
            or values[O_STRIKE, i] <= 0.0
            or values[O_UNDERLYING, i] <= 0.0
            or _outside(values[O_BID_VOLATILITY, i], 0.0, MOST_VOLATILITY)
            or _outside(values[O_ASK_VOLATILITY, i], 0.0, MOST_VOLATILITY)
            or _outside(values[O_MARK_VOLATILITY, i], 0.0, MOST_VOLATILITY)
            or _outside(values[O_DELTA, i], -MOST_DELTA, MOST_DELTA)
            or values[O_GAMMA, i] < 0.0
            or values[O_VEGA, i] < 0.0
            or (due[i] != NULL_TIME and due[i] < times[i] - HOUR_US)
        )
    return found


@kernel(nb.void(_I64, _I32, _I32, _F64, nb.int64, nb.int64, nb.int64, _F64_3))
def widen_bands(times, codes, symbol_of, prices, start, stop, day_start, bands):
    """Widen each symbol's bands of minutes (low, high) to include the prices above zero of the day's rows."""
    for i in range(start, stop):
        since = times[i] - day_start
        if since < 0 or since >= MINUTES * MINUTE_US or not prices[i] > 0.0:
            continue
        band = bands[symbol_of[codes[i]], since // MINUTE_US]
        band[0] = min(band[0], prices[i])
        band[1] = max(band[1], prices[i])
