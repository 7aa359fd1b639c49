"""What a warehouse promises, whichever one it is.

``publish`` is written against this protocol and one test suite holds every implementation to it. The settings
say which one is used, and where; the OHLCV table's is used beside it (``warehouse.ohlcv``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backfill_assets.failures import Superseded
from backfill_assets.settings import BigQueryWarehouse as BigQuerySettings
from backfill_assets.settings import DuckDBWarehouse as DuckDBSettings
from backfill_assets.settings import resolve
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals


@dataclass(frozen=True, slots=True)
class LoadFile:
    """One Parquet file of a partition, where the warehouse can reach it.

    Attributes
    ----------
    uri
        ``gs://…`` where the file lies in a bucket; BigQuery reads it from there.
    path
        A local file; the embedded warehouse needs one.
    rows
        How many rows the lake says it has.
    """

    uri: str | None
    path: Path | None
    rows: int

    @property
    def name(self) -> str:
        """Where it is, for messages and the ledger."""
        return self.uri or str(self.path)


class LoadStopped(Superseded):
    """A load was cancelled before its end; the partition is as it was."""


class Warehouse(Protocol):
    """Tables whose day partitions are replaced atomically; safe to share among threads.

    A *generation* is the number of a claim on one partition. It only grows; whoever holds the greatest one
    wins. All methods raise ``TransientFailure`` or ``PermanentFailure`` with the remedy.
    """

    @property
    def daily_loads(self) -> int | None:
        """How many replacements of one table's partitions a UTC day allows; None means no limit."""
        ...

    @property
    def reads_buckets(self) -> bool:
        """Whether it loads files from ``gs://`` itself; else it needs local ones."""
        ...

    def ensure_table(self, table: Table) -> None:
        """Create the table, or add the nullable columns that it lacks.

        Raises
        ------
        PermanentFailure
            A column was removed or changed, or a required one was added; the message names it.
        """
        ...

    def replace_partition(self, table: Table, day: str, files: Sequence[LoadFile], generation: int) -> str:
        """Make the partition hold exactly the rows of ``files``; no files, or no rows, is an empty day.

        Whatever happens, a reader sees the old rows or the new ones.

        Returns
        -------
        str
            A name under which the load can be found again.

        Raises
        ------
        Superseded
            This generation was fenced off, or has been loaded before; ``LoadStopped`` if its load was
            cancelled.
        PermanentFailure
            The files are not rows of this table and day; the partition is as it was.
        """
        ...

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """Settle older claims: after this, no load of one of ``generations`` takes effect any more.

        One that is running is waited for or cancelled; one that was never submitted is refused for good.
        """
        ...

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """Control totals of the partition as it is now, ordered by group; none if it is empty or missing."""
        ...

    def content(self, table: Table, day: str) -> str:
        """Name the partition by every value of its rows as they are now; empty if there is no row.

        While nobody writes to the partition the name stays the same; where any value is another, it is
        another. Names of two warehouses have nothing in common.
        """
        ...

    def ensure_views(self) -> tuple[str, ...]:
        """Make the views of ``warehouse.views`` over the tables that are there, where they are not yet so.

        Returns
        -------
        tuple[str, ...]
            Names of views that are not ours to make: something else has their name, and is left alone.
        """
        ...

    def close(self) -> None:
        """Release connections; the warehouse is not used afterwards."""
        ...


def open_warehouse(warehouse: DuckDBSettings | BigQuerySettings) -> Warehouse:
    """The warehouse that the settings name; ``${NAME}`` is resolved here.

    Raises
    ------
    PermanentFailure
        A variable is missing, or there are no Google credentials.
    """
    if isinstance(warehouse, DuckDBSettings):
        from backfill_assets.warehouse.duckdb import DuckDBWarehouse

        return DuckDBWarehouse(Path(resolve(warehouse.folder)).expanduser())
    from backfill_assets.warehouse.bigquery import open_bigquery

    return open_bigquery(warehouse)
