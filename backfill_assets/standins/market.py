"""The generated market: which data sets there are, and the bytes of each of them.

A facade over the modules that make rows. Everything follows from the seed: the same request gives the same
bytes, in any order and on any machine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import polars as pl

from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS, Feed
from backfill_assets.standins.books import book_frame
from backfill_assets.standins.catalogue import CATALOGUE, GROUPS, OPTIONS
from backfill_assets.standins.csvtext import EMPTY_FILE, gzip_csv
from backfill_assets.standins.derivatives import (
    derivative_ticker_frame,
    liquidations_frame,
    options_chain_frame,
)
from backfill_assets.standins.listings import Listing, Stream
from backfill_assets.standins.metadata import instrument
from backfill_assets.standins.sources import (
    INVALID_SYMBOL,
    NOT_ON_THAT_DAY,
    DatasetGroup,
    Json,
    NoDatasetError,
)
from backfill_assets.standins.trades import Trades, file_trades, stream_trades, trade_frames

#: Files kept in memory; a pipeline asks for each file about once, tests ask again.
_CACHE_BYTES: Final = 128 * 2**20
_FEWEST_ROWS: Final = 100


class Market:
    """A source of data sets for the stand-in server.

    Parameters
    ----------
    seed
        Another seed is another market.
    rows
        Ids spent on an average day per (exchange, canonical symbol) where the default is not wanted, for
        example ``{("binance", "BTC-USDT"): 5_000_000}``. It holds for all days of the stream, whose ids
        therefore stay contiguous.
    streams
        What the venues trade besides options.
    """

    def __init__(
        self,
        seed: int = 1,
        rows: Mapping[tuple[str, str], int] | None = None,
        streams: Iterable[Stream] = CATALOGUE,
    ) -> None:
        self.seed = seed
        wanted = dict(rows or {})
        self._streams: dict[tuple[str, str], Stream] = {}
        for stream in streams:
            key = (stream.exchange, stream.canonical)
            count = max(_FEWEST_ROWS, wanted.pop(key, stream.rows_per_day))
            self._streams[key] = replace(stream, rows_per_day=count)
        if wanted:
            msg = f"the generated market has no {', '.join('/'.join(key) for key in wanted)}"
            raise KeyError(msg)
        self._cache: OrderedDict[tuple[Feed, str], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[tuple[Feed, str], threading.Lock] = {}

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Ids of all exchanges."""
        return tuple(dict.fromkeys([key[0] for key in self._streams] + ["deribit"]))

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        """Everything listed at the exchange, at any time."""
        if exchange == "deribit":
            return OPTIONS
        return tuple(
            s for stream in self._streams.values() if stream.exchange == exchange for s in stream.listings
        )

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:
        """Return the grouped symbols of the exchange."""
        return tuple(
            DatasetGroup(name, kind, data_types, min(s.since for s in self.listings(exchange)))
            for (venue, name), (kind, data_types) in GROUPS.items()
            if venue == exchange
        )

    def instruments(self, exchange: str) -> list[Json]:
        """Answer ``/v1/instruments/{exchange}``."""
        return [instrument(listing) for listing in self.listings(exchange)]

    def exchange_details(self, exchange: str) -> Json | None:  # noqa: ARG002 - the listings tell all there is
        """Nothing besides the listings."""
        return None

    def last_day(self, exchange: str) -> str | None:  # noqa: ARG002 - a source may end, the market does not
        """No last day: the market goes on."""
        return None

    def dataset(self, feed: Feed, day: str) -> bytes:
        """Return the csv.gz file; generated once at a time and kept for a while.

        Raises
        ------
        NoDatasetError
            The venue has no such symbol, data type or group, or not on that day.
        """
        key = (feed, day)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._cache:
                    self._cache.move_to_end(key)
                    return self._cache[key]
            content = self._generate(feed, day)
            with self._lock:
                self._cache[key] = content
                self._making.pop(key, None)
                while len(self._cache) > 1 and sum(map(len, self._cache.values())) > _CACHE_BYTES:
                    self._cache.popitem(last=False)
            return content

    def stream(self, exchange: str, symbol: str) -> Stream:
        """Return the stream of a canonical or data set symbol (``BTC-USDT``, ``BTCUSDT``, ``XBT-USDT``)."""
        for (venue, canonical), stream in self._streams.items():
            names = {canonical, *(listing.dataset_symbol for listing in stream.listings)}
            if venue == exchange and symbol in names:
                return stream
        msg = f"the generated market has no {exchange}/{symbol}"
        raise KeyError(msg)

    def trades(self, exchange: str, symbol: str, first_day: str, last_day: str) -> Trades:
        """All trades of the files of these days, in file order: the numbers that the files' text holds."""
        return stream_trades(self.seed, self.stream(exchange, symbol), first_day, last_day)

    def _generate(self, feed: Feed, day: str) -> bytes:
        if feed.data_type not in DATA_TYPES or feed.exchange not in self.exchanges:
            raise NoDatasetError(INVALID_SYMBOL, f"there is no data set {feed}")
        if feed.dataset_symbol in GROUPED_SYMBOLS:
            frame = self._group_frame(feed, day)
            return gzip_csv(feed.data_type, [frame]) if len(frame) else EMPTY_FILE
        named = [s for s in self.listings(feed.exchange) if s.dataset_symbol == feed.dataset_symbol]
        if not named:
            raise NoDatasetError(
                INVALID_SYMBOL, f"invalid symbol '{feed.dataset_symbol}' for exchange {feed.exchange}"
            )
        listing = next((s for s in named if s.listed_on(day)), None)
        if listing is None or feed.data_type not in listing.data_types:
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available for {day}")
        if feed.data_type == "trades":
            rows = file_trades(self.seed, self.stream(feed.exchange, feed.dataset_symbol), day)
            return gzip_csv("trades", trade_frames(listing, day, rows)) if len(rows) else EMPTY_FILE
        if feed.data_type == "derivative_ticker":
            return gzip_csv(feed.data_type, [derivative_ticker_frame(self.seed, listing, day)])
        if feed.data_type == "liquidations":
            return gzip_csv(feed.data_type, [liquidations_frame(self.seed, listing, day)])
        return gzip_csv(feed.data_type, [book_frame(self.seed, listing, feed.data_type, day)])

    def _group_frame(self, feed: Feed, day: str) -> pl.DataFrame:
        _, data_types = GROUPS.get((feed.exchange, feed.dataset_symbol), ("", ()))
        if feed.data_type not in data_types:
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available: no such group")
        since = min(s.since for s in self.listings(feed.exchange))
        if day < since:
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is available from {since}, not for {day}")
        if feed.data_type == "options_chain":
            return options_chain_frame(self.seed, day)
        frames: list[pl.DataFrame] = []
        for stream in self._streams.values():
            listing = stream.listing_on(day)
            if stream.exchange == feed.exchange and listing is not None:
                frames += trade_frames(listing, day, file_trades(self.seed, stream, day))
        return pl.concat(frames).sort("local_timestamp", maintain_order=True)
