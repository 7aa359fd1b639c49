"""Data sets from a directory of real files, laid out like the vendor's URLs.

``{exchange}/{data_type}/YYYY/MM/DD/SYMBOL.csv.gz``, with or without the URL's ``v1/`` before it. What is
listed is read off the file names at every request, so that files can be added while the server runs. The
last day with a file is the exchange's last exported day: what comes after it is not known yet. A symbol
whose files end earlier is delisted.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from backfill_assets.days import shift
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS, Feed
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.sources import INVALID_SYMBOL, NOT_ON_THAT_DAY, DatasetGroup, NoDatasetError

#: Longest first where one ends with another; the currencies pairs are quoted in.
_QUOTES: Final = ("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "GBP", "JPY", "ETH", "BTC", "BNB")
_RENAMED: Final = {"XBT": "BTC"}
_DERIVATIVE_VENUES: Final = ("-futures", "-swap", "-delivery", "-derivatives")
_DATE_DIRECTORIES: Final = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]"
_SAFE_NAME: Final = re.compile(r"[^/\\\0]+")
_GROUP_TYPES: Final = {"SPOT": "spot", "FUTURES": "future", "PERPETUALS": "perpetual", "OPTIONS": "option"}


def pair(dataset_symbol: str) -> tuple[str, str]:
    """Guess base and quote currency of ``BTC-USD``, ``XRPETH``, ``BTCUSDT``; an unknown quote is ''."""
    head, dash, tail = dataset_symbol.partition("-")
    if dash and tail in _QUOTES:
        return _RENAMED.get(head, head), tail
    plain = head.replace("_", "")
    for quote in _QUOTES:
        base = plain.removesuffix(quote)
        if base and base != plain:
            return _RENAMED.get(base, base), quote
    return dataset_symbol, ""


class DatasetsDirectory:
    """A source of data sets for the stand-in server.

    Raises
    ------
    PermanentFailure
        The directory does not exist or holds no data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        if (self.root / "v1").is_dir():
            self.root /= "v1"
        layout = "EXCHANGE/DATA_TYPE/YYYY/MM/DD/SYMBOL.csv.gz"
        if not self.root.is_dir():
            msg = f"there is no directory {root}: give one with --datasets that holds {layout}"
            raise PermanentFailure(msg)
        if not self.exchanges:
            msg = f"{root} holds no data sets: its files must lie at {layout}"
            raise PermanentFailure(msg)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Directories that hold at least one data set."""
        return tuple(sorted(p.name for p in self.root.iterdir() if p.is_dir() and self._days(p.name)))

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        """Each symbol that has files, listed from its first day on."""
        files: dict[str, dict[str, list[str]]] = {}
        for (data_type, symbol), days in self._days(exchange).items():
            if symbol not in GROUPED_SYMBOLS:
                files.setdefault(symbol, {})[data_type] = days
        return tuple(self._listing(exchange, symbol, files[symbol]) for symbol in sorted(files))

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:
        """Return the grouped symbols that have files."""
        groups: dict[str, DatasetGroup] = {}
        for (data_type, symbol), found in self._days(exchange).items():
            if symbol in GROUPED_SYMBOLS:
                known = groups.get(symbol, DatasetGroup(symbol, _GROUP_TYPES[symbol], (), min(found)))
                data_types = (*known.data_types, data_type)
                groups[symbol] = replace(known, data_types=data_types, since=min(known.since, min(found)))
        return tuple(groups.values())

    def last_day(self, exchange: str) -> str | None:
        """Last day with a file of any symbol."""
        return max(max(found) for found in self._days(exchange).values())

    def dataset(self, feed: Feed, day: str) -> Path:
        """Return the path of the file, or raise ``NoDatasetError``."""
        parts = (feed.exchange, feed.data_type, feed.dataset_symbol)
        if not all(_SAFE_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
            raise NoDatasetError(INVALID_SYMBOL, f"invalid data set {feed}")
        folder = self.root / feed.exchange / feed.data_type
        path = folder / day.replace("-", "/") / f"{feed.dataset_symbol}.csv.gz"
        if path.is_file():
            return path
        if (feed.data_type, feed.dataset_symbol) in self._days(feed.exchange):
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available for {day}")
        raise NoDatasetError(INVALID_SYMBOL, f"invalid symbol '{feed.dataset_symbol}' for {feed.exchange}")

    def _days(self, exchange: str) -> dict[tuple[str, str], list[str]]:
        """Days with a file per (data type, symbol), in the order of data types and names."""
        days: dict[tuple[str, str], list[str]] = {}
        for data_type in DATA_TYPES:
            for path in sorted((self.root / exchange / data_type).glob(f"{_DATE_DIRECTORIES}/*.csv.gz")):
                day = "-".join(path.parts[-4:-1])
                days.setdefault((data_type, path.name.removesuffix(".csv.gz")), []).append(day)
        return days

    def _listing(self, exchange: str, symbol: str, days: dict[str, list[str]]) -> Listing:
        base, quote = pair(symbol)
        perpetual = exchange.endswith(_DERIVATIVE_VENUES)
        last_day = max(max(found) for found in days.values())
        return Listing(
            exchange=exchange,
            native_id=symbol.lower() if exchange.startswith("binance") else symbol,
            dataset_symbol=symbol,
            column_symbol=symbol,
            base=base,
            quote=quote,
            type="perpetual" if perpetual else "spot",
            since=min(min(found) for found in days.values()),
            to=None if last_day == self.last_day(exchange) else shift(last_day, 1),
            data_types=tuple(days),
            details=(("contractMultiplier", 1), ("inverse", False)) if perpetual else (),
        )
