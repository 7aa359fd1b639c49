"""The profile: counts over a file's rows for the checks and scores, in one pass and bounded memory.

``quality.profiles`` defines each number; this module computes the numbers without storing rows:

- Ids are marked in a bitmap of 4 kB pages (2**15 ids each), taken as they are touched: 2.5 MB for 20 million
  contiguous ids. A file uses at most 256 MB; a symbol whose ids need more (they are scattered, as hashes are)
  has null for every number that depends on the bitmap.
- Ids without a page, and ids that are not integers, are stored as 64 mixed bits with the payload's 64, in a
  set that doubles up to 256 MB: 12.5 million ids. With so many, two ids are taken for one once in 100,000
  files, and then count as a conflict. Beyond that, new ids are uncounted.
- The times around a gap come from the rows at which consecutive rows' ids are not consecutive. They are exact
  for any order of ids, and the first row of a repeated id counts, as long as fewer than a million such rows
  lie beside gaps at once. Beyond that, the rows of the lowest ids are kept, and a gap whose rows were dropped
  has the time range of the whole file.
- The test for repeated ids is exact. An id in the bitmap is compared with the first row of that id if that is
  among the last 2**20 ids (direct-mapped by id, so exactly those for ascending ids); otherwise the row counts
  as a duplicate, not as a conflict. Candles compare every payload again.
- A venue restarts its ids at midnight if the day's first id is less than half of the ids of the rows stamped
  before the day, which come first. Their ids are then set aside, and all counts are of the other rows.
- The clock offset's percentile is from a histogram of whole milliseconds, rounded down, between -60 s and
  60 s; there is one for each hour, and only its touched pages take memory.
- A row without id is compared with the rows whose payloads are in the same window of 2**20; a block is found
  as long as not many more rows lie between it and its first copy.
- ``prices`` counts for prices, ``books`` for changes of books; ``tops`` and ``bands`` store the data that is
  compared with other data types of the market.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.quality.agreement import OF_ONE_BOOK
from backfill_assets.quality.minute_numbers import NUMBERS_VERSION
from backfill_assets.quality.profiles import FeedProfile, Gap, Silence, SymbolProfile
from backfill_assets.settings import CountingSettings, ThresholdSettings
from backfill_assets.ticks.bands import COLUMNS, Bands
from backfill_assets.ticks.books import Books
from backfill_assets.ticks.prices import Grids, Prices
from backfill_assets.ticks.tops import LEVELS, Tops

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    _OfSymbol = Callable[[int], Ints]

#: Increase it when the same rows give another profile.
PROFILE_VERSION: Final = 6
#: The same for rows that are updates (quotes, books, tickers, options): files of trades and liquidations are
#: not fetched again when only the counts of books change.
UPDATES_VERSION: Final = 2

#: Shortest silence that is recorded; settings may excuse longer ones, but cannot ask for shorter ones.
SILENCE_US: Final = 5_000_000
#: Longest run of missing ids that a venue with legitimate gaps leaves.
SHORT_GAP: Final = 5
LISTED_GAPS: Final = 1_000
LISTED_SILENCES: Final = 1_000
#: 2009-01-01, before the first block of Bitcoin, and 2100-01-01.
PLAUSIBLE_US: Final = (1_230_768_000_000_000, 4_102_444_800_000_000)
#: A ticker's last, index and mark price that are relatively further apart than this are not of one market.
APART: Final = 0.5
BITMAP_PAGES: Final = 1 << 16
WINDOW_IDS: Final = 1 << 20
_SEEN: Final = 1 << 12
_MOST_SEEN: Final = 1 << 24
_EDGES: Final = 1 << 18
_MOST_EDGES: Final = 1 << 21
_SILENCES: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class ProfileParameters:
    """The inputs of a profile besides the file.

    Attributes
    ----------
    seam_window_us
        Rows stamped up to this long outside the file's day belong to a neighbor day's candles; rows further
        outside are misplaced.
    counting
        Limits from which rows count as odd.
    """

    seam_window_us: int = 300_000_000
    counting: CountingSettings = field(default_factory=CountingSettings)

    @classmethod
    def of(cls, thresholds: ThresholdSettings) -> ProfileParameters:
        """The parameters that the settings ask for."""
        return cls(
            seam_window_us=thresholds.seam_window_seconds * MICROSECONDS_PER_SECOND,
            counting=thresholds.counting,
        )


def profile_parameters_hash(parameters: ProfileParameters, data_type: str = "trades") -> str:
    """Short hash of parameters and profile version; profiles with different hashes cannot be compared."""
    # 10 and 10.0 must give the same hash.
    counting = {k: int(v) if v == int(v) else v for k, v in parameters.counting.model_dump().items()}
    counted = {"seam_window_us": parameters.seam_window_us, **counting}
    updates = {} if DATA_TYPES[data_type].has_fills else {"updates": UPDATES_VERSION}
    numbers = {"numbers": NUMBERS_VERSION} if data_type in (*COLUMNS, *OF_ONE_BOOK) else {}
    text = json.dumps({"version": PROFILE_VERSION, **updates, **numbers, **counted}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of a row group as the parser filled them; NaN is null. A data type's missing columns are None.

    ``best_bid`` and ``best_ask`` are those of quotes and books, ``ids`` are those of trades (see
    ``reference_parser.id_number``), ``is_snapshot`` is of changes of books.
    """

    times: Ints
    locals: Ints
    codes: NDArray[np.int32]
    price: Floats | None = None
    amount: Floats | None = None
    side: NDArray[np.uint8] | None = None
    ids: Ints | None = None
    best_bid: Floats | None = None
    best_ask: Floats | None = None
    #: All number columns that may be null, stacked.
    values: Floats | None = None
    #: Time of the next funding for tickers, and time of expiry for options.
    due: Ints | None = None
    is_snapshot: NDArray[np.uint8] | None = None

    @property
    def count(self) -> int:
        """Number of rows that every column has."""
        columns = (
            self.times, self.locals, self.codes, self.price, self.amount, self.side, self.is_snapshot,
            self.ids, self.best_bid, self.best_ask, self.values, self.due,
        )  # fmt: skip
        return min(int(column.shape[-1]) for column in columns if column is not None)


@dataclass(frozen=True, slots=True)
class Name:
    """The first two cells of a line, for which ``Rows.codes`` has a number."""

    exchange: str
    dataset_symbol: str
    symbol: str | None


def _by_symbol(rows: Ints) -> _OfSymbol:
    """A look-up of a symbol's rows, without the first column, which has its number; sorts once."""
    import numpy as np

    rows = rows[np.argsort(rows[:, 0], kind="stable")]

    def of_symbol(slot: int) -> Ints:
        first, end = np.searchsorted(rows[:, 0], (slot, slot + 1))
        return rows[first:end, 1:]

    return of_symbol


class Profiler:
    """Counts rows as they are read; fed from one thread, in file order.

    ``grids`` are the price steps valid on the day, by the text of the file's symbol column. ``updates`` says
    that rows are updates of a continuous state, so that silence is odd. For updates, ``data_type`` selects
    the counts; without it only the counts common to all data types are made.
    """

    def __init__(
        self,
        exchange: str,
        day: str,
        parameters: ProfileParameters,
        *,
        trades: bool,
        updates: bool = False,
        data_type: str = "",
        grids: Grids | None = None,
    ) -> None:
        import numpy as np

        from backfill_assets.ticks import profile_kernels, repeat_kernels, value_kernels
        from backfill_assets.ticks.jit import prove_indices, untouched

        self._np: Any = np
        self._prove_indices, self._untouched = prove_indices, untouched
        self._k: Any = profile_kernels
        self._r: Any = repeat_kernels
        self._v: Any = value_kernels
        self._counting = parameters.counting
        self._exchange = exchange
        self._trades = trades
        self._updates = updates
        self._bounds = np.array(
            [start_us(day), end_us(day), parameters.seam_window_us, *PLAUSIBLE_US], dtype=np.int64
        )
        self._names: list[Name] = []
        self._symbols: dict[str, int] = {}
        self._feed = np.zeros(self._k.F_SIZE, np.int64)
        self._clock = self._untouched((self._k.HOURS, self._k.CLOCK_BINS), np.int32)
        self._clock_range = np.zeros((self._k.HOURS, 2), np.int64)
        self._clock_range[:, 0] = self._k.CLOCK_BINS
        self._code_rows = np.zeros(1, np.int64)
        self._symbol_of = np.zeros(1, np.int32)
        self._silences: dict[int, tuple[int, Ints]] = {}
        self._data_type = data_type
        self._odd = dict.fromkeys(("odd_rows", "apart_rows", "off_hour_rows"), 0)
        self._books: Books | None = None
        if data_type and DATA_TYPES[data_type].changes_books:
            self._books = Books(start_us(day), grids or {}, parameters.counting.resent_rows)
        self._tops = Tops(start_us(day), data_type) if data_type in LEVELS else None
        self._bands = Bands(start_us(day), data_type) if data_type in COLUMNS else None
        #: A data type has one of the three at most.
        self._compared = self._books or self._tops or self._bands
        if trades:
            self._prices = Prices(parameters.counting, grids or {})
            self._repeats = np.zeros((1, self._r.R_SIZE), np.int64)
            self._counts = np.zeros((1, self._k.S_SIZE), np.int64)
            self._notional = np.zeros((1, 2))
            self._ring = np.zeros((1, self._k.RING), np.int64)
            self._minutes = np.zeros((1, self._k.MINUTES), np.int32)
            self._shared = np.zeros(self._k.N_SIZE, np.int64)
            self._page_table = self._untouched((2 * BITMAP_PAGES, 2), np.int64)
            self._page_keys = self._untouched((BITMAP_PAGES,), np.int64)
            self._pages = self._untouched((BITMAP_PAGES * self._k.PAGE_WORDS,), np.uint64)
            self._window = self._untouched((WINDOW_IDS, 2), np.uint64)
            self._rows_seen = self._untouched((WINDOW_IDS, 2), np.uint64)
            self._seen = self._untouched((_SEEN, 2), np.uint64)
            self._edges = self._untouched((_EDGES, 3), np.int64)
            self._found = self._untouched((_SILENCES, 5), np.int64)

    def register(self, name: Name) -> None:
        """Give the next code to a name."""
        code = len(self._names)
        self._names.append(name)
        slot = self._symbols.setdefault(name.dataset_symbol, len(self._symbols))
        if code >= len(self._code_rows):
            self._code_rows = self._doubled(self._code_rows)
            self._symbol_of = self._doubled(self._symbol_of)
        self._symbol_of[code] = slot
        if self._compared is not None:
            self._compared.name(slot, name)
        if not self._trades:
            return
        self._prices.make_room(slot + 1)
        self._prices.name(slot, name.dataset_symbol)
        if slot >= len(self._counts):
            self._repeats = self._doubled(self._repeats)
            self._counts = self._doubled(self._counts)
            self._notional = self._doubled(self._notional)
            self._ring = self._doubled(self._ring)
            self._minutes = self._doubled(self._minutes)

    def _doubled(self, array: Any) -> Any:
        larger = self._untouched((2 * len(array), *array.shape[1:]), array.dtype)
        larger[: len(array)] = array
        return larger

    def add(self, rows: Rows, start: int, stop: int) -> None:
        """Count the rows from ``start`` to before ``stop``."""
        k = self._k
        if not 0 <= start <= stop <= rows.count:
            msg = f"rows {start} to {stop} of {rows.count}"
            raise IndexError(msg)
        self._prove_indices(rows.codes[start:stop], len(self._names), "names of rows")
        k.count_feed(
            rows.times,
            rows.locals,
            rows.codes,
            start,
            stop,
            self._bounds,
            self._feed,
            self._clock,
            self._clock_range,
            self._code_rows,
        )
        if self._books is not None:
            self._books.add(rows, self._symbol_of, start, stop)
        elif rows.price is not None and rows.amount is not None:
            k.count_invalid(rows.price, rows.amount, start, stop, self._feed)
        if rows.best_bid is not None and rows.best_ask is not None:
            k.count_crossed(rows.best_bid, rows.best_ask, start, stop, self._feed)
        if rows.values is not None:
            k.count_valueless(rows.values, start, stop, self._feed)
            self._add_values(rows, rows.values, start, stop)
        if self._bands is not None:
            self._bands.add(rows, self._symbol_of, start, stop)
        if self._trades:
            self._add_trades(rows, start, stop)

    def _add_values(self, rows: Rows, values: Floats, start: int, stop: int) -> None:
        """Count the rows with contradicting values."""
        k: Any = self._v
        if self._tops is not None:
            self._tops.add(rows, values, self._symbol_of, start, stop)
        if self._data_type.startswith("book_snapshot"):
            self._odd["odd_rows"] += k.count_out_of_order(values, start, stop)
        elif self._data_type == "derivative_ticker":
            self._odd["apart_rows"] += k.count_apart(values, start, stop, APART)
            self._odd["off_hour_rows"] += k.count_off_the_hour(rows.times, rows.due, start, stop)
        elif self._data_type == "options_chain":
            self._odd["odd_rows"] += k.count_impossible_options(rows.times, rows.due, values, start, stop)

    def _add_trades(self, rows: Rows, start: int, stop: int) -> None:
        np, k = self._np, self._k
        if rows.price is None or rows.amount is None:
            msg = "trades have a price and an amount"
            raise TypeError(msg)
        bits = rows.price.view(np.int64), rows.amount.view(np.int64)
        self._prices.add(rows, self._symbol_of, start, stop)
        self._r.count_resent(
            rows.times, rows.locals, *bits, rows.side, rows.ids, rows.codes, self._symbol_of, start, stop,
            self._counting.resent_rows, self._repeats, self._rows_seen,
        )  # fmt: skip
        while True:
            start = k.count_trades(
                rows.times, rows.locals, rows.price, rows.amount, *bits, rows.side, rows.ids, rows.codes,
                self._symbol_of, start, stop, self._bounds, SILENCE_US, self._counting.id_reset, self._counts,
                self._notional, self._ring, self._minutes, self._shared, self._page_table, self._page_keys,
                self._pages, self._window, self._seen, 3 * _MOST_SEEN // 4, self._edges, self._found,
            )  # fmt: skip
            if start == stop:
                return
            if self._shared[k.N_EDGES] + 2 > len(self._edges):
                self._make_room_for_edges()
            if self._shared[k.N_SILENCES] + 1 > len(self._found):
                self._keep_silences()
            if 4 * (self._shared[k.N_SEEN] + 1) > 3 * len(self._seen) and len(self._seen) < _MOST_SEEN:
                smaller, self._seen = self._seen, self._untouched((2 * len(self._seen), 2), np.uint64)
                k.move_seen(smaller, self._seen)

    def _make_room_for_edges(self) -> None:
        np, k = self._np, self._k
        size = k.prune_edges(self._edges, int(self._shared[k.N_EDGES]), self._page_table, self._pages)
        capacity = len(self._edges)
        if size > capacity // 2 and capacity < _MOST_EDGES:
            self._edges = self._doubled(self._edges)
        elif size > capacity // 2:
            kept = self._edges[:size]
            kept = kept[np.lexsort((kept[:, 1], kept[:, 0]))]
            rank = np.arange(size) - np.searchsorted(kept[:, 0], kept[:, 0])
            per_symbol = np.bincount(kept[:, 0])[kept[:, 0]]
            kept = kept[rank < (per_symbol + 1) // 2]
            size = min(len(kept), capacity // 2)
            self._edges[:size] = kept[:size]
        self._shared[k.N_EDGES] = size

    def _keep_silences(self) -> None:
        """Move the silences found so far to their symbols, and keep the longest of each symbol."""
        np, k = self._np, self._k
        if not self._shared[k.N_SILENCES]:
            return
        found = self._found[: int(self._shared[k.N_SILENCES])]
        for slot in np.unique(found[:, 0]).tolist():
            count, kept = self._silences.get(slot, (0, found[:0]))
            new = found[found[:, 0] == slot]
            every = np.concatenate([kept, new])
            order = np.lexsort((np.arange(len(every)), every[:, 1] - every[:, 2]))[:LISTED_SILENCES]
            self._silences[slot] = (count + len(new), every[np.sort(order)])
        self._shared[k.N_SILENCES] = 0

    def finish(self, *, has_header: bool, unknown_columns: tuple[str, ...] = ()) -> FeedProfile:
        """The profile of all rows added."""
        k, feed = self._k, self._feed.tolist()
        rows = feed[k.F_ROWS]
        by_code = self._code_rows.tolist()
        names = list(zip(self._names, by_code, strict=False))
        clock = self._read_clock(rows)
        books = self._books.finish() if self._books is not None else ()
        return FeedProfile(
            rows=rows,
            has_header=has_header,
            unknown_columns=unknown_columns,
            first_timestamp_us=feed[k.F_FIRST] if rows else None,
            last_timestamp_us=feed[k.F_LAST] if rows else None,
            first_local_timestamp_us=feed[k.F_LOCAL_FIRST] if rows else None,
            last_local_timestamp_us=feed[k.F_LOCAL_LAST] if rows else None,
            local_before_day=feed[k.F_LOCAL_BEFORE],
            local_after_day=feed[k.F_LOCAL_AFTER],
            local_decreases=feed[k.F_DECREASES],
            implausible_times=feed[k.F_IMPLAUSIBLE],
            wrong_exchange_rows=sum(n for name, n in names if name.exchange != self._exchange),
            unknown_symbol_rows=sum(n for name, n in names if name.symbol is None),
            misplaced_rows=feed[k.F_MISPLACED],
            ahead_rows=feed[k.F_AHEAD],
            **clock,
            invalid_price_rows=feed[k.F_BAD_PRICE] + sum(book.invalid_price_rows for book in books),
            invalid_amount_rows=feed[k.F_BAD_AMOUNT] + sum(book.invalid_amount_rows for book in books),
            crossed_rows=feed[k.F_CROSSED],
            valueless_rows=feed[k.F_VALUELESS],
            **self._odd,
            longest_silence=self._longest_silence(feed) if self._updates else None,
            symbols=self._symbol_profiles() if self._trades else (),
            books=books,
            tops=self._tops.finish() if self._tops else (),
            numbers=self._compared.numbers() if self._compared is not None else (),
        )

    def _longest_silence(self, feed: list[int]) -> Silence | None:
        """The longest silence, with the mean of the others."""
        k = self._k
        others = feed[k.F_ROWS] - 2
        if others < 1 or not feed[k.F_SILENCE]:
            return None
        start, length = feed[k.F_SILENCE_START], feed[k.F_SILENCE]
        usual = (feed[k.F_LOCAL_LAST] - feed[k.F_LOCAL_FIRST] - length) / others
        return Silence(start_us=start, end_us=start + length, usual_us=max(0.0, usual))

    def _read_clock(self, rows: int) -> Mapping[str, Any]:
        """Return the results of the clock's histograms."""
        np, k = self._np, self._k
        if not rows:
            return {"clock_offset_p99_us": None}
        first, end = int(self._clock_range[:, 0].min()), int(self._clock_range[:, 1].max())
        whole, hours = np.zeros(end - first, np.int64), np.zeros((k.HOURS, 2), np.int64)
        k.read_clock(self._clock, self._clock_range, first, whole, hours)
        offset = first + int(np.searchsorted(np.cumsum(whole), math.ceil(0.99 * rows)))
        residual = max(offset, k.CLOCK_ZERO) + self._counting.clock_residual_ms
        return {
            "clock_offset_p99_us": (offset - k.CLOCK_ZERO) * 1000,
            "clock_residual_rows": int(whole[residual + 1 - first :].sum()),
            "hour_latency_us": tuple(
                (k.CLOCK_ZERO - found) * 1000 if found >= 0 else None for found in hours[:, 1].tolist()
            ),
            "hour_rows": tuple(hours[:, 0].tolist()),
        }

    def _symbol_profiles(self) -> tuple[SymbolProfile, ...]:
        np, k = self._np, self._k
        tail = np.zeros((k.USUAL + 1, 5), np.int64)
        self._keep_silences()
        for slot in range(len(self._symbols)):
            size = k.last_silences(slot, self._counts, self._ring, SILENCE_US, tail, 0)
            self._found[:size] = tail[:size]
            self._shared[k.N_SILENCES] = size
            self._keep_silences()
        edges = _by_symbol(self._edges[: int(self._shared[k.N_EDGES])])
        keys = self._page_keys[: int(self._shared[k.N_PAGES])]
        pages = _by_symbol(np.column_stack([keys >> 45, keys & ((1 << 45) - 1), np.arange(len(keys))]))
        canonical = {name.dataset_symbol: name.symbol for name in self._names}
        return tuple(
            self._symbol_profile(text, canonical[text], slot, edges, pages)
            for text, slot in sorted(self._symbols.items())
            if self._counts[slot, k.S_ROWS]
        )

    def _symbol_profile(
        self, text: str, symbol: str | None, slot: int, edges: _OfSymbol, pages: _OfSymbol
    ) -> SymbolProfile:
        k, c = self._k, self._counts[slot].tolist()
        valid, numeric = c[k.S_VALID] > 0, c[k.S_NUMERIC] > 0
        mapped = not c[k.S_UNMAPPED]
        gaps: tuple[Gap, ...] = ()
        totals = [0, 0, 0]
        if numeric and mapped:
            gaps, totals = self._gaps(slot, edges(slot), pages(slot))
        silence_count, silences = self._silences.get(slot, (0, self._found[:0]))
        self._r.end_block(self._repeats[slot], self._counting.resent_rows)
        return SymbolProfile(
            dataset_symbol=text,
            symbol=symbol,
            rows=c[k.S_ROWS],
            valid_rows=c[k.S_VALID],
            first_trade_us=c[k.S_FIRST] if valid else None,
            last_trade_us=c[k.S_LAST] if valid else None,
            notional=float(self._notional[slot].sum()),
            buy_rows=c[k.S_BUY],
            sell_rows=c[k.S_SELL],
            unknown_side_rows=c[k.S_SIDELESS],
            numeric_ids=c[k.S_NUMERIC],
            empty_ids=c[k.S_EMPTY],
            id_first=c[k.S_ID_FIRST] if numeric else None,
            id_last=c[k.S_ID_LAST] if numeric else None,
            id_min=c[k.S_ID_MIN] if numeric else None,
            id_max=c[k.S_ID_MAX] if numeric else None,
            unique_ids=c[k.S_UNIQUE] if mapped else None,
            missing_ids=c[k.S_ID_MAX] - c[k.S_ID_MIN] + 1 - c[k.S_UNIQUE] if numeric and mapped else None,
            gaps=gaps,
            gap_count=totals[0] if numeric and mapped else None,
            longest_gap=totals[1] if numeric and mapped else None,
            missing_in_short_gaps=totals[2] if numeric and mapped else None,
            duplicate_rows=c[k.S_DUPLICATES],
            conflicting_rows=c[k.S_CONFLICTS],
            uncounted_ids=c[k.S_UNCOUNTED],
            earlier_ids=(c[k.S_OLD_MIN], c[k.S_OLD_MAX]) if c[k.S_OLD_ROWS] else None,
            silences=tuple(
                Silence(start_us=start, end_us=end, usual_us=total / number if number else 0.0)
                for _, start, end, total, number in sorted(
                    silences.tolist(), key=lambda silence: silence[1:3]
                )
            ),
            silence_count=silence_count,
            minute_rows=tuple(self._minutes[slot].tolist()),
            seam_rows=c[k.S_SEAM],
            id_resets=c[k.S_RESETS],
            resent_blocks=int(self._repeats[slot, self._r.R_BLOCKS]),
            resent_rows=int(self._repeats[slot, self._r.R_BLOCK_ROWS]),
            twin_rows=int(self._repeats[slot, self._r.R_TWINS]),
            **self._prices.finish(slot),
        )

    def _gaps(self, slot: int, edges: Ints, pages: Ints) -> tuple[tuple[Gap, ...], list[int]]:
        np, k = self._np, self._k
        pages = np.ascontiguousarray(pages[np.argsort(pages[:, 0])])
        found, totals = np.zeros((LISTED_GAPS, 2), np.int64), np.zeros(3, np.int64)
        k.find_gaps(pages, self._pages, int(self._counts[slot, k.S_ID_MIN]), SHORT_GAP, found, totals)
        found = found[: min(int(totals[0]), LISTED_GAPS)]
        last = self._counts[slot, [k.S_ID_LAST, k.S_ID_LAST_TIME]]
        beside = np.vstack([edges, last])
        beside = beside[np.argsort(beside[:, 0], kind="stable")]

        def times(ids: Ints, otherwise: int) -> list[int]:
            at = np.minimum(np.searchsorted(beside[:, 0], ids), len(beside) - 1)
            return list(np.where(beside[at, 0] == ids, beside[at, 1], otherwise).tolist())

        after = times(found[:, 0] - 1, int(self._feed[k.F_FIRST]))
        before = times(found[:, 1] + 1, int(self._feed[k.F_LAST]))
        gaps = tuple(
            Gap(first_missing=first, last_missing=end, after_us=a, before_us=b)
            for (first, end), a, b in zip(found.tolist(), after, before, strict=True)
        )
        return gaps, totals.tolist()
