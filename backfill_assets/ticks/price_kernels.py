# mypy: disable-error-code="no-untyped-def"
"""The loops over the prices of trades, compiled; ``prices`` owns the state and defines the counts.

As in ``profile_kernels``, every loop is sequential and keeps its whole state in the caller's arrays, so the
division of a file into batches does not change a result.
"""

from __future__ import annotations

import math
from typing import Final

import numba as nb
import numpy as np

from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.ticks.jit import kernel
from backfill_assets.ticks.shared_kernels import GRIDS as GRIDS
from backfill_assets.ticks.shared_kernels import count_off, is_off

LEAST_PRICE, MOST_PRICE = SANE_PRICE
LEAST_AMOUNT, MOST_AMOUNT = SANE_AMOUNT

# Columns of a symbol's counts.
(
    P_FILL, P_DONE, P_OFF_GRID, P_OFF_FINER, P_SPIKES, P_UNJUDGED, P_RUN_ROWS, P_RUN_START, P_RUN_END,
    P_MOST_ROWS, P_MOST_START, P_MOST_END, P_LONG_ROWS, P_LONG_START, P_LONG_END, P_SIZE,
) = range(16)  # fmt: skip

# Columns of a symbol's prices: of the current run, of the run with the most rows, of the longest in time.
V_RUN, V_MOST, V_LONG, V_SIZE = range(4)

#: Rows that one comparison with the lowest and the highest price around them may clear.
_CHUNK: Final = 64
#: Price moves needed to take the least of them as the step; two may come from a wrong price.
MOVES: Final = 5
#: 1.4826 × the median distance is the standard deviation, if distances are normally distributed.
_NORMAL: Final = 1.4826

_I64, _F64, _I32 = nb.int64[::1], nb.float64[::1], nb.int32[::1]
_I64_2, _F64_2 = nb.int64[:, ::1], nb.float64[:, ::1]


@nb.njit
def _keep_run(counts, price, kept, rows, start, end):
    """Keep a run of one price if it has the most rows or is the longest."""
    counts[kept] = rows
    counts[kept + 1] = start
    counts[kept + 2] = end
    return price


@nb.njit
def _scatter(prices, start, stop, group):
    """1.4826 × the median distance of log prices from the median of their own ``group`` trades."""
    distances = np.empty(stop - start, np.float64)
    for first in range(start, stop, group):
        last = min(first + group, stop)
        own = np.sort(prices[first:last])
        middle = math.log(own[(last - first) // 2])
        for i in range(first, last):
            distances[i - start] = abs(math.log(prices[i]) - middle)
    distances.sort()
    return _NORMAL * distances[(stop - start) // 2]


@nb.njit
def _scatter_around(prices, i, start, stop):
    """1.4826 × the median distance of the log prices around ``i``, without its own, from their median."""
    around = np.empty(stop - start - 1, np.float64)
    for k in range(start, stop):
        if k != i:
            around[k - start - (k > i)] = math.log(prices[k])
    around.sort()
    middle = around[around.size // 2]
    for k in range(around.size):
        around[k] = abs(around[k] - middle)
    around.sort()
    return _NORMAL * around[around.size // 2]


@nb.njit
def _step_seen(prices, start, stop):
    """Price step if no grid is known: the fifth smallest move between neighbors; 0 with too few moves."""
    least = np.full(MOVES, np.inf)
    for i in range(start + 1, stop):
        move = abs(prices[i] - prices[i - 1])
        if move > 1e-12 * prices[i] and move < least[MOVES - 1]:
            k = MOVES - 1
            while k > 0 and least[k - 1] > move:
                least[k] = least[k - 1]
                k -= 1
            least[k] = move
    return least[MOVES - 1] if least[MOVES - 1] < np.inf else 0.0


@nb.njit(inline="always")
def _apart(prices, start, stop, low, high):
    """Whether the median of these prices (the upper one of two) is under ``low`` or over ``high``."""
    under = 0
    not_over = 0
    for i in range(start, stop):
        under += prices[i] < low
        not_over += prices[i] <= high
    half = (stop - start) // 2
    return under > half or not_over <= half


@nb.njit
def _is_spike(prices, i, stop, near, least, limit):
    """Return 1 for a spike, 0 for none, -1 for too few neighbors; ``stop`` is the end of the known prices.

    A log price is further than ``limit`` from the nearest of three medians if it is so from each of them. At
    the edges, with only one side, the median of its nearest trades is a further one.
    """
    before = min(near, i)
    after = min(near, stop - i - 1)
    if before < least and after < least:
        return -1
    factor = math.exp(limit)
    low = prices[i] / factor
    high = prices[i] * factor
    if before >= least and not _apart(prices, i - before, i, low, high):
        return 0
    if after >= least and not _apart(prices, i + 1, i + 1 + after, low, high):
        return 0
    # With only one side, a jump soon after would make all rows before it look like spikes.
    if before < least and not _apart(prices, i + 1, i + 1 + least, low, high):
        return 0
    if after < least and not _apart(prices, i - least, i, low, high):
        return 0
    half = near // 2
    if before < half or after < half:
        return 1
    # The centered median excludes the price itself, which is neither under low nor over high.
    under = 0
    not_over = -1
    for k in range(i - half, i + half + 1):
        under += prices[k] < low
        not_over += prices[k] <= high
    return 1 if under > half or not_over <= half else 0


@nb.njit
def _judge(prices, times, fill, stop, counts, tick, shape, limits, spike_times, spike_prices):
    """Judge the buffered rows before ``stop``; all rows before ``fill`` are neighbors."""
    near, least, many = shape[0], shape[1], shape[2]
    multiple, least_scatter = limits[0], limits[1]
    scatter = -1.0
    for first in range(counts[P_DONE], stop, _CHUNK):
        last = min(first + _CHUNK, stop)
        lowest = prices[first]
        highest = lowest
        for i in range(max(0, first - near), min(fill, last + near)):
            lowest = min(lowest, prices[i])
            highest = max(highest, prices[i])
        # Medians lie between the lowest and the highest price; exp(x) >= 1 + x.
        if highest <= lowest * (1.0 + multiple * max(least_scatter, tick / highest)) and fill >= 2 * least:
            continue
        for i in range(first, last):
            limit = multiple * max(least_scatter, tick / prices[i])
            found = _is_spike(prices, i, fill, near, least, limit)
            if found == 1:
                # Costly, and rarely needed.
                if scatter < 0.0:
                    scatter = _scatter(prices, max(0, stop - many), stop, near)
                    if tick == 0.0:
                        tick = _step_seen(prices, max(0, stop - many), stop)
                wider = multiple * max(scatter, tick / prices[i])
                if wider > limit:
                    found = _is_spike(prices, i, fill, near, least, wider)
                if found == 1:
                    own = multiple * _scatter_around(prices, i, max(0, i - near), min(fill, i + near + 1))
                    if own > wider:
                        found = _is_spike(prices, i, fill, near, least, own)
            if found == -1:
                counts[P_UNJUDGED] += 1
            elif found == 1:
                if counts[P_SPIKES] < spike_times.shape[0]:
                    spike_times[counts[P_SPIKES]] = times[i]
                    spike_prices[counts[P_SPIKES]] = prices[i]
                counts[P_SPIKES] += 1
    counts[P_DONE] = stop


@kernel(
    nb.void(
        _I64, _I64, _F64, _F64, _I32, _I32, nb.int64, nb.int64,  # rows, symbol of each code, start, stop
        _I64_2, _F64_2, _F64_2, _F64_2, _I64_2, _I64_2, _F64_2,  # state of symbols
        _I64, _F64,  # shape, limits
    )
)  # fmt: skip
def count_prices(times, locals_, price, amount, codes, symbol_of, start, stop,
                 counts, values, grids, prices, price_times, spike_times, spike_prices, shape,
                 limits):  # fmt: skip
    """Prices of the valid rows (price and amount in their sane ranges), by symbol.

    Parameters
    ----------
    grids
        Per symbol the price steps valid that day; zeros after the last.
    prices, price_times
        Per symbol the last ``shape[2] + shape[0]`` trades; when these are complete, all but the last
        ``shape[0]`` are judged.
    shape
        Neighbors of a median, fewest neighbors, trades of a scatter.
    limits
        Number of scatters that make a spike, and the least scatter (a log).
    """
    near, many = shape[0], shape[2]
    capacity = near + many
    step = many // 4
    i = np.int64(start)
    while i < stop:
        # Consecutive rows of one symbol (all rows in ordinary files) keep their state in registers.
        code = codes[i]
        s = np.int64(symbol_of[code])
        own = prices[s]
        own_times = price_times[s]
        grid = grids[s, 0]
        fill = counts[s, P_FILL]
        run = values[s, V_RUN]
        rows, run_start, run_end = counts[s, P_RUN_ROWS], counts[s, P_RUN_START], counts[s, P_RUN_END]
        most = counts[s, P_MOST_ROWS]
        longest = counts[s, P_LONG_END] - counts[s, P_LONG_START] if counts[s, P_LONG_ROWS] else np.int64(-1)
        while i < stop and codes[i] == code:
            p = price[i]
            if not (LEAST_PRICE <= p <= MOST_PRICE and LEAST_AMOUNT <= amount[i] <= MOST_AMOUNT):
                i += 1
                continue
            if grid > 0.0 and is_off(p, grid):
                count_off(counts[s], P_OFF_GRID, P_OFF_FINER, grids[s], p)
            if p == run:
                rows += 1
            else:
                if rows > most:
                    most = rows
                    values[s, V_MOST] = _keep_run(counts[s], run, P_MOST_ROWS, rows, run_start, run_end)
                if rows > 0 and run_end - run_start > longest:
                    longest = run_end - run_start
                    values[s, V_LONG] = _keep_run(counts[s], run, P_LONG_ROWS, rows, run_start, run_end)
                run = p
                rows = 1
                run_start = locals_[i]
            run_end = locals_[i]
            own[fill] = p
            own_times[fill] = times[i]
            fill += 1
            i += 1
            if fill == capacity:
                _judge(
                    own, own_times, fill, many, counts[s], grids[s].max(), shape, limits, spike_times[s],
                    spike_prices[s],
                )  # fmt: skip
                for k in range(capacity - step):
                    own[k] = own[k + step]
                    own_times[k] = own_times[k + step]
                fill = capacity - step
                counts[s, P_DONE] = many - step
        counts[s, P_FILL] = fill
        values[s, V_RUN] = run
        counts[s, P_RUN_ROWS], counts[s, P_RUN_START], counts[s, P_RUN_END] = rows, run_start, run_end


@kernel(
    nb.void(
        nb.int64, _I64_2, _F64_2, _F64_2, _F64_2, _I64_2, _I64_2, _F64_2, _I64, _F64,
    )
)  # fmt: skip
def end_prices(s, counts, values, grids, prices, price_times, spike_times, spike_prices, shape, limits):
    """Judge the symbol's last trades, which have fewer neighbors after them, and end its last run."""
    fill = counts[s, P_FILL]
    _judge(
        prices[s], price_times[s], fill, fill, counts[s], grids[s].max(), shape, limits, spike_times[s],
        spike_prices[s],
    )  # fmt: skip
    rows, start, end = counts[s, P_RUN_ROWS], counts[s, P_RUN_START], counts[s, P_RUN_END]
    if rows > counts[s, P_MOST_ROWS]:
        values[s, V_MOST] = _keep_run(counts[s], values[s, V_RUN], P_MOST_ROWS, rows, start, end)
    known = counts[s, P_LONG_ROWS] > 0
    if rows > 0 and not (known and end - start <= counts[s, P_LONG_END] - counts[s, P_LONG_START]):
        values[s, V_LONG] = _keep_run(counts[s], values[s, V_RUN], P_LONG_ROWS, rows, start, end)
