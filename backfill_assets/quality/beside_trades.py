"""Compares tickers and liquidations with the trades of their markets, minute by minute.

The comparison runs once per set of files, after a fetch and before the day is settled. Decoding has made both
sides (``ticks.bands``, ``ticks.partials``), so no file of ticks is opened. Every stored version of the trades
takes part, with any verdict, and a minute agrees if it agrees with one version. So no verdict depends on
another, and a bad refresh of the trades takes nothing back.

If a price is not in the trades, either file may be damaged. The trades are the market, so the other feed
loses quality, and both warn.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.failures import DamagedFile
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import BesideTrades, PricesBesideTrades
from backfill_assets.lake.manifests import DayRecord, FeedManifest, Version, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.minute_numbers import Numbers, read_numbers
from backfill_assets.settings import RowSettings, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    #: Lowest and highest price of the trades by minute, from the last minute of the day before to the first
    #: of the day after; infinite where none was traded.
    TradedBand = tuple[Floats, Floats]

LOGGER: Final = logging.getLogger(__name__)
#: Increased when prices are compared in another way.
BESIDE_VERSION: Final = 1
#: Data types that are compared with the trades.
COMPARED: Final = ("derivative_ticker", "liquidations")
#: The price of a trade of the same market, as the venue reports it.
LAST: Final = "last_price"
INDEX: Final = "index_price"
_PADDED: Final = 1_442


def compare_with_trades(
    store: Store, record: DayRecord, manifests: Mapping[Feed, FeedManifest], settings: Settings
) -> int:
    """Compare every version of the day's tickers and liquidations with the trades, and store the results.

    Returns
    -------
    int
        How many versions were compared; comparisons that are still valid are not repeated.
    """
    known = {e.feed for e in record.expected_feeds}
    compared = [
        (feed, manifest)
        for feed, manifest in manifests.items()
        if feed in known and feed.data_type in COMPARED and manifest.versions
    ]
    day = _Day(store, record.day, settings.thresholds.rows, _trades(manifests))
    outdated = {feed: day.outdated(feed, manifest) for feed, manifest in compared}
    day.read(outdated)
    return sum(day.compare(feed, manifest, outdated[feed]) for feed, manifest in compared)


def _trades(manifests: Mapping[Feed, FeedManifest]) -> dict[str, list[tuple[Feed, Version]]]:
    """By exchange, the versions of trades whose minutes are stored."""
    found: dict[str, list[tuple[Feed, Version]]] = {}
    for feed, manifest in sorted(manifests.items()):
        if feed.type.has_trades:
            stored = [(feed, version) for version in manifest.versions if version.candles is not None]
            found.setdefault(feed.exchange, []).extend(stored)
    return found


def tolerance_of(column: str, limits: RowSettings) -> float:
    """How far a price may be from the trades of its minute and of the minutes beside it."""
    if column == LAST:
        return limits.last_price_tolerance
    return limits.liquidation_tolerance if column == "price" else limits.mark_tolerance


def own_units(beside: BesideTrades, limits: RowSettings) -> list[PricesBesideTrades]:
    """Index prices that alone are nearly always far from the trades: the index has another unit."""
    far = [one for one in beside.prices if one.outside and one.outside >= limits.habit_share * one.minutes]
    others = {one.dataset_symbol for one in far if one.column != INDEX}
    return [one for one in far if one.column == INDEX and one.dataset_symbol not in others]


def judged_prices(beside: BesideTrades | None, limits: RowSettings) -> list[PricesBesideTrades]:
    """The comparisons that count: all but those of ``own_units``."""
    if beside is None:
        return []
    left_out = own_units(beside, limits)
    return [one for one in beside.prices if one not in left_out]


@dataclass(slots=True)
class _Day:
    """The prices of a day; each file of minutes is read once."""

    store: Store
    day: str
    limits: RowSettings
    #: By exchange.
    trades: Mapping[str, Sequence[tuple[Feed, Version]]]
    _numbers: dict[tuple[Feed, str], Numbers | None] = field(default_factory=dict)
    _bands: dict[str, dict[str, TradedBand] | None] = field(default_factory=dict)
    _hashes: dict[str, str] = field(default_factory=dict)

    def outdated(self, feed: Feed, manifest: FeedManifest) -> list[Version]:
        """The versions with numbers that were not compared with these trades under these settings."""
        former, inputs = manifest.beside_trades, self._inputs(feed.exchange)
        return [
            version
            for version in manifest.versions
            if version.minute_numbers is not None
            and (version.content not in former or former[version.content].inputs != inputs)
        ]

    def read(self, outdated: Mapping[Feed, Sequence[Version]]) -> None:
        """Read the bands of these versions where the exchange has trades."""
        wanted = [
            (feed, version)
            for feed, versions in outdated.items()
            for version in versions
            if self.trades.get(feed.exchange)
        ]
        self._numbers = read_numbers(self.store, self.day, wanted)

    def compare(self, feed: Feed, manifest: FeedManifest, outdated: Sequence[Version]) -> int:
        """Compare these versions and store the results beside those that hold."""
        former = manifest.beside_trades
        made = {v.content: self._compared(feed, v, former.get(v.content)) for v in outdated}
        every = {**former, **made}
        found = {v.content: every[v.content] for v in manifest.versions if v.content in every}
        if found != former:
            change = {"beside_trades": found}
            update_manifest(self.store, feed, self.day, lambda held: held.model_copy(update=change))
        return len(outdated)

    def _limits(self) -> str:
        limits = self.limits
        tolerances = (limits.last_price_tolerance, limits.mark_tolerance, limits.liquidation_tolerance)
        return ":".join(map(str, (BESIDE_VERSION, *tolerances)))

    def _inputs(self, exchange: str) -> str:
        if exchange not in self._hashes:
            parts = [self._limits()]
            trades = self.trades.get(exchange, ())
            parts += [f"{feed}:{version.candles.file.content}" for feed, version in trades if version.candles]
            self._hashes[exchange] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return self._hashes[exchange]

    def _compared(self, own: Feed, version: Version, former: BesideTrades | None) -> BesideTrades:
        there: set[str] = set()
        prices = []
        numbers = self._numbers.get((own, version.content), ())
        bands = [(feed, self._of(feed, trades)) for feed, trades in self.trades.get(own.exchange, ())]
        for symbol in numbers or ():
            traded = []
            for feed, of_feed in bands:
                if of_feed is not None and symbol.symbol in of_feed:
                    there.add(str(feed))
                    traded.append(of_feed[symbol.symbol])
            for column in sorted(symbol.packed) if symbol.symbol is not None else ():
                tolerance = tolerance_of(column, self.limits)
                minutes, outside = _beside(symbol.bands(column), traded, column, tolerance)
                prices.append(
                    PricesBesideTrades(
                        dataset_symbol=symbol.dataset_symbol,
                        symbol=symbol.symbol or "",
                        column=column,
                        minutes=minutes,
                        outside=len(outside),
                        first=outside[0] if outside else None,
                    )
                )
        is_read = numbers is not None and all(of_feed is not None for _, of_feed in bands)
        found = BesideTrades(
            # Without inputs the next run compares again: a file could not be read.
            inputs=self._inputs(own.exchange) if is_read else "",
            limits=self._limits(),
            trades=tuple(sorted(there)),
            prices=tuple(prices),
        )
        return _with_former(found, former) if former is not None else found

    def _of(self, feed: Feed, version: Version) -> dict[str, TradedBand] | None:
        """The bands of a version's trades by canonical symbol; None for a damaged file."""
        if version.candles is None:
            return {}
        content = version.candles.file.content
        if content not in self._bands:
            try:
                self._bands[content] = self._read(paths.partials_data(feed, self.day, content))
            except DamagedFile as failure:
                LOGGER.warning("prices are not compared with the trades of %s: %s", feed, failure)
                self._bands[content] = None
        return self._bands[content]

    def _read(self, path: str) -> dict[str, TradedBand]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self.store.local_copy(path) as file:
            table = pq.read_table(file, columns=["symbol", "open_time", "low", "high"], partitioning=None)
        opened = table["open_time"].cast(pa.int64()).to_numpy()
        minutes = (opened - start_us(self.day)) // MICROSECONDS_PER_MINUTE + 1
        is_near = (minutes >= 0) & (minutes < _PADDED)
        names = np.asarray(table["symbol"].to_pylist(), object)
        low, high = (table[name].to_numpy() for name in ("low", "high"))
        found: dict[str, TradedBand] = {}
        for name in {*names.tolist()}:
            own = is_near & (names == name)
            lows, highs = np.full(_PADDED, np.inf), np.full(_PADDED, -np.inf)
            lows[minutes[own]], highs[minutes[own]] = low[own], high[own]
            found[name] = (lows, highs)
        return found


def _with_former(found: BesideTrades, former: BesideTrades) -> BesideTrades:
    """For each price the better of this comparison and the former one, whose files may be gone."""
    if former.limits != found.limits:
        return found
    prices = {(one.dataset_symbol, one.column): one for one in former.prices}
    for one in found.prices:
        key = (one.dataset_symbol, one.column)
        prices[key] = _agreeing(one, prices.get(key))
    trades = tuple(sorted({*found.trades, *former.trades}))
    return found.model_copy(update={"prices": tuple(prices.values()), "trades": trades})


def _agreeing(now: PricesBesideTrades, before: PricesBesideTrades | None) -> PricesBesideTrades:
    """The comparison in which more minutes agreed, of as many minutes as either could compare.

    A former one of few minutes without a fault says nothing of the others.
    """
    if before is None or before.minutes - before.outside <= now.minutes - now.outside:
        return now
    minutes = max(now.minutes, before.minutes)
    outside = minutes - (before.minutes - before.outside)
    first = (now.first if before.first is None else before.first) if outside else None
    return before.model_copy(update={"minutes": minutes, "outside": outside, "first": first})


def _beside(band: Any, traded: Sequence[TradedBand], column: str, tolerance: float) -> tuple[int, list[int]]:
    """How many minutes could be compared, and which of them agree with no trades.

    A minute is compared with the trades in it and in both minutes beside it; without trades there it is
    skipped. The last price is the price of the last trade, so it is also compared with the last earlier
    minute that has trades, and is skipped until there is one.
    """
    import numpy as np

    at = band["minute"].astype(np.int64) + 1
    asked, agreed = np.zeros(len(at), bool), np.zeros(len(at), bool)
    for lows, highs in traded:
        is_asked, before = np.isfinite(lows[[at - 1, at, at + 1]]).any(axis=0), at - 1
        if column == LAST:
            before = np.maximum.accumulate(np.where(np.isfinite(lows), np.arange(_PADDED), -1))[before]
            is_asked &= before >= 0
        # Rounded as the bands are: equal prices agree under a tolerance of 0, too.
        low = lows[[before, at, at + 1]].min(axis=0).astype(np.float32)
        high = highs[[before, at, at + 1]].max(axis=0).astype(np.float32)
        asked |= is_asked
        agreed |= is_asked & (band["low"] * (1 + tolerance) >= low) & (band["high"] <= high * (1 + tolerance))
    return int(asked.sum()), band["minute"][asked & ~agreed].tolist()
