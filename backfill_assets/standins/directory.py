"""Data sets from a directory of real files, named as in ``file_names``.

The vendor's metadata may lie beside the files (``metadata_files``). Without it the names of the files tell
which symbols are listed: currencies and kinds are guessed from the names, and increments and multipliers are
unknown.

Files may be added while the server runs: they are served at once, and listed by the next scan of the
directory. The last day with a file is the exchange's last exported day; later days are not known yet. A
symbol stays listed from its first file on, since a missing file does not mean that the symbol has ended.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS, Feed
from backfill_assets.standins import file_names
from backfill_assets.standins.file_names import LAYOUT, SUFFIX, PlacedFile, shown_reasons
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.metadata_files import EXCHANGES, INSTRUMENTS, details_beside, instruments_beside
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

_SAFE_NAME: Final = re.compile(r"[^/\\\0]+")
_METADATA: Final = (INSTRUMENTS, EXCHANGES)

#: Ends of the ids of venues that list no spot markets.
_DERIVATIVE_VENUES: Final = (
    "-futures", "-swap", "-delivery", "-derivatives", "-options",
    "bitmex", "bitnomial", "bybit", "cryptofacilities", "delta", "deribit", "dydx", "dydx-v4", "hyperliquid",
    "phemex",
)  # fmt: skip
_OPTION: Final = re.compile(r"-\d+(D\d+)?-[CP]$")
_FUTURE: Final = re.compile(r"[-_]?(\d{1,2}[A-Z]{3}\d{2}|\d{6}|\d{8}|[FGHJKMNQUVXZ]\d{2})$")
_SPOT_NAME: Final = re.compile(r"-SPOT$|^SPOT_")
_PERPETUAL_NAME: Final = re.compile(r"^(PERP|FX)_.+_|.-(PERP|PERPETUAL)$|.-SWAP\b")
#: The spot markets of BitMEX and Deribit: ``XBT_USDT``.
_SPOT_PAIR: Final = re.compile(r"[A-Z0-9]{2,}_[A-Z]{3,}")
#: Enough bytes of a file to hold its header and its first row.
HEAD_BYTES: Final = 4_096
GZIP_MAGIC: Final = b"\x1f\x8b"


#: By exchange, (data type, symbol) and day.
_Files = dict[str, dict[tuple[str, str], dict[str, Path]]]
#: The directory is scanned again after this multiple of the time that the last scan took.
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
        The directory does not exist or holds no data sets.
    """

    def __init__(self, root: Path) -> None:
        self._index: _Index | None = None
        self.top = root.expanduser().resolve()
        self.root = self.top / "v1" if (self.top / "v1").is_dir() else self.top
        if not self.root.is_dir():
            msg = f"there is no directory {root}: give one that holds {LAYOUT}"
            raise PermanentFailure(msg)
        if not self.exchanges:
            told = shown_reasons((self.name_of(path), self.why_not(path)) for path in self.paths())
            msg = f"{root} holds no data sets: {told or f'its files must lie at {LAYOUT}'}"
            raise PermanentFailure(msg)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Exchanges that have at least one data set."""
        return tuple(sorted(self._files()))

    def files(self) -> Iterator[PlacedFile]:
        """Every file whose name gives its feed and day."""
        return (found for path in self.paths() if (found := self.place(path)) is not None)

    def paths(self) -> Iterator[Path]:
        """Every file of the directory except the metadata, in order."""
        for folder, folders, names in os.walk(self.top):
            folders[:] = sorted(n for n in folders if Path(folder) != self.top or n not in _METADATA)
            yield from (Path(folder, name) for name in sorted(names))

    def unused_metadata(self) -> Iterator[Path]:
        """Metadata files for exchanges that have no data sets here, in order."""
        asked = {f"{exchange}.json" for exchange in self.exchanges}
        for folder in _METADATA:
            yield from sorted(path for path in self.top.glob(f"{folder}/*") if path.name not in asked)

    def place(self, path: Path) -> PlacedFile | None:
        """Read feed and day from the file's name; None if the name does not give them."""
        return file_names.place(self.top, self.root, path)

    def why_not(self, path: Path) -> str:
        """Return the reason why the file has no place."""
        return file_names.why_not(self.top, self.root, path)

    def name_of(self, path: Path) -> str:
        """The file's name for people: its path in the directory."""
        return str(path.relative_to(self.top))

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
        """Return the vendor's answer beside the files; None if there is none."""
        return instruments_beside(self.top, exchange)

    def exchange_details(self, exchange: str) -> Json | None:
        """Return the vendor's answer beside the files; None if there is none."""
        return details_beside(self.top, exchange)

    def last_day(self, exchange: str) -> str | None:
        """Last day with a file of any symbol."""
        return max(max(found) for found in self._days(exchange).values())

    def dataset(self, feed: Feed, day: str) -> Path:
        """Return the path of the file.

        Raises
        ------
        NoDatasetError
            The file does not exist.
        PermanentFailure
            The file is not a gzip file.
        """
        parts = (feed.exchange, feed.data_type, feed.dataset_symbol)
        if not all(_SAFE_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
            raise NoDatasetError(INVALID_SYMBOL, f"invalid data set {feed}")
        in_url = self.root / feed.exchange / feed.data_type / day.replace("-", "/")
        flat = "_".join((feed.exchange, feed.data_type, day, feed.dataset_symbol))
        for path in (in_url / f"{feed.dataset_symbol}{SUFFIX}", self.top / f"{flat}{SUFFIX}"):
            if path.is_file():
                _insist_on_gzip(path)
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


def _listing(exchange: str, symbol: str, files: Mapping[str, Mapping[str, Path]]) -> Listing:
    """Return the symbol, listed from the day of its first file on; ``files`` by data type and day."""
    first, path = min(one for of_type in files.values() for one in of_type.items())
    name = column_symbol(path, symbol)
    base, quote = guess_currencies(name, exchange=exchange) or ("", "")
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
    if _PERPETUAL_NAME.search(symbol) and exchange != "upbit":  # there PERP is a currency
        return "perpetual"
    is_pair = exchange in ("bitmex", "deribit") and _SPOT_PAIR.fullmatch(symbol)
    if is_pair or _SPOT_NAME.search(symbol) or not exchange.endswith(_DERIVATIVE_VENUES):
        return "spot"
    return "future" if _FUTURE.search(symbol) else "perpetual"


def _insist_on_gzip(path: Path) -> None:
    """Refuse a file that a client would request again and again; the decoder judges the rest of it."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        fault = "" if is_gzip else "is not a gzip file: download it again, or gzip it"
    except OSError as error:
        fault = f"cannot be read: {error.strerror}"
    if fault:
        msg = f"{path} {fault}"
        raise PermanentFailure(msg)


def column_symbol(path: Path, symbol: str) -> str:
    """Return the symbol as the first row of the file writes it; ``symbol`` if unreadable or different."""
    try:
        about = path.stat()
        name = _second_cell(path, about.st_mtime_ns, about.st_size)
    except OSError:
        return symbol
    return name if dataset_symbol(name) == symbol.upper() else symbol


@lru_cache(maxsize=100_000)
def _second_cell(path: Path, changed_ns: int, size: int) -> str:
    del changed_ns, size
    try:
        with path.open("rb") as file:
            head = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(HEAD_BYTES), HEAD_BYTES)
        return head.decode("utf-8-sig", "replace").splitlines()[1].split(",")[1].strip('"')
    except (zlib.error, IndexError):
        return ""
