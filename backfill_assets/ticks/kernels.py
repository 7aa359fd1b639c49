# mypy: disable-error-code="no-untyped-def"
"""The fast parser: one compiled loop that reads the lines of any data type, eight bytes at a time.

It reads the vendor's common forms and leaves other cells and lines to ``reference_parser``. So it does not
judge errors: it stops at a line that it cannot read. Blocks must end with a newline and have
``blocks.SLACK`` readable bytes after it. All state is in the caller's arrays.

Exactness: a decimal of at most 15 digits is mantissa / 10**k with both exact in binary64 (mantissa below
2**53, k at most 15), so the one division rounds correctly (Clinger, "How to read floating point numbers
accurately", PLDI 1990). Numbers with more digits or an exponent are listed as odd cells for
``reference_parser.Reader.number``.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from backfill_assets.ticks.jit import kernel

#: Codes of ``plan[c, 0]``, the kind of column c (0 is ``timestamp``; the names come before it).
TIME: Final = 0
NUMBER: Final = 1
TEXT: Final = 2
ID: Final = 3
WORD: Final = 4

NULL_TIME: Final = np.iinfo(np.int64).min
NULL_WORD: Final = 255

#: Reasons why parsing stopped: no line is left, the row group or its text buffers or the list of odd cells is
#: full, or the reference parser must read the line.
DONE: Final = 0
FULL: Final = 1
ODD_FULL: Final = 2
DECLINED: Final = 3

#: Equal to ``reference_parser.NO_TIME_US``; kernels cannot use constants of other modules.
_NO_TIME_US: Final = 253_370_764_800_000_000
_POWERS: Final = np.array([10.0**k for k in range(16)])
_U = np.uint64
_COMMA, _NEWLINE, _RETURN, _POINT, _MINUS, _QUOTE = 44, 10, 13, 46, 45, 34


@intrinsic  # type: ignore[misc, untyped-decorator, unused-ignore]
def _load8(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """Eight bytes from an unaligned position, little-endian."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        word = ir.IntType(64)
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.PointerType(word))
        return builder.load(pointer, align=1)

    return nb.types.uint64(array, nb.types.int64), codegen


@intrinsic  # type: ignore[misc, untyped-decorator, unused-ignore]
def _store8(typingctx: Any, array: Any, index: Any, word: Any) -> Any:  # noqa: ARG001
    """Store eight bytes at an unaligned position of an array, counted through all of its rows."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.PointerType(ir.IntType(64)))
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return nb.types.void(array, nb.types.int64, nb.types.uint64), codegen


@nb.njit(inline="always")
def _eight_digits(word):
    """Whether all eight bytes are ASCII digits."""
    high = word & _U(0xF0F0F0F0F0F0F0F0)
    carried = ((word + _U(0x0606060606060606)) & _U(0xF0F0F0F0F0F0F0F0)) >> _U(4)
    return (high | carried) == _U(0x3333333333333333)


@nb.njit(inline="always")
def _value_of_digits(word):
    """Number of eight ASCII digits, by three multiplications: pairs, then fours, then all."""
    word = word - _U(0x3030303030303030)
    word = word * _U(10) + (word >> _U(8))
    low = (word & _U(0x000000FF000000FF)) * _U(0x000F424000000064)
    high = ((word >> _U(16)) & _U(0x000000FF000000FF)) * _U(0x0000271000000001)
    return np.int64(((low + high) >> _U(32)) & _U(0xFFFFFFFF))


_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)
_I64, _I32, _U64 = nb.int64[::1], nb.int32[::1], nb.uint64[:, :, ::1]
_SIGNATURE = nb.types.UniTuple(nb.int64, 4)(
    _BYTES, nb.int64, nb.int64,  # block, position, end
    _BYTES, _I64, _I32,  # names
    nb.int64[:, ::1], _U64,  # plan, words
    _I32, nb.int64[:, ::1], nb.float64[:, ::1], nb.uint8[:, ::1],  # codes, integers, numbers, word codes
    nb.int32[:, ::1], nb.uint8[:, ::1],  # ends of texts, texts
    nb.int64[:, ::1], nb.int64,  # odd cells, first row
)  # fmt: skip


@kernel(_SIGNATURE)
def parse(block, pos, end, names, name_ends, table, plan, words, codes, integers, numbers, word_codes,
          text_ends, texts, odd, first):  # fmt: skip
    """Read lines from ``block[pos:end]`` into rows ``first``… until one of the reasons stops it.

    Parameters
    ----------
    names, name_ends, table
        Known "exchange,symbol," texts one after the other (with 8 bytes of slack), the end of each, and an
        open-addressing hash table of their numbers (-1: free; its size is a power of two).
    plan, words
        Per column its kind and its row in the array of that kind; per column up to three
        (mask, value, length) of the allowed words with their comma.
    codes, integers, numbers, word_codes
        Filled: number of the names; times and ids (``reference_parser.id_number``); numbers (NaN: null);
        number of the word.
        ``integers`` and ``numbers`` are separate arrays, a row of one each per column.
    text_ends, texts
        Filled: text t of row r is ``texts[t, text_ends[t, r]:text_ends[t, r + 1]]``.
    odd
        Filled: (row, column, start, length) of number cells for the reference parser.

    Returns
    -------
    tuple of int
        Rows now filled, position of the first unread line, number of odd cells, and the reason of the stop.
    """
    columns = plan.shape[0]
    capacity = codes.shape[0]
    odd_capacity = odd.shape[0]
    text_capacity = texts.shape[1] if texts.shape[0] > 0 else 0
    r = first
    n_odd = 0
    code = -1
    name_start = 0
    name_length = 0
    while pos < end:
        if r >= capacity:
            return r, pos, n_odd, FULL
        if n_odd + columns > odd_capacity:
            return r, pos, n_odd, ODD_FULL
        p = pos
        # The names are nearly always those of the line before.
        same = code >= 0 and p + name_length <= end
        if same:
            whole = name_length & ~7
            for k in range(0, whole, 8):
                if _load8(block, p + k) != _load8(names, name_start + k):
                    same = False
            for k in range(whole, name_length):
                if block[p + k] != names[name_start + k]:
                    same = False
        if not same:
            hashed = _U(14695981039346656037)
            commas = 0
            q = p
            while commas < 2:
                c = block[q]
                if c == _NEWLINE:
                    break
                if c == _COMMA:
                    commas += 1
                hashed = (hashed ^ _U(c)) * _U(1099511628211)
                q += 1
            if commas < 2:
                return r, pos, n_odd, DECLINED
            slot = np.int64(hashed & _U(table.shape[0] - 1))
            code = -1
            while table[slot] >= 0:
                candidate = table[slot]
                start = np.int64(0) if candidate == 0 else name_ends[candidate - 1]
                if name_ends[candidate] - start == q - p:
                    equal = True
                    for k in range(q - p):
                        if names[start + k] != block[p + k]:
                            equal = False
                            break
                    if equal:
                        code = candidate
                        name_start = start
                        name_length = q - p
                        break
                slot = (slot + 1) & (table.shape[0] - 1)
            if code < 0:
                return r, pos, n_odd, DECLINED
        p += name_length
        odd_before = n_odd
        good = True
        for c in range(columns):
            kind = plan[c, 0]
            target = plan[c, 1]
            last = c == columns - 1
            if kind == NUMBER:
                start = p
                negative = block[p] == _MINUS
                if negative:
                    p += 1
                mantissa = np.int64(0)
                q = p
                word = _load8(block, p)
                if _eight_digits(word):
                    mantissa = _value_of_digits(word)
                    p += 8
                d = np.int64(block[p]) - 48
                while 0 <= d <= 9:
                    mantissa = mantissa * 10 + d
                    p += 1
                    d = np.int64(block[p]) - 48
                digits = p - q
                whole_digits = digits
                decimals = 0
                if block[p] == _POINT:
                    p += 1
                    q = p
                    d = np.int64(block[p]) - 48
                    while 0 <= d <= 9:
                        mantissa = mantissa * 10 + d
                        p += 1
                        d = np.int64(block[p]) - 48
                    decimals = p - q
                    digits += decimals
                stop = block[p]
                ended = stop == _COMMA
                if last:
                    ended = stop == _NEWLINE or (stop == _RETURN and block[p + 1] == _NEWLINE)
                if ended and whole_digits > 0 and digits <= 15:
                    value = float(mantissa) / _POWERS[decimals]
                    numbers[target, r] = -value if negative else value
                elif ended and p == start:
                    numbers[target, r] = np.nan
                else:
                    while block[p] != _COMMA and block[p] != _NEWLINE:
                        if block[p] == _QUOTE:
                            good = False
                        p += 1
                    if (block[p] == _COMMA) == last:
                        good = False
                    if last and block[p - 1] == _RETURN:
                        p -= 1
                    if not good:
                        break
                    numbers[target, r] = np.nan
                    odd[n_odd, 0] = r
                    odd[n_odd, 1] = c
                    odd[n_odd, 2] = start
                    odd[n_odd, 3] = p - start
                    n_odd += 1
            elif kind == TIME:
                high = _load8(block, p)
                low = _load8(block, p + 8)
                if _eight_digits(high) and _eight_digits(low) and block[p + 16] == _COMMA:
                    integers[target, r] = _value_of_digits(high) * 100_000_000 + _value_of_digits(low)
                    p += 16
                else:
                    mantissa = np.int64(0)
                    q = p
                    d = np.int64(block[p]) - 48
                    while 0 <= d <= 9 and p - q < 18:
                        mantissa = mantissa * 10 + d
                        p += 1
                        d = np.int64(block[p]) - 48
                    if block[p] != _COMMA or (p == q and c < 2) or mantissa >= _NO_TIME_US:
                        good = False
                        break
                    integers[target, r] = NULL_TIME if p == q else mantissa
            elif kind == WORD:
                word = _load8(block, p)
                found = NULL_WORD if block[p] == _COMMA else -1
                for k in range(words.shape[1]):
                    if words[c, k, 2] != 0 and (word & words[c, k, 0]) == words[c, k, 1]:
                        found = k
                        p += np.int64(words[c, k, 2])
                if found < 0:
                    good = False
                    break
                word_codes[target, r] = found
            else:
                start = text_ends[target, r]
                if start + (end - pos) > text_capacity:
                    # The text may be too long for the rest of the buffer: measure before copying.
                    q = p
                    while block[q] != _COMMA and block[q] != _NEWLINE:
                        q += 1
                    if start + (q - p) > text_capacity:
                        return r, pos, odd_before, FULL
                q = p
                mantissa = np.int64(0)
                numeric = True
                word = _load8(block, p)
                while _eight_digits(word):
                    _store8(texts, target * text_capacity + start + (p - q), word)
                    mantissa = mantissa * 100_000_000 + _value_of_digits(word)
                    p += 8
                    word = _load8(block, p)
                stop = block[p]
                while stop != _COMMA:
                    if stop == _NEWLINE or stop == _QUOTE or stop >= 128:  # noqa: SIM109 - not in kernels
                        good = False
                        break
                    if 48 <= stop <= 57:
                        mantissa = mantissa * 10 + (np.int64(stop) - 48)
                    else:
                        numeric = False
                    texts[target, start + (p - q)] = stop
                    p += 1
                    stop = block[p]
                if not good:
                    break
                length = p - q
                text_ends[target, r + 1] = start + length
                if kind == ID:
                    if length == 0:
                        mantissa = np.int64(-2)
                    elif not numeric or length > 18 or (length > 1 and block[q] == 48):
                        hashed = _U(14695981039346656037)
                        for k in range(start, start + length):
                            hashed = (hashed ^ _U(texts[target, k])) * _U(1099511628211)
                        mantissa = np.int64(-3) - np.int64(hashed >> _U(2))
                    integers[plan[c, 2], r] = mantissa
            if last and block[p] == _RETURN:
                p += 1
            p += 1
        if not good:
            return r, pos, odd_before, DECLINED
        codes[r] = code
        r += 1
        pos = p
    return r, pos, n_odd, DONE
