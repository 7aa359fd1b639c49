"""Columns of the instruments table, and the rules for its rows.

All code that stores or describes the table reads the columns here. The pandera schema judges a frame of one
day; it is made on demand, because importing pandera takes a second. Asset checks are made from its judgments
elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, get_args

from backfill_assets.columns import Column, arrow_schema
from backfill_assets.tardis.metadata import InstrumentType

if TYPE_CHECKING:
    import polars as pl

#: Kinds in the vendor's documentation.
INSTRUMENT_TYPES: Final = get_args(InstrumentType)

#: Where a row comes from; see ``tardis.metadata.InstrumentList``.
SOURCES: Final = ("instruments", "exchange_details")

INSTRUMENT_COLUMNS: Final = (
    Column("date", "DATE", "UTC day for which the row is valid", required=True),
    Column("exchange", "STRING", "Exchange id of the vendor", required=True),
    Column(
        "symbol",
        "STRING",
        "Market: BASE-QUOTE with the usual tickers, BASE-QUOTE-PERP of a perpetual, else the data set symbol",
    ),
    Column("dataset_symbol", "STRING", "Symbol in the vendor's data set URLs", required=True),
    Column("instrument_id", "STRING", "The exchange's own name", required=True),
    Column("base_currency", "STRING", "Base currency as the exchange calls it"),
    Column("quote_currency", "STRING", "Quote currency as the exchange calls it"),
    Column("type", "STRING", "spot, perpetual, future, option, combo or prediction", required=True),
    Column("active", "BOOL", "Whether the instrument was still listed when the day ended", required=True),
    Column("available_since", "TIMESTAMP", "Start of the vendor's data", required=True),
    Column("available_to", "TIMESTAMP", "End of the vendor's data, exclusive; null while it goes on"),
    Column("listing", "TIMESTAMP", "When the exchange listed the instrument"),
    Column("expiry", "TIMESTAMP", "When the contract expires"),
    Column("price_increment", "FLOAT64", "Tick size, in quote units, at the start of the day"),
    Column("price_increment_end", "FLOAT64", "Tick size at the end of the day, if it changed during it"),
    Column("amount_increment", "FLOAT64", "Step of amounts, at the start of the day"),
    Column("min_trade_amount", "FLOAT64", "Smallest amount of an order"),
    Column("maker_fee", "FLOAT64", "Fee as a share of the notional; negative is a rebate"),
    Column("taker_fee", "FLOAT64", "Fee as a share of the notional"),
    Column("inverse", "BOOL", "Whether the contract is settled in its base currency"),
    Column("contract_type", "STRING", "The vendor's finer kind, e.g. inverse_perpetual"),
    Column(
        "contract_multiplier",
        "FLOAT64",
        "Units of the underlying (or of quote, if inverse) per contract, at the start of the day",
    ),
    Column("settlement_currency", "STRING", "Currency of settlement"),
    Column("underlying_index", "STRING", "Index that the contract follows"),
    Column("quanto", "BOOL", "Whether the contract is settled in a third currency"),
    Column("strike_price", "FLOAT64", "Strike price of an option"),
    Column("option_type", "STRING", "call or put"),
    Column(
        "contract_changes",
        "STRING",
        "JSON list of the differences by time (microseconds) in the terms of the contract, from an hour "
        "before the day to an hour after it; null where there are none",
    ),
    Column("expected", "BOOL", "Whether the configured universe holds it on this day", required=True),
    Column(
        "source", "STRING", "instruments, or exchange_details where currencies are guessed", required=True
    ),
)

_POSITIVE: Final = (
    "price_increment",
    "price_increment_end",
    "amount_increment",
    "contract_multiplier",
    "strike_price",
)


@lru_cache(maxsize=1)
def instrument_schema() -> Any:
    """Make the pandera schema of a day's instruments, for an eager polars frame (a lazy one skips checks).

    Fails when a column is absent, superfluous or of another type; when a required cell is null; when exchange
    and data set symbol do not identify one row; when an increment, multiplier or strike is not above zero (a
    null is fine: the exchange details have none); when a kind or source is unknown; or when a row was not
    available on its date.
    """
    import pandera.polars as pa
    import polars as pl

    types = pl.DataFrame(arrow_schema(INSTRUMENT_COLUMNS).empty_table()).schema
    checks: dict[str, pa.Check] = {
        "type": pa.Check.isin(INSTRUMENT_TYPES, name="known_type"),
        "source": pa.Check.isin(SOURCES, name="known_source"),
        **{name: pa.Check.gt(0, name="positive") for name in _POSITIVE},
    }
    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                types[column.name],
                checks.get(column.name),
                nullable=not column.required,
                description=column.description,
            )
            for column in INSTRUMENT_COLUMNS
        },
        checks=pa.Check(
            lambda data: data.lazyframe.select(_available()),
            name="available_on_the_day",
        ),
        unique=["exchange", "dataset_symbol"],
        strict=True,
        ordered=True,
        name="instruments",
    )


def _available() -> pl.Expr:
    import polars as pl

    start = pl.col("date").cast(pl.Datetime("us", "UTC"))
    began = pl.col("available_since") < start + pl.duration(days=1)
    return began & (pl.col("available_to").is_null() | (pl.col("available_to") > start))
