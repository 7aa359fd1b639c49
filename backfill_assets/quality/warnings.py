"""Sentences on odd rows of a feed that may still be true: they warn and never gate.

Each is a guess at a fault that the evidence at hand does not settle, so none lowers a score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from backfill_assets.contracts import Contracts, spot_contract
from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.id_laws import IdLaw
from backfill_assets.lake.evidence import BesideTrades, PricesBesideTrades, SpikeEvidence
from backfill_assets.quality.agreement import Agreement
from backfill_assets.quality.beside_trades import judged_prices, own_units, tolerance_of
from backfill_assets.quality.profiles import (
    BookProfile,
    FeedProfile,
    Silence,
    Spike,
    Stretch,
    SymbolProfile,
)
from backfill_assets.quality.silences import JointSilence
from backfill_assets.quality.spikes import open_spikes, refuted_rows, refuted_spikes
from backfill_assets.settings import RowSettings

#: Number of warnings that are listed; further ones are counted, as a grouped file may have thousands of
#: symbols.
NAMED = 20


def row_warnings(
    profile: FeedProfile,
    limits: RowSettings,
    *,
    grouped: bool,
    spikes: SpikeEvidence | None = None,
    law: IdLaw | None = None,
) -> tuple[str, ...]:
    """Every warning on the file, then those on its symbols (named if there may be several)."""
    found = [*_of_columns(profile), *_of_clock(profile, limits), *_of_updates(profile, limits)]
    found += _of_tickers(profile, limits)
    if grouped and profile.unknown_symbol_rows:
        found.append(f"{profile.unknown_symbol_rows} rows of symbols that the instruments do not list")
    of_symbols = [
        f"{symbol.dataset_symbol}: {sentence}" if grouped else sentence
        for symbol in profile.symbols
        for sentence in (*_of_ids(symbol, law), *_of_symbol(symbol, limits), *_of_spikes(symbol, spikes))
    ]
    of_symbols += [
        f"{book.dataset_symbol}: {sentence}" if grouped else sentence
        for book in profile.books
        for sentence in _of_book(book, profile, limits)
    ]
    found += of_symbols[:NAMED]
    if len(of_symbols) > NAMED:
        found.append(f"{len(of_symbols) - NAMED} more warnings on symbols of the file")
    return tuple(found)


def _of_columns(profile: FeedProfile) -> Iterator[str]:
    names = profile.unknown_columns
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"columns that are not read: {', '.join(names[:NAMED])}{more}: update backfill_assets"


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
    if medians and min(medians) > limits.clock_failure_seconds * MICROSECONDS_PER_SECOND:
        yield f"rows arrive {seconds(min(medians))} late or more in every hour: their times may be too early"


def _of_ids(symbol: SymbolProfile, law: IdLaw | None) -> Iterator[str]:
    if symbol.duplicate_rows:
        once = law is None or law.names_trades
        counts = "each counts once in candles" if once else "the venue's ids are not unique, so all count"
        yield f"{symbol.duplicate_rows} rows repeat an id with the same payload: {counts}"
    if symbol.id_resets and (law is None or law.gives_order):
        yield f"ids fall back {symbol.id_resets} times, as if the venue had started its count over"
    if symbol.uncounted_ids:
        yield f"{symbol.uncounted_ids} ids were too many to look for repeats among them"


def _of_symbol(symbol: SymbolProfile, limits: RowSettings) -> Iterator[str]:
    if symbol.resent_blocks:
        yield f"{symbol.resent_rows} rows in {symbol.resent_blocks} blocks repeat earlier rows in order"
    if symbol.twin_rows >= max(limits.twin_rows, limits.twin_share * symbol.empty_ids):
        yield (
            f"{symbol.twin_rows} of {symbol.empty_ids} rows without ids equal another one: each counts, "
            "though the file may hold them twice"
        )
    if grid_is_stale(symbol, limits.stale_grid_share):
        share = (symbol.off_grid_rows or 0) / symbol.valid_rows
        yield f"{share:.0%} of prices lie between the listed steps, on finer ones: the list is out of date"
    yield from _of_stretches(symbol, limits)
    yield from _of_sides(symbol, limits)


def _of_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> Iterator[str]:
    refuted = refuted_rows(symbol, evidence)
    if refuted:
        witnesses = ", ".join(evidence.witnesses) if evidence else ""
        listed = _listed(refuted_spikes(symbol, evidence))
        yield f"{refuted} prices far from those around them, seen by none of {witnesses}: {listed}"
    unknown = open_spikes(symbol, evidence)
    if unknown:
        count = len(unknown) if evidence else symbol.spike_count
        yield f"{count} prices far from those around them, unconfirmed: {_listed(unknown)}"


def _listed(spikes: Sequence[Spike]) -> str:
    return ", ".join(f"{spike.price:g} at {clock_time(spike.time_us)}" for spike in spikes[:3])


def _of_updates(profile: FeedProfile, limits: RowSettings) -> Iterator[str]:
    """Warn of stale quotes, books and tickers; the silences of trades are judged by completeness."""
    silence = profile.longest_silence
    if silence is not None and _is_stale(silence, limits):
        length = silence.end_us - silence.start_us
        yield f"no update for {seconds(length)} from {clock_time(silence.start_us)}"


def _is_stale(silence: Silence, limits: RowSettings) -> bool:
    usual = max(limits.stale_seconds * MICROSECONDS_PER_SECOND, limits.stale_factor * silence.usual_us)
    return silence.end_us - silence.start_us > usual


def _of_tickers(profile: FeedProfile, limits: RowSettings) -> Iterator[str]:
    if is_habit(profile.apart_rows, profile, limits):
        yield "last, index and mark price are far apart in nearly all rows: they may have different units"
    if is_habit(profile.off_hour_rows, profile, limits):
        yield "the next funding is on no hour in nearly all rows"


def is_habit(odd_rows: int, profile: FeedProfile, limits: RowSettings) -> bool:
    """Whether so many rows are odd that the contract itself is odd, not its data."""
    return odd_rows > 0 and odd_rows >= limits.habit_share * profile.rows


def _of_book(book: BookProfile, profile: FeedProfile, limits: RowSettings) -> Iterator[str]:
    if not book.snapshots:
        yield "no snapshot, so nobody knows the book"
    elif book.unknown_us > limits.unknown_book_excused * MICROSECONDS_PER_SECOND:
        yield f"no snapshot in the first {seconds(book.unknown_us)}, so nobody knows the book until then"
    longest = book.longest_crossed
    if longest and book.stuck_us > limits.crossed_book_excused * MICROSECONDS_PER_SECOND:
        length = seconds(longest.end_us - longest.start_us)
        yield (
            f"best bid at or above best ask for {seconds(book.stuck_us)}, "
            f"longest for {length} from {clock_time(longest.start_us)}"
        )
    wrong = [one for one in book.disagreements if one.differing > one.explained]
    if wrong:
        yield (
            f"{book.unexplained_levels} levels of snapshots differ from the book replayed up to them, "
            f"first at {clock_time(wrong[0].time_us)}: changes were lost before"
        )
    if book.absent_deletes > limits.absent_delete_share * book.deletes:
        yield f"{book.absent_deletes} of {book.deletes} deletes are of levels that the book lacks"
    if book.resent_messages:
        yield (
            f"{book.resent_messages} messages in {book.resent_blocks} blocks repeat earlier messages in order"
        )
    if book.shifted_levels and book.shifted_levels == book.far_levels:
        yield (
            f"{book.shifted_levels} levels are ten times as far as the best price, first at "
            f"{clock_time(book.first_shifted_us or 0)}, and no others are far: a decimal is misplaced"
        )
    if book.dropped_levels:
        yield f"{book.dropped_levels} levels far from the best were too many to replay"
    if grid_is_stale(book, limits.stale_grid_share):
        share = (book.off_grid_rows or 0) / book.valid_rows
        yield f"{share:.0%} of prices lie between the listed steps, on finer ones: the list is out of date"
    quiet, silence = book.longest_unchanged, profile.longest_silence
    if quiet and _is_stale(quiet, limits) and not (silence and _is_stale(silence, limits)):
        length = seconds(quiet.end_us - quiet.start_us)
        yield f"no change of the book for {length} from {clock_time(quiet.start_us)}"


def contract_warnings(unknown: Sequence[str], profile: FeedProfile, *, grouped: bool) -> Iterator[str]:
    """Warn of symbols with rows whose amounts cannot be converted to a currency."""
    traded = {symbol.symbol for symbol in profile.symbols}
    names = [name for name in unknown if name in traded]
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        of = f" of {', '.join(names[:NAMED])}{more}" if grouped else ""
        yield (
            f"volumes{of} are null: neither the instruments nor the venue say how much of the base currency "
            "one contract is"
        )


def terms_warnings(
    names: Collection[str], former: Mapping[str, Contracts], contracts: Mapping[str, Contracts]
) -> Iterator[str]:
    """Warn of each symbol whose terms differ from those behind the published candles.

    Parameters
    ----------
    names
        Canonical symbols of the feed.
    former, contracts
        By canonical symbol as in ``SettledFeed.contracts``; those of a spot market are left out.
    """
    changed = [name for name in sorted(names) if _terms(former, name) != _terms(contracts, name)]
    for name in changed[:NAMED]:
        then, now = _listed_terms(_terms(former, name)), _listed_terms(_terms(contracts, name))
        yield f"volumes change: an amount of 1 of {name} was {then}, and is {now} now"
    if len(changed) > NAMED:
        yield f"volumes of {len(changed) - NAMED} more symbols change with their terms"


def _terms(contracts: Mapping[str, Contracts], name: str) -> Contracts:
    return contracts.get(name) or (spot_contract(name),)


def _listed_terms(contracts: Contracts) -> str:
    later = [f"from {clock_time(one.since_us)} {one}" for one in contracts[1:]]
    return ", ".join([str(contracts[0]), *later])


def joint_warnings(silences: Sequence[JointSilence]) -> Iterator[str]:
    """Warn of silences that a feed shares with all busy feeds of its venue."""
    for silence in silences[:3]:
        length = seconds(silence.end_us - silence.start_us)
        start = clock_time(silence.start_us)
        yield f"all {silence.feeds} busy feeds of the venue silent for {length} from {start}"
    if len(silences) > 3:
        yield f"{len(silences) - 3} more silences of all busy feeds of the venue"


def agreement_warnings(found: Sequence[Agreement], limits: RowSettings, *, grouped: bool) -> Iterator[str]:
    """Warn of feeds that show other books of the market, at the ends of minutes or within them."""
    differing = [
        (
            one,
            one.first,
            f"the best {one.levels} levels differ from {one.other} at the end of {one.differing}",
        )
        for one in found
        if one.differing > limits.agreement_excused and one.first is not None
    ]
    yield from _first_minutes(differing, "differ from other feeds of the same books", grouped=grouped)
    told = {one.dataset_symbol for one, _, _ in differing}
    passing = [
        (one, one.first_passing, f"the best level differs from {one.other} for a while within {one.passing}")
        for one in found
        if one.first_passing is not None and one.dataset_symbol not in told
    ]
    yield from _first_minutes(
        passing, "differ for a while from other feeds of the same books", grouped=grouped
    )


def _first_minutes(found: Sequence[tuple[Agreement, int, str]], more: str, *, grouped: bool) -> Iterator[str]:
    """Name the first markets, each with its first minute of the day, and count the others."""
    for one, first, differs in found[:NAMED]:
        of = f"{one.dataset_symbol}: " if grouped else ""
        hours, minutes = divmod(first, 60)
        yield (
            f"{of}{differs} of {one.minutes} minutes, first at {hours:02d}:{minutes:02d}: "
            "one of both files is damaged"
        )
    if len(found) > NAMED:
        yield f"{len(found) - NAMED} more markets {more}"


def trades_warnings(beside: BesideTrades | None, limits: RowSettings, *, grouped: bool) -> Iterator[str]:
    """Warn of prices of tickers and liquidations that are far from the trades of their markets."""
    if beside is None:
        return
    if not any(one.minutes for one in beside.prices):
        why = "has no stored minutes of their market"
        if not beside.inputs:
            why = "has lost a file of minutes"
        elif beside.trades:
            why = "has no trades beside these rows"
        yield f"prices are not compared with trades: the day {why}"
    found = [
        f"the {_words(one, grouped=grouped)} is far from the trades in nearly all minutes: "
        "it may have another unit"
        for one in own_units(beside, limits)
    ]
    found += [
        f"{_far(one, limits, grouped=grouped)} the trades: one of both files is damaged"
        for one in judged_prices(beside, limits)
        if one.outside
    ]
    yield from found[:NAMED]
    if len(found) > NAMED:
        yield f"{len(found) - NAMED} more prices are far from the trades"


def _words(one: PricesBesideTrades, *, grouped: bool) -> str:
    name = one.column.replace("_", " ")
    return f"{name} of {one.dataset_symbol}" if grouped else name


def _far(one: PricesBesideTrades, limits: RowSettings, *, grouped: bool) -> str:
    hours, minutes = divmod(one.first or 0, 60)
    return (
        f"the {_words(one, grouped=grouped)} is in {one.outside} of {one.minutes} minutes, first at "
        f"{hours:02d}:{minutes:02d}, more than {tolerance_of(one.column, limits):.0%} from"
    )


def refuting_warnings(
    found: Sequence[tuple[str, PricesBesideTrades]], limits: RowSettings, *, grouped: bool
) -> Iterator[str]:
    """Warn of trades for which tickers or liquidations show other prices."""
    for feed, one in found[:NAMED]:
        yield f"in {feed} {_far(one, limits, grouped=grouped)} these trades: one of both files is damaged"
    if len(found) > NAMED:
        yield f"{len(found) - NAMED} more prices of other feeds are far from these trades"


def _of_stretches(symbol: SymbolProfile, limits: RowSettings) -> Iterator[str]:
    for stretch in (symbol.longest_at_one_price, symbol.most_rows_at_one_price):
        if stretch is not None and _is_frozen(stretch, limits):
            length = seconds(stretch.end_us - stretch.start_us)
            yield (
                f"price frozen at {stretch.price:g} for {length} and {stretch.rows} rows, "
                f"from {clock_time(stretch.start_us)}"
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


def grid_is_stale(symbol: SymbolProfile | BookProfile, share: float) -> bool:
    """Whether the listed grid is out of date: many prices are off it, but all are on a finer one."""
    off = symbol.off_grid_rows or 0
    return off > 0 and off >= share * symbol.valid_rows and not symbol.off_finer_grid_rows


def seconds(microseconds: float) -> str:
    """A length of time for people to read."""
    return f"{microseconds / MICROSECONDS_PER_SECOND:.2f} s"


def clock_time(time_us: int) -> str:
    """A time of the day for people to read, in UTC."""
    return datetime.fromtimestamp(time_us / MICROSECONDS_PER_SECOND, UTC).strftime("%H:%M:%S.%f")[:-3]
