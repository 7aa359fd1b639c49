"""The vendor's answers about exchanges and instruments, as typed values.

Only shapes, and questions that the answers settle by themselves (which values were valid when, is a day
exported). The client makes the requests, and ``symbols`` chooses feeds. Unknown fields are ignored, because
the vendor adds new ones; field names follow the wire in snake case; times are aware datetimes in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from backfill_assets.days import parse_day
from backfill_assets.feeds import PERPETUAL
from backfill_assets.venues import CURRENCY_ALIASES


def _in_utc(moment: datetime) -> datetime:
    """Convert to UTC; a time without a zone is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_in_utc)]
#: An entry of an unknown kind is left out: no rule gives its rows a meaning.
InstrumentType = Literal["spot", "perpetual", "future", "option", "combo", "prediction"]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e18, le=1e18)]
#: Increments, multipliers and strikes.
Positive = Annotated[float, Field(allow_inf_nan=False, ge=1e-18, le=1e18)]


_LISTS: Final = ("availableSymbols", "incidentReports", "symbols", "dataTypes", "changes")


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null_lists(cls, answer: Any) -> Any:
        """Replace null lists with empty ones."""
        if isinstance(answer, dict) and any(answer.get(name, ()) is None for name in _LISTS):
            return {k: v for k, v in answer.items() if v is not None or k not in _LISTS}
        return answer


class Incident(_Wire):
    """A known outage of the vendor's capture; its data may be incomplete between the two times."""

    start: UtcTime = Field(alias="from")
    end: UtcTime = Field(alias="to")
    status: str | None = None
    details: str | None = None


class AvailableSymbol(_Wire):
    """A symbol in the venue's own spelling."""

    id: str
    type: str
    available_since: UtcTime
    available_to: UtcTime | None = None


class DatasetSymbol(AvailableSymbol):
    """A symbol of the CSV data sets; ``data_types`` is empty if the vendor does not list them."""

    data_types: tuple[str, ...] = ()


class Datasets(_Wire):
    """The symbols and data types that can be downloaded as CSV."""

    exported_from: UtcTime | None = None
    exported_until: UtcTime | None = None
    symbols: tuple[DatasetSymbol, ...] = ()


class ExchangeDetails(_Wire):
    """One exchange: its symbols, data sets and incidents."""

    id: str
    name: str = ""
    enabled: bool = True
    available_since: UtcTime | None = None
    available_to: UtcTime | None = None
    available_symbols: tuple[AvailableSymbol, ...] = ()
    incident_reports: tuple[Incident, ...] = ()
    datasets: Datasets = Datasets()
    #: Faults of the entries that were left out.
    unreadable: tuple[str, ...] = ()

    @property
    def ended(self) -> datetime | None:
        """The time at which the exchange's data ended for good; None while they continue.

        For an exchange that is no longer enabled, no further day is exported.
        """
        return self.available_to or (None if self.enabled else self.datasets.exported_until)


class InstrumentValues(_Wire):
    """Values that may change during the life of an instrument."""

    base_currency: str | None = None
    quote_currency: str | None = None
    type: str | None = None
    price_increment: Positive | None = None
    amount_increment: Positive | None = None
    min_trade_amount: Number | None = None
    maker_fee: Number | None = None
    taker_fee: Number | None = None
    inverse: bool | None = None
    contract_type: str | None = None
    contract_multiplier: Positive | None = None
    settlement_currency: str | None = None
    underlying_index: str | None = None
    quanto: bool | None = None


class InstrumentChange(InstrumentValues):
    """Values that were valid before ``until``; only the fields on the wire are set."""

    until: UtcTime


class Instrument(InstrumentValues):
    """One instrument with its current values and, in ``changes``, the earlier ones.

    Increments, fees and currencies are null if only the exchange details are available.
    """

    id: str
    exchange: str
    type: InstrumentType
    available_since: UtcTime
    available_to: UtcTime | None = None
    dataset_id: str | None = None
    active: bool | None = None
    listing: UtcTime | None = None
    expiry: UtcTime | None = None
    strike_price: Positive | None = None
    option_type: str | None = None
    changes: tuple[InstrumentChange, ...] = ()

    @property
    def dataset_symbol(self) -> str:
        """The symbol in the data set's URL."""
        return dataset_symbol(self.dataset_id or self.id)

    @property
    def canonical(self) -> str | None:
        """``BASE-QUOTE`` with the usual tickers; None if the currencies are unknown."""
        if not self.base_currency or not self.quote_currency:
            return None
        return f"{_usual_ticker(self.base_currency)}-{_usual_ticker(self.quote_currency)}"

    @property
    def market(self) -> str | None:
        """The symbol of the instrument's market; None if it depends on unknown currencies.

        It is the pair for a spot market, ``BASE-QUOTE-PERP`` for a perpetual, and the data set symbol for all
        others: that symbol has expiry and strike, and is known from either endpoint that the key covers.
        """
        if self.type == "spot" or (self.type == "perpetual" and self.canonical is None):
            return self.canonical
        return f"{self.canonical}{PERPETUAL}" if self.type == "perpetual" else self.dataset_symbol

    def as_of(self, moment: datetime) -> Instrument:
        """Return the instrument with the values that were valid at ``moment``.

        A value is that of the earliest change whose ``until`` is later than the moment, else the current
        value.
        """
        past: dict[str, Any] = {}
        for change in sorted(self.changes, key=lambda c: c.until, reverse=True):
            if change.until > moment:
                names = change.model_fields_set - {"until"}
                past.update({name: getattr(change, name) for name in names})
        return self.model_copy(update=past) if past else self


class InstrumentList(BaseModel):
    """All instruments of an exchange, and the vendor's answer that they come from."""

    model_config = ConfigDict(frozen=True)

    source: Literal["instruments", "exchange_details"]
    instruments: tuple[Instrument, ...]
    #: Faults of the entries that were left out.
    unreadable: tuple[str, ...] = ()


def dataset_symbol(symbol: str) -> str:
    """Write a venue's symbol as the data sets' URLs do: upper case, ``-`` for ``/`` and ``:``."""
    return symbol.replace(":", "-").replace("/", "-").upper()


def day_bounds(day: str) -> tuple[datetime, datetime]:
    """Return the first moments of the day and of the day after."""
    date = parse_day(day)
    start = datetime(date.year, date.month, date.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def listed_on(since: datetime, to: datetime | None, day: str) -> bool:
    """Whether something available from ``since`` to before ``to`` was available at any time of the day."""
    start, end = day_bounds(day)
    return since < end and (to is None or to > start)


def exported_until(details: ExchangeDetails) -> datetime:
    """Return the time before which all CSV data sets of the exchange are complete; the epoch if none is."""
    return details.datasets.exported_until or datetime.fromtimestamp(0, tz=UTC)


def ready(details: ExchangeDetails, day: str) -> bool:
    """Whether the whole day is exported; for an exchange that closed, up to its end."""
    end = day_bounds(day)[1]
    return exported_until(details) >= min(end, details.ended or end)


def _usual_ticker(currency: str) -> str:
    ticker = currency.upper()
    return CURRENCY_ALIASES.get(ticker, ticker)
