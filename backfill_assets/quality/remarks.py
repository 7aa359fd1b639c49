"""What is odd about a feed's rows and may still be true: sentences that warn and never gate.

Each is a guess at a fault from one file alone. What could confirm it (quotes, another venue, the days before)
is not at hand here, so none of them costs a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.quality.profiles import FeedProfile, Stretch, SymbolProfile
from backfill_assets.settings import RowSettings

#: A grouped file may hold thousands of symbols; the warnings beyond these are counted.
_NAMED = 20


def remarks(profile: FeedProfile, limits: RowSettings, *, grouped: bool) -> tuple[str, ...]:
    """Every warning on the file, then those of its symbols (named where there are several)."""
    found = [*_of_clock(profile, limits)]
    if grouped and profile.unknown_symbol_rows:
        found.append(f"{profile.unknown_symbol_rows} rows of symbols that the instruments do not list")
    of_symbols = [
        f"{symbol.dataset_symbol}: {sentence}" if grouped else sentence
        for symbol in profile.symbols
        for sentence in _of_symbol(symbol, limits)
    ]
    found += of_symbols[:_NAMED]
    if len(of_symbols) > _NAMED:
        found.append(f"{len(of_symbols) - _NAMED} more warnings on symbols of the file")
    return tuple(found)


def _of_clock(profile: FeedProfile, limits: RowSettings) -> Iterator[str]:
    offset = (profile.clock_offset_p99_us or 0) / MICROSECONDS_PER_SECOND
    if limits.clock_warning_seconds < offset <= limits.clock_failure_seconds:
        yield f"capture clock {offset:.2f} s behind the exchange"
    if profile.clock_residual_rows:
        rows = profile.clock_residual_rows
        yield f"{rows} rows are stamped later than they arrived, beyond the clock's offset"
    medians = [
        latency
        for latency, rows in zip(profile.hour_latency_us, profile.hour_rows, strict=True)
        if latency is not None and rows >= limits.latency_rows
    ]
    if medians and max(medians) - min(medians) > limits.latency_drift_seconds * MICROSECONDS_PER_SECOND:
        least, most = seconds(min(medians)), seconds(max(medians))
        yield f"latency drifts: its median is {least} in one hour and {most} in another"


def _of_symbol(symbol: SymbolProfile, limits: RowSettings) -> Iterator[str]:
    if symbol.duplicate_rows:
        yield f"{symbol.duplicate_rows} rows repeat an id with the same payload"
    if symbol.resent_blocks:
        yield f"{symbol.resent_rows} rows in {symbol.resent_blocks} blocks repeat earlier rows in order"
    if symbol.id_resets:
        yield f"ids fall back {symbol.id_resets} times, as if the venue had begun to count anew"
    if symbol.spike_count:
        worst = ", ".join(f"{spike.price:g} at {_clock_time(spike.time_us)}" for spike in symbol.spikes[:3])
        yield f"{symbol.spike_count} prices far from those around them, unconfirmed: {worst}"
    if grid_is_stale(symbol, limits.stale_grid_share):
        share = (symbol.off_grid_rows or 0) / symbol.valid_rows
        yield f"{share:.0%} of prices lie between the listed steps, on finer ones: the list is out of date"
    yield from _of_stretches(symbol, limits)
    yield from _of_sides(symbol, limits)


def _of_stretches(symbol: SymbolProfile, limits: RowSettings) -> Iterator[str]:
    for stretch in (symbol.longest_at_one_price, symbol.most_rows_at_one_price):
        if stretch is not None and _is_frozen(stretch, limits):
            length = seconds(stretch.end_us - stretch.start_us)
            yield (
                f"price frozen at {stretch.price:g} for {length} and {stretch.rows} rows, "
                f"from {_clock_time(stretch.start_us)}"
            )
            return


def _is_frozen(stretch: Stretch, limits: RowSettings) -> bool:
    long_enough = stretch.end_us - stretch.start_us >= limits.frozen_seconds * MICROSECONDS_PER_SECOND
    return long_enough and stretch.rows >= limits.frozen_rows


def _of_sides(symbol: SymbolProfile, limits: RowSettings) -> Iterator[str]:
    known = symbol.buy_rows + symbol.sell_rows
    if symbol.rows < limits.one_sided_rows:
        return
    if not known:
        yield "no row says which side took"
    elif known >= limits.one_sided_rows:
        side, most = max(("buys", symbol.buy_rows), ("sells", symbol.sell_rows), key=lambda pair: pair[1])
        if most >= limits.one_sided_share * known:
            yield f"one-sided: {most / known:.1%} of the rows are {side}"


def grid_is_stale(symbol: SymbolProfile, share: float) -> bool:
    """Whether so many prices are off the listed grid, but all on one finer by decades, that it is old."""
    off = symbol.off_grid_rows or 0
    return off > 0 and off >= share * symbol.valid_rows and not symbol.off_finer_grid_rows


def seconds(microseconds: float) -> str:
    """A length of time for people."""
    return f"{microseconds / MICROSECONDS_PER_SECOND:.2f} s"


def _clock_time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / MICROSECONDS_PER_SECOND, UTC).strftime("%H:%M:%S.%f")[:-3]
