"""What a directory of own files holds: feeds, days, files without a place; and settings for them.

The vendor's own client asks a stand-in on loopback that serves the directory, so that the pipeline will read
the files as they are read here. Nothing else is asked, and no file is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from backfill_assets.days import day_range, is_day
from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.feeds import DATA_TYPES, ExpectedFeed, Feed
from backfill_assets.settings import TardisSettings, UniverseEntry, load_settings
from backfill_assets.standins.directory import DatasetsDirectory
from backfill_assets.standins.file_names import LAYOUT, SUFFIX
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.metadata import ExchangeDetails, InstrumentList
from backfill_assets.tardis.symbols import resolve
from backfill_assets.yaml_files import did_you_mean, read_mapping

#: The settings of a stand-in on loopback, of which the universe is replaced.
_TEMPLATE: Final = Path(__file__).parents[1] / "environments" / "local.yaml"
_ALL_KINDS: Final = ("spot", "perpetual", "future")


@dataclass(frozen=True, slots=True)
class FoundFeed:
    """A feed with files, and the symbol by which a universe names it."""

    feed: Feed
    symbol: str
    days: tuple[str, ...]

    @property
    def line(self) -> str:
        """The same for people."""
        first, last = self.days[0], self.days[-1]
        span = len(day_range(first, last))
        missing = f", {span - len(self.days)} between them without a file" if span > len(self.days) else ""
        return f"{self.feed} as {self.symbol}: {first} to {last}{missing}"


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """What was found in a directory."""

    feeds: tuple[FoundFeed, ...]
    #: Files without a place, relative to the directory, and why.
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
    def last_day(self) -> str:
        """The last day with a file."""
        return max(found.days[-1] for found in self.feeds)


def look_at(folder: Path) -> OwnFiles:
    """Find out which feeds the files of the directory are.

    Raises
    ------
    PermanentFailure
        The directory does not exist, none of its files has a place, or metadata beside them cannot be read.
    """
    source = DatasetsDirectory(folder)
    unplaced = [(path, _why_not(path)) for path in source.paths() if source.place(path) is None]
    days: dict[Feed, dict[str, Path]] = {}
    for placed in source.files():
        days.setdefault(placed.feed, {})[placed.day] = placed.path
    feeds: list[FoundFeed] = []
    with TardisStandin(datasets_dir=folder) as standin:
        endpoint = f"{standin.url}/v1"
        client = TardisClient(TardisSettings(api_endpoint=endpoint, api_key="", retry_budget_seconds=0))
        for exchange in source.exchanges:
            known = client.exchange_details(exchange), client.instruments(exchange)
            for feed in sorted(f for f in days if f.exchange == exchange):
                symbol, why = _symbol_of(feed, max(days[feed]), *known)
                if symbol:
                    feeds.append(FoundFeed(feed, symbol, tuple(sorted(days[feed]))))
                else:
                    unplaced += [(path, why) for _, path in sorted(days[feed].items())]
    relative = [(str(path.relative_to(source.top)), why) for path, why in unplaced]
    if not feeds:
        shown = f"{relative[0][0]}: {relative[0][1]}" if relative else LAYOUT
        msg = f"no file of {folder} has a place: {shown}"
        raise PermanentFailure(msg)
    return OwnFiles(tuple(feeds), tuple(sorted(relative)))


def write_settings(found: OwnFiles, file: Path) -> None:
    """Write a settings file that expects the feeds that were found.

    Raises
    ------
    BadInput
        There is such a file already.
    """
    content = {**read_mapping(_TEMPLATE, "settings"), "universe": found.universe}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    head = "# Own files, served by a stand-in for Tardis on loopback: nothing else is ever asked.\n"
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(head + text)
    except FileExistsError as error:
        msg = f"{file} is there already: name another one with --settings, or remove it"
        raise BadInput(msg) from error
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}: name another one with --settings"
        raise BadInput(msg) from error
    load_settings(file)


def lines(found: OwnFiles, folder: Path, file: Path, run: str) -> Iterator[str]:
    """What was found, for people, and how to run the last day of it by the command ``run``."""
    yield from (one.line for one in found.feeds)
    if found.unplaced:
        yield f"{len(found.unplaced)} files have no place:"
        yield from (f"  {name}: {why}" for name, why in found.unplaced)
    served = f"backfill-assets standins --datasets {shlex.quote(str(folder))}"
    yield f"{file} expects these feeds; the last day runs by"
    yield f"  BACKFILL_ENV={shlex.quote(str(file))} {served} -- {run}"


def _symbol_of(
    feed: Feed, day: str, details: ExchangeDetails, instruments: InstrumentList
) -> tuple[str, str]:
    """The symbol by which a universe expects just this feed on the day, or why none does."""
    if feed.is_grouped:
        if instruments.source != "instruments":
            return (
                "",
                f"nothing says which symbols it has: save instruments/{feed.exchange}.json beside the files",
            )
        candidates = [feed.dataset_symbol]
    else:
        own = [i for i in instruments.instruments if i.dataset_symbol == feed.dataset_symbol]
        candidates = [name for i in own for name in (i.market, i.canonical) if name] + [feed.dataset_symbol]
    for symbol in candidates:
        try:
            entry = UniverseEntry(
                exchanges=(feed.exchange,),
                symbols=(symbol,),
                data_types=(feed.data_type,),
                instrument_types=_ALL_KINDS,
            )
            found = resolve([entry], day, {feed.exchange: details}, {feed.exchange: instruments})
        except (PermanentFailure, ValueError):
            continue
        if _is_just(found.expected, feed):
            return symbol, ""
    beside = f"save instruments/{feed.exchange}.json beside the files"
    return "", f"its currencies cannot be read off its name, or others have the same: {beside}"


def _is_just(expected: tuple[ExpectedFeed, ...], feed: Feed) -> bool:
    return [one.feed for one in expected] == [feed]


def _why_not(path: Path) -> str:
    if not path.name.endswith(SUFFIX):
        return f"it is no {SUFFIX} file"
    parts = path.parts[-6:-1] if len(path.parts) > 6 else ()
    if len(parts) == 5 and is_day("-".join(parts[2:])) and parts[1] not in DATA_TYPES:
        hint = did_you_mean(parts[1], DATA_TYPES)
        return f"{parts[1]} is no data type" + (f"; {hint}" if hint else "")
    return f"its name is not {LAYOUT}"
