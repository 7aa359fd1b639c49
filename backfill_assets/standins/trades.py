"""Trades of the generated market: one stream per venue and pair, cut into files by arrival.

A day's trades come in two parts, each from its own random numbers: the *body*, which arrives on the day, and
the *tail*, stamped in the day's last moments and arriving after midnight. The file of day D is the tail of
D-1 and the body of D; ids continue across the cut. The id at the start of a day is a function of the day, so
no day needs another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from backfill_assets.days import day_range, end_us, shift, start_us
from backfill_assets.standins.csvtext import js_number
from backfill_assets.standins.listings import Listing, Stream
from backfill_assets.standins.prices import (
    DAY_US,
    Floats,
    Ints,
    day_number,
    fraction,
    generator,
    reference_at,
)

SIDES: Final = ("buy", "sell", "unknown")
#: Stands for an empty id cell.
NO_ID: Final = -1

_MINUTES: Final = 1_440
_LONGEST_SWEEP: Final = 40
#: Runs of dropped ids are at most 5 long and lie in slots of their own, so two never join.
_HOLE_SLOT: Final = 12
_LONGEST_HOLE: Final = 5
#: The body keeps this distance from both midnights, so tail and body never interleave.
_MARGIN_US: Final = 1_000_000
_MEAN_NOTIONAL: Final = 400.0
_LATE_SHARE: Final = 2e-4
_DUST_ROWS: Final = 3
_FRAME_ROWS: Final = 500_000


@dataclass(frozen=True, slots=True)
class Trades:
    """Rows in file order; prices and amounts are exactly the numbers in the file's text."""

    timestamp_us: Ints
    local_timestamp_us: Ints
    #: ``NO_ID`` where the cell is empty.
    id: Ints
    #: Index into ``SIDES``.
    side: npt.NDArray[np.int8]
    price: Floats
    amount: Floats

    def __len__(self) -> int:
        return len(self.timestamp_us)


def concatenate(parts: Sequence[Trades]) -> Trades:
    """All rows, one part after another."""
    names = [field.name for field in fields(Trades)]
    return Trades(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def id_at_start(seed: int, stream: Stream, day: str) -> int:
    """First id of the trades stamped on the day; a silent day has the first id of the next day."""
    number = day_number(day) + (day in stream.silent_days)
    listed_days = number - day_number(stream.listings[0].since)
    share = fraction(seed, "rows", stream.exchange, stream.canonical, number)
    return stream.id_base + stream.rows_per_day * listed_days + int(share * (stream.rows_per_day // 5))


def file_trades(seed: int, stream: Stream, day: str) -> Trades:
    """Trades that arrive on a listed day."""
    parts = [_body(seed, stream, day)]
    if stream.listing_on(shift(day, -1)) is not None:
        parts.insert(0, _tail(seed, stream, shift(day, -1)))
    return concatenate(parts)


def stream_trades(seed: int, stream: Stream, first_day: str, last_day: str) -> Trades:
    """Trades that arrive from the first to the last day, in file order; needs at least one listed day."""
    days = [day for day in day_range(first_day, last_day) if stream.listing_on(day) is not None]
    return concatenate([file_trades(seed, stream, day) for day in days])


def trade_frames(listing: Listing, day: str, rows: Trades) -> Iterator[pl.DataFrame]:
    """Yield rows as the file's text columns, in blocks, so a busy day's text is never whole in memory."""
    price_decimals, amount_decimals = listing.price_decimals_on(day), listing.amount_decimals
    sides = pl.Series(SIDES)
    for start in range(0, len(rows), _FRAME_ROWS):
        block = slice(start, start + _FRAME_ROWS)
        frame = pl.DataFrame(
            {
                "timestamp": rows.timestamp_us[block],
                "local_timestamp": rows.local_timestamp_us[block],
                "id": rows.id[block],
                "side": sides.gather(rows.side[block].astype(np.uint32)),
                "price": np.rint(rows.price[block] * 10**price_decimals).astype(np.int64),
                "amount": np.rint(rows.amount[block] * 10**amount_decimals).astype(np.int64),
            }
        )
        yield frame.select(
            pl.lit(listing.exchange).alias("exchange"),
            pl.lit(listing.column_symbol).alias("symbol"),
            "timestamp",
            "local_timestamp",
            pl.when(pl.col("id") != NO_ID).then(pl.col("id")).cast(pl.String).alias("id"),
            "side",
            js_number(pl.col("price"), price_decimals).alias("price"),
            js_number(pl.col("amount"), amount_decimals).alias("amount"),
        )


def _tail_rows(seed: int, stream: Stream, day: str) -> int:
    """Return how many trades stamped on the day arrive on the next one: 3 to 6, if both days trade."""
    tomorrow = shift(day, 1)
    if stream.listing_on(tomorrow) is None or not stream.silent_days.isdisjoint((day, tomorrow)):
        return 0
    return 3 + int(4 * fraction(seed, "tail", stream.exchange, stream.canonical, day))


def _tail(seed: int, stream: Stream, day: str) -> Trades:
    count = _tail_rows(seed, stream, day)
    rng = generator(seed, "tail", stream.exchange, stream.canonical, day)
    fills = np.array([min(2, count), max(0, count - 2)])
    events = end_us(day) - np.array([rng.integers(60_000, 180_000), rng.integers(5_000, 50_000)])
    arrivals = end_us(day) + np.array([rng.integers(1_000, 20_000), rng.integers(30_000, 300_000)])
    last_id = id_at_start(seed, stream, shift(day, 1)) - 1
    ids = np.arange(last_id - count + 1, last_id + 1)
    return _fill(rng, seed, stream, stamped=day, arrived=shift(day, 1), events=events, fills=fills,
                 arrivals=arrivals, ids=ids)  # fmt: skip


def _body(seed: int, stream: Stream, day: str) -> Trades:
    rng = generator(seed, "body", stream.exchange, stream.canonical, day)
    first, after = id_at_start(seed, stream, day), id_at_start(seed, stream, shift(day, 1))
    ids = np.arange(first, after - _tail_rows(seed, stream, day))
    if stream.id_holes:
        ids = ids[_kept(rng, len(ids), stream.id_holes)]
    fills = _sweeps(rng, len(ids))
    events = start_us(day) + _event_times(rng, len(fills), stream.quiet_share)
    latency = np.minimum(3_000 + rng.standard_exponential(len(fills)) * 8_000, 400_000)
    rows = _fill(rng, seed, stream, stamped=day, arrived=day, events=events, fills=fills,
                 arrivals=events + latency.astype(np.int64), ids=ids)  # fmt: skip
    _spoil(rng, stream, rows, day)
    return rows


def _kept(rng: np.random.Generator, span: int, share: float) -> npt.NDArray[np.bool_]:
    """Return which ids of the span carry a trade; the others are in short runs, as the venue leaves them."""
    slots = span // _HOLE_SLOT
    runs = min(slots, int(span * share / ((1 + _LONGEST_HOLE) / 2)))
    starts = rng.choice(slots, runs, replace=False) * _HOLE_SLOT
    lengths = rng.integers(1, _LONGEST_HOLE + 1, runs)
    kept = np.ones(span, dtype=np.bool_)
    for offset in range(_LONGEST_HOLE):
        kept[starts[lengths > offset] + offset] = False
    return kept


def _sweeps(rng: np.random.Generator, rows: int) -> Ints:
    """Draw the fills of each taker order (a sweep prints several trades at one time), ``rows`` in total."""
    fills = np.minimum(rng.geometric(0.5, int(rows * 0.6) + 64), _LONGEST_SWEEP).astype(np.int64)
    total = np.cumsum(fills)
    orders = int(np.searchsorted(total, rows))
    if rows == 0:
        return fills[:0]
    fills = fills[: orders + 1]
    fills[-1] -= total[orders] - rows
    return fills


def _event_times(rng: np.random.Generator, count: int, quiet_share: float) -> Ints:
    """Sorted times of taker orders in the day: busy and slow hours, bursts, and minutes without orders."""
    hours = 1 + 0.5 * np.repeat(rng.uniform(-1, 1, _MINUTES // 60), 60)
    weights = hours * np.repeat(rng.uniform(0.5, 1.5, _MINUTES // 15), 15)
    weights[rng.choice(_MINUTES, 8, replace=False)] *= 6
    slow = np.argsort(weights, kind="stable")[: _MINUTES * 2 // 3]
    weights[rng.choice(slow, int(_MINUTES * quiet_share), replace=False)] = 0
    cumulative = np.concatenate(([0.0], np.cumsum(weights)))
    edges = np.linspace(0, DAY_US, _MINUTES + 1)
    edges[0], edges[-1] = _MARGIN_US, DAY_US - _MARGIN_US
    steps = np.cumsum(rng.standard_exponential(count + 1))
    positions = steps[:-1] / steps[-1] * cumulative[-1]
    times: Ints = np.interp(positions, cumulative, edges).astype(np.int64)
    return times


def _fill(
    rng: np.random.Generator,
    seed: int,
    stream: Stream,
    *,
    stamped: str,
    arrived: str,
    events: Ints,
    fills: Ints,
    arrivals: Ints,
    ids: Ints,
) -> Trades:
    """Make rows of taker orders; grid and ids are those of the day on which they arrive."""
    listing = stream.listing_on(arrived) or stream.listings[-1]
    event = np.repeat(np.arange(len(fills)), fills)
    fill = np.arange(len(event)) - np.repeat(np.cumsum(fills) - fills, fills)
    side = (rng.random(len(fills)) < 0.5).astype(np.int8)
    direction = 1 - 2 * side.astype(np.int64)

    reference = reference_at(seed, listing.base, stamped, events)
    noise = rng.standard_normal(len(fills)) * 2e-5
    scale = 10 ** listing.price_decimals_on(arrived)
    middle = reference * (1 + stream.premium_bp * 1e-4 + noise) * scale
    # A sweep walks one step of at least 0.1 bp for about every third fill.
    step = np.maximum(1, np.rint(middle * 1e-5).astype(np.int64))
    walked = np.cumsum(rng.random(len(event)) < 0.35, dtype=np.int64)
    walked -= walked[np.arange(len(event)) - fill]
    price_units = np.rint(middle).astype(np.int64)[event] + (direction * step)[event] * (1 + walked)

    amount_scale = 10**listing.amount_decimals
    notional = _MEAN_NOTIONAL * rng.standard_exponential(len(event)) * rng.standard_exponential(len(event))
    amount_units = np.maximum(1, (notional * scale / price_units * amount_scale).astype(np.int64))

    if stream.unknown_side_share:
        side[rng.random(len(fills)) < stream.unknown_side_share] = SIDES.index("unknown")
    numeric = stream.numeric_since is not None and arrived >= stream.numeric_since
    timestamp = events - events % 1_000 if stream.millisecond_times else events
    return Trades(
        timestamp_us=timestamp[event],
        local_timestamp_us=np.maximum.accumulate(arrivals[event] + 5 * fill),
        id=ids if numeric else np.full(len(event), NO_ID),
        side=side[event],
        price=price_units / scale,
        amount=amount_units / amount_scale,
    )


def _spoil(rng: np.random.Generator, stream: Stream, rows: Trades, day: str) -> None:
    """Add the oddities of real files: late rows, dust amounts, and rows of price and amount 0."""
    if len(rows) == 0:
        return
    late = rng.integers(1, len(rows), max(2, int(len(rows) * _LATE_SHARE)))
    rows.timestamp_us[late] -= rng.integers(1, 2_000, len(late)) * 1_000
    np.maximum(rows.timestamp_us, start_us(day), out=rows.timestamp_us)
    listing = stream.listing_on(day)
    if listing is not None and listing.exchange == "coinbase":
        dust = rng.integers(0, len(rows), _DUST_ROWS)
        rows.amount[dust] = rng.integers(1, 100, _DUST_ROWS) / 10**listing.amount_decimals
    zero = rng.choice(len(rows), min(stream.zero_rows, len(rows)), replace=False)
    rows.price[zero] = 0.0
    rows.amount[zero] = 0.0
