"""The interface between the stand-in server and a source of data sets, and how a source refuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from backfill_assets.feeds import Feed
from backfill_assets.standins.listings import Listing

Json = dict[str, Any]
#: The vendor's codes in bodies of status 400.
INVALID_SYMBOL: Final = 300
NOT_ON_THAT_DAY: Final = 140


class NoDatasetError(LookupError):
    """The source has no such file; the server answers 400 with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class DatasetGroup:
    """A grouped symbol: its name, the kind of symbol in it, its data types, and its first day."""

    name: str
    type: str
    data_types: tuple[str, ...]
    since: str


class Source(Protocol):
    """Data sets and their listings."""

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Ids of all exchanges."""
        ...

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        """Everything listed at the exchange, at any time."""
        ...

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:
        """Return the grouped symbols of the exchange."""
        ...

    def instruments(self, exchange: str) -> list[Json] | None:
        """Answer ``/v1/instruments/{exchange}``; ``None`` if the source knows no instruments."""
        ...

    def exchange_details(self, exchange: str) -> Json | None:
        """Answer ``/v1/exchanges/{exchange}``; ``None`` if the listings are complete."""
        ...

    def last_day(self, exchange: str) -> str | None:
        """Last day that can be exported; ``None`` if only the clock limits it."""
        ...

    def dataset(self, feed: Feed, day: str) -> bytes | Path:
        """Return the csv.gz file, or raise ``NoDatasetError``."""
        ...
