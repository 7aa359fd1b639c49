"""The sources of rows: the embedded warehouse, BigQuery, or the lake itself.

Each source returns a table's rows on some days, and the quality rows of a range, as polars queries. The query
opens the files, so that a filter or a choice of columns reads less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from backfill_assets.candles.query import open_made
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake import paths
from backfill_assets.lake.listing import load_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import open_store
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.schemas import quality_values
from backfill_assets.quality.settled import load_day, load_settled
from backfill_assets.settings import DuckDBWarehouse, Settings, resolve
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY
from backfill_assets.warehouse.overall import day_overall
from backfill_assets.warehouse.tables import Table

if TYPE_CHECKING:
    import polars as pl

#: Tables that may be asked for days they do not have; other tables are asked only for days with rows.
_OF_ANY_DAY: Final = (QUALITY, INSTRUMENTS)
#: Data set symbols whose rows in a group's file do not count, because their own files do.
Symbols = tuple[str, ...]
#: A file's path in the lake, and the symbols left out of it.
LakeFile = tuple[str, Symbols]


class Source(Protocol):
    """Rows of the tables of ``warehouse.catalog``."""

    def rows(self, table: Table, days: Sequence[str], where: Mapping[str, str]) -> pl.LazyFrame:
        """Rows of these days whose columns have these values, in the order of days and files.

        Files are sorted; those of candles and coverage, by market, timeframe and time.
        """
        ...

    def quality(self, days: Sequence[str]) -> pl.LazyFrame:
        """The quality rows of these days."""
        ...

    def not_made(self, table: Table, days: Sequence[str]) -> frozenset[str]:
        """The days that have quality rows, but no rows of this table yet, or no longer."""
        ...


def open_source(settings: Settings, source: str) -> Source:
    """The source of this name, ``warehouse`` or ``lake``."""
    if source == "lake":
        return LakeSource(settings)
    if isinstance(settings.warehouse, DuckDBWarehouse):
        return FolderSource(Path(resolve(settings.warehouse.folder)).absolute())
    return BigQuerySource(settings)


def empty(table: Table) -> pl.DataFrame:
    """A frame with the table's columns and no rows."""
    import polars as pl

    # An empty Arrow table would import pandas, which costs more than reading a year.
    return pl.DataFrame(schema=pl.Schema(table.schema))


def _scan(table: Table, files: Sequence[Path], where: Mapping[str, str]) -> pl.LazyFrame:
    """The rows of Parquet files; columns missing from files of earlier releases are null."""
    import polars as pl

    nothing = empty(table)
    if not files:
        return nothing.lazy()
    found = pl.scan_parquet(
        list(files),
        glob=False,
        hive_partitioning=False,
        schema=nothing.schema,
        missing_columns="insert",
        extra_columns="ignore",
    )
    return found.filter(*(pl.col(name) == value for name, value in where.items()))


class FolderSource:
    """The embedded warehouse: a Parquet file per table and day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, table: Table, days: Sequence[str], where: Mapping[str, str]) -> pl.LazyFrame:
        """See ``Source``."""
        named = [self._folder / table.name / f"{day}.parquet" for day in days]
        there = [file for file in named if file.exists()]
        if len(there) < len(named) and table not in _OF_ANY_DAY:
            lost = next(file for file in named if file not in there)
            again = f"load it again with 'backfill-assets backfill --start {lost.stem} --end {lost.stem}'"
            msg = f"{lost} is gone: {again}"
            raise PermanentFailure(msg)
        return _scan(table, there, where)

    def quality(self, days: Sequence[str]) -> pl.LazyFrame:
        """See ``Source``."""
        return self.rows(QUALITY, days, {})

    def not_made(self, table: Table, days: Sequence[str]) -> frozenset[str]:
        """See ``Source``; the tables are published together."""
        del table, days
        return frozenset()


class BigQuerySource:
    """The BigQuery data set, read with the official client by queries that name the partitions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.warehouse

    def rows(self, table: Table, days: Sequence[str], where: Mapping[str, str]) -> pl.LazyFrame:
        """See ``Source``; the rows are fetched here."""
        import polars as pl

        if not days:
            return empty(table).lazy()
        from backfill_assets.warehouse.bigquery import open_bigquery

        with closing(open_bigquery(self._settings)) as opened:  # type: ignore[arg-type]
            found = opened.rows(table, days[0], days[-1], where)
        frame = pl.DataFrame(pl.from_arrow(found)).cast(empty(table).schema)
        wanted = pl.Series(days).str.to_date()
        # BigQuery returns rows in no order; a tick's place in its file is a column.
        time = [table.time_column] if table.time_column else []
        order = ["date", *(["row"] if "row" in frame.columns else [*table.group_by, *time])]
        return frame.sort(order).lazy().filter(pl.col("date").is_in(wanted.implode()))

    def quality(self, days: Sequence[str]) -> pl.LazyFrame:
        """See ``Source``."""
        return self.rows(QUALITY, days, {})

    def not_made(self, table: Table, days: Sequence[str]) -> frozenset[str]:
        """See ``Source``; the tables are published together."""
        del table, days
        return frozenset()


class LakeSource:
    """The accepted data in the lake, published or not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = open_store(settings.lake)

    def rows(self, table: Table, days: Sequence[str], where: Mapping[str, str]) -> pl.LazyFrame:
        """See ``Source``."""
        import polars as pl

        if table is QUALITY:
            return self.quality(days).filter(*(pl.col(name) == value for name, value in where.items()))
        of_table: Callable[[str], list[LakeFile]] = {
            CANDLES.name: lambda day: self._made(table, day),
            COVERAGE.name: lambda day: self._made(table, day),
            INSTRUMENTS.name: self._listings,
        }.get(table.name, lambda day: self._ticks(table, day))
        found = [one for of in parallel_map(of_table, days, self._store.parallel_reads) for one in of]
        with ExitStack() as stack:
            frames = [
                _scan(table, files, where).filter(~pl.col("dataset_symbol").is_in(left_out))
                if left_out
                else _scan(table, files, where)
                for left_out, files in _together(
                    (left_out, stack.enter_context(self._store.local_copy(path))) for path, left_out in found
                )
            ]
            query = pl.concat(frames) if frames else empty(table).lazy()
            # A local copy of a bucket's file exists only within this block.
            return query if isinstance(self._store, LocalStore) else query.collect().lazy()

    def quality(self, days: Sequence[str]) -> pl.LazyFrame:
        """See ``Source``."""
        import polars as pl

        def of_day(day: str) -> list[dict[str, Any]]:
            found = load_day(self._store, day)
            if found is None:
                return []
            return quality_values(found, day_overall(self._store, found, self._settings.overall))

        rows = [row for of in parallel_map(of_day, days, self._store.parallel_reads) for row in of]
        return pl.DataFrame(rows, schema=empty(QUALITY).schema, orient="row").lazy()

    def not_made(self, table: Table, days: Sequence[str]) -> frozenset[str]:
        """See ``Source``: days whose document of measures is not there or cannot be read."""
        if table not in (CANDLES, COVERAGE):
            return frozenset()
        found = parallel_map(lambda day: load_measures(self._store, day), days, self._store.parallel_reads)
        return frozenset(
            day
            for day, measures in zip(days, found, strict=True)
            if measures is None or getattr(measures, table.name) is None
        )

    def _made(self, table: Table, day: str) -> list[LakeFile]:
        with open_made(self._store, day, table.name) as (file, _):
            return [(paths.made_data(table.name, day, file.content), ())]

    def _listings(self, day: str) -> list[LakeFile]:
        settled = load_settled(self._store, day)
        found = [load_instruments(self._store, e, day) for e in settled.exchanges] if settled else []
        return [(paths.instruments_data(m.exchange, m.day, m.content), ()) for m in found if m is not None]

    def _ticks(self, table: Table, day: str) -> list[LakeFile]:
        found = load_day(self._store, day)
        if found is None:
            return []
        return [
            (paths.ticks_data(feed.feed, day, version.content), found.settled.left_out_of(feed))
            for feed, version in found.accepted_feeds(table.name)
        ]


def _together(found: Iterable[tuple[Symbols, Path]]) -> Iterator[tuple[Symbols, list[Path]]]:
    """Group consecutive files with the same symbols left out, for one query."""
    for left_out, group in groupby(found, key=lambda one: one[0]):
        yield left_out, [file for _, file in group]
