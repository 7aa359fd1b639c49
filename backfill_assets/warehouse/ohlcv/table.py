"""The OHLCV table: its columns, its key, and whether an existing table can serve as it.

``open_time`` is ``timestamptz`` on Postgres. SQLite has no type for times, so there it is an integer of
microseconds since the epoch. Integers sort, compare and compute correctly; text does so only if its format
happens to. ``updated_at`` is the time of the transaction that last changed the row; an unchanged row keeps
it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.tables import Table

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect

UPDATED_AT: Final = "updated_at"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


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
        """Convert to the database's value."""
        if value is None or dialect.name != "postgresql":
            return value
        return _EPOCH + timedelta(microseconds=value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Convert from the database's value."""
        if isinstance(value, datetime):
            return (value - _EPOCH) // _MICROSECOND
        return None if value is None else int(value)


#: Columns of an earlier layout; fingerprint and totals of a day are now in the ledger.
_EARLIER_DAYS: Final = {"day", "fingerprint", "totals", UPDATED_AT}
_TYPES: Final[dict[str, Any]] = {
    "STRING": sa.Text,
    "TIMESTAMP": Moment,
    "FLOAT64": sa.Double,
    "INT64": sa.BigInteger,
}


def tables_of(table: Table, name: str) -> tuple[sa.Table, sa.Table]:
    """The table of candles under this name, and the table of days, by which older claims are refused.

    The key is the columns that ``table`` groups by, and its time column. The day is not stored.
    """
    key = (*table.group_by, table.time_column)
    metadata = sa.MetaData()
    candles = sa.Table(
        name,
        metadata,
        *(
            sa.Column(
                column.name,
                _TYPES[column.type](),
                primary_key=column.name in key,
                # Otherwise a database may take a single integer of the key for an automatic counter.
                autoincrement=False,
                nullable=not column.required,
                comment=column.description,
            )
            for column in table.columns
            if column.name != table.partition_column
        ),
        sa.Column(UPDATED_AT, Moment(), nullable=False, comment="Transaction that last changed the row."),
        # The key serves readers, who ask for a market; a whole day is selected by its times.
        sa.Index(f"{name}_open_time", "open_time"),
    )
    days = sa.Table(
        f"{name}_days",
        metadata,
        sa.Column("day", sa.Text(), primary_key=True, comment="UTC day of open_time."),
        sa.Column("generation", sa.BigInteger(), nullable=False, comment="Claims up to it write no more."),
        sa.Column(UPDATED_AT, Moment(), nullable=False, comment="Transaction that last changed the row."),
    )
    return candles, days


def ensure(connection: Connection, tables: tuple[sa.Table, sa.Table], place: str) -> None:
    """Create the missing tables.

    Raises
    ------
    PermanentFailure
        A table has other columns or another key; the message names them. Further columns that need no value
        are accepted.
    """
    inspector = sa.inspect(connection)
    for table in tables:
        if not inspector.has_table(table.name):
            table.create(connection)
            continue
        _renew(connection, inspector, table)
        wrong = _wrong(inspector, table, connection.dialect)
        if not wrong:
            _loosen(connection, inspector, table)
        else:
            msg = (
                f"{place}: the table {table.name} has another layout ({', '.join(wrong)}): "
                "choose another name with ohlcv.table, or rename that table"
            )
            raise PermanentFailure(msg)


def _renew(connection: Connection, inspector: sa.Inspector, table: sa.Table) -> None:
    """Upgrade a table of days that has the columns of an earlier layout."""
    if {column["name"] for column in inspector.get_columns(table.name)} != _EARLIER_DAYS:
        return
    for change in ("ADD generation BIGINT NOT NULL DEFAULT 0", "DROP fingerprint", "DROP totals"):
        connection.execute(sa.text(f"ALTER TABLE {table.name} {change}"))
    inspector.clear_cache()


def _loosen(connection: Connection, inspector: sa.Inspector, table: sa.Table) -> None:
    """Add the nullable columns that the table lacks, and make columns nullable that must become so."""
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    name = connection.dialect.identifier_preparer.quote(table.name)
    for column in (c for c in table.columns if c.nullable):
        if column.name not in found:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {name} ADD COLUMN {column.name} {kind}"))
    strict = [
        c.name for c in table.columns if c.nullable and not found.get(c.name, {"nullable": True})["nullable"]
    ]
    if connection.dialect.name == "postgresql":
        for column_name in strict:
            connection.execute(sa.text(f"ALTER TABLE {name} ALTER COLUMN {column_name} DROP NOT NULL"))
    elif strict:
        _loosen_on_sqlite(connection, table.name, strict)
    inspector.clear_cache()


def _loosen_on_sqlite(connection: Connection, name: str, columns: Sequence[str]) -> None:
    """Remove NOT NULL from the stored statement, as https://www.sqlite.org/lang_altertable.html describes."""
    stored = "FROM sqlite_schema WHERE type = 'table' AND name = :name"
    text: str = connection.execute(sa.text(f"SELECT sql {stored}"), {"name": name}).scalar_one()
    for column in columns:
        text = re.sub(rf'(\b{column}\b"?[^,()]*?)\s+NOT\s+NULL', r"\1", text, count=1, flags=re.IGNORECASE)
    version: int = connection.execute(sa.text("PRAGMA schema_version")).scalar_one()
    connection.execute(sa.text("PRAGMA writable_schema = ON"))
    update = "UPDATE sqlite_schema SET sql = :sql WHERE type = 'table' AND name = :name"
    connection.execute(sa.text(update), {"sql": text, "name": name})
    connection.execute(sa.text(f"PRAGMA schema_version = {version + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema = OFF"))


def _wrong(inspector: sa.Inspector, table: sa.Table, dialect: Dialect) -> list[str]:
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    wrong = [
        f"{column.name} is missing"
        for column in table.columns
        if column.name not in found and not column.nullable
    ]
    wrong += [
        f"{column.name} is {found[column.name]['type']}"
        for column in table.columns
        if column.name in found and not _takes(found[column.name]["type"], column.type, dialect)
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


def _takes(found: Any, wanted: Any, dialect: Dialect) -> bool:
    """Whether a column of the found type keeps the wanted values exactly."""
    on_sqlite = dialect.name == "sqlite"
    if isinstance(wanted, Moment) and not on_sqlite:
        return isinstance(found, sa.DateTime) and bool(found.timezone)
    if isinstance(wanted, Moment | sa.BigInteger):
        return isinstance(found, sa.Integer if on_sqlite else sa.BigInteger)
    if isinstance(wanted, sa.Double):
        # REAL is a double on SQLite, and rounds to seven digits on Postgres.
        return isinstance(found, sa.Float) and (on_sqlite or not isinstance(found, sa.REAL))
    return isinstance(found, sa.String)


def now_us(connection: Connection) -> int:
    """The transaction's time: Postgres' own, which is the same for all its rows; else this process's."""
    if connection.dialect.name == "postgresql":
        moment: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
    else:
        moment = utc_now()
    return (moment - _EPOCH) // _MICROSECOND
