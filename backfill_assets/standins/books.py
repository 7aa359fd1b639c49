"""Quotes and order books of the generated market: top of book, snapshots, and the stream of changes.

Sizes are modest and books are never crossed. Rows are drawn by arrival. So if the venue sends its own time,
the first rows of a file are stamped on the day before.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from backfill_assets.days import start_us
from backfill_assets.standins.csvtext import js_number
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.prices import DAY_US, Floats, Ints, generator, reference_at

ROWS: Final = {
    "quotes": 20_000,
    "book_ticker": 20_000,
    "book_snapshot_5": 5_000,
    "book_snapshot_25": 2_000,
    "incremental_book_L2": 4_000,
}
_LEVELS: Final = {"quotes": 1, "book_ticker": 1, "book_snapshot_5": 5, "book_snapshot_25": 25}
_DEPTH: Final = 25
#: A move by more levels than this sends the whole book again, as a new subscription does.
_LARGEST_MOVE: Final = 20
_MEAN_NOTIONAL: Final = 20_000.0


def book_frame(seed: int, listing: Listing, data_type: str, day: str) -> pl.DataFrame:
    """Return the rows of a quotes or book data type as the text columns of the file."""
    rng = generator(seed, data_type, listing.exchange, listing.canonical, day)
    local, stamped = arrival_times(rng, listing, data_type, day, ROWS[data_type])
    middle = reference_at(seed, listing.base, day, local) * 10 ** listing.price_decimals_on(day)
    if data_type == "incremental_book_L2":
        return _changes(rng, listing, day, local, stamped, middle)
    step = np.maximum(1, np.rint(middle * 2e-5).astype(np.int64))
    best_bid = np.floor(middle).astype(np.int64)
    best_ask = best_bid + rng.integers(1, 3, len(local)) * step
    columns: dict[str, Ints] = {}
    for level in range(_LEVELS[data_type]):
        columns[f"asks[{level}].price"] = best_ask + level * step
        columns[f"bids[{level}].price"] = best_bid - level * step
        for side in ("asks", "bids"):
            columns[f"{side}[{level}].amount"] = _amounts(rng, listing, day, middle)
    frame = pl.DataFrame({"timestamp": stamped, "local_timestamp": local, **columns})
    if _LEVELS[data_type] == 1:
        sides = {"asks[0]": "ask", "bids[0]": "bid"}
        renamed = {
            f"{old}.{what}": f"{new}_{what}" for old, new in sides.items() for what in ("price", "amount")
        }
        frame = frame.rename(renamed)
    return _text(frame, listing, day)


def arrival_times(
    rng: np.random.Generator, listing: Listing, data_type: str, day: str, rows: int
) -> tuple[Ints, Ints]:
    """Draw sorted ``local_timestamp`` of the day and their ``timestamp``.

    Binance's spot quotes carry no exchange time, so both are the same.
    """
    local = np.sort(rng.integers(0, DAY_US, rows)) + start_us(day)
    local[:2] = start_us(day) + np.array([2_000, 2_500])
    local.sort()
    if listing.exchange == "binance" and data_type in ("quotes", "book_ticker"):
        return local, local
    stamped = local - 3_000 - np.minimum(rng.standard_exponential(rows) * 5_000, 200_000).astype(np.int64)
    if listing.exchange.startswith("binance"):
        stamped -= stamped % 1_000
    return local, stamped


def _amounts(rng: np.random.Generator, listing: Listing, day: str, middle: Floats) -> Ints:
    prices = middle / 10 ** listing.price_decimals_on(day)
    notional = _MEAN_NOTIONAL * rng.standard_exponential(len(middle))
    amounts: Ints = np.maximum(1, (notional / prices * 10**listing.amount_decimals).astype(np.int64))
    # Coarse lots: in real books, exact amounts of resting orders repeat.
    lot = 10 ** max(0, listing.amount_decimals - 4)
    whole_lots: Ints = np.maximum(lot, amounts - amounts % lot)
    return whole_lots


def _text(frame: pl.DataFrame, listing: Listing, day: str) -> pl.DataFrame:
    price_decimals = listing.price_decimals_on(day)
    return frame.select(
        pl.lit(listing.exchange).alias("exchange"),
        pl.lit(listing.column_symbol).alias("symbol"),
        *(
            js_number(pl.col(name), price_decimals).alias(name)
            if name.endswith("price")
            else js_number(pl.col(name), listing.amount_decimals).alias(name)
            if name.endswith("amount")
            else pl.col(name)
            for name in frame.columns
        ),
    )


def _changes(
    rng: np.random.Generator,
    listing: Listing,
    day: str,
    local: Ints,
    stamped: Ints,
    middle: Floats,
) -> pl.DataFrame:
    """Make messages that keep a book of 25 levels a side on a fixed ladder of prices around the reference.

    A message deletes the levels that the price has reached before it adds levels, so the book is not crossed
    after any row.
    """
    # One step (1 bp) for the whole day: levels must match when the price comes back to them.
    step = max(1, round(float(middle[0]) * 1e-4))
    rungs = np.floor(middle / step).astype(np.int64)
    amounts = _amounts(rng, listing, day, np.repeat(middle, 4)).tolist()
    rows: list[tuple[int, int, bool, str, int, int]] = []
    best: int | None = None
    drawn = 0

    def amount() -> int:
        nonlocal drawn
        drawn += 1
        return int(amounts[drawn % len(amounts)])

    for arrival, stamp, rung in zip(local.tolist(), stamped.tolist(), rungs.tolist(), strict=True):
        message: list[tuple[bool, str, int, int]] = []
        if best is None or abs(rung - best) > _LARGEST_MOVE:
            message += [(True, "bid", rung - level, amount()) for level in range(_DEPTH)]
            message += [(True, "ask", rung + 1 + level, amount()) for level in range(_DEPTH)]
        elif rung == best:
            message += [(False, "bid", rung, amount()), (False, "ask", rung + 1, amount())]
        elif rung > best:
            moved = range(best + 1, rung + 1)
            message += [(False, "ask", level, 0) for level in moved]
            message += [(False, "bid", level, amount()) for level in moved]
            message += [(False, "ask", level + _DEPTH, amount()) for level in moved]
            message += [(False, "bid", level - _DEPTH, 0) for level in moved]
        else:
            moved = range(best, rung, -1)
            message += [(False, "bid", level, 0) for level in moved]
            message += [(False, "ask", level, amount()) for level in moved]
            message += [(False, "bid", level - _DEPTH, amount()) for level in moved]
            message += [(False, "ask", level + _DEPTH, 0) for level in moved]
        best = rung
        rows += [(stamp, arrival, *entry) for entry in message]
    frame = pl.DataFrame(
        rows,
        schema=["timestamp", "local_timestamp", "is_snapshot", "side", "price", "amount"],
        orient="row",
    ).with_columns(pl.col("price") * step)
    return _text(frame, listing, day)
