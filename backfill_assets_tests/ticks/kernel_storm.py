"""Mutated blocks for the kernels alone, in a compiled loop of a microsecond or two for each.

``fuzzing`` prepares the guarded arrays and chooses the mutations. Lines that the parser declines are skipped,
so the reference parser's work on them is not checked here.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from backfill_assets.ticks.blocks import SLACK
from backfill_assets.ticks.kernels import DECLINED, FULL, parse
from backfill_assets.ticks.price_kernels import count_prices
from backfill_assets.ticks.profile_kernels import (
    N_EDGES,
    N_SILENCES,
    count_feed,
    count_invalid,
    count_trades,
    count_valueless,
    prune_edges,
)
from backfill_assets.ticks.repeat_kernels import count_resent


@nb.njit(nogil=True)
def _mutate(block: Any, start: int, end: int, alphabet: Any) -> None:
    size = end - start
    for _ in range(np.random.randint(1, 7)):
        at = start + np.random.randint(size)
        kind = np.random.randint(5)
        if kind == 0:
            block[at] = alphabet[np.random.randint(alphabet.size)]
        elif kind == 1:
            block[at] ^= np.uint8(1 << np.random.randint(8))
        elif kind == 2:
            source = start + np.random.randint(size)
            for k in range(min(np.random.randint(1, 64), end - max(at, source))):
                block[at + k] = block[source + k]
        else:
            byte = alphabet[np.random.randint(alphabet.size)] if kind == 3 else np.uint8(57)
            for k in range(min(np.random.randint(1, 24), end - at)):
                block[at + k] = byte
    block[end - 1] = 10


@nb.njit(nogil=True)
def storm(
    seed: int, rounds: int, plain: Any, alphabet: Any, block: Any, names: Any, layout: Any, group: Any,
    odd: Any, feed: Any, trades: Any,
) -> tuple[int, int]:  # fmt: skip
    """Mutate, parse and count ``rounds`` times; returns rows counted and lines declined."""
    np.random.seed(seed)
    end = block.size - SLACK
    rows, declined = 0, 0
    for _ in range(rounds):
        start = end - plain.size
        block[start:end] = plain
        _mutate(block, start, end, alphabet)
        if np.random.randint(8) == 0:
            start += np.random.randint(plain.size)
        first, position = 0, start
        while position < end:
            before = first
            first, position, _, why = parse(
                block, position, end, names[0], names[1], names[2], layout[0], layout[1], group[0], group[1],
                group[2], group[3], group[4], group[5], odd, first,
            )  # fmt: skip
            if why == FULL and first:
                _count(group, before, first, feed, trades)
                rows += first
                first = 0
                continue
            _count(group, before, first, feed, trades)
            if why in (DECLINED, FULL):
                declined += 1
                while block[position] != 10:
                    position += 1
                position += 1
        rows += first
    return rows, declined


@nb.njit(nogil=True)
def _count(group: Any, start: int, stop: int, feed: Any, trades: Any) -> None:
    codes, integers, numbers, word_codes = group[0], group[1], group[2], group[3]
    times, arrivals = integers[0], integers[1]
    bounds, feed_counts = feed[0], feed[1]
    count_feed(times, arrivals, codes, start, stop, bounds, feed_counts, feed[2], feed[3], feed[4])
    count_valueless(numbers, start, stop, feed_counts)
    if trades is None:
        return
    symbol_of, repeats, window, counts, notional, ring, minutes, shared = trades[0]
    page_table, page_keys, pages, seen, edges, silences = trades[1]
    prices = trades[2]
    price, amount, side, ids = numbers[0], numbers[1], word_codes[0], integers[2]
    count_invalid(price, amount, start, stop, feed_counts)
    count_prices(
        times, arrivals, price, amount, codes, symbol_of, start, stop, prices[0], prices[1], prices[2],
        prices[3], prices[4], prices[5], prices[6], prices[7], prices[8],
    )  # fmt: skip
    price_bits, amount_bits = price.view(np.int64), amount.view(np.int64)
    count_resent(
        times, arrivals, price_bits, amount_bits, side, ids, codes, symbol_of, start, stop, 2, repeats, window
    )
    while start < stop:
        start = count_trades(
            times, arrivals, price, amount, price_bits, amount_bits, side, ids, codes, symbol_of, start, stop,
            bounds, 5_000_000, 100_000, counts, notional, ring, minutes, shared, page_table, page_keys, pages,
            window, seen, 3 * seen.shape[0] // 4 - 1, edges, silences,
        )  # fmt: skip
        if shared[N_EDGES] + 2 > edges.shape[0]:
            shared[N_EDGES] = prune_edges(edges, shared[N_EDGES], page_table, pages)
            if shared[N_EDGES] > edges.shape[0] // 2:
                shared[N_EDGES] = 0
        if shared[N_SILENCES] + 1 > silences.shape[0]:
            shared[N_SILENCES] = 0
