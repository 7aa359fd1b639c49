"""Making a day of the OHLCV table what the lake says, and proving that it is.

A day is one transaction: the candles are upserted by their key in batches, then what the day has besides is
deleted. The candles are read from the lake inside the transaction, behind its lock: whoever writes last has
also read last, so concurrent publishers cannot leave an older day behind. Rows that are as they should be are
not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite

from backfill_assets.days import end_us, start_us
from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.ohlcv.table import (
    KEY,
    TOTALS,
    UPDATED_AT,
    VALUES,
    ensure,
    now_us,
    ohlcv_tables,
)
from backfill_assets.warehouse.ohlcv.target import Target
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, totals_from_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy.engine import Connection

#: Keys in one DELETE; SQLite takes 32,766 parameters in a statement.
_KEYS_AT_ONCE: Final = 5_000


_totals: Final = TypeAdapter(tuple[GroupTotals, ...])


@dataclass(frozen=True, slots=True)
class DayCandles:
    """A day as the lake has it; equal fingerprints mean equal rows."""

    fingerprint: str
    #: Columns of ``CANDLE_SCHEMA``.
    rows: pa.Table
    totals: tuple[GroupTotals, ...]


@dataclass(frozen=True, slots=True)
class StoredDay:
    """What the database says of a day: what was last written, and the totals of the rows now."""

    fingerprint: str
    written: tuple[GroupTotals, ...]
    found: tuple[GroupTotals, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a day's rows."""

    day: str
    #: In the table now.
    rows: int
    #: Of these, new or changed; the others were as they should be.
    written: int
    deleted: int


def insert_ohlcv_backfill(
    target: Target, day: str, read: Callable[[], DayCandles], *, batch_rows: int
) -> Written:
    """Make the day in the table exactly these candles, and read back that it is.

    Parameters
    ----------
    read
        Reads the day's candles as they are now. What it raises (a held day, say) leaves the table as it is.
    batch_rows
        Rows in one INSERT.

    Raises
    ------
    TransientFailure, PermanentFailure
        See ``Target.transaction``; nothing of the day was changed.
    """
    tables = ohlcv_tables(target.table)
    with target.transaction() as connection:
        ensure(connection, tables, target.place)
        wanted = read()
        moment = now_us(connection)
        for rows in _rows(wanted.rows, moment, batch_rows):
            _upsert(connection, tables.candles, KEY, rows)
        touched = tables.candles.c[UPDATED_AT] == moment
        count = sa.select(sa.func.count()).where(*_of_day(tables.candles, day), touched)
        written = connection.execute(count).scalar_one()
        deleted = _delete_others(connection, tables.candles, day, wanted.rows)
        found = _day_totals(connection, tables.candles, day)
        differences = compare_totals(wanted.totals, found, table=TOTALS)
        if differences:
            msg = f"{target.place}: {target.table} does not hold what was written of {day}: {differences[0]}"
            raise PermanentFailure(msg)
        stored = {"day": day, "fingerprint": wanted.fingerprint, "totals": _totals.dump_json(found).decode()}
        _upsert(connection, tables.days, ("day",), [{**stored, UPDATED_AT: moment}])
    return Written(day, wanted.rows.num_rows, written, deleted)


def stored_day(target: Target, day: str) -> StoredDay | None:
    """What the table has of the day; None if it was never written."""
    tables = ohlcv_tables(target.table)
    with target.transaction() as connection:
        ensure(connection, tables, target.place)
        days = tables.days
        row = connection.execute(
            sa.select(days.c.fingerprint, days.c.totals).where(days.c.day == day)
        ).first()
        if row is None:
            return None
        found = _day_totals(connection, tables.candles, day)
    return StoredDay(row.fingerprint, _totals.validate_json(row.totals), found)


def _day_totals(connection: Connection, table: sa.Table, day: str) -> tuple[GroupTotals, ...]:
    """Control totals of the day per exchange, symbol and timeframe, computed by the database."""
    groups = [table.c[name] for name in TOTALS.group_by]
    query = sa.select(
        *groups,
        sa.func.count(),
        sa.func.min(table.c.open_time),
        sa.func.max(table.c.open_time),
        *(sa.func.sum(table.c[name]) for name in (*TOTALS.exact_sums, *TOTALS.float_sums)),
    )
    rows = connection.execute(query.where(*_of_day(table, day)).group_by(*groups)).all()
    return totals_from_rows(TOTALS, rows)


def _of_day(table: sa.Table, day: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.open_time >= start_us(day), table.c.open_time < end_us(day)


def _rows(candles: pa.Table, moment: int, batch_rows: int) -> Iterator[list[dict[str, Any]]]:
    """The candles as parameters of the statement, a batch at a time; times in microseconds."""
    import pyarrow as pa

    chosen = candles.select([*KEY, *VALUES])
    at = chosen.schema.get_field_index("open_time")
    chosen = chosen.set_column(at, "open_time", chosen["open_time"].cast(pa.int64()))
    for batch in chosen.to_batches(max_chunksize=batch_rows):
        yield [{**row, UPDATED_AT: moment} for row in batch.to_pylist()]


def _upsert(
    connection: Connection, table: sa.Table, key: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Insert, or update a row whose values differ (a null, which somebody else has left, differs too)."""
    if not rows:
        return
    names = list(rows[0])
    insert: postgresql.Insert | sqlite.Insert
    parameters: Any
    if connection.dialect.name == "postgresql":
        # An array per column: given rows, the driver sends a statement for each of them and waits for it.
        types = {n: postgresql.ARRAY(table.c[n].type) for n in names}
        arrays = [sa.cast(sa.bindparam(n, type_=types[n]), types[n]) for n in names]
        given = sa.func.unnest(*arrays).table_valued(*names).render_derived()
        insert = postgresql.insert(table).from_select(names, sa.select(*(given.c[n] for n in names)))
        parameters = {name: [row[name] for row in rows] for name in names}
    else:
        insert = sqlite.insert(table)
        parameters = rows
    updated = [name for name in names if name not in key]
    changed = [
        table.c[name].is_distinct_from(insert.excluded[name]) for name in updated if name != UPDATED_AT
    ]
    upsert = insert.on_conflict_do_update(
        index_elements=list(key),
        set_={name: insert.excluded[name] for name in updated},
        where=sa.or_(*changed),
    )
    connection.execute(upsert, parameters)


def _delete_others(connection: Connection, table: sa.Table, day: str, wanted: pa.Table) -> int:
    """Delete the day's rows whose key the candles do not have."""
    import pyarrow as pa

    key = [table.c[name] for name in KEY]
    columns = [wanted[name].to_pylist() for name in KEY[:-1]]
    keep = set(zip(*columns, wanted["open_time"].cast(pa.int64()).to_pylist(), strict=True))
    found = connection.execute(sa.select(*key).where(*_of_day(table, day))).all()
    gone = [tuple(row) for row in found if tuple(row) not in keep]
    for start in range(0, len(gone), _KEYS_AT_ONCE):
        keys = gone[start : start + _KEYS_AT_ONCE]
        connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(keys)))
    return len(gone)
