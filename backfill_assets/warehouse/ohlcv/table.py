"""What the OHLCV table is: its columns, its key, and whether a table that exists can serve as it.

``open_time`` is ``timestamptz`` on Postgres. SQLite has no type for times, so there it is an integer of
microseconds since the epoch: sorts, compares and computes right, which text does only by luck of its format.
``updated_at`` is the time of the transaction that last changed the row; a row that stays as it is keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from backfill_assets.candles.schemas import CANDLE_COLUMNS
from backfill_assets.columns import Column
from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.tables import Table

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect

KEY: Final = ("exchange", "symbol", "timeframe", "open_time")
VALUES: Final = ("open", "high", "low", "close", "volume", "quote_volume", "vwap", "trade_count")
UPDATED_AT: Final = "updated_at"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: As control totals see it: what is compared between the lake's candles and the rows read back.
TOTALS: Final = Table(
    name="ohlcv",
    description="Candles by key, for services.",
    columns=tuple(c for c in CANDLE_COLUMNS if c.name in ("date", *KEY, *VALUES)),
    group_by=("exchange", "symbol", "timeframe"),
    time_column="open_time",
    exact_sums=("trade_count",),
    float_sums=("open", "high", "low", "close", "volume", "quote_volume", "vwap"),
)


class Moment(sa.TypeDecorator[int]):
    """Microseconds since the epoch on our side; ``timestamptz`` on Postgres, an integer elsewhere."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """The column's type in this database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """To the database."""
        if value is None or dialect.name != "postgresql":
            return value
        return _EPOCH + timedelta(microseconds=value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """From the database."""
        if isinstance(value, datetime):
            return (value - _EPOCH) // _MICROSECOND
        return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Tables:
    """The table of candles, and beside it which days it has and what they came to."""

    candles: sa.Table
    days: sa.Table


def ohlcv_tables(name: str) -> Tables:
    """The tables under this name; double precision for all prices and volumes."""
    described = {column.name: column for column in CANDLE_COLUMNS}
    metadata = sa.MetaData()
    candles = sa.Table(
        name,
        metadata,
        *(_column(described[column], key=True) for column in KEY),
        *(_column(described[column], key=False) for column in VALUES),
        sa.Column(UPDATED_AT, Moment(), nullable=False, comment="Transaction that last changed the row."),
        # The key serves readers, who ask for a market; a day as a whole is asked for by its times.
        sa.Index(f"{name}_open_time", "open_time"),
    )
    days = sa.Table(
        f"{name}_days",
        metadata,
        sa.Column("day", sa.Text(), primary_key=True, comment="UTC day of open_time."),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="Of the lake's candles of the day."),
        sa.Column("totals", sa.Text(), nullable=False, comment="Control totals, read back; JSON."),
        sa.Column(UPDATED_AT, Moment(), nullable=False, comment="Transaction that last wrote the day."),
    )
    return Tables(candles, days)


def _column(described: Column, *, key: bool) -> sa.Column[Any]:
    types: dict[str, Any] = {
        "STRING": sa.Text,
        "TIMESTAMP": Moment,
        "FLOAT64": sa.Double,
        "INT64": sa.BigInteger,
    }
    return sa.Column(
        described.name,
        types[described.type](),
        primary_key=key,
        # Else a database may take a single integer of the key for one that it counts up itself.
        autoincrement=False,
        nullable=False,
        comment=described.description,
    )


def ensure(connection: Connection, tables: Tables, place: str) -> None:
    """Create the tables that there are not.

    Raises
    ------
    PermanentFailure
        There is one that cannot take the rows: other columns, another key. Columns that it has besides are
        its owner's business, if they need no value.
    """
    inspector = sa.inspect(connection)
    for table in (tables.candles, tables.days):
        if not inspector.has_table(table.name):
            table.create(connection)
            continue
        wrong = _wrong(inspector, table, connection.dialect)
        if wrong:
            msg = (
                f"{place}: the table {table.name} is another one ({', '.join(wrong)}): "
                "choose another name with ohlcv.table, or rename that table"
            )
            raise PermanentFailure(msg)


def _wrong(inspector: sa.Inspector, table: sa.Table, dialect: Dialect) -> list[str]:
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    wrong = [f"{column.name} is missing" for column in table.columns if column.name not in found]
    wrong += [
        f"{column.name} is {found[column.name]['type']}"
        for column in table.columns
        if column.name in found and not _takes(found[column.name]["type"], column, dialect)
    ]
    wrong += [
        f"{name} needs a value"
        for name, column in found.items()
        if name not in table.columns and not column["nullable"] and column.get("default") is None
    ]
    wanted = [column.name for column in table.primary_key]
    key = inspector.get_pk_constraint(table.name)["constrained_columns"]
    if not wrong and set(key) != set(wanted):
        wrong = [f"its key is ({', '.join(key)}) and not ({', '.join(wanted)})"]
    return wrong


def _takes(found: Any, wanted: sa.Column[Any], dialect: Dialect) -> bool:
    """Whether a column of the found type keeps the wanted values exactly."""
    if isinstance(wanted.type, Moment):
        if dialect.name == "postgresql":
            return isinstance(found, sa.DateTime) and bool(found.timezone)
        return isinstance(found, sa.Integer)
    if isinstance(wanted.type, sa.Double):
        # Postgres gives float8 as Double, and real, which rounds to seven digits, as REAL; SQLite's REAL is a
        # double.
        return isinstance(found, sa.Float) and (dialect.name == "sqlite" or not isinstance(found, sa.REAL))
    if isinstance(wanted.type, sa.BigInteger):
        return isinstance(found, sa.BigInteger) or (
            dialect.name == "sqlite" and isinstance(found, sa.Integer)
        )
    return isinstance(found, sa.String)


def now_us(connection: Connection) -> int:
    """The transaction's time: Postgres' own, which is the same for all its rows; else this process's."""
    if connection.dialect.name == "postgresql":
        moment: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
    else:
        moment = utc_now()
    return (moment - _EPOCH) // _MICROSECOND
