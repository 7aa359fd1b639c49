"""A data set in the stand-in for BigQuery, used by the rehearsal as by a person with a console."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import parse_day
from backfill_assets.standins.bigquery import PROJECT, BigQueryStandin, serve
from backfill_assets.warehouse.bigquery import open_client
from backfill_assets.warehouse.catalog import TABLES
from backfill_assets.warehouse.tables import Table

if TYPE_CHECKING:
    from google.cloud import bigquery

#: A load that takes longer is canceled; loads of a rehearsal take less than a second.
JOB_SECONDS: Final = 5.0
_DATASET: Final = "rehearsal"
_SECONDS: Final = 60.0


class Cloud:
    """The data set; made by the function ``cloud``."""

    def __init__(self, standin: BigQueryStandin, client: bigquery.Client) -> None:
        self.standin = standin
        self._client = client
        #: Content of each table at its last export.
        self._exported: dict[str, str] = {}

    @property
    def settings(self) -> Mapping[str, object]:
        """The section ``warehouse`` of settings whose runs publish here."""
        return {
            "kind": "bigquery",
            "project": PROJECT,
            "dataset": _DATASET,
            "endpoint": self.standin.url,
            "job_timeout_seconds": JOB_SECONDS,
        }

    def export(self, folder: Path) -> None:
        """Write the tables of the pipeline into the folder, each day as ``TABLE/DAY.parquet``."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        there = {table.table_id for table in self._client.list_tables(_DATASET, timeout=_SECONDS)}
        for table in TABLES:
            content = self._content(table) if table.name in there and self._has_columns(table) else ""
            # Rows come as JSON, which takes seconds for a table of ticks.
            if content == self._exported.get(table.name, ""):
                continue
            self._exported[table.name] = content
            shutil.rmtree(folder / table.name, ignore_errors=True)
            if not content:
                continue
            rows = self._query(f"SELECT * FROM `{_DATASET}.{table.name}`").cast(table.schema)
            days = rows[table.partition_column]
            for day in pc.unique(days).to_pylist():
                (folder / table.name).mkdir(parents=True, exist_ok=True)
                of_day = rows.filter(pc.equal(days, pa.scalar(day)))
                pq.write_table(of_day, folder / table.name / f"{day}.parquet")

    def drop(self, table: Table) -> None:
        """Delete the table."""
        self._client.delete_table(f"{_DATASET}.{table.name}", not_found_ok=True, timeout=_SECONDS)

    def drift(self, table: Table, *, without: str = "", as_text: str = "") -> None:
        """Make the table again, empty, without one column or with another as text."""
        from google.cloud import bigquery

        name = f"{PROJECT}.{_DATASET}.{table.name}"
        there = self._client.get_table(name, timeout=_SECONDS)
        schema = [
            bigquery.SchemaField(field.name, "STRING") if field.name == as_text else field
            for field in there.schema
            if field.name != without
        ]
        other = bigquery.Table(name, schema)
        other.time_partitioning, other.clustering_fields = there.time_partitioning, there.clustering_fields
        self.drop(table)
        self._client.create_table(other, timeout=_SECONDS)

    def rows(self, table: Table, day: str) -> int:
        """Count the rows of the day."""
        query = f"SELECT COUNT(*) AS n FROM `{_DATASET}.{table.name}` WHERE date = '{parse_day(day)}'"
        return int(self._query(query)["n"][0].as_py())

    def _content(self, table: Table) -> str:
        """A text that is equal for equal rows."""
        query = "SELECT COUNT(*) AS n, BIT_XOR(FARM_FINGERPRINT(TO_JSON_STRING(stored))) AS content"
        found = self._query(f"{query} FROM `{_DATASET}.{table.name}` AS stored")
        return f"{found['n'][0]} {found['content'][0]}"

    def _has_columns(self, table: Table) -> bool:
        """Whether the table has the pipeline's columns; a table with other columns holds none of its rows."""
        fields = self._client.get_table(f"{_DATASET}.{table.name}", timeout=_SECONDS).schema
        return {field.name for field in fields} == {column.name for column in table.columns}

    def _query(self, text: str) -> Any:
        job = self._client.query(text, timeout=_SECONDS)
        return job.result(timeout=_SECONDS).to_arrow(create_bqstorage_client=False)


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """A stand-in with an empty data set, in its own process.

    Raises
    ------
    PermanentFailure
        bqemulator is not installed, or does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with serve(folder) as standin, closing(open_client(PROJECT, "US", standin.url)) as client:
        client.create_dataset(_DATASET, timeout=_SECONDS)
        yield Cloud(standin, client)
