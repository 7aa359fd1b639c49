"""The vendor's metadata answers (exchange details, instruments), made from listings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from backfill_assets.days import shift
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.sources import Json, Source

#: Filter keys that compare for equality (a list means any of them).
_EQUAL_FILTERS: Final = ("baseCurrency", "quoteCurrency", "type", "contractType", "active", "id", "datasetId")


def midnight(day: str) -> str:
    """Write the day's first moment as the vendor does."""
    return f"{day}T00:00:00.000Z"


def first_day_not_exported(clock: datetime, last_day: str | None) -> str:
    """Return the first day that is not exported: each day is exported at 06:00 UTC of the next one."""
    by_clock = clock.date().isoformat() if clock.hour >= 6 else shift(clock.date().isoformat(), -1)
    return by_clock if last_day is None else min(by_clock, shift(last_day, 1))


def exchange_details(
    source: Source, exchange: str, exported_until: str, incidents: Sequence[Mapping[str, Any]]
) -> Json:
    """Answer ``/v1/exchanges/{exchange}``."""
    listings, groups = source.listings(exchange), source.groups(exchange)
    since = min([*(listing.since for listing in listings), *(group.since for group in groups)])
    return {
        "id": exchange,
        "name": exchange.replace("-", " ").title(),
        "enabled": True,
        "availableSince": midnight(since),
        "availableChannels": ["trade"],
        "availableSymbols": [
            {"id": listing.native_id, "type": listing.type, **_availability(listing)} for listing in listings
        ],
        "incidentReports": list(incidents),
        "datasets": {
            "formats": ["csv"],
            "exportedFrom": midnight(since),
            "exportedUntil": midnight(exported_until),
            "symbols": [
                *(
                    {
                        "id": listing.dataset_symbol,
                        "type": listing.type,
                        "dataTypes": list(listing.data_types),
                        **_availability(listing),
                    }
                    for listing in listings
                    if listing.data_types
                ),
                *(
                    {
                        "id": group.name,
                        "type": group.type,
                        "dataTypes": list(group.data_types),
                        "availableSince": midnight(group.since),
                    }
                    for group in groups
                ),
            ],
        },
    }


def instrument(listing: Listing) -> Json:
    """Make one element of the answer to ``/v1/instruments/{exchange}``."""
    amount_increment = round(10.0**-listing.amount_decimals, listing.amount_decimals)
    answer: Json = {
        "id": listing.native_id,
        "datasetId": listing.dataset_symbol,
        "exchange": listing.exchange,
        "baseCurrency": listing.base,
        "quoteCurrency": listing.quote,
        "type": listing.type,
        "active": listing.to is None,
        **_availability(listing),
        "priceIncrement": round(10.0**-listing.price_decimals, listing.price_decimals),
        "amountIncrement": amount_increment,
        "minTradeAmount": amount_increment,
        "makerFee": listing.maker_fee,
        "takerFee": listing.taker_fee,
        **dict(listing.details),
    }
    if listing.grid_until:
        answer["changes"] = [
            {"until": midnight(until), "priceIncrement": round(10.0**-decimals, decimals)}
            for until, decimals in listing.grid_until
        ]
    return answer


def matches(answer: Json, wanted: Mapping[str, Any]) -> bool:
    """Whether an instrument passes the request's filter."""
    for key, value in wanted.items():
        if key in _EQUAL_FILTERS:
            allowed = value if isinstance(value, list) else [value]
            if answer.get(key) not in allowed:
                return False
        elif (key == "availableSince" and answer.get(key, value) > value) or (
            # Both say: available during that time, not: since exactly then.
            key == "availableTo" and answer.get(key, value) < value
        ):
            return False
    return True


def _availability(listing: Listing) -> Json:
    availability = {"availableSince": midnight(listing.since)}
    if listing.to is not None:
        availability["availableTo"] = midnight(listing.to)
    return availability
