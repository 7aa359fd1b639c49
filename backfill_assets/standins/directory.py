"""Data sets from a directory of real files.

A file lies at ``{exchange}/{data_type}/YYYY/MM/DD/SYMBOL.csv.gz`` as in the vendor's URLs, with or without
the URL's ``v1/`` before it, or directly in the directory as the vendor's client names it,
``{exchange}_{data_type}_{YYYY-MM-DD}_{SYMBOL}.csv.gz``. The vendor's metadata may lie beside the files, as it
answers them: ``instruments/{exchange}.json`` and ``exchanges/{exchange}.json``. Without them, what is listed
is read off the files' names, and nothing is invented: currencies and kinds are guessed by their names,
increments and multipliers are unknown.

Files may be added while the server runs: they are served at once, and listed by the next walk through the
directory. The last day with a file is the exchange's last exported day; later days are not known yet. A
symbol stays listed from its first file on, since a missing file does not tell that the symbol has ended.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from backfill_assets.days import is_day
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS, Feed
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.sources import (
    INVALID_SYMBOL,
    NOT_ON_THAT_DAY,
    DatasetGroup,
    Json,
    NoDatasetError,
)
from backfill_assets.tardis.fallback import guess_currencies
from backfill_assets.tardis.metadata import dataset_symbol
from backfill_assets.tardis.symbols import GROUP_KINDS

SUFFIX: Final = ".csv.gz"
LAYOUT: Final = "EXCHANGE/DATA_TYPE/YYYY/MM/DD/SYMBOL.csv.gz or EXCHANGE_DATA_TYPE_YYYY-MM-DD_SYMBOL.csv.gz"
_FLAT: Final = re.compile(rf"([^_]+)_({'|'.join(DATA_TYPES)})_(\d{{4}}-\d\d-\d\d)_(.+)")
_SAFE_NAME: Final = re.compile(r"[^/\\\0]+")
_METADATA: Final = ("instruments", "exchanges")

#: Venues that list no spot markets, by the ends of their ids.
_DERIVATIVE_VENUES: Final = (
    "-futures", "-swap", "-delivery", "-derivatives", "-options",
    "bitmex", "bybit", "cryptofacilities", "deribit", "dydx", "hyperliquid",
)  # fmt: skip
_OPTION: Final = re.compile(r"-\d+(D\d+)?-[CP]$")
_FUTURE: Final = re.compile(r"[-_]?(\d{1,2}[A-Z]{3}\d{2}|\d{6}|\d{8}|[FGHJKMNQUVXZ]\d{2})$")
_SPOT_NAME: Final = re.compile(r"-SPOT$")
#: Enough of a file to hold its header and its first row.
_HEAD_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file of the directory, and the feed and day that its name says."""

    path: Path
    feed: Feed
    day: str


#: By exchange, (data type, symbol) and day.
_Files = dict[str, dict[tuple[str, str], dict[str, Path]]]
#: What a walk through the directory has found holds for so many times as long as the walk took.
_REST: Final = 10


@dataclass(frozen=True, slots=True)
class _Index:
    files: _Files
    #: On the monotonic clock.
    until: float


class DatasetsDirectory:
    """A source of data sets for the stand-in server.

    Raises
    ------
    PermanentFailure
        The directory does not exist or holds no data set.
    """

    def __init__(self, root: Path) -> None:
        self._index: _Index | None = None
        self.top = root.expanduser().resolve()
        self.root = self.top / "v1" if (self.top / "v1").is_dir() else self.top
        if not self.root.is_dir():
            msg = f"there is no directory {root}: give one with --datasets that holds {LAYOUT}"
            raise PermanentFailure(msg)
        if not self.exchanges:
            msg = f"{root} holds no data sets: its files must lie at {LAYOUT}"
            raise PermanentFailure(msg)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Exchanges that have at least one data set."""
        return tuple(sorted(self._files()))

    def files(self) -> Iterator[PlacedFile]:
        """Every file whose name says what it is."""
        return (found for path in self.paths() if (found := self.place(path)) is not None)

    def paths(self) -> Iterator[Path]:
        """Every file of the directory, in order, but not the metadata."""
        for folder, folders, names in os.walk(self.top):
            folders[:] = sorted(n for n in folders if Path(folder) != self.top or n not in _METADATA)
            yield from (Path(folder, name) for name in sorted(names))

    def place(self, path: Path) -> PlacedFile | None:
        """What the file's name says; None where it says nothing that is known."""
        name = path.name.removesuffix(SUFFIX)
        if name == path.name:
            return None
        if path.parent == self.top and (flat := _FLAT.fullmatch(name)):
            exchange, data_type, day, symbol = flat.groups()
        elif path.is_relative_to(self.root) and len(parts := path.relative_to(self.root).parts) == 6:
            exchange, data_type, day, symbol = parts[0], parts[1], "-".join(parts[2:5]), name
        else:
            return None
        known = data_type in DATA_TYPES and is_day(day)
        return PlacedFile(path, Feed(exchange, data_type, symbol), day) if known else None

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        """Each symbol that has files, listed from its first day on."""
        by_symbol: dict[str, dict[str, dict[str, Path]]] = {}
        for (data_type, symbol), days in self._days(exchange).items():
            if symbol not in GROUPED_SYMBOLS:
                by_symbol.setdefault(symbol, {})[data_type] = days
        return tuple(_listing(exchange, symbol, by_symbol[symbol]) for symbol in sorted(by_symbol))

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:
        """Return the grouped symbols that have files."""
        found = []
        for group in GROUPED_SYMBOLS:
            days = {t: days for (t, symbol), days in self._days(exchange).items() if symbol == group}
            if days:
                since = min(min(of_type) for of_type in days.values())
                found.append(DatasetGroup(group, GROUP_KINDS[group], tuple(days), since))
        return tuple(found)

    def instruments(self, exchange: str) -> list[Json] | None:
        """The vendor's answer beside the files; None where there is none."""
        answer = self._metadata("instruments", exchange, list)
        return answer if answer is None else [one for one in answer if isinstance(one, dict)]

    def exchange_details(self, exchange: str) -> Json | None:
        """The vendor's answer beside the files; None where there is none."""
        answer: Json | None = self._metadata("exchanges", exchange, dict)
        return answer

    def last_day(self, exchange: str) -> str | None:
        """Last day with a file of any symbol."""
        return max(max(found) for found in self._days(exchange).values())

    def dataset(self, feed: Feed, day: str) -> Path:
        """Return the path of the file, or raise ``NoDatasetError``."""
        parts = (feed.exchange, feed.data_type, feed.dataset_symbol)
        if not all(_SAFE_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
            raise NoDatasetError(INVALID_SYMBOL, f"invalid data set {feed}")
        in_url = self.root / feed.exchange / feed.data_type / day.replace("-", "/")
        flat = "_".join((feed.exchange, feed.data_type, day, feed.dataset_symbol))
        for path in (in_url / f"{feed.dataset_symbol}{SUFFIX}", self.top / f"{flat}{SUFFIX}"):
            if path.is_file():
                return path
        if (feed.data_type, feed.dataset_symbol) in self._days(feed.exchange):
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available for {day}")
        raise NoDatasetError(INVALID_SYMBOL, f"invalid symbol '{feed.dataset_symbol}' for {feed.exchange}")

    def _days(self, exchange: str) -> dict[tuple[str, str], dict[str, Path]]:
        """Files by day per (data type, symbol), in the order of data types and names."""
        order = {name: n for n, name in enumerate(DATA_TYPES)}
        found = self._files().get(exchange, {})
        return dict(sorted(found.items(), key=lambda one: (order[one[0][0]], one[0][1])))

    def _files(self) -> _Files:
        """Every placed file by exchange, (data type, symbol) and day."""
        known, now = self._index, time.monotonic()
        if known is not None and now < known.until:
            return known.files
        files: _Files = {}
        for placed in self.files():
            key = placed.feed.data_type, placed.feed.dataset_symbol
            files.setdefault(placed.feed.exchange, {}).setdefault(key, {})[placed.day] = placed.path
        done = time.monotonic()
        self._index = _Index(files, done + _REST * (done - now))
        return files

    def _metadata(self, folder: str, exchange: str, form: type) -> Any:
        path = self.top / folder / f"{exchange}.json"
        if not path.is_file():
            return None
        try:
            answer = json.loads(path.read_bytes())
        except ValueError as error:
            msg = f"{path} is no JSON ({error}): save the vendor's answer there, or remove the file"
            raise PermanentFailure(msg) from error
        if not isinstance(answer, form):
            kind = "list of instruments" if form is list else "description of an exchange"
            msg = f"{path} holds no {kind}: save the vendor's answer there, or remove the file"
            raise PermanentFailure(msg)
        return answer


def _listing(exchange: str, symbol: str, files: Mapping[str, Mapping[str, Path]]) -> Listing:
    """The symbol, listed from the day of its first file on; ``files`` by data type and day."""
    first, path = min(one for of_type in files.values() for one in of_type.items())
    name = column_symbol(path, symbol)
    base, quote = guess_currencies(name) or ("", "")
    return Listing(
        exchange=exchange,
        native_id=name,
        dataset_symbol=symbol,
        column_symbol=name,
        base=base,
        quote=quote,
        type=kind_of(exchange, symbol),
        since=first,
        data_types=tuple(files),
    )


def kind_of(exchange: str, symbol: str) -> str:
    """Guess the kind of instrument by its venue and name."""
    if _OPTION.search(symbol):
        return "option"
    if _SPOT_NAME.search(symbol) or not exchange.endswith(_DERIVATIVE_VENUES):
        return "spot"
    return "future" if _FUTURE.search(symbol) else "perpetual"


def column_symbol(path: Path, symbol: str) -> str:
    """The symbol as the file's first row writes it; ``symbol`` itself where that is of another."""
    about = path.stat()
    name = _second_cell(path, about.st_mtime_ns, about.st_size)
    return name if dataset_symbol(name) == symbol.upper() else symbol


@lru_cache(maxsize=100_000)
def _second_cell(path: Path, changed_ns: int, size: int) -> str:
    del changed_ns, size
    try:
        with path.open("rb") as file:
            head = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(_HEAD_BYTES), _HEAD_BYTES)
        return head.decode("utf-8-sig", "replace").splitlines()[1].split(",")[1].strip('"')
    except (zlib.error, IndexError):
        return ""
