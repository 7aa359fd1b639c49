"""A published day as a source of the stand-in: its files, and the vendor's data about its instruments.

The vendor's answers are rebuilt from the rows that were made of them, so the pipeline makes the same rows
again. The days beside it are included as far as the lake has them, because they decide on its seams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic.alias_generators import to_camel

from backfill_assets.contracts import TERMS
from backfill_assets.days import shift
from backfill_assets.feeds import GROUPED_SYMBOLS, Feed
from backfill_assets.lake.listing import Outage
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.metadata import midnight
from backfill_assets.standins.sources import NOT_ON_THAT_DAY, DatasetGroup, Json, NoDatasetError
from backfill_assets.tardis.metadata import Instrument, day_bounds
from backfill_assets.tardis.symbols import GROUP_KINDS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Fields of the vendor's instruments that the table has under the same name.
_SAME_NAME: Final = frozenset(Instrument.model_fields) - {"id", "exchange", "dataset_id", "active", "changes"}


@dataclass(frozen=True, slots=True)
class ReplayedExchange:
    """The known data of one exchange.

    Attributes
    ----------
    rows
        Rows of the table of instruments, one per data set symbol; from the replayed day if it has the symbol.
    has_instruments
        Whether the vendor's key covered the instruments; otherwise the rows are guessed from the exchange's
        details.
    groups
        Grouped symbols that the days have.
    """

    rows: tuple[Mapping[str, Any], ...]
    has_instruments: bool
    outages: tuple[Outage, ...]
    groups: tuple[str, ...]


class ReplayedSource:
    """A source of data sets for the stand-in.

    Parameters
    ----------
    files
        The vendor's files by feed and day.
    last
        The last day of the source.
    """

    def __init__(
        self,
        known: Mapping[str, ReplayedExchange],
        files: Mapping[tuple[Feed, str], Path],
        last: str,
    ) -> None:
        self._known = known
        self._files = files
        self._last = last

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Ids of all exchanges."""
        return tuple(sorted(self._known))

    def feeds(self, day: str) -> list[Feed]:
        """Feeds of trades that have a file."""
        return sorted(feed for feed, d in self._files if d == day and feed.data_type == "trades")

    def listings(self, exchange: str) -> tuple[Listing, ...]:  # noqa: ARG002 - the details have them
        """None: ``exchange_details`` has them."""
        return ()

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:  # noqa: ARG002
        """None: ``exchange_details`` has them."""
        return ()

    def last_day(self, exchange: str) -> str:  # noqa: ARG002 - the same for all
        """Last day that can be exported."""
        return self._last

    def dataset(self, feed: Feed, day: str) -> Path:
        """Return the csv.gz file, or raise ``NoDatasetError``."""
        if (feed, day) not in self._files:
            raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available for {day}")
        return self._files[feed, day]

    def instruments(self, exchange: str) -> list[Json] | None:
        """Answer ``/v1/instruments/{exchange}``; None if the key did not cover it."""
        known = self._known[exchange]
        return [_instrument(row) for row in known.rows] if known.has_instruments else None

    def exchange_details(self, exchange: str) -> Json:
        """Answer ``/v1/exchanges/{exchange}``."""
        known = self._known[exchange]
        symbols = [
            {"type": row["type"], **_times(row, "available_since", "available_to")} for row in known.rows
        ]
        since = min((str(symbol["availableSince"]) for symbol in symbols), default=midnight(self._last))
        sets: list[Json] = [
            {"id": row["dataset_symbol"], "dataTypes": [], **symbol}
            for row, symbol in zip(known.rows, symbols, strict=True)
        ]
        sets += [
            {"id": name, "type": GROUP_KINDS[name], "dataTypes": [], "availableSince": since}
            for name in known.groups
        ]
        return {
            "id": exchange,
            "name": exchange,
            "enabled": True,
            "availableSince": since,
            "availableSymbols": [
                {"id": row["instrument_id"], **symbol}
                for row, symbol in zip(known.rows, symbols, strict=True)
            ],
            "incidentReports": [
                {
                    "from": _iso(_moment(outage.start_us)),
                    "to": _iso(_moment(outage.end_us)),
                    "status": "resolved",
                    "details": outage.details,
                }
                for outage in known.outages
            ],
            "datasets": {
                "formats": ["csv"],
                "exportedFrom": since,
                "exportedUntil": midnight(shift(self._last, 1)),
                "symbols": sets,
            },
        }


def groups_of(feeds: Sequence[Feed]) -> tuple[str, ...]:
    """Names of the grouped symbols among the feeds."""
    return tuple(sorted({feed.dataset_symbol for feed in feeds} & {*GROUPED_SYMBOLS}))


def _instrument(row: Mapping[str, Any]) -> Json:
    """Rebuild the vendor's instrument, with the current and the earlier values that made the row."""
    answer: Json = {
        "id": row["instrument_id"],
        "datasetId": row["dataset_symbol"],
        "exchange": row["exchange"],
    }
    for name in sorted(_SAME_NAME & row.keys()):
        value = row[name]
        if value is not None:
            answer[to_camel(name)] = _iso(value) if isinstance(value, datetime) else value
    changes: list[Json] = []
    stretches = json.loads(row["contract_changes"]) if row["contract_changes"] else []
    if row["price_increment_end"] is not None:
        start, end = day_bounds(row["date"].isoformat())
        # The stretches of a contract begin at every change; without stretches, any moment will do.
        moments = [_moment(stretch["since_us"]) for stretch in stretches]
        until = next((moment for moment in moments if start < moment < end), end - _MICROSECOND)
        changes.append({"until": _iso(until), "priceIncrement": row["price_increment"]})
        answer["priceIncrement"] = row["price_increment_end"]
    for before, after in pairwise(stretches):
        changes.append({"until": _iso(_moment(after["since_us"])), **_terms(before)})
    if stretches:
        answer |= _terms(stretches[-1])
    return answer | ({"changes": changes} if changes else {})


def _terms(stretch: Mapping[str, Any]) -> Json:
    return {to_camel(name): stretch[name] for name in TERMS if name in stretch}


def _times(row: Mapping[str, Any], *names: str) -> Json:
    return {to_camel(name): _iso(row[name]) for name in names if row[name] is not None}


def _moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)


def _iso(moment: datetime) -> str:
    """Write a time as the vendor does, but with microseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
