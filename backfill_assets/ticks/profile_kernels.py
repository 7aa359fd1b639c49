# mypy: disable-error-code="no-untyped-def"
"""The counting loops of the profile, compiled; ``profile`` owns the state and defines the counts.

Every loop is sequential over the rows of the file and keeps its whole state in the caller's arrays, so the
division of a file into batches does not change a result, not even the last bit of a sum.
"""

from __future__ import annotations

from typing import Final

import numba as nb
import numpy as np

from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.ticks.jit import kernel

LEAST_PRICE, MOST_PRICE = SANE_PRICE
LEAST_AMOUNT, MOST_AMOUNT = SANE_AMOUNT

# Columns of the feed's counts.
(
    F_ROWS, F_FIRST, F_LAST, F_LOCAL_FIRST, F_LOCAL_LAST, F_LOCAL_BEFORE, F_LOCAL_AFTER, F_DECREASES,
    F_PREVIOUS_LOCAL, F_IMPLAUSIBLE, F_MISPLACED, F_AHEAD, F_BAD_PRICE, F_BAD_AMOUNT, F_CROSSED, F_VALUELESS,
    F_SILENCE, F_SILENCE_START, F_SIZE,
) = range(19)  # fmt: skip

# Columns of a symbol's counts.
(
    S_ROWS, S_VALID, S_FIRST, S_LAST, S_BUY, S_SELL, S_SIDELESS, S_NUMERIC, S_EMPTY, S_ID_FIRST, S_ID_LAST,
    S_ID_LAST_TIME, S_ID_MIN, S_ID_MAX, S_UNIQUE, S_DUPLICATES, S_CONFLICTS, S_UNMAPPED, S_SEAM, S_PAGE_KEY,
    S_PAGE, S_RESETS, S_UNCOUNTED, S_HEAD, S_OLD_MIN, S_OLD_MAX, S_OLD_ROWS, S_SIZE,
) = range(28)  # fmt: skip

# Entries of the shared counters.
N_PAGES, N_EDGES, N_SILENCES, N_EDGES_DROPPED, N_SEEN, N_SIZE = range(6)

#: One page of the bitmap: 2**15 ids in 4 kB, one page of the operating system.
PAGE_BITS: Final = 15
PAGE_WORDS: Final = 1 << (PAGE_BITS - 6)
#: Rows on each side for the mean of the usual silence; the ring must have room for twice that and two more.
USUAL: Final = 200
RING: Final = 512
MINUTES: Final = 1440
MINUTE_US: Final = 60_000_000
HOURS: Final = 24
HOUR_US: Final = 3_600_000_000
#: The clock offset's histograms, one per hour of arrival: 1 ms bins over ±60 s.
CLOCK_BINS: Final = 120_001
CLOCK_ZERO: Final = 60_000

_I64, _F64, _I32 = nb.int64[::1], nb.float64[::1], nb.int32[::1]
_I64_2, _I32_2, _F64_2 = nb.int64[:, ::1], nb.int32[:, ::1], nb.float64[:, ::1]
_U64_2 = nb.uint64[:, ::1]
_U = np.uint64


@kernel(nb.void(_I64, _I64, _I32, nb.int64, nb.int64, _I64, _I64, _I32_2, _I64_2, _I64))
def count_feed(times, locals_, codes, start, stop, bounds, counts, clock, clock_range, code_rows):
    """Count over all rows of any data type.

    ``bounds`` is day start, day end, seam window, first and last plausible microsecond; ``clock_range`` is
    the first bin of each hour that has a row, and the bin after the last one.
    """
    day_start, day_end, seam, plausible_from, plausible_to = (
        bounds[0],
        bounds[1],
        bounds[2],
        bounds[3],
        bounds[4],
    )
    hour = np.int64(0)
    hour_from = np.int64(0)
    hour_to = np.int64(0)
    for i in range(start, stop):
        t = times[i]
        arrived = locals_[i]
        if arrived < hour_from or arrived >= hour_to:
            hour = (arrived - day_start) // HOUR_US
            hour_from = day_start + hour * HOUR_US
            hour_to = hour_from + HOUR_US
            hour = min(max(hour, 0), HOURS - 1)
        if counts[F_ROWS] == 0:
            counts[F_FIRST] = t
            counts[F_LAST] = t
            counts[F_LOCAL_FIRST] = arrived
            counts[F_LOCAL_LAST] = arrived
            counts[F_PREVIOUS_LOCAL] = arrived
        counts[F_ROWS] += 1
        code_rows[codes[i]] += 1
        counts[F_FIRST] = min(counts[F_FIRST], t)
        counts[F_LAST] = max(counts[F_LAST], t)
        counts[F_LOCAL_FIRST] = min(counts[F_LOCAL_FIRST], arrived)
        counts[F_LOCAL_LAST] = max(counts[F_LOCAL_LAST], arrived)
        counts[F_LOCAL_BEFORE] += arrived < day_start
        counts[F_LOCAL_AFTER] += arrived >= day_end
        counts[F_DECREASES] += arrived < counts[F_PREVIOUS_LOCAL]
        if arrived - counts[F_PREVIOUS_LOCAL] > counts[F_SILENCE]:
            counts[F_SILENCE] = arrived - counts[F_PREVIOUS_LOCAL]
            counts[F_SILENCE_START] = counts[F_PREVIOUS_LOCAL]
        counts[F_PREVIOUS_LOCAL] = arrived
        counts[F_IMPLAUSIBLE] += t < plausible_from or t >= plausible_to
        counts[F_IMPLAUSIBLE] += arrived < plausible_from or arrived >= plausible_to
        counts[F_MISPLACED] += t < day_start - seam or t >= day_end + seam
        counts[F_AHEAD] += t > arrived
        milliseconds = (t - arrived) // 1000
        b = min(max(milliseconds, -CLOCK_ZERO), CLOCK_ZERO) + CLOCK_ZERO
        clock[hour, b] += 1
        clock_range[hour, 0] = min(clock_range[hour, 0], b)
        clock_range[hour, 1] = max(clock_range[hour, 1], b + 1)


@kernel(nb.void(_I32_2, _I64_2, nb.int64, _I64, _I64_2))
def read_clock(clock, clock_range, first, whole, hours):
    """Add up the hours in ``whole``, which begins at the bin ``first``.

    ``hours`` receives each hour's rows and the bin of its median (-1 without rows).
    """
    for hour in range(HOURS):
        rows = np.int64(0)
        for b in range(clock_range[hour, 0], clock_range[hour, 1]):
            rows += clock[hour, b]
            whole[b - first] += clock[hour, b]
        hours[hour, 0] = rows
        hours[hour, 1] = -1
        # The bins have the negative of the latency, so its nearest rank counts from the other end.
        seen = np.int64(0)
        if rows > 0:
            for b in range(clock_range[hour, 1] - 1, clock_range[hour, 0] - 1, -1):
                seen += clock[hour, b]
                if 2 * seen >= rows:
                    hours[hour, 1] = b
                    break


@kernel(nb.void(_F64, _F64, nb.int64, nb.int64, _I64))
def count_invalid(price, amount, start, stop, counts):
    """Count prices and amounts that are null (NaN) or outside their sane range."""
    for i in range(start, stop):
        counts[F_BAD_PRICE] += not LEAST_PRICE <= price[i] <= MOST_PRICE
        counts[F_BAD_AMOUNT] += not LEAST_AMOUNT <= amount[i] <= MOST_AMOUNT


@kernel(nb.void(_F64, _F64, nb.int64, nb.int64, _I64))
def count_crossed(bid, ask, start, stop, counts):
    """Count best bids at or above the best ask, and prices out of their sane range; null (NaN) is neither."""
    for i in range(start, stop):
        counts[F_CROSSED] += bid[i] >= ask[i]
        below = bid[i] < LEAST_PRICE or ask[i] < LEAST_PRICE
        counts[F_BAD_PRICE] += below or bid[i] > MOST_PRICE or ask[i] > MOST_PRICE


@kernel(nb.void(_F64_2, nb.int64, nb.int64, _I64))
def count_valueless(values, start, stop, counts):
    """Count rows whose values are all null (NaN); ``values`` has a row for each column."""
    for i in range(start, stop):
        valueless = True
        for c in range(values.shape[0]):
            if not np.isnan(values[c, i]):
                valueless = False
                break
        counts[F_VALUELESS] += valueless


@nb.njit(inline="always")
def _has_id(symbol, wanted, page_table, pages):
    """Whether the id is in the bitmap."""
    found = False
    if wanted >= 0:
        key = (symbol << 45) | (wanted >> PAGE_BITS)
        mask = page_table.shape[0] - 1
        slot = (key * 0x9E3779B97F4A7C1) >> 20 & mask
        while page_table[slot, 1] != 0:
            if page_table[slot, 0] == key:
                word = pages[(page_table[slot, 1] - 1) * PAGE_WORDS + ((wanted >> 6) & (PAGE_WORDS - 1))]
                found = (word >> _U(wanted & 63)) & _U(1) != _U(0)
                break
            slot = (slot + 1) & mask
    return found


@nb.njit(inline="always")
def _place_of(seen, mark):
    """Place of this mark's id in the set of seen ids, or the place to insert it; the set has a free place."""
    mask = seen.shape[0] - 1
    slot = np.int64((mark * _U(0x9E3779B97F4A7C15)) >> _U(32)) & mask
    while seen[slot, 0] != _U(0) and seen[slot, 0] != mark:
        slot = (slot + 1) & mask
    return slot


@kernel(nb.void(_U64_2, _U64_2))
def move_seen(seen, larger):
    """Fill a larger, empty set with the seen ids."""
    for i in range(seen.shape[0]):
        if seen[i, 0] != _U(0):
            slot = _place_of(larger, seen[i, 0])
            larger[slot, 0] = seen[i, 0]
            larger[slot, 1] = seen[i, 1]


@nb.njit(inline="always")
def _look_up(s, v, payload, counts, shared, seen, most_seen):
    """Count an id without a bit in the bitmap: it is new, or was seen with this payload or another."""
    mark = (_U(v) ^ (_U(s + 1) * _U(0xD6E8FEB86659FD93))) * _U(0xBF58476D1CE4E5B9)
    mark = max(mark ^ (mark >> _U(31)), _U(1))
    slot = _place_of(seen, mark)
    if seen[slot, 0] == mark:
        if seen[slot, 1] == payload:
            counts[s, S_DUPLICATES] += 1
        else:
            counts[s, S_CONFLICTS] += 1
    elif shared[N_SEEN] < most_seen:
        seen[slot, 0] = mark
        seen[slot, 1] = payload
        shared[N_SEEN] += 1
    else:
        counts[s, S_UNCOUNTED] += 1


@nb.njit
def _begin_anew(s, counts, shared, page_keys, pages, edges):
    """Set aside the symbol's ids so far: the venue restarts its ids, and these belong to the day before."""
    counts[s, S_OLD_MIN] = counts[s, S_ID_MIN]
    counts[s, S_OLD_MAX] = counts[s, S_ID_MAX]
    counts[s, S_OLD_ROWS] = counts[s, S_NUMERIC]
    counts[s, S_UNIQUE] = 0
    for n in range(shared[N_PAGES]):
        if page_keys[n] >> 45 == s:
            for k in range(PAGE_WORDS):
                pages[n * PAGE_WORDS + k] = _U(0)
    kept = 0
    for n in range(shared[N_EDGES]):
        if edges[n, 0] != s:
            for column in range(3):
                edges[kept, column] = edges[n, column]
            kept += 1
    shared[N_EDGES] = kept


@kernel(
    nb.int64(
        _I64, _I64, _F64, _F64, _I64, _I64, nb.uint8[::1], _I64, _I32, _I32,  # rows
        nb.int64, nb.int64, _I64, nb.int64, nb.int64,  # start, stop, bounds, shortest silence, id reset
        _I64_2, _F64_2, _I64_2, _I32_2,  # state of symbols
        _I64, _I64_2, _I64, nb.uint64[::1], _U64_2, _U64_2, nb.int64, _I64_2, _I64_2,  # shared state
    )
)  # fmt: skip
def count_trades(times, locals_, price, amount, price_bits, amount_bits, side, ids, codes, symbol_of,
                 start, stop, bounds, silence, reset, counts, notional, ring, minutes,
                 shared, page_table, page_keys, pages, window, seen, most_seen, edges, silences):  # fmt: skip
    """Count trades by symbol; return the row at which a growing array was full, else ``stop``.

    Parameters
    ----------
    symbol_of
        Number of the symbol for each code.
    ring
        Per symbol the ``local_timestamp`` of its last 512 rows.
    page_table, page_keys, pages
        Hash table from (symbol, page of ids) to 1 + page number, the (symbol, page of ids) of each page
        number, and the bitmaps. A symbol that finds no free page is marked as unmapped and gets no more.
    seen, most_seen
        Open-addressing table of the ids that are not integers or found no page (mix of symbol and id,
        payload). After ``most_seen`` ids no id is added, and ids that are not in the table are uncounted.
    window
        Recent ids (symbol and id + 1, payload), direct-mapped by id.
    edges
        (symbol, id, time) of every row whose predecessor or successor, in the order of rows, is not the next
        id. The two rows beside a gap are among them in any order: no row can have the id next to theirs.
    silences
        (symbol, start, end, sum and number of the silences around) of each silence, known 200 rows later.
    """
    day_start = bounds[0]
    seam_from = bounds[0] - bounds[2]
    seam_to = bounds[1] + bounds[2]
    minute_from = np.int64(0)
    minute_to = np.int64(0)
    minute = np.int64(-1)
    page_mask = page_table.shape[0] - 1
    page_capacity = pages.shape[0] // PAGE_WORDS
    window_mask = window.shape[0] - 1
    for i in range(start, stop):
        if shared[N_EDGES] + 2 > edges.shape[0] or shared[N_SILENCES] + 1 > silences.shape[0]:
            return i
        if shared[N_SEEN] < most_seen and 4 * (shared[N_SEEN] + 1) > 3 * seen.shape[0]:
            return i
        s = np.int64(symbol_of[codes[i]])
        t = times[i]
        arrived = locals_[i]
        p = price[i]
        a = amount[i]
        row = counts[s, S_ROWS]
        counts[s, S_ROWS] = row + 1
        if side[i] == 0:
            counts[s, S_BUY] += 1
        elif side[i] == 1:
            counts[s, S_SELL] += 1
        else:
            counts[s, S_SIDELESS] += 1
        if LEAST_PRICE <= p <= MOST_PRICE and LEAST_AMOUNT <= a <= MOST_AMOUNT:
            if counts[s, S_VALID] == 0:
                counts[s, S_FIRST] = t
                counts[s, S_LAST] = t
            counts[s, S_VALID] += 1
            counts[s, S_FIRST] = min(counts[s, S_FIRST], t)
            counts[s, S_LAST] = max(counts[s, S_LAST], t)
            # Two-sum (Knuth) keeps the rounding error of the sum beside it.
            x = p * a
            y = notional[s, 0]
            z = y + x
            back = z - y
            notional[s, 1] += (y - (z - back)) + (x - back)
            notional[s, 0] = z
            if t < minute_from or t >= minute_to:
                minute = (t - day_start) // MINUTE_US
                minute_from = day_start + minute * MINUTE_US
                minute_to = minute_from + MINUTE_US
            if 0 <= minute < MINUTES:
                minutes[s, minute] += 1
            elif seam_from <= t < seam_to:
                counts[s, S_SEAM] += 1
        ring[s, row & (RING - 1)] = arrived
        j = row - USUAL
        if j >= 1:
            before = ring[s, (j - 1) & (RING - 1)]
            after = ring[s, j & (RING - 1)]
            if after - before >= silence:
                back_rows = min(np.int64(USUAL), j - 1)
                n = shared[N_SILENCES]
                silences[n, 0] = s
                silences[n, 1] = before
                silences[n, 2] = after
                silences[n, 3] = (before - ring[s, (j - 1 - back_rows) & (RING - 1)]) + (arrived - after)
                silences[n, 4] = back_rows + USUAL
                shared[N_SILENCES] = n + 1
        v = ids[i]
        if v == -2:
            counts[s, S_EMPTY] += 1
            continue
        # Payload: 64 mixed bits; two different payloads are taken for the same once in 10**19.
        payload = _U(t) * _U(0x9E3779B97F4A7C15)
        payload = (payload ^ (payload >> _U(29)) ^ _U(price_bits[i])) * _U(0xBF58476D1CE4E5B9)
        payload = (payload ^ (payload >> _U(32)) ^ _U(amount_bits[i])) * _U(0x94D049BB133111EB)
        payload = (payload ^ (payload >> _U(30)) ^ _U(side[i])) * _U(0xBF58476D1CE4E5B9)
        if v < 0:
            _look_up(s, v, payload, counts, shared, seen, most_seen)
            continue
        # Rows stamped before the day come first; if the day's own ids begin far lower, the venue restarts its
        # ids at midnight.
        if t < day_start:
            if counts[s, S_OLD_ROWS] > 0 and 2 * v > counts[s, S_OLD_MIN]:
                counts[s, S_NUMERIC] += 1
                counts[s, S_OLD_ROWS] += 1
                counts[s, S_OLD_MIN] = min(counts[s, S_OLD_MIN], v)
                counts[s, S_OLD_MAX] = max(counts[s, S_OLD_MAX], v)
                w = (v + s * 0x9E3779B1) & window_mask
                mark = (_U(s) * _U(0x9E3779B97F4A7C15)) ^ _U(v + 1)
                counts[s, S_DUPLICATES] += window[w, 0] == mark and window[w, 1] == payload
                if window[w, 0] != mark:
                    window[w, 0] = mark
                    window[w, 1] = payload
                continue
        elif counts[s, S_HEAD] == 0:
            counts[s, S_HEAD] = 1
            if counts[s, S_NUMERIC] > 0 and counts[s, S_UNMAPPED] == 0 and 2 * v < counts[s, S_ID_MIN]:
                _begin_anew(s, counts, shared, page_keys, pages, edges)
        if counts[s, S_NUMERIC] == counts[s, S_OLD_ROWS]:
            counts[s, S_ID_FIRST] = v
            counts[s, S_ID_MIN] = v
            counts[s, S_ID_MAX] = v
            counts[s, S_PAGE_KEY] = -1
            n = shared[N_EDGES]
            edges[n, 0] = s
            edges[n, 1] = v
            edges[n, 2] = t
            shared[N_EDGES] = n + 1
        elif v != counts[s, S_ID_LAST] + 1:
            n = shared[N_EDGES]
            edges[n, 0] = s
            edges[n, 1] = counts[s, S_ID_LAST]
            edges[n, 2] = counts[s, S_ID_LAST_TIME]
            edges[n + 1, 0] = s
            edges[n + 1, 1] = v
            edges[n + 1, 2] = t
            shared[N_EDGES] = n + 2
            counts[s, S_RESETS] += v < counts[s, S_ID_LAST] - reset
        counts[s, S_NUMERIC] += 1
        counts[s, S_ID_LAST] = v
        counts[s, S_ID_LAST_TIME] = t
        counts[s, S_ID_MIN] = min(counts[s, S_ID_MIN], v)
        counts[s, S_ID_MAX] = max(counts[s, S_ID_MAX], v)
        # The bitmap: nearly every id is in the symbol's last page.
        key = (s << 45) | (v >> PAGE_BITS)
        mapped = True
        page = counts[s, S_PAGE]
        if counts[s, S_PAGE_KEY] != key:
            slot = (key * 0x9E3779B97F4A7C1) >> 20 & page_mask
            while page_table[slot, 1] != 0 and page_table[slot, 0] != key:
                slot = (slot + 1) & page_mask
            if page_table[slot, 1] == 0:
                if counts[s, S_UNMAPPED] != 0 or shared[N_PAGES] >= page_capacity:
                    counts[s, S_UNMAPPED] = 1
                    mapped = False
                else:
                    page_keys[shared[N_PAGES]] = key
                    shared[N_PAGES] += 1
                    page_table[slot, 0] = key
                    page_table[slot, 1] = shared[N_PAGES]
            if mapped:
                page = page_table[slot, 1] - 1
                counts[s, S_PAGE_KEY] = key
                counts[s, S_PAGE] = page
        if not mapped:
            _look_up(s, v, payload, counts, shared, seen, most_seen)
            continue
        k = page * PAGE_WORDS + ((v >> 6) & (PAGE_WORDS - 1))
        bit = _U(1) << _U(v & 63)
        known = (pages[k] & bit) != _U(0)
        pages[k] |= bit
        w = (v + s * 0x9E3779B1) & window_mask
        mark = (_U(s) * _U(0x9E3779B97F4A7C15)) ^ _U(v + 1)
        if not known:
            counts[s, S_UNIQUE] += 1
            window[w, 0] = mark
            window[w, 1] = payload
        elif window[w, 0] == mark and window[w, 1] != payload:
            counts[s, S_CONFLICTS] += 1
        else:
            counts[s, S_DUPLICATES] += 1
    return stop


@kernel(nb.int64(_I64_2, nb.int64, _I64_2, nb.uint64[::1]))
def prune_edges(edges, size, page_table, pages):
    """Drop, in place, the edges that can no longer lie beside a gap because both neighbors have arrived."""
    kept = 0
    for i in range(size):
        s = edges[i, 0]
        v = edges[i, 1]
        if _has_id(s, v - 1, page_table, pages) and _has_id(s, v + 1, page_table, pages):
            continue
        edges[kept, 0] = s
        edges[kept, 1] = v
        edges[kept, 2] = edges[i, 2]
        kept += 1
    return kept


@kernel(nb.int64(nb.int64, _I64_2, _I64_2, nb.int64, _I64_2, nb.int64))
def last_silences(s, counts, ring, silence, silences, size):
    """Append to ``silences`` the silences within the symbol's last 200 rows; return the new size."""
    rows = counts[s, S_ROWS]
    last = ring[s, (rows - 1) & (RING - 1)]
    for j in range(max(np.int64(1), rows - USUAL), rows):
        before = ring[s, (j - 1) & (RING - 1)]
        after = ring[s, j & (RING - 1)]
        if after - before >= silence:
            back_rows = min(np.int64(USUAL), j - 1)
            silences[size, 0] = s
            silences[size, 1] = before
            silences[size, 2] = after
            silences[size, 3] = (before - ring[s, (j - 1 - back_rows) & (RING - 1)]) + (last - after)
            silences[size, 4] = back_rows + (rows - 1 - j)
            size += 1
    return size


@kernel(nb.void(_I64_2, nb.uint64[::1], nb.int64, nb.int64, _I64_2, _I64))
def find_gaps(ordered_pages, pages, first_id, short, gaps, totals):
    """Find runs of unset bits between the symbol's lowest and highest id.

    ``ordered_pages`` is (page of ids, page number), ascending. Fills ``gaps`` (first, last missing) as far as
    it has room, and ``totals``: number of runs, longest run, and ids in runs of at most ``short``.
    """
    expected = first_id
    full = ~_U(0)
    for n in range(ordered_pages.shape[0]):
        base = ordered_pages[n, 0] << PAGE_BITS
        offset = ordered_pages[n, 1] * PAGE_WORDS
        for k in range(PAGE_WORDS):
            word = pages[offset + k]
            if word == _U(0):
                continue
            word_base = base + (k << 6)
            if word == full and expected == word_base:
                expected = word_base + 64
                continue
            for b in range(64):
                if (word >> _U(b)) & _U(1) == _U(0):
                    continue
                v = word_base + b
                length = v - expected
                if length > 0:
                    if totals[0] < gaps.shape[0]:
                        gaps[totals[0], 0] = expected
                        gaps[totals[0], 1] = v - 1
                    totals[0] += 1
                    totals[1] = max(totals[1], length)
                    if length <= short:
                        totals[2] += length
                expected = v + 1
