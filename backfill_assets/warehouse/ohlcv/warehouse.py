"""``Warehouse`` in a relational database: a day of the OHLCV table is replaced in one transaction.

The candles are upserted by their key in batches, then the other rows of the day are deleted. An unchanged row
is not touched. The generation of a day is kept beside the table and compared under the lock that all writers
take, so an overtaken claim writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from backfill_assets.columns import SUMMED_RANGE
from backfill_assets.days import end_us, start_us
from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.ohlcv.database import open_engine, place, transaction
from backfill_assets.warehouse.ohlcv.table import UPDATED_AT, ensure, now_us, tables_of
from backfill_assets.warehouse.parquet import read_batches
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, file_totals, totals_from_rows

#: Keys in one DELETE; SQLite takes 32,766 parameters in a statement.
_KEYS_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class OhlcvWarehouse:
    """``Warehouse`` for the one table that has this name in the database."""

    engine: Engine
    name: str
    #: Rows in one INSERT.
    batch_rows: int

    def __str__(self) -> str:
        return f"{self.name} in {place(self.engine)}"

    @property
    def daily_loads(self) -> int | None:
        """There is no limit."""
        return None

    @property
    def reads_buckets(self) -> bool:
        """It needs local files."""
        return False

    def ensure_table(self, table: Table) -> None:
        """See ``Warehouse``; columns that need no value are left to their owner."""
        with transaction(self.engine, self.name) as connection:
            ensure(connection, tables_of(table, self.name), place(self.engine))

    def replace_partition(self, table: Table, day: str, files: Sequence[LoadFile], generation: int) -> str:
        """See ``Warehouse``; rows that differ from those of the files when read back are never committed."""
        wanted = _in_microseconds(pa.Table.from_batches(read_batches(table, day, files), table.schema))
        expected = file_totals(table, [file.path for file in files if file.path])
        candles, days = tables_of(table, self.name)
        names = [column.name for column in candles.columns if column.name != UPDATED_AT]
        with transaction(self.engine, self.name) as connection:
            if not sa.inspect(connection).has_table(days.name):
                msg = f"{self}: there is no such table: ensure_table makes it"
                raise PermanentFailure(msg)
            current = _generation(connection, days, day)
            if generation <= current:
                msg = f"{table.name} {day}: generation {generation} is overtaken by {current}"
                raise Superseded(msg)
            moment = now_us(connection)
            for batch in wanted.select(names).to_batches(max_chunksize=self.batch_rows):
                _upsert(connection, candles, batch.to_pylist(), moment)
            _delete_others(connection, candles, day, wanted)
            differences = compare_totals(expected, _totals(connection, candles, table, day), table=table)
            if differences:
                msg = (
                    f"{self} does not hold the rows written for {day}: {differences[0]}: "
                    "check the triggers and rules of this table, then publish again"
                )
                raise PermanentFailure(msg)
            _upsert(connection, days, [{"day": day, "generation": generation}], moment)
        return f"{self}, generation {generation}"

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """See ``Warehouse``; waits for a running load by taking its lock."""
        if not generations:
            return
        _, days = tables_of(table, self.name)
        with transaction(self.engine, self.name) as connection:
            if max(generations) > _generation(connection, days, day):
                fenced = {"day": day, "generation": max(generations)}
                _upsert(connection, days, [fenced], now_us(connection))

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """See ``Warehouse``; the database computes them."""
        candles, _ = tables_of(table, self.name)
        with transaction(self.engine, self.name) as connection:
            if not sa.inspect(connection).has_table(self.name):
                return ()
            return _totals(connection, candles, table, day)

    def content(self, table: Table, day: str) -> str:
        """See ``Warehouse``; both databases give the same rows as the same Python values."""
        candles, _ = tables_of(table, self.name)
        names = [column.name for column in candles.columns if column.name != UPDATED_AT]
        query = sa.select(*(candles.c[name] for name in names)).where(*_of_day(candles, day))
        found = hashlib.sha256()
        with transaction(self.engine, self.name) as connection:
            if not sa.inspect(connection).has_table(self.name):
                return ""
            rows = connection.execute(query.order_by(*candles.primary_key)).all()
        for row in rows:
            found.update(repr(tuple(row)).encode())
        return f"{len(rows)}:{found.hexdigest()}" if rows else ""

    def ensure_views(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    def close(self) -> None:
        """Nothing is kept open."""


def open_ohlcv(settings: OhlcvSettings) -> OhlcvWarehouse | None:
    """Return the OHLCV table that the settings name; None if ``ohlcv.url`` is empty. See ``open_engine``."""
    engine = open_engine(settings)
    return None if engine is None else OhlcvWarehouse(engine, settings.table, settings.batch_rows)


def _generation(connection: Connection, days: sa.Table, day: str) -> int:
    query = sa.select(days.c.generation).where(days.c.day == day)
    return connection.execute(query).scalar_one_or_none() or 0


def _sum_of_floats(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.func.sum(sa.case((column.between(*SUMMED_RANGE), column)))


def _totals(connection: Connection, candles: sa.Table, table: Table, day: str) -> tuple[GroupTotals, ...]:
    groups = [candles.c[name] for name in table.group_by]
    query = sa.select(
        *groups,
        sa.func.count(),
        sa.func.min(candles.c.open_time),
        sa.func.max(candles.c.open_time),
        *(sa.func.sum(candles.c[name]) for name in table.exact_sums),
        *(_sum_of_floats(candles.c[name]) for name in table.float_sums),
    )
    rows = connection.execute(query.where(*_of_day(candles, day)).group_by(*groups))
    return totals_from_rows(table, rows.all())


def _of_day(candles: sa.Table, day: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return candles.c.open_time >= start_us(day), candles.c.open_time < end_us(day)


def _in_microseconds(rows: pa.Table) -> pa.Table:
    """Return the rows with ``open_time`` in the form of a statement's parameters."""
    at = rows.schema.get_field_index("open_time")
    return rows.set_column(at, "open_time", rows["open_time"].cast(pa.int64()))


def _upsert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], moment: int) -> None:
    """Insert rows, or update those whose values differ; a null, if the table allows it, also differs."""
    if not rows:
        return
    rows = [{**row, UPDATED_AT: moment} for row in rows]
    names = list(rows[0])
    insert: postgresql.Insert | sqlite.Insert
    parameters: Any
    if connection.dialect.name == "postgresql":
        # An array per column: for rows, the driver would send one statement each and wait for it.
        types = {n: postgresql.ARRAY(table.c[n].type) for n in names}
        arrays = [sa.cast(sa.bindparam(n, type_=types[n]), types[n]) for n in names]
        given = sa.func.unnest(*arrays).table_valued(*names).render_derived()
        insert = postgresql.insert(table).from_select(names, sa.select(*(given.c[n] for n in names)))
        parameters = {name: [row[name] for row in rows] for name in names}
    else:
        insert = sqlite.insert(table)
        parameters = rows
    updated = [name for name in names if not table.c[name].primary_key]
    changed = [
        table.c[name].is_distinct_from(insert.excluded[name]) for name in updated if name != UPDATED_AT
    ]
    upsert = insert.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: insert.excluded[name] for name in updated},
        where=sa.or_(*changed),
    )
    connection.execute(upsert, parameters)


def _delete_others(connection: Connection, table: sa.Table, day: str, wanted: pa.Table) -> None:
    """Delete the day's rows whose key the candles do not have."""
    key = list(table.primary_key)
    keep = set(zip(*(wanted[column.name].to_pylist() for column in key), strict=True))
    found = connection.execute(sa.select(*key).where(*_of_day(table, day))).all()
    gone = [tuple(row) for row in found if tuple(row) not in keep]
    for start in range(0, len(gone), _KEYS_AT_ONCE):
        connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(gone[start : start + _KEYS_AT_ONCE])))
