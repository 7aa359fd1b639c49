"""The promises of every warehouse.

``publish`` is written against this protocol, and one test suite holds every implementation to it. The
settings name the warehouse and its place; the OHLCV table's is used beside it (``warehouse.ohlcv``).
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
    """One Parquet file of a partition, at a place that the warehouse can reach.

    Attributes
    ----------
    uri
        ``gs://…`` if the file lies in a bucket; BigQuery reads it from there.
    path
        A local file; the embedded warehouse needs one.
    rows
        Number of rows that the lake says it has.
    """

    uri: str | None
    path: Path | None
    rows: int

    @property
    def name(self) -> str:
        """The file's place, for messages and the ledger."""
        return self.uri or str(self.path)


class LoadStopped(Superseded):
    """A load was canceled before its end; the partition is as it was."""


class Warehouse(Protocol):
    """Tables whose day partitions are replaced atomically; safe to share among threads.

    A *generation* is the number of a claim on one partition. It only grows; the claim with the greatest one
    wins. All methods raise ``TransientFailure`` or ``PermanentFailure`` with the remedy.
    """

    @property
    def daily_loads(self) -> int | None:
        """The number of replacements of one table's partitions that a UTC day allows; None means no limit."""
        ...

    @property
    def reads_buckets(self) -> bool:
        """Whether it loads files from ``gs://`` itself; otherwise it needs local files."""
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

        At all times, a reader sees either the old rows or the new ones.

        Returns
        -------
        str
            A name under which the load can be found again.

        Raises
        ------
        Superseded
            This generation was fenced off, or has been loaded before; ``LoadStopped`` if its load was
            canceled.
        PermanentFailure
            The files are not rows of this table and day; the partition is as it was.
        """
        ...

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """Settle older claims: after this, no load of one of ``generations`` takes effect any more.

        A running load is canceled, or this call waits for its end; a load that was never submitted is refused
        for good.
        """
        ...

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """Control totals of the partition as it is now, ordered by group; none if it is empty or missing."""
        ...

    def content(self, table: Table, day: str) -> str:
        """Return a name of the partition made from every value of its current rows; empty if there is no row.

        While the partition is not written, the name stays the same; if any value differs, it differs. Names
        from two warehouses have nothing in common.
        """
        ...

    def ensure_views(self) -> tuple[str, ...]:
        """Make the views of ``warehouse.views`` over the existing tables, if they are missing or differ.

        Returns
        -------
        tuple[str, ...]
            Names of views that this package may not make: another object has their name, and is left alone.
        """
        ...

    def close(self) -> None:
        """Release connections; the warehouse is not used afterwards."""
        ...


def open_warehouse(warehouse: DuckDBSettings | BigQuerySettings) -> Warehouse:
    """Open the warehouse that the settings name; ``${NAME}`` is resolved here.

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
