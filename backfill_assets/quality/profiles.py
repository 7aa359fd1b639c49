"""The profile of one feed on one day: the counts of the streaming pass, on which every verdict rests.

Only the shape of the evidence is here. ``ticks.profile`` fills it in the one pass that decodes a file;
``quality`` reads it and never reads the rows again. Times are microseconds since the epoch, UTC; lists are
bounded, their counts are not.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backfill_assets.failures import Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import IdLaw
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import FeedManifest, Version
from backfill_assets.lake.store import Store

#: An entry of a band of prices; single precision is finer than any tolerance.
BAND: Final = [("minute", "<u2"), ("low", "<f4"), ("high", "<f4")]
#: Name of the digests of the changes of the best level.
PATH: Final = "path"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Gap(_Frozen):
    """A run of ids that no row has, and the time in which their trades must have happened."""

    first_missing: int
    last_missing: int
    after_us: int
    before_us: int


class Silence(_Frozen):
    """A silence between two consecutive rows (by ``local_timestamp``), and the usual silence there.

    ``usual_us`` is the mean of up to 200 distances between rows on each side, without this one; 0 if there
    are no others.
    """

    start_us: int
    end_us: int
    usual_us: float


class Spike(_Frozen):
    """A price far from the prices before, around and after it; ``time_us`` is the exchange's time."""

    time_us: int
    price: float


class Stretch(_Frozen):
    """Consecutive valid rows at one price, and the arrival of the first and the last of them."""

    start_us: int
    end_us: int
    rows: int
    price: float


class Stuck(_Frozen):
    """A stretch of time in which a book was crossed or locked."""

    start_us: int
    end_us: int


#: Names of an earlier layout, which called a silence a gap, and a gap a hole.
_FORMER_OF_SYMBOL = {
    "gaps": "silences",
    "gap_count": "silence_count",
    "holes": "gaps",
    "hole_count": "gap_count",
    "longest_hole": "longest_gap",
    "missing_in_short_holes": "missing_in_short_gaps",
}


class SymbolProfile(_Frozen):
    """Trades of one symbol in the file (an ordinary feed has one, a grouped file many)."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_layout(cls, content: Any) -> Any:
        if isinstance(content, dict) and "holes" in content:
            return {_FORMER_OF_SYMBOL.get(name, name): value for name, value in content.items()}
        return content

    dataset_symbol: str
    symbol: str | None
    rows: int
    #: Rows that enter candles: price and amount are present and in their sane ranges.
    valid_rows: int
    #: Earliest and latest ``timestamp`` of the valid rows.
    first_trade_us: int | None
    last_trade_us: int | None
    #: Σ price·amount of the valid rows, correctly rounded except for the last bits.
    notional: float
    #: All rows by side; an empty side is unknown.
    buy_rows: int
    sell_rows: int
    unknown_side_rows: int

    #: Rows whose id is an integer (of at most 18 digits, without leading zeros); ids are evidence only if
    #: this equals ``rows``.
    numeric_ids: int
    empty_ids: int
    #: First and last in the order of rows, lowest and highest.
    id_first: int | None
    id_last: int | None
    id_min: int | None
    id_max: int | None
    #: Distinct ids; null when they are too scattered for a bitmap.
    unique_ids: int | None
    #: Ids inside [id_min, id_max] that no row has; null without ids, or when they are too scattered for a
    #: bitmap.
    missing_ids: int | None
    #: Runs of missing ids, the first 1,000, in order of id; times are those of the rows with the ids around.
    gaps: tuple[Gap, ...]
    gap_count: int | None
    longest_gap: int | None
    #: Missing ids in runs of at most 5, as venues with legitimate gaps leave them.
    missing_in_short_gaps: int | None
    #: Rows that repeat an id (an integer or any other text): with the side, price, amount and timestamp of
    #: the id's first row, and with others.
    duplicate_rows: int
    conflicting_rows: int
    #: Rows whose ids were not looked up, because the file has too many scattered ids.
    uncounted_ids: int = 0
    #: Lowest and highest id of the rows that are stamped before the day, where the venue begins to count
    #: anew at midnight: all other counts of ids are over the rows after them. Null elsewhere.
    earlier_ids: tuple[int, int] | None = None

    #: Silences of 5 s and more, the longest 1,000, in order of time, without those at the day's edges.
    silences: tuple[Silence, ...]
    silence_count: int
    #: Valid rows per minute of the file's day by exchange time, 1,440 counts; ``seam_rows`` counts the rows
    #: outside.
    minute_rows: tuple[int, ...]
    #: Valid rows stamped outside the file's day but within the seam window.
    seam_rows: int

    #: Valid rows whose price lies further than 10 scatters (of 2,000 trades, or of its neighbors if larger)
    #: from the nearest of the medians of the 50 trades around, before and after; the first 100 are listed.
    #: Null in profiles that do not count them.
    spike_count: int | None = None
    spikes: tuple[Spike, ...] = ()
    #: Rows of a symbol that has too few trades for a price to have neighbors.
    unjudged_prices: int = 0
    #: The price steps that are valid at some time of the day, by the instruments.
    price_increments: tuple[float, ...] = ()
    #: Valid rows whose price is not a multiple of any step, and those of them that are not a multiple of a
    #: hundredth of the finest step either; null where no step is known.
    off_grid_rows: int | None = None
    off_finer_grid_rows: int | None = None
    #: The stretches at one price with the most rows, and with the longest time.
    most_rows_at_one_price: Stretch | None = None
    longest_at_one_price: Stretch | None = None
    #: Rows whose id is lower than that of the row before, by more than late rows can explain.
    id_resets: int = 0
    #: Among rows without an id: blocks of at least 10 different rows of one ``local_timestamp`` that
    #: repeat earlier rows in order, and their rows.
    resent_blocks: int = 0
    resent_rows: int = 0
    #: Rows without an id that equal another such row in time, side, price and amount.
    twin_rows: int = 0


class Disagreement(_Frozen):
    """A snapshot that differs from the book that was replayed up to it.

    ``gap_us`` is the time since the message before it, in which the venue may have sent changes that the
    capture missed; ``explained`` is the number of levels that such changes may have changed, by the busiest
    minute of the day. Levels are compared to the depth that both books reach.
    """

    time_us: int
    gap_us: int
    compared: int
    differing: int
    explained: int


class BookProfile(_Frozen):
    """The replayed book of one symbol in a file of changes; a message is all rows of one arrival.

    Times are times of arrival, and a book is judged between messages.
    """

    dataset_symbol: str
    symbol: str | None
    rows: int
    messages: int
    snapshots: int
    #: Rows before the first snapshot, and the time from the first row to it (to the last row without one).
    rows_before_snapshot: int
    unknown_us: int
    #: Time with a best bid below the best ask, with an empty side, with equal best prices, and with a bid
    #: above the ask; from the first snapshot to the last message.
    valid_us: int
    one_sided_us: int
    locked_us: int
    crossed_us: int
    #: Time in which the book was crossed or locked for a second or longer, and the longest stretch of all.
    stuck_us: int
    longest_crossed: Stuck | None = None
    #: Rows with amount 0, and those of them whose level the book lacks: within the depth of the last
    #: snapshot, and beyond it, where nothing is known.
    deletes: int
    absent_deletes: int
    absent_deletes_beyond: int
    #: Rows that change no book: price null or not positive, amount null or negative, or no side.
    invalid_price_rows: int
    invalid_amount_rows: int
    sideless_rows: int
    #: Rows whose price is not a multiple of any known step, and those of them that are not a multiple of a
    #: hundredth of the finest step either; null where no step is known.
    off_grid_rows: int | None = None
    off_finer_grid_rows: int | None = None
    #: Snapshots that could be compared with the book that was replayed up to them, and their levels.
    compared_snapshots: int
    compared_levels: int
    differing_levels: int
    #: The first 100 snapshots that differ.
    disagreements: tuple[Disagreement, ...] = ()
    disagreement_count: int
    #: Levels that were dropped because a side had more levels than the replay keeps.
    dropped_levels: int
    #: The longest time in which no message changed the book, with the mean of all others, and the last
    #: change.
    longest_unchanged: Silence | None = None
    last_change_us: int | None = None
    #: New levels at least five times as far from the other side as the best, and snapshots that reach so far;
    #: the levels among them that a shift of one decimal would bring near the best, and the time of the first.
    far_levels: int = 0
    shifted_levels: int = 0
    first_shifted_us: int | None = None
    #: Blocks of messages that repeat earlier ones in order, with the same exchange time, and their messages.
    resent_blocks: int
    resent_messages: int
    #: State of each minute of the file's day by arrival, one of ``book_states.BOOK_LETTERS`` each.
    minutes: str

    @property
    def observed_us(self) -> int:
        """Time from the first row to the last."""
        known = self.valid_us + self.one_sided_us + self.locked_us + self.crossed_us
        return self.unknown_us + known

    @property
    def unexplained_levels(self) -> int:
        """Levels of snapshots that differ from the replayed book and that no missed change explains."""
        listed = sum(max(0, one.differing - one.explained) for one in self.disagreements)
        more = self.disagreement_count - len(self.disagreements)
        # The disagreements that are not listed are assumed to be like the listed ones.
        return listed + more * listed // len(self.disagreements) if more else listed

    @property
    def valid_rows(self) -> int:
        """Rows that could change the book."""
        return self.rows - self.invalid_price_rows - self.invalid_amount_rows - self.sideless_rows


class MinuteTops(_Frozen):
    """The top of the book of one symbol of quotes, tickers of the best prices or snapshots.

    Changes of books have these in ``BookProfile``.
    """

    dataset_symbol: str
    symbol: str | None
    #: State of each minute, one letter of ``book_states.BOOK_LETTERS`` each; time from the first row to the
    #: last with a best bid below the best ask; the longest time without a change, and the last change.
    minutes: str = ""
    valid_us: int = 0
    longest_unchanged: Silence | None = None
    last_change_us: int | None = None


class MinuteNumbers(_Frozen):
    """Numbers of each minute of one symbol, which are compared with other files (``minute_numbers``).

    Attributes
    ----------
    packed
        By name, the bytes of an array. A number of levels per side (``"25"``) and ``PATH`` name 1,440
        digests of books by minute of arrival, 0 where there is nothing to compare (``ticks.tops``). A column
        names the lowest and highest price by exchange time, with an entry for each minute that has a price
        (``ticks.bands``).
    """

    dataset_symbol: str
    symbol: str | None
    packed: dict[str, bytes]

    @property
    def levels(self) -> set[int]:
        """Numbers of levels that have digests."""
        return {int(name) for name in self.packed if name.isdecimal()}

    def digests(self, name: str) -> Any:
        """The digests as an array."""
        import numpy as np

        return np.frombuffer(self.packed[name], "<u4")

    def bands(self, column: str) -> Any:
        """Array with the fields ``minute``, ``low`` and ``high``, in order of the minutes."""
        import numpy as np

        return np.frombuffer(self.packed[column], BAND)


class FeedProfile(_Frozen):
    """Counts over all rows of the file; evidence on trades is in ``symbols``, on books in ``books``."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_layout(cls, content: Any) -> Any:
        if isinstance(content, dict) and "longest_gap" in content:
            rest = {name: value for name, value in content.items() if name != "longest_gap"}
            return {**rest, "longest_silence": content["longest_gap"]}
        return content

    rows: int
    #: False if the decompressed file is empty.
    has_header: bool
    #: Names of unknown columns of the file, which are not read.
    unknown_columns: tuple[str, ...] = ()
    #: Earliest and latest time of all rows, in any order of the rows.
    first_timestamp_us: int | None
    last_timestamp_us: int | None
    first_local_timestamp_us: int | None
    last_local_timestamp_us: int | None
    #: Rows with a ``local_timestamp`` before the day's start, and at or after its end.
    local_before_day: int
    local_after_day: int
    #: Rows with a ``local_timestamp`` smaller than that of the row before.
    local_decreases: int
    #: Values of both times that cannot be microseconds since the epoch (before 2009, or in 2100 or later).
    implausible_times: int
    wrong_exchange_rows: int
    unknown_symbol_rows: int
    #: Rows whose exchange time is further outside the file's day than the seam window.
    misplaced_rows: int
    #: Rows with a ``timestamp`` later than ``local_timestamp``; the 99th percentile (nearest rank) of the
    #: signed difference over all rows, in whole milliseconds rounded down, within ±60 s.
    ahead_rows: int
    clock_offset_p99_us: int | None
    #: Rows that are ahead by more than that offset (if it is positive) plus 250 ms.
    clock_residual_rows: int = 0
    #: Median (nearest rank) of ``local_timestamp`` − ``timestamp``, and the number of rows, for each of the
    #: 24 hours of the file's day by ``local_timestamp``; medians in whole milliseconds rounded up, within
    #: ±60 s, null without rows.
    hour_latency_us: tuple[int | None, ...] = ()
    hour_rows: tuple[int, ...] = ()
    #: Trades, liquidations: null or outside the sane range. Quotes and books: best bid or ask outside that
    #: range; there a null is legitimate.
    invalid_price_rows: int
    invalid_amount_rows: int
    #: Quotes and books: best bid at or above best ask.
    crossed_rows: int
    #: For data types whose values may be null: rows in which all values are null.
    valueless_rows: int = 0
    #: Rows whose values contradict each other: levels of a snapshot out of order, an option with a bid above
    #: its ask, with an impossible value, or that has expired.
    odd_rows: int = 0
    #: Tickers: rows whose last, index and mark price are far apart or not positive; rows whose next funding
    #: is not on the hour, or not in the future.
    apart_rows: int = 0
    off_hour_rows: int = 0
    #: Streams of updates (quotes, books, tickers): the longest silence between rows by ``local_timestamp``,
    #: with the mean of all others; null for other data types, and with fewer than three rows.
    longest_silence: Silence | None = None
    #: Trades only, in order of ``dataset_symbol``.
    symbols: tuple[SymbolProfile, ...]
    #: Changes of books only, in order of ``dataset_symbol``; empty in profiles of earlier versions.
    books: tuple[BookProfile, ...] = ()
    #: Quotes, tickers of the best prices and snapshots, in order of ``dataset_symbol``.
    tops: tuple[MinuteTops, ...] = ()
    #: Quotes, books, tickers and liquidations, in order of ``dataset_symbol``. No document has them: they are
    #: here after decoding, and where a comparison has read their file.
    numbers: tuple[MinuteNumbers, ...] = Field(default=(), exclude=True)

    def repeated_rows(self, law: IdLaw | None) -> int:
        """How many rows repeat a trade; 0 where the venue's ids do not tell trades apart."""
        if law is not None and not law.names_trades:
            return 0
        return sum(s.duplicate_rows for s in self.symbols)

    def may_repeat_trades(self, law: IdLaw | None) -> bool:
        """Whether rows repeat trades, or their ids were not compared."""
        told = law is None or law.names_trades
        return told and any(s.duplicate_rows or s.uncounted_ids for s in self.symbols)

    @property
    def has_ids(self) -> bool:
        """Whether at least one row of trades has an id."""
        return any(s.empty_ids < s.rows for s in self.symbols)

    @property
    def has_numeric_ids(self) -> bool:
        """Whether every row of every symbol has an integer id."""
        return all(s.numeric_ids == s.rows for s in self.symbols)


def profile_of(version: Version) -> FeedProfile:
    """The version's profile.

    Raises
    ------
    Unreadable
        The profile is damaged, and with it the manifest that contains it.
    """
    try:
        return FeedProfile.model_validate(version.profile)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"the profile of version {version.content[:12]} cannot be read ({where}: {first['msg']})"
        raise Unreadable(msg) from error


def stored_profile(store: Store, manifest: FeedManifest, version: Version) -> FeedProfile:
    """As ``profile_of`` of a version of the manifest, whose failure names the document and the remedy."""
    try:
        return profile_of(version)
    except Unreadable as failure:
        path = paths.ticks_manifest(Feed.parse(manifest.feed), manifest.day)
        msg = f"{store.uri_of(path)}: {failure}: {manifest.remedy}"
        raise Unreadable(msg) from failure
