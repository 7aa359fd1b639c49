"""The columns of every data type: as the vendor writes them, and as they are stored.

One table per data type, in the order of the CSV file, is the source of everything that depends on columns:
the header that a file must have, how each cell is read, the Parquet schema and the BigQuery table. ``ticks``
converts bytes to values; this module reads no file. The lists follow the vendor's documentation of its CSV
data sets (https://docs.tardis.dev/downloadable-csv-files).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from backfill_assets.columns import Column, ColumnType
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import DATA_TYPES

#: How a cell is read. ``word`` and ``flag`` accept only the texts in ``CsvField.words``; an empty cell is
#: null everywhere but in the four leading columns.
Kind = Literal["name", "time", "number", "text", "id", "word", "flag"]

_STORED: Final[dict[Kind, ColumnType]] = {
    "name": "STRING",
    "time": "TIMESTAMP",
    "number": "FLOAT64",
    "text": "STRING",
    "id": "STRING",
    "word": "STRING",
    "flag": "BOOL",
}


@dataclass(frozen=True, slots=True)
class CsvField:
    """One column of a vendor's file, and the column in which it is stored.

    Attributes
    ----------
    csv
        Its name in the header line.
    kind
        How its cells are read.
    column
        The stored column.
    words
        The only texts allowed, for ``word`` and ``flag`` (there: false, true).
    """

    csv: str
    kind: Kind
    column: Column
    words: tuple[str, ...] = ()


def _field(
    csv: str, kind: Kind, description: str, *, words: tuple[str, ...] = (), stored: str = ""
) -> CsvField:
    required = csv in ("exchange", "timestamp", "local_timestamp") or stored == "dataset_symbol"
    return CsvField(csv, kind, Column(stored or csv, _STORED[kind], description, required), words)


_LEADING: Final = (
    _field("exchange", "name", "The vendor's exchange id, as in the file"),
    _field("symbol", "name", "The venue's own symbol, as in the file", stored="dataset_symbol"),
    _field("timestamp", "time", "Time given by the exchange, or local_timestamp where it gives none (UTC)"),
    _field("local_timestamp", "time", "Time at which the message arrived at the vendor (UTC)"),
)

_TRADE_SIDES: Final = ("buy", "sell", "unknown")


def _book_levels(levels: int) -> tuple[CsvField, ...]:
    fields: list[CsvField] = []
    for level in range(levels):
        for side in ("asks", "bids"):
            what = f"{side[:-1]} at level {level} (0 is the best); null where the book is shorter"
            for quantity, unit in (("price", "Price of the"), ("amount", "Amount of the")):
                stored = f"{side}_{level}_{quantity}"
                fields.append(
                    _field(f"{side}[{level}].{quantity}", "number", f"{unit} {what}", stored=stored)
                )
    return tuple(fields)


def _numbers(descriptions: Iterable[tuple[str, str]]) -> tuple[CsvField, ...]:
    return tuple(_field(name, "number", description) for name, description in descriptions)


_QUOTE: Final = _numbers(
    (
        ("ask_amount", "Amount of the best ask; null when there is none"),
        ("ask_price", "Price of the best ask; null when there is none"),
        ("bid_price", "Price of the best bid; null when there is none"),
        ("bid_amount", "Amount of the best bid; null when there is none"),
    )
)


def _fills(what: str, side: str) -> tuple[CsvField, ...]:
    return (
        _field("id", "id", f"The venue's id of the {what}; null where it gives none"),
        _field("side", "word", side, words=_TRADE_SIDES),
        _field("price", "number", f"Price of the {what} in quote currency"),
        _field(
            "amount",
            "number",
            f"Amount of the {what} in the venue's unit: base currency, quote currency or contracts",
        ),
    )


_TAIL: Final[dict[str, tuple[CsvField, ...]]] = {
    "trades": _fills("trade", "The taker's side: buy, sell or unknown"),
    "quotes": _QUOTE,
    "book_ticker": _QUOTE,
    "book_snapshot_5": _book_levels(5),
    "book_snapshot_25": _book_levels(25),
    "incremental_book_L2": (
        _field(
            "is_snapshot",
            "flag",
            "Whether the row belongs to a snapshot, which resets the book",
            words=("false", "true"),
        ),
        _field("side", "word", "The side of the book: bid or ask", words=("bid", "ask")),
        *_numbers((("price", "Price of the level"), ("amount", "The level's new amount; 0 deletes it"))),
    ),
    "derivative_ticker": (
        _field("funding_timestamp", "time", "Time of the next funding (UTC)"),
        *_numbers(
            (
                ("funding_rate", "Rate of the next funding, as a fraction"),
                ("predicted_funding_rate", "Estimated rate of the funding after the next, as a fraction"),
                ("open_interest", "Open interest in the venue's unit"),
                ("last_price", "Price of the last trade"),
                ("index_price", "Price of the index"),
                ("mark_price", "Mark price"),
            )
        ),
    ),
    "liquidations": _fills("liquidation", "buy: a short position was liquidated; sell: a long one"),
    "options_chain": (
        _field("type", "text", "put or call"),
        _field("strike_price", "number", "Strike price"),
        _field("expiration", "time", "Time of expiry (UTC)"),
        *_numbers(
            (
                ("open_interest", "Open interest in the venue's unit"),
                ("last_price", "Price of the last trade"),
                ("bid_price", "Price of the best bid"),
                ("bid_amount", "Amount of the best bid"),
                ("bid_iv", "Implied volatility of the best bid, in percent"),
                ("ask_price", "Price of the best ask"),
                ("ask_amount", "Amount of the best ask"),
                ("ask_iv", "Implied volatility of the best ask, in percent"),
                ("mark_price", "Mark price"),
                ("mark_iv", "Implied volatility of the mark price, in percent"),
            )
        ),
        _field("underlying_index", "text", "Name of the underlying index"),
        *_numbers(
            (
                ("underlying_price", "Price of the underlying"),
                ("delta", "Delta"),
                ("gamma", "Gamma"),
                ("vega", "Vega"),
                ("theta", "Theta"),
                ("rho", "Rho"),
            )
        ),
    ),
}

_FIELDS: Final = {data_type: (*_LEADING, *_TAIL[data_type]) for data_type in DATA_TYPES}

_DATE: Final = Column(
    "date", "DATE", "The day of the vendor's file, which is split by local_timestamp", required=True
)
_SYMBOL: Final = Column(
    "symbol", "STRING", "Market, as in instruments; null when the venue's symbol is unknown"
)
_ROW: Final = Column(
    "row", "INT64", "Position in the vendor's file, from 0; ties of time are broken by it", required=True
)


def csv_fields(data_type: str) -> tuple[CsvField, ...]:
    """The columns of a vendor's file, in order.

    Raises
    ------
    PermanentFailure
        The data type does not exist.
    """
    try:
        return _FIELDS[data_type]
    except KeyError:
        msg = f"'{data_type}' is not a data type; choose from {', '.join(DATA_TYPES)}"
        raise PermanentFailure(msg) from None


def csv_header(data_type: str) -> str:
    """The first line of a vendor's file, without its newline."""
    return ",".join(field.csv for field in csv_fields(data_type))


def tick_columns(data_type: str) -> tuple[Column, ...]:
    """The stored columns, in order: date, names, times and row, then the data type's own.

    A row keeps every value of the vendor's file; ``date``, ``symbol`` and ``row`` are added.
    """
    exchange, dataset_symbol, timestamp, local_timestamp, *others = (f.column for f in csv_fields(data_type))
    return (_DATE, exchange, _SYMBOL, dataset_symbol, timestamp, local_timestamp, _ROW, *others)
