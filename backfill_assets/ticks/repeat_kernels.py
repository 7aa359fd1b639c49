# mypy: disable-error-code="no-untyped-def"
"""The loops that find rows sent twice, compiled: hashes of rows with ids, and blocks of rows without.

A capture that reconnects may receive the last trades again. With ids, each of them counts as a duplicate.
Without ids, single equal rows are no evidence (an order that is filled in equal parts has them), but many
different rows that arrive at once and repeat earlier rows in the same order are.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from backfill_assets.ticks.jit import kernel

# Columns of a symbol's counts.
(
    R_ROWS, R_LOCAL, R_PREVIOUS, R_DIFFERENT, R_REPEATED, R_BLOCKS, R_BLOCK_ROWS, R_TWINS, R_SIZE,
) = range(9)  # fmt: skip

_I64, _I32, _I64_2 = nb.int64[::1], nb.int32[::1], nb.int64[:, ::1]
_U = np.uint64


@nb.njit
def end_block(counts, least):
    """Count the repeats so far if they are a block, and start again."""
    if counts[R_DIFFERENT] >= least:
        counts[R_BLOCKS] += 1
        counts[R_BLOCK_ROWS] += counts[R_REPEATED]
    counts[R_DIFFERENT] = 0
    counts[R_REPEATED] = 0
    counts[R_PREVIOUS] = -1


@kernel(
    nb.void(
        _I64, _I64, _I64, _I64, nb.uint8[::1], _I64, _I32, _I32,  # rows and the symbol of each code
        nb.int64, nb.int64, nb.int64, _I64_2, nb.uint64[:, ::1],  # start, stop, least, counts, window
    )
)  # fmt: skip
def count_resent(times, locals_, price_bits, amount_bits, side, ids, codes, symbol_of, start, stop, least,
                 counts, window):  # fmt: skip
    """Count runs of rows of one arrival that repeat earlier rows in their order, and rows that have equals.

    ``window`` has (payload, twice the number of its first row, plus 1 after a second one), direct-mapped by
    payload. Rows of equal payload count as the first of them, so a run may stay at a row but not go back;
    ``least`` is the number of different rows needed.
    """
    mask = window.shape[0] - 1
    for i in range(start, stop):
        if ids[i] != -2:
            continue
        s = np.int64(symbol_of[codes[i]])
        row = counts[s, R_ROWS]
        counts[s, R_ROWS] = row + 1
        if row == 0 or locals_[i] != counts[s, R_LOCAL]:
            end_block(counts[s], least)
            counts[s, R_LOCAL] = locals_[i]
        payload = (_U(times[i]) + _U(s) * _U(0xD6E8FEB86659FD93)) * _U(0x9E3779B97F4A7C15)
        payload = (payload ^ (payload >> _U(29)) ^ _U(price_bits[i])) * _U(0xBF58476D1CE4E5B9)
        payload = (payload ^ (payload >> _U(32)) ^ _U(amount_bits[i])) * _U(0x94D049BB133111EB)
        payload = (payload ^ (payload >> _U(30)) ^ _U(side[i])) * _U(0xBF58476D1CE4E5B9)
        payload ^= payload >> _U(31)
        w = np.int64(payload & _U(mask))
        if window[w, 0] != payload:
            window[w, 0] = payload
            window[w, 1] = _U(row) << _U(1)
            end_block(counts[s], least)
            continue
        counts[s, R_TWINS] += 2 - np.int64(window[w, 1] & _U(1))
        window[w, 1] |= _U(1)
        first = np.int64(window[w, 1] >> _U(1))
        if first < counts[s, R_PREVIOUS]:
            end_block(counts[s], least)
        if first > counts[s, R_PREVIOUS]:
            counts[s, R_DIFFERENT] += 1
            counts[s, R_PREVIOUS] = first
        counts[s, R_REPEATED] += 1


@kernel(
    nb.void(
        *(nb.types.Array(kind, 1, "C", readonly=True) for kind in (nb.int64, nb.uint8, nb.int64, nb.int64)),
        *(nb.types.Array(nb.int64, 1, "C", readonly=True) for _ in range(3)),
        nb.uint64[::1],
    )
)
def hash_rows(ends, texts, times, price_bits, amount_bits, side, symbol, hashes):
    """Fill ``hashes`` with 64 bits of each row's symbol, id and payload; rows with an empty id keep 0.

    The id of row i is ``texts[ends[i]:ends[i + 1]]``.
    """
    for i in range(len(times)):
        if ends[i] == ends[i + 1]:
            continue
        hashed = _U(14695981039346656037)
        for k in range(ends[i], ends[i + 1]):
            hashed = (hashed ^ _U(texts[k])) * _U(1099511628211)
        hashed = (hashed ^ (hashed >> _U(29)) ^ _U(symbol[i])) * _U(0x9E3779B97F4A7C15)
        hashed = (hashed ^ (hashed >> _U(32)) ^ _U(times[i])) * _U(0xBF58476D1CE4E5B9)
        hashed = (hashed ^ (hashed >> _U(29)) ^ _U(price_bits[i])) * _U(0x94D049BB133111EB)
        hashed = (hashed ^ (hashed >> _U(32)) ^ _U(amount_bits[i])) * _U(0xBF58476D1CE4E5B9)
        hashed = (hashed ^ (hashed >> _U(30)) ^ _U(side[i] + 2)) * _U(0x9E3779B97F4A7C15)
        hashes[i] = max(hashed ^ (hashed >> _U(31)), _U(1))
