"""Finds the feeds and days in a directory of own files, and the files without a place.

The vendor's own client asks a stand-in on loopback that serves the directory, so the pipeline will read the
files as they are read here. No other server is asked, and no file is changed. The name and the first bytes of
each file are examined; the run judges the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backfill_assets.days import day_range, utc_now
from backfill_assets.failures import PermanentFailure, printable
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.settings import TardisSettings, UniverseEntry
from backfill_assets.standins.directory import GZIP_MAGIC, HEAD_BYTES, DatasetsDirectory
from backfill_assets.standins.file_names import LAYOUT, METADATA_LAYOUT, shown_reasons
from backfill_assets.standins.metadata import first_day_not_exported
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.columns import csv_header
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument, InstrumentList, dataset_symbol
from backfill_assets.tardis.symbols import resolve
from backfill_assets.venues import EXCHANGES
from backfill_assets.yaml_files import did_you_mean

_ALL_KINDS: Final = ("spot", "perpetual", "future")
#: Characters of a header that a message quotes.
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class FoundFeed:
    """A feed with files, and the symbol by which a universe names it."""

    feed: Feed
    symbol: str
    days: tuple[str, ...]

    @property
    def line(self) -> str:
        """The feed as one line for people."""
        first, last = self.days[0], self.days[-1]
        span = len(day_range(first, last))
        missing = f", {span - len(self.days)} between them without a file" if span > len(self.days) else ""
        return f"{self.feed} as {self.symbol}: {first} to {last}{missing}"


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """The feeds, days and misplaced files of a directory."""

    feeds: tuple[FoundFeed, ...]
    #: Files without a place, relative to the directory, and the reasons.
    unplaced: tuple[tuple[str, str], ...]

    @property
    def universe(self) -> list[dict[str, Any]]:
        """Entries of a settings file that expect exactly these feeds."""
        types: dict[tuple[str, str], list[str]] = {}
        for found in self.feeds:
            types.setdefault((found.feed.exchange, found.symbol), []).append(found.feed.data_type)
        entries: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (exchange, symbol), data_types in types.items():
            entries.setdefault((exchange, tuple(data_types)), []).append(symbol)
        return [
            {"exchanges": [exchange], "symbols": symbols, "data_types": [*data_types]}
            for (exchange, data_types), symbols in entries.items()
        ]

    @property
    def days(self) -> tuple[str, ...]:
        """The days with a file, in order; never empty."""
        return tuple(sorted({day for found in self.feeds for day in found.days}))

    @property
    def odd_exchanges(self) -> dict[str, str]:
        """Exchanges that are not among the vendor's known ones, with the nearest known names."""
        odd = sorted({found.feed.exchange for found in self.feeds} - EXCHANGES)
        return {exchange: hint for exchange in odd if (hint := did_you_mean(exchange, EXCHANGES))}


def look_at(folder: Path) -> OwnFiles:
    """Find the feeds of the files in the directory.

    Raises
    ------
    PermanentFailure
        The directory does not exist, none of its files has a place, or metadata beside them cannot be used.
    """
    source = DatasetsDirectory(folder)
    days, unplaced = _placed(source)
    for exchange in source.exchanges:
        # Read before the server is asked: its client does not know that files are behind an answer.
        source.exchange_details(exchange)
        source.instruments(exchange)
    feeds: list[FoundFeed] = []
    with TardisStandin(datasets_dir=folder) as standin:
        endpoint = f"{standin.url}/v1"
        client = TardisClient(TardisSettings(api_endpoint=endpoint, api_key="", retry_budget_seconds=0))
        for exchange in source.exchanges:
            details, instruments = client.exchange_details(exchange), client.instruments(exchange)
            for feed in sorted(f for f in days if f.exchange == exchange):
                symbol, why = _symbol_of(feed, max(days[feed]), details, instruments)
                if symbol:
                    feeds.append(FoundFeed(feed, symbol, tuple(sorted(days[feed]))))
                else:
                    unplaced += [(source.name_of(path), why) for _, path in sorted(days[feed].items())]
    if not feeds:
        msg = f"no file of {folder} has a place: {shown_reasons(sorted(unplaced)) or LAYOUT}"
        raise PermanentFailure(msg)
    return OwnFiles(tuple(feeds), tuple(sorted(unplaced)))


def _placed(source: DatasetsDirectory) -> tuple[dict[Feed, dict[str, Path]], list[tuple[str, str]]]:
    """Return the files by feed and day, and those without a place with the reason."""
    days: dict[Feed, dict[str, Path]] = {}
    unplaced = [(source.name_of(path), METADATA_LAYOUT) for path in source.unused_metadata()]
    not_over = first_day_not_exported(utc_now(), None)
    for path in source.paths():
        placed = source.place(path)
        if placed is None:
            why = source.why_not(path)
        elif placed.day >= not_over:
            why = f"{placed.day} is not over: a day is read from 06:00 UTC of the next one on"
        else:
            why = _fault_of(path, placed.feed.data_type)
            served = path if why else source.dataset(placed.feed, placed.day)
            if served != path:
                why = f"{source.name_of(served)} has the same feed and day, and is read: remove one of them"
        if placed is None or why:
            unplaced.append((source.name_of(path), why))
        else:
            days.setdefault(placed.feed, {})[placed.day] = path
    return days, unplaced


def _fault_of(path: Path, data_type: str) -> str:
    """Return why the file cannot match its name, judged by its first bytes; empty if it may match."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not head:
        return "it is empty: download it again"
    if not head.startswith(GZIP_MAGIC):
        return "it is not a gzip file: download it again, or gzip it"
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = inflating.decompress(head, HEAD_BYTES)
    except zlib.error:
        return "its gzip is damaged: download it again"
    if len(head) < HEAD_BYTES and not inflating.eof and not inflating.unconsumed_tail:
        return "it is cut off: download it again"
    # A file without any text has no rows.
    header = text.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r").replace('"', "")
    wanted = csv_header(data_type)
    if header and not f"{header},".startswith(f"{wanted},"):
        shown = printable(header if len(header) <= _SHOWN else f"{header[:_SHOWN]}…")
        return f"its header is not that of {data_type}, but '{shown}'"
    return ""


def _symbol_of(
    feed: Feed, day: str, details: ExchangeDetails, instruments: InstrumentList
) -> tuple[str, str]:
    """Return the symbol by which a universe expects just this feed on the day, or why there is none."""
    own = [i for i in instruments.instruments if i.dataset_symbol == feed.dataset_symbol]
    if why := _why_unknown(feed, details, instruments, own):
        return "", why
    names = [name for i in own for name in (i.market, i.canonical) if name]
    problems: list[str] = []
    for symbol in [feed.dataset_symbol] if feed.is_grouped else [*names, feed.dataset_symbol]:
        try:
            entry = UniverseEntry(
                exchanges=(feed.exchange,),
                symbols=(symbol,),
                data_types=(feed.data_type,),
                instrument_types=_ALL_KINDS,
            )
            found = resolve([entry], day, {feed.exchange: details}, {feed.exchange: instruments})
        except PermanentFailure as failure:
            # The part after the colon is a remedy for settings that a person has written.
            problems.append(str(failure).partition(": ")[0])
        except ValueError:
            problems.append(f"settings cannot name the symbol {symbol}")
        else:
            if _is_just(found.expected, feed):
                return symbol, ""
            problems += [f"it is not listed on {day} ({gone.reason})" for gone in found.not_listed]
    rivals = next((problem for problem in problems if "stands for several" in problem), "")
    if rivals:
        beside = f"save exchanges/{feed.exchange}.json beside the files, with the days of each"
        return "", f"{rivals}: keep the files of one, or {beside}"
    if not feed.is_grouped and not names:
        return "", _nothing_says(feed, "its currencies cannot be read from its name")
    return "", problems[0] if problems else f"other feeds also have its name {names[0]}"


def _why_unknown(
    feed: Feed, details: ExchangeDetails, instruments: InstrumentList, own: Sequence[Instrument]
) -> str:
    """Return the reason why the metadata do not identify the symbol; empty if they do."""
    right = dataset_symbol(feed.dataset_symbol)
    if feed.dataset_symbol != right:
        return f"the vendor writes its symbol {right}: rename the file"
    anew = "does not list it: save the vendor's answer again, or remove that file"
    if right not in {dataset_symbol(symbol.id) for symbol in details.datasets.symbols}:
        return f"exchanges/{feed.exchange}.json {anew}"
    if feed.is_grouped and instruments.source != "instruments":
        return _nothing_says(feed, "nothing says which symbols it has")
    if not feed.is_grouped and not own:
        return f"instruments/{feed.exchange}.json {anew}"
    return ""


def _nothing_says(feed: Feed, fault: str) -> str:
    return f"{fault}: save instruments/{feed.exchange}.json beside the files"


def _is_just(expected: tuple[ExpectedFeed, ...], feed: Feed) -> bool:
    return [one.feed for one in expected] == [feed]
