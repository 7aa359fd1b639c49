"""The document of a day's candles: its files, their inputs, their consistency, and the states of minutes.

``candles`` computes and writes it once per change; all other code only reads it. Only the document is here,
because the scores of a day, which lie upstream of candles, take the consistency of its feeds from it.
"""

from __future__ import annotations

from typing import Any

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile as DataFile
from backfill_assets.quality.findings import Finding

#: Rows of a table of findings: names and values.
Rows = tuple[dict[str, Any], ...]


class LastTrade(Document):
    """The last trade of a market within a day, by one file of trades."""

    time_us: int
    #: Negative where ids do not give an order.
    trade_id: int
    price: float

    def is_after(self, other: LastTrade) -> bool:
        """Whether this is the later trade; without ids it is, because ``other`` is of an earlier file."""
        if self.time_us != other.time_us:
            return self.time_us > other.time_us
        return self.trade_id < 0 or self.trade_id >= other.trade_id


class TradesFile(Document):
    """One accepted file of trades: its partial candles, and how they compare with its rows.

    Attributes
    ----------
    content
        sha256 of the ticks.
    key
        Identifies the ticks and everything else that the partials were made from.
    partials
        The file of partial candles.
    compared
        sha256 of the partials that were compared with the ticks; empty if none were.
    buckets, mismatches
        K1: the number of base candles that were compared with those of another engine, and those that differ
        (all of them, up to a limit).
    rolled_up, rolled_up_misses
        K2: the number of candles of larger timeframes of the file's markets, and of those that are not the
        roll-up of the base candles.
    last_trades
        By day of exchange time and canonical symbol.
    without_volume
        Partial candles whose volumes are null, because the size of a contract is not known.
    """

    content: str
    key: str
    partials: DataFile
    compared: str = ""
    buckets: int = 0
    mismatches: Rows = ()
    rolled_up: int = 0
    rolled_up_misses: int = 0
    last_trades: dict[str, dict[str, LastTrade]] = {}
    without_volume: int = 0

    @property
    def is_compared(self) -> bool:
        """Whether exactly these partials were compared with exactly these ticks."""
        return self.compared == self.partials.content

    @property
    def consistency(self) -> float | None:
        """1 if both comparisons find no difference, else 0: a candle that is almost right is wrong.

        Null if not compared, or if volumes are unknown: then nothing shows that volumes are right.
        """
        if not self.is_compared:
            return None
        if self.mismatches or self.rolled_up_misses:
            return 0.0
        return None if self.without_volume else 1.0


class FeedMinutes(Document):
    """States of a feed's 1,440 minutes by canonical symbol, run by run (``quality.bucket_states``).

    ``flagged`` are the minutes whose high or low is the price of an unconfirmed spike.
    """

    symbols: dict[str, str]
    flagged: dict[str, tuple[int, ...]] = {}


class DayMeasures(Derived):
    """A day of candles.

    Attributes
    ----------
    inputs
        Hash of everything that candles and coverage depend on; empty until they were made.
    method
        Hash of the inputs that are not data: the settings and the version of the code; empty in older
        documents.
    versions
        By day (the one before, the day, the one after), a hash of the accepted files of trades.
    files
        The day's own accepted files of trades, by feed.
    candles, coverage
        The Parquet files; null until they were made.
    minutes
        By feed of trades, also of feeds that are not accepted.
    between_timeframes
        K2: larger candles that are not the roll-up of the base candles (up to a limit).
    findings
        Results of the checks of both files, by check; null where the check has to read the file itself.
    venues, symbols
        K5 and K6: for each market that could be compared, the number of minutes that agree.
    volumes
        K7: hours with a volume far beyond the market's usual one.
    """

    day: str
    inputs: str = ""
    method: str = ""
    versions: dict[str, str] = {}
    files: dict[str, TradesFile] = {}
    candles: DataFile | None = None
    coverage: DataFile | None = None
    minutes: dict[str, FeedMinutes] = {}
    between_timeframes: Rows = ()
    findings: dict[str, Finding] | None = None
    venues: Rows = ()
    symbols: Rows = ()
    volumes: Rows = ()

    def consistency(self, feed: Feed, content: str) -> float | None:
        """Consistency of this version; null if exactly it was not compared, or if its volumes are unknown."""
        file = self.files.get(str(feed))
        return file.consistency if file is not None and file.content == content else None

    def lacks_volumes(self, feed: Feed, content: str) -> bool:
        """Whether this version was compared and some of its volumes are unknown."""
        file = self.files.get(str(feed))
        compared = file is not None and file.content == content and file.is_compared
        return compared and file is not None and file.without_volume > 0


def load_measures(store: Store, day: str) -> DayMeasures | None:
    """Return the document of the day's candles; None if there is none."""
    return documents.load(store, paths.measures(day), DayMeasures)
