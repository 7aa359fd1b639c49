"""Reads the feed and day from the name of an own file, or gives the reason why it has none.

A file lies at ``{exchange}/{data_type}/YYYY/MM/DD/SYMBOL.csv.gz`` as in the vendor's URLs, with or without
the URL's ``v1/`` before it. Or it lies directly in the directory, named as by the vendor's client,
``{exchange}_{data_type}_{YYYY-MM-DD}_{SYMBOL}.csv.gz``. Only names are read; no file is opened.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backfill_assets.days import is_day
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.readable_numbers import plural
from backfill_assets.yaml_files import did_you_mean

SUFFIX: Final = ".csv.gz"
LAYOUT: Final = "EXCHANGE/DATA_TYPE/YYYY/MM/DD/SYMBOL.csv.gz or EXCHANGE_DATA_TYPE_YYYY-MM-DD_SYMBOL.csv.gz"
METADATA_LAYOUT: Final = (
    "metadata are read from instruments/EXCHANGE.json and exchanges/EXCHANGE.json of an exchange with files"
)
#: The data types come first, because some have the separator in their names.
_FLAT: Final = re.compile(rf"([^_]+)_({'|'.join(DATA_TYPES)}|\w+?)_(\d{{4}}-\d\d-\d\d)_(.+)")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
#: The most different reasons that one message gives.
_REASONS_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file of the directory, with the feed and day from its name."""

    path: Path
    feed: Feed
    day: str


def place(top: Path, root: Path, path: Path) -> PlacedFile | None:
    """Read feed and day from the file's name; None if it has neither form or a part is unknown.

    Parameters
    ----------
    top
        The directory; it holds the files that are named as by the vendor's client.
    root
        The folder of exchanges: the same directory, or ``v1`` in it.
    """
    name = path.name.removesuffix(SUFFIX)
    said = _said(top, root, path)
    if name == path.name or said is None:
        return None
    exchange, data_type, day, symbol = said
    known = data_type in DATA_TYPES and is_day(day)
    return PlacedFile(path, Feed(exchange, data_type, symbol), day) if known else None


def why_not(top: Path, root: Path, path: Path) -> str:
    """Return the reason why ``place`` gives None, with the remedy if there is one."""
    if path.suffix == ".json":
        return METADATA_LAYOUT
    if path.suffix == ".csv":
        return f"it is not compressed: gzip {shlex.quote(str(path.parent))}/*.csv"
    if not path.name.endswith(SUFFIX):
        return f"it is not a {SUFFIX} file"
    said = _said(top, root, path)
    if said is not None:
        _, data_type, day, _ = said
        if data_type not in DATA_TYPES:
            hint = did_you_mean(data_type, DATA_TYPES)
            return f"{data_type} is not a data type" + (f"; {hint}" if hint else "")
        return f"{day} is not a day"
    if _FLAT.fullmatch(path.name.removesuffix(SUFFIX)):
        return f"files with such names belong in {top}"
    exchanges = path.parents[5] if len(path.parts) > 6 else top
    if exchanges != root and _said(top, exchanges, path) is not None:
        return f"its exchange lies in {exchanges}: give that folder"
    return f"its name is not {LAYOUT}"


def shown_reasons(unplaced: Iterable[tuple[str, str]]) -> str:
    """Join pairs of name and reason in one line: each reason once, with the first of its files."""
    names: dict[str, list[str]] = {}
    for name, why in unplaced:
        names.setdefault(why, []).append(name)
    told = []
    for why, (first, *more) in names.items():
        beside = f" and {plural(len(more), 'other file')}" if more else ""
        told.append(f"{first}{beside}: {why}")
    left = [f"and {plural(len(told) - _REASONS_TOLD, 'more reason')}"] if told[_REASONS_TOLD:] else []
    return "; ".join([*told[:_REASONS_TOLD], *left])


def _said(top: Path, root: Path, path: Path) -> tuple[str, str, str, str] | None:
    """Return exchange, data type, day and symbol from the name; None if it has neither form."""
    name = path.name.removesuffix(SUFFIX)
    if path.parent == top and (flat := _FLAT.fullmatch(name)):
        return flat[1], flat[2], flat[3], flat[4]
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    day = "-".join(parts[2:5])
    return (parts[0], parts[1], day, name) if len(parts) == 6 and _DATE.fullmatch(day) else None
