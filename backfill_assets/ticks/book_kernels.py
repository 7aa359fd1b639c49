# mypy: disable-error-code="no-untyped-def"
"""The replay of order books, compiled; ``books`` owns the state and defines the counts.

As in ``profile_kernels``, every loop is sequential and keeps its whole state in the caller's arrays, so the
division of a file into batches does not change a result.

A side of a book is a sorted array whose last level is the best: its keys are the prices of bids and the
negative prices of asks. Most changes are near the best, so few levels move. Further away no level moves: a
deleted level stays with amount 0, and a new one waits in a small array of its own, until several hundred of
them are merged at once. So a change costs as much in a book of 30,000 levels as in one of 1,000.
"""

from __future__ import annotations

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
    B_ROWS, B_MESSAGES, B_SNAPSHOTS, B_ROWS_BEFORE, B_FIRST, B_LAST, B_PREVIOUS, B_BOOK_FROM, B_STATE,
    B_WHICH, B_IN_SNAPSHOT, B_UNSORTED, B_SNAPSHOT_ROW, B_SNAPSHOT_AT, B_SNAPSHOT_GAP, B_VALID_US,
    B_ONE_SIDED_US, B_LOCKED_US, B_CROSSED_US, B_STUCK_US, B_CROSS_START, B_CROSS_LONGEST,
    B_CROSS_LONGEST_START, B_DELETES,
    B_ABSENT, B_ABSENT_BEYOND, B_BAD_PRICE, B_BAD_AMOUNT, B_SIDELESS, B_OFF_GRID, B_OFF_FINER, B_COMPARED,
    B_LEVELS_COMPARED, B_LEVELS_DIFFERING, B_DIFFERING, B_DROPPED, B_CHANGED, B_CHANGES, B_LAST_CHANGE,
    B_FIRST_CHANGE, B_UNCHANGED, B_UNCHANGED_START, B_MESSAGE_ROWS, B_MOST_ROWS, B_DIGEST, B_RUN, B_RUN_AT,
    B_RESENT_BLOCKS, B_RESENT, B_WAITING, _B_WAITING_ASKS, B_DEAD, _B_DEAD_ASKS, B_MOVED, B_FAR, B_SHIFTED,
    B_SHIFTED_AT, B_SIZE,
) = range(58)  # fmt: skip

# States of a book between two messages: nothing is known before the first snapshot; the last two are wrong.
UNKNOWN, VALID, ONE_SIDED, LOCKED, CROSSED = range(5)

# Events of a minute: a book was known, a snapshot equaled the replayed book, the best levels were crossed or
# locked for a moment.
M_KNOWN, M_PROVEN, M_CROSSED = 1, 2, 4

# Columns of a listed snapshot that differs from the book: arrival, time since the message before, levels.
L_TIME, L_GAP, L_COMPARED, L_DIFFERING, L_SIZE = range(5)

# Columns of horizons: depth to which each side is known, and the best key that waits or is dead.
BID, ASK = 0, 1
H_LAZY, H_SIZE = 2, 4
MINUTES: Final = 1440
MINUTE_US: Final = 60_000_000
#: Numbers of levels a side whose digests are stored at the end of each minute.
DEPTHS: Final = (1, 5, 25)
#: Most levels kept for a side; the deepest books of venues with a level for every price have some ten
#: thousand.
MOST_LEVELS: Final = 1 << 17
#: A shorter crossed or locked book is only a moment: venues send the two sides of a change separately.
MOMENT_US: Final = 1_000_000
#: Rows of a snapshot that arrive later than this after the rows before belong to the next snapshot, even
#: without an update between them: the capture has connected twice.
SNAPSHOT_US: Final = 1_000_000
#: Levels from the best within which changes move levels at once, and the most changes further away that wait.
MOVING: Final = 512
WAITING: Final = 512
#: A new level is far if the best price of its side is this many times nearer to the other side.
FAR: Final = 5.0
#: A far level is misplaced by a decimal if moving the decimal brings it this near to the best, relatively.
SHIFTED: Final = 0.05
#: Levels compared one by one from the best, before a binary search of the others.
_NEAR: Final = 8
#: An odd number with bits in all positions.
_MIX: Final = -0x61C8864680B583EB

_I64, _F64, _I32, _U8 = nb.int64[::1], nb.float64[::1], nb.int32[::1], nb.uint8[::1]
_I64_2, _F64_2, _I32_2, _U8_2 = nb.int64[:, ::1], nb.float64[:, ::1], nb.int32[:, ::1], nb.uint8[:, ::1]
_U32_3 = nb.uint32[:, :, ::1]


@nb.njit
def _place(keys, size, key):
    """Place of the key among the first ``size``, or the place to insert it."""
    at = size
    for _ in range(_NEAR):
        if at == 0 or keys[at - 1] < key:
            return at
        at -= 1
        if keys[at] == key:
            return at
    low = 0
    while low < at:
        middle = (low + at) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            at = middle
    return low


@nb.njit
def _sort(keys, amounts, size):
    """Sort the levels of a snapshot, keep the last of each key, and return how many are left."""
    rising = True
    falling = True
    for i in range(1, size):
        rising &= keys[i - 1] < keys[i]
        falling &= keys[i - 1] > keys[i]
    if rising:
        return size
    if falling:
        for i in range(size // 2):
            j = size - 1 - i
            keys[i], keys[j] = keys[j], keys[i]
            amounts[i], amounts[j] = amounts[j], amounts[i]
        return size
    order = np.argsort(keys[:size], kind="mergesort")
    sorted_keys = keys[:size][order]
    sorted_amounts = amounts[:size][order]
    left = 0
    for i in range(size):
        if left > 0 and keys[left - 1] == sorted_keys[i]:
            left -= 1
        keys[left] = sorted_keys[i]
        amounts[left] = sorted_amounts[i]
        left += 1
    return left


@nb.njit
def _sort_sides(s, c, sizes, keys, amounts):
    """Sort the rows of a snapshot."""
    for side in range(2):
        own = 4 * s + 2 * c[B_WHICH] + side
        sizes[own] = _sort(keys[own], amounts[own], sizes[own])
    c[B_UNSORTED] = 0


@nb.njit
def _settle(own, line, side, c, sizes, keys, amounts, waiting, waiting_amounts, horizons):
    """Remove the dead levels of a side, and insert those that wait."""
    k = keys[own]
    a = amounts[own]
    size = sizes[own]
    if c[B_DEAD + side]:
        left = 0
        for i in range(size):
            if a[i] > 0.0:
                k[left] = k[i]
                a[left] = a[i]
                left += 1
        size = left
    more = c[B_WAITING + side]
    i = size - 1
    at = size + more - 1
    for j in range(more - 1, -1, -1):
        while i >= 0 and k[i] > waiting[line, j]:
            k[at] = k[i]
            a[at] = a[i]
            at -= 1
            i -= 1
        k[at] = waiting[line, j]
        a[at] = waiting_amounts[line, j]
        at -= 1
    c[B_MOVED] += size + more
    sizes[own] = size + more
    c[B_WAITING + side] = 0
    c[B_DEAD + side] = 0
    horizons[H_LAZY + side] = -np.inf


@nb.njit
def _settle_sides(s, c, sizes, keys, amounts, waiting, waiting_amounts, horizons):
    for side in range(2):
        if c[B_WAITING + side] or c[B_DEAD + side]:
            own = 4 * s + 2 * c[B_WHICH] + side
            _settle(own, 2 * s + side, side, c, sizes, keys, amounts, waiting, waiting_amounts, horizons)


@nb.njit
def _wait(line, side, at, key, amount, c, waiting, waiting_amounts, horizons):
    """Insert a new level at its place among those that wait."""
    for i in range(c[B_WAITING + side], at, -1):
        waiting[line, i] = waiting[line, i - 1]
        waiting_amounts[line, i] = waiting_amounts[line, i - 1]
    c[B_MOVED] += c[B_WAITING + side] - at
    waiting[line, at] = key
    waiting_amounts[line, at] = amount
    c[B_WAITING + side] += 1
    horizons[H_LAZY + side] = max(horizons[H_LAZY + side], key)


@nb.njit
def _count_far(c, side, price, best, now):
    """Count a new level far beyond the best of its side, and whether one decimal brings it to the best."""
    beyond = price / best if side == ASK else best / price
    if beyond < FAR:
        return
    c[B_FAR] += 1
    if abs(beyond / 10.0 - 1.0) <= SHIFTED:
        if c[B_SHIFTED] == 0:
            c[B_SHIFTED_AT] = now
        c[B_SHIFTED] += 1


@nb.njit
def _insert(own, side, at, key, amount, c, sizes, keys, amounts, horizons):
    """Insert a new level at its place; a full side drops the level furthest from the best."""
    k = keys[own]
    a = amounts[own]
    size = sizes[own]
    if size == MOST_LEVELS:
        c[B_DROPPED] += 1
        if at > 0:
            for i in range(at - 1):
                k[i] = k[i + 1]
                a[i] = a[i + 1]
            k[at - 1] = key
            a[at - 1] = amount
        horizons[side] = max(horizons[side], k[0])
        return
    c[B_MOVED] += size - at
    for i in range(size, at, -1):
        k[i] = k[i - 1]
        a[i] = a[i - 1]
    k[at] = key
    a[at] = amount
    sizes[own] = size + 1


@nb.njit
def _end_snapshot(s, c, sizes, keys, amounts, horizons, flags, listed, day_start):
    """Compare a complete snapshot with the book that was replayed up to it, as far as both reach."""
    if c[B_UNSORTED]:
        _sort_sides(s, c, sizes, keys, amounts)
    c[B_IN_SNAPSHOT] = 0
    compared = 0
    differing = 0
    for side in range(2):
        new = 4 * s + 2 * c[B_WHICH] + side
        old = 4 * s + 2 * (1 - c[B_WHICH]) + side
        depth = keys[new, 0] if sizes[new] > 0 else -np.inf
        if sizes[new] > 0:
            deepest, best = abs(depth), abs(keys[new, sizes[new] - 1])
            c[B_FAR] += (deepest >= FAR * best) if side == ASK else (best >= FAR * deepest)
        both = max(horizons[side], depth)
        i = sizes[new] - 1
        j = sizes[old] - 1
        while True:
            key = keys[new, i] if i >= 0 else -np.inf
            other = keys[old, j] if j >= 0 else -np.inf
            if max(key, other) < both or (i < 0 and j < 0):
                break
            compared += 1
            if key == other:
                differing += amounts[new, i] != amounts[old, j]
            else:
                differing += 1
            i -= key >= other
            j -= other >= key
        horizons[side] = depth
    if compared == 0:
        return
    c[B_COMPARED] += 1
    c[B_LEVELS_COMPARED] += compared
    if differing == 0:
        minute = (c[B_SNAPSHOT_AT] - day_start) // MINUTE_US
        if 0 <= minute < MINUTES:
            flags[minute] |= M_PROVEN
        return
    c[B_LEVELS_DIFFERING] += differing
    if c[B_DIFFERING] < listed.shape[0] // L_SIZE:
        at = L_SIZE * c[B_DIFFERING]
        listed[at + L_TIME] = c[B_SNAPSHOT_AT]
        listed[at + L_GAP] = c[B_SNAPSHOT_GAP]
        listed[at + L_COMPARED] = compared
        listed[at + L_DIFFERING] = differing
    c[B_DIFFERING] += 1


@nb.njit
def _count_resent(s, c, seen, most):
    """Count runs of at least ``most`` messages that repeat earlier messages in the same order."""
    mark = (c[B_DIGEST] ^ (s + 1)) * _MIX
    mark ^= (mark >> 32) & 0xFFFFFFFF
    slot = mark & (seen.shape[0] - 1)
    if seen[slot, 0] == mark and seen[slot, 1] > 0:
        # Only the first of equal messages is stored, so a flickering level does not repeat messages in order.
        c[B_RUN] = c[B_RUN] + 1 if seen[slot, 1] == c[B_RUN_AT] + 1 else 1
        c[B_RUN_AT] = seen[slot, 1]
        if c[B_RUN] == most:
            c[B_RESENT_BLOCKS] += 1
            c[B_RESENT] += most
        elif c[B_RUN] > most:
            c[B_RESENT] += 1
        return
    c[B_RUN] = 0
    c[B_RUN_AT] = -1
    seen[slot, 0] = mark
    seen[slot, 1] = c[B_MESSAGES]


@nb.njit
def _end_cross(c, end):
    """End a period in which the book was crossed or locked."""
    if c[B_CROSS_START] < 0:
        return
    length = end - c[B_CROSS_START]
    if length >= MOMENT_US:
        c[B_STUCK_US] += length
    if length > c[B_CROSS_LONGEST]:
        c[B_CROSS_LONGEST] = length
        c[B_CROSS_LONGEST_START] = c[B_CROSS_START]
    c[B_CROSS_START] = -1


@nb.njit
def _note_change(c, now, changes, day_start):
    """Record whether the last arrival has changed the book."""
    if not c[B_CHANGED]:
        return
    if c[B_CHANGES] == 0:
        c[B_FIRST_CHANGE] = now
    elif now - c[B_LAST_CHANGE] > c[B_UNCHANGED]:
        c[B_UNCHANGED] = now - c[B_LAST_CHANGE]
        c[B_UNCHANGED_START] = c[B_LAST_CHANGE]
    c[B_CHANGES] += 1
    c[B_LAST_CHANGE] = now
    c[B_CHANGED] = 0
    minute = (now - day_start) // MINUTE_US
    if 0 <= minute < MINUTES:
        changes[minute] += 1


@nb.njit
def _note_best(c, now, bid, bid_amount, ask, ask_amount, best, path, flags, day_start):
    """Record the state of the book and the path of its best levels; an empty side has price 0.

    The path of a minute is a digest of all best levels in order with their arrivals. Crossed and locked
    levels are left out, since some makers of quotes remove crossed levels.
    """
    former = c[B_STATE]
    state = np.int64(ONE_SIDED)
    if bid > 0.0 and ask > 0.0:
        state = np.int64(CROSSED) if bid > ask else np.int64(LOCKED) if bid == ask else np.int64(VALID)
    c[B_STATE] = state
    minute = (now - day_start) // MINUTE_US
    if not 0 <= minute < MINUTES:
        return
    flags[minute] |= M_KNOWN
    if former >= LOCKED or state >= LOCKED:
        flags[minute] |= M_CROSSED
    if state >= LOCKED:
        return
    if best[0] == bid and best[1] == bid_amount and best[2] == ask and best[3] == ask_amount:
        return
    best[0] = bid
    best[1] = bid_amount
    best[2] = ask
    best[3] = ask_amount
    digest = (path[minute] ^ now) * _MIX
    bits = best.view(np.int64)
    for i in range(4):
        digest ^= (digest >> 29) & 0x7FFFFFFFF
        digest = (digest ^ bits[i]) * _MIX
    path[minute] = digest


@nb.njit
def _end_message(s, c, sizes, keys, amounts, waiting, waiting_amounts, horizons, changes, flags, best, path,
                 seen, most_resent, day_start):  # fmt: skip
    """Examine the book after all rows of one arrival."""
    c[B_MESSAGES] += 1
    _count_resent(s, c, seen, most_resent)
    c[B_DIGEST] = 0
    if c[B_UNSORTED]:
        _sort_sides(s, c, sizes, keys, amounts)
    c[B_MOST_ROWS] = max(c[B_MOST_ROWS], c[B_MESSAGE_ROWS])
    c[B_MESSAGE_ROWS] = 0
    now = c[B_LAST]
    _note_change(c, now, changes, day_start)
    if c[B_SNAPSHOTS] == 0:
        return
    bids = 4 * s + 2 * c[B_WHICH]
    for side in range(2):
        own = bids + side
        if c[B_WAITING + side] or c[B_DEAD + side]:
            # The best levels are read here, so none of them may wait or be dead.
            near = sizes[own] - 2 * DEPTHS[-1]
            if near < 0 or horizons[H_LAZY + side] >= keys[own, near]:
                _settle(own, 2 * s + side, side, c, sizes, keys, amounts, waiting, waiting_amounts, horizons)
    b = sizes[bids] - 1
    a = sizes[bids + 1] - 1
    bid = keys[bids, b] if b >= 0 else 0.0
    bid_amount = amounts[bids, b] if b >= 0 else 0.0
    ask = -keys[bids + 1, a] if a >= 0 else 0.0
    ask_amount = amounts[bids + 1, a] if a >= 0 else 0.0
    _note_best(c, now, bid, bid_amount, ask, ask_amount, best, path, flags, day_start)
    if c[B_STATE] >= LOCKED:
        if c[B_CROSS_START] < 0:
            c[B_CROSS_START] = now
    else:
        _end_cross(c, now)


@nb.njit
def _set_digests(top, digests, minute, until):
    """Set the minutes' digests of the best levels: bid price and amount, ask price and amount of each."""
    bits = top.view(np.int64)
    digest = np.int64(0)
    depth = 0
    for level in range(top.shape[0] // 4):
        for at in range(4 * level, 4 * level + 4):
            digest = (digest ^ (0 if np.isnan(top[at]) else bits[at])) * _MIX
            digest ^= (digest >> 29) & 0x7FFFFFFFF
        if level + 1 == DEPTHS[depth]:
            kept = max((digest ^ (digest >> 32)) & 0xFFFFFFFF, 1)
            for m in range(minute, until):
                digests[depth, m] = kept
            depth += 1


@nb.njit
def _keep_tops(s, c, until, sizes, keys, amounts, digests, day_start):
    """Store the book in force at the end of each minute from the last message to before ``until``."""
    minute = max((c[B_LAST] - day_start) // MINUTE_US, 0)
    if minute >= until or c[B_STATE] == UNKNOWN:
        return
    top = np.full(4 * DEPTHS[-1], np.nan)
    for side in range(2):
        own = 4 * s + 2 * c[B_WHICH] + side
        for level in range(min(sizes[own], DEPTHS[-1])):
            top[4 * level + 2 * side] = abs(keys[own, sizes[own] - 1 - level])
            top[4 * level + 2 * side + 1] = amounts[own, sizes[own] - 1 - level]
    _set_digests(top, digests, minute, until)


@nb.njit
def _pass_time(c, until, crossed_us, flags, day_start):
    """Count the time in which the book stays the same, from the last message to the next."""
    state = c[B_STATE]
    start = c[B_LAST]
    if state == UNKNOWN or until <= start:
        return
    if state == VALID:
        c[B_VALID_US] += until - start
    elif state == ONE_SIDED:
        c[B_ONE_SIDED_US] += until - start
    elif state == LOCKED:
        c[B_LOCKED_US] += until - start
    else:
        c[B_CROSSED_US] += until - start
    minute = (start - day_start) // MINUTE_US
    last = (until - 1 - day_start) // MINUTE_US
    is_crossed = state >= LOCKED
    if minute == last and not is_crossed:
        return
    for m in range(max(minute, 0), min(last, MINUTES - 1) + 1):
        flags[m] |= M_KNOWN
        if is_crossed:
            flags[m] |= M_CROSSED
            opened = day_start + m * MINUTE_US
            crossed_us[m] += min(until, opened + MINUTE_US) - max(start, opened)


@nb.njit
def _change(s, own, side, key, price, amount, now, c, sizes, keys, amounts, waiting, waiting_amounts,
            horizons):  # fmt: skip
    """Set a level's amount; 0 deletes the level."""
    line = 2 * s + side
    is_full = sizes[own] + c[B_WAITING + side] >= MOST_LEVELS
    lazy = c[B_WAITING + side] + c[B_DEAD + side]
    if lazy >= WAITING or (is_full and lazy):
        _settle(own, line, side, c, sizes, keys, amounts, waiting, waiting_amounts, horizons)
    size = sizes[own]
    at = _place(keys[own], size, key)
    is_near = size - at <= MOVING or size >= MOST_LEVELS
    if at < size and keys[own, at] == key:
        former = amounts[own, at]
        c[B_CHANGED] |= former != amount
        if amount > 0.0:
            c[B_DEAD + side] -= former == 0.0
            amounts[own, at] = amount
            return
        c[B_DELETES] += 1
        if former == 0.0:
            _count_absent(c, side, key, horizons)
        elif is_near:
            c[B_MOVED] += size - at
            for i in range(at, size - 1):
                keys[own, i] = keys[own, i + 1]
                amounts[own, i] = amounts[own, i + 1]
            sizes[own] = size - 1
        else:
            amounts[own, at] = 0.0
            c[B_DEAD + side] += 1
            horizons[H_LAZY + side] = max(horizons[H_LAZY + side], key)
        return
    place = 0
    if c[B_WAITING + side] and key <= horizons[H_LAZY + side]:
        place = _place(waiting[line], c[B_WAITING + side], key)
        if place < c[B_WAITING + side] and waiting[line, place] == key:
            c[B_CHANGED] |= waiting_amounts[line, place] != amount
            waiting_amounts[line, place] = amount
            if amount == 0.0:
                c[B_DELETES] += 1
                c[B_MOVED] += c[B_WAITING + side] - place
                for i in range(place, c[B_WAITING + side] - 1):
                    waiting[line, i] = waiting[line, i + 1]
                    waiting_amounts[line, i] = waiting_amounts[line, i + 1]
                c[B_WAITING + side] -= 1
            return
    elif c[B_WAITING + side]:
        place = c[B_WAITING + side]
    if amount == 0.0:
        c[B_DELETES] += 1
        _count_absent(c, side, key, horizons)
        return
    c[B_CHANGED] = 1
    if at < size:
        _count_far(c, side, price, abs(keys[own, size - 1]), now)
    if is_near:
        _insert(own, side, at, key, amount, c, sizes, keys, amounts, horizons)
    else:
        _wait(line, side, place, key, amount, c, waiting, waiting_amounts, horizons)


@nb.njit
def _count_absent(c, side, key, horizons):
    """Count the deletion of a level that the book lacks."""
    if key >= horizons[side]:
        c[B_ABSENT] += 1
    else:
        c[B_ABSENT_BEYOND] += 1


@nb.njit
def _known(number):
    """The number, or 0 for null."""
    return 0.0 if np.isnan(number) else number


@nb.njit
def _end_row(c, top, changes, flags, best, path, day_start):
    """Examine the best levels after an arrival."""
    now = c[B_LAST]
    _note_change(c, now, changes, day_start)
    bid, bid_amount, ask, ask_amount = _known(top[0]), _known(top[1]), _known(top[2]), _known(top[3])
    _note_best(c, now, bid, bid_amount, ask, ask_amount, best, path, flags, day_start)


@kernel(
    nb.void(
        _I64, _I32, _I32, _F64_2, _I64, nb.int64, nb.int64,  # rows
        _I64_2, _F64_2, _U32_3, _I32_2, _I64_2, _U8_2, _F64_2, _I64_2,  # state
        nb.int64,
    )
)  # fmt: skip
def follow_tops(locals_, codes, symbol_of, values, columns, start, stop, counts, tops, digests, changes,
                crossed_us, flags, best, paths, day_start):  # fmt: skip
    """Follow rows of best levels; ``columns`` has each level's bid price and amount, ask price and amount."""
    for i in range(start, stop):
        s = symbol_of[codes[i]]
        c = counts[s]
        top = tops[s]
        t = locals_[i]
        if c[B_ROWS] == 0:
            c[B_FIRST] = t
            c[B_LAST] = t
        elif t > c[B_LAST]:
            _end_row(c, top, changes[s], flags[s], best[s], paths[s], day_start)
            _pass_time(c, t, crossed_us[s], flags[s], day_start)
            first = max((c[B_LAST] - day_start) // MINUTE_US, 0)
            until = min((t - day_start) // MINUTE_US, MINUTES)
            if first < until:
                _set_digests(top, digests[s], first, until)
            c[B_LAST] = t
        c[B_ROWS] += 1
        for k in range(columns.shape[0]):
            value = values[columns[k], i]
            if value != top[k] and not (np.isnan(value) and np.isnan(top[k])):
                top[k] = value
                c[B_CHANGED] = 1


@kernel(nb.void(nb.int64, _I64_2, _F64_2, _U32_3, _I32_2, _U8_2, _F64_2, _I64_2, nb.int64))
def end_tops(s, counts, tops, digests, changes, flags, best, paths, day_start):
    """Keep the symbol's last row in force until midnight."""
    c = counts[s]
    _end_row(c, tops[s], changes[s], flags[s], best[s], paths[s], day_start)
    first = max((c[B_LAST] - day_start) // MINUTE_US, 0)
    if first < MINUTES:
        _set_digests(tops[s], digests[s], first, MINUTES)


@kernel(
    nb.int64(
        _I64, _I64, _F64, _F64, _I64, _I64, _U8, _U8, _I32, _I32, nb.int64, nb.int64,  # rows
        _I64_2, _I64, _F64_2, _F64_2, _F64_2, _F64_2, _F64_2, _F64_2, _I32_2, _I64_2, _U8_2, _U32_3,  # state
        _F64_2, _I64_2, _I64_2, _I64_2, nb.int64, nb.int64,
    )
)  # fmt: skip
def replay(times, locals_, price, amount, price_bits, amount_bits, side, is_snapshot, codes, symbol_of, start,
           stop, counts, sizes, keys, amounts, waiting, waiting_amounts, horizons, grids, changes,
           crossed_us, flags, tops, best, paths, listed, seen, most_resent, day_start):  # fmt: skip
    """Replay the rows; return the row before which a side needs more room, or ``stop``.

    Parameters
    ----------
    sizes, keys, amounts
        Four sides per symbol: bids and asks of two books, the current one (``B_WHICH``) and the one before
        the last snapshot. The length of a row is the room of a side; levels ascend by key.
    waiting, waiting_amounts
        Two sides per symbol: new levels far from the best that are not in the book's arrays yet.
    horizons
        Per symbol and side the key down to which the book is known (that of the last level of a snapshot),
        and the best key of the levels that wait or are dead.
    grids
        Per symbol the price steps valid that day; zeros after the last.
    changes, crossed_us, flags
        Per symbol and minute: messages that changed the book, time crossed or locked, ``M_KNOWN`` and so on.
    tops
        Per symbol, depth and minute a digest of the best levels in force at the end of the minute.
    best, paths
        Per symbol the best levels, and per minute a digest of all best levels of the minute.
    listed
        Per symbol the first snapshots that differ from the book.
    seen
        Digests and numbers of messages, for all symbols.
    """
    room = keys.shape[1]
    i = np.int64(start)
    while i < stop:
        code = codes[i]
        s = np.int64(symbol_of[code])
        c = counts[s]
        own_horizons = horizons[s]
        own_flags, own_changes, own_best, own_path = flags[s], changes[s], best[s], paths[s]
        grid = grids[s, 0]
        while i < stop and codes[i] == code:
            t = locals_[i]
            if c[B_ROWS] == 0:
                c[B_FIRST] = t
                c[B_LAST] = t
                c[B_PREVIOUS] = t
                c[B_CROSS_START] = -1
                c[B_RUN_AT] = -1
                own_horizons[BID] = np.inf
                own_horizons[ASK] = np.inf
                own_horizons[H_LAZY + BID] = -np.inf
                own_horizons[H_LAZY + ASK] = -np.inf
            elif t != c[B_LAST]:
                _end_message(
                    s, c, sizes, keys, amounts, waiting, waiting_amounts, own_horizons, own_changes,
                    own_flags, own_best, own_path, seen, most_resent, day_start,
                )  # fmt: skip
                _pass_time(c, t, crossed_us[s], own_flags, day_start)
                minute = min((t - day_start) // MINUTE_US, MINUTES)
                _keep_tops(s, c, minute, sizes, keys, amounts, tops[s], day_start)
                c[B_PREVIOUS] = c[B_LAST]
                c[B_LAST] = t
            snap = is_snapshot[i] == 1
            if c[B_IN_SNAPSHOT] and (not snap or t - c[B_SNAPSHOT_ROW] > SNAPSHOT_US):
                _end_snapshot(s, c, sizes, keys, amounts, own_horizons, own_flags, listed[s], day_start)
            if snap:
                if not c[B_IN_SNAPSHOT]:
                    if c[B_SNAPSHOTS] == 0:
                        c[B_BOOK_FROM] = t
                    c[B_SNAPSHOTS] += 1
                    c[B_IN_SNAPSHOT] = 1
                    c[B_SNAPSHOT_AT] = t
                    c[B_SNAPSHOT_GAP] = t - c[B_PREVIOUS] if c[B_MESSAGE_ROWS] == 0 else 0
                    _settle_sides(
                        s, c, sizes, keys, amounts, waiting, waiting_amounts, own_horizons
                    )  # fmt: skip
                    c[B_WHICH] = 1 - c[B_WHICH]
                    sizes[4 * s + 2 * c[B_WHICH]] = 0
                    sizes[4 * s + 2 * c[B_WHICH] + 1] = 0
                c[B_SNAPSHOT_ROW] = t
            p = price[i]
            a = amount[i]
            which = np.int64(side[i])
            if which > ASK:
                c[B_SIDELESS] += 1
            bad_price = not LEAST_PRICE <= p <= MOST_PRICE
            bad_amount = not (a == 0.0 or LEAST_AMOUNT <= a <= MOST_AMOUNT)
            if bad_price or bad_amount or which > ASK:
                c[B_BAD_PRICE] += bad_price
                c[B_BAD_AMOUNT] += bad_amount
            else:
                own = 4 * s + 2 * c[B_WHICH] + which
                size = sizes[own]
                if size + c[B_WAITING + which] >= room and room < MOST_LEVELS:
                    return i
                key = p if which == BID else -p
                if grid > 0.0 and is_off(p, grid):
                    count_off(c, B_OFF_GRID, B_OFF_FINER, grids[s], p)
                if snap and size < MOST_LEVELS:
                    c[B_CHANGED] = 1
                    if a > 0.0:
                        keys[own, size] = key
                        amounts[own, size] = a
                        sizes[own] = size + 1
                        c[B_UNSORTED] = 1
                else:
                    if c[B_UNSORTED]:
                        _sort_sides(s, c, sizes, keys, amounts)
                    _change(
                        s, own, which, key, p, a, t, c, sizes, keys, amounts, waiting, waiting_amounts,
                        own_horizons,
                    )  # fmt: skip
            c[B_ROWS] += 1
            c[B_MESSAGE_ROWS] += not snap
            c[B_ROWS_BEFORE] += c[B_SNAPSHOTS] == 0
            digest = (c[B_DIGEST] ^ times[i]) * _MIX
            digest = (digest ^ price_bits[i] ^ (digest >> 29)) * _MIX
            c[B_DIGEST] = (digest ^ amount_bits[i] ^ (digest >> 31)) * _MIX + which
            i += 1
    return stop


@kernel(
    nb.void(
        nb.int64, _I64_2, _I64, _F64_2, _F64_2, _F64_2, _F64_2, _F64_2, _I32_2, _U8_2, _U32_3, _F64_2, _I64_2,
        _I64_2, _I64_2, nb.int64, nb.int64,
    )
)  # fmt: skip
def end_book(s, counts, sizes, keys, amounts, waiting, waiting_amounts, horizons, changes, flags, tops, best,
             paths, listed, seen, most_resent, day_start):  # fmt: skip
    """End the symbol's last message, its snapshot and its crossed period."""
    c = counts[s]
    _end_message(
        s, c, sizes, keys, amounts, waiting, waiting_amounts, horizons[s], changes[s], flags[s], best[s],
        paths[s], seen, most_resent, day_start,
    )  # fmt: skip
    if c[B_IN_SNAPSHOT]:
        _end_snapshot(s, c, sizes, keys, amounts, horizons[s], flags[s], listed[s], day_start)
    _end_cross(c, c[B_LAST])
    _keep_tops(s, c, MINUTES, sizes, keys, amounts, tops[s], day_start)
