"""BigQuery through the official client: one load job per partition, with job ids that settle claims.

A partition is replaced by a load job with ``WRITE_TRUNCATE`` into ``table$YYYYMMDD``, which BigQuery applies
as one atomic update when the job completes; a job that fails leaves the partition as it was. The job id holds
table, day and generation. A claim is settled through its id: a running load is canceled, and the publisher
waits for its end. An unused id is used up by a query that reads nothing, so a client that comes late gets
409.

An empty day is a load of a file without rows. Google's documentation does not say that this empties the
partition. This is unverified against the real service, where the totals that ``publish`` reads back would
show it.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from backfill_assets.columns import Column
from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure, Superseded, TransientFailure
from backfill_assets.files import TEMPORARY_PREFIX
from backfill_assets.settings import BigQueryWarehouse as BigQuerySettings
from backfill_assets.settings import resolve
from backfill_assets.warehouse import bigquery_views
from backfill_assets.warehouse.bigquery_failures import failed_job, translated
from backfill_assets.warehouse.parquet import concatenate
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.tables import Table, missing_columns, relaxed_columns
from backfill_assets.warehouse.totals import GroupTotals, summed, totals_from_rows

if TYPE_CHECKING:
    import pyarrow as pa

#: Limit of a load job (vendor documentation).
MAX_URIS: Final = 10_000

_REQUEST_SECONDS: Final = 60.0
#: Limit of a request that a person waits for.
_LOOK_SECONDS: Final = 10.0
#: One chunk of an upload; the client sends 10 MB at a time.
_UPLOAD_SECONDS: Final = 300.0
_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 5.0
#: The label that tells the load of this very call from another load with the same id.
_CLAIM: Final = "backfill-claim"
#: A day of microsecond timestamps or large ids overflows a sum of INT64, so halves of the values are summed.
_HALF: Final = 2**32
#: The service's older names of types.
_TYPES: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


class BigQueryWarehouse:
    """``Warehouse`` in one data set, shared by any number of processes and machines.

    Parameters
    ----------
    client
        Ready to use; ``close`` closes it.
    dataset
        ``project.dataset``; it must exist.
    daily_loads
        The number of load jobs that a table may get per UTC day.
    retry_seconds
        How long one request is repeated while the service does not answer or asks for a retry.
    """

    def __init__(
        self,
        client: bigquery.Client,
        dataset: str,
        *,
        location: str = "US",
        job_timeout_seconds: float = 3600,
        daily_loads: int | None = 1400,
        retry_seconds: float = 120,
        scratch: Path | None = None,
    ) -> None:
        self._client = client
        self._dataset = dataset
        self._location = location
        self._job_timeout_seconds = job_timeout_seconds
        self._daily_loads = daily_loads
        self._scratch = scratch
        self._retry = bigquery.DEFAULT_RETRY.with_timeout(retry_seconds)

    @property
    def daily_loads(self) -> int | None:
        """See ``Warehouse``; the service refuses more than 1,500 per table and day, failures included."""
        return self._daily_loads

    @property
    def reads_buckets(self) -> bool:
        """A load job reads them."""
        return True

    def ensure_table(self, table: Table) -> None:
        """See ``Warehouse``."""
        name = self._name(table)
        with translated(name):
            for _ in range(5):
                try:
                    there = self._client.get_table(name, retry=self._retry, timeout=_REQUEST_SECONDS)
                except api.NotFound:
                    there = self._client.create_table(
                        _definition(table, name), exists_ok=True, retry=self._retry, timeout=_REQUEST_SECONDS
                    )
                _check_partitioning(table, there, name)
                existing = [_column(field) for field in there.schema]
                missing = missing_columns(table, existing, name)
                relaxed = {column.name: _field(column) for column in relaxed_columns(table, existing)}
                if not missing and not relaxed:
                    return
                kept = [relaxed.get(field.name, field) for field in there.schema]
                there.schema = [*kept, *(_field(column) for column in missing)]
                try:
                    self._client.update_table(there, ["schema"], retry=self._retry, timeout=_REQUEST_SECONDS)
                except api.PreconditionFailed:
                    continue  # Another writer has changed the table; read it again.
                return
        msg = f"{name}: other writers kept changing the table: run again"
        raise TransientFailure(msg)

    def replace_partition(self, table: Table, day: str, files: Sequence[LoadFile], generation: int) -> str:
        """See ``Warehouse``; the service reads files in ``gs://``, and local files are uploaded as one."""
        partition = parse_day(day)
        name = f"{self._name(table)}${partition:%Y%m%d}"
        files = [file for file in files if file.rows]
        job_id, claim = self.job_id(table, day, generation), token_hex(8)
        with translated(name):
            try:
                if files and all(file.uri for file in files):
                    self._submit_uris(table, name, files, job_id, claim)
                else:
                    self._submit_upload(table, day, name, files, job_id, claim)
            except api.Conflict:
                # This also happens after a lost answer, when the client submits its own job twice: the claim
                # tells.
                pass
            job = self._find(job_id)
            if job is None or job.job_type != "load" or job.labels.get(_CLAIM) != claim:
                msg = f"{name}: job id {job_id} was taken by another publisher"
                raise Superseded(msg)
            self._settle(job)
        if job.error_result:
            raise failed_job(name, job_id, job.error_result)
        return f"{self._client.project}:{self._location}.{job_id}"

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """See ``Warehouse``."""
        with translated(f"{self._name(table)} {day}"):
            for generation in generations:
                job_id = self.job_id(table, day, generation)
                job = self._find(job_id)
                if job is None and not self._occupy(job_id):
                    job = self._find(job_id)
                if job is not None and job.job_type == "load" and job.state != "DONE":
                    job.cancel(retry=self._retry, timeout=_REQUEST_SECONDS)
                    self._settle(job)

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """See ``Warehouse``; computed by the service, never from its cache."""
        rows = self._query(f"{self._name(table)} {day}", _totals_query(table, self._name(table)), day=day)
        return totals_from_rows(table, (_whole_sums(table, row.values()) for row in rows))

    def rows(self, table: Table, first: str, last: str, where: Mapping[str, str]) -> pa.Table:
        """Rows of the partitions from one day to another in which the columns have these values."""
        name = self._name(table)
        chosen = " AND ".join(["`date` BETWEEN @first_day AND @last_day", *(f"`{c}` = @{c}" for c in where)])
        columns = ", ".join(f"`{column.name}`" for column in table.columns)
        query = f"SELECT {columns} FROM `{name}` WHERE {chosen}"
        given = {"first_day": first, "last_day": last, **where}
        return self._query(f"{name} {first} to {last}", query, _as_arrow, **given)

    def _query(self, about: str, query: str, read: Callable[[Any], Any] = list, **given: str) -> Any:
        """Return the rows of a query; parameters whose names end in ``day`` are dates, others are texts."""
        config = bigquery.QueryJobConfig(
            query_parameters=[
                bigquery.ScalarQueryParameter(name, "DATE", parse_day(value))
                if name.endswith("day")
                else bigquery.ScalarQueryParameter(name, "STRING", value)
                for name, value in given.items()
            ],
            use_query_cache=False,
        )
        with translated(about):
            job = self._client.query(
                query,
                job_config=config,
                location=self._location,
                retry=self._retry,
                timeout=_REQUEST_SECONDS,
            )
            return read(job.result(retry=self._retry, timeout=self._job_timeout_seconds))

    def content(self, table: Table, day: str) -> str:
        """See ``Warehouse``; the service hashes the rows, and their order does not matter."""
        query = (
            "SELECT COUNT(*), BIT_XOR(FARM_FINGERPRINT(TO_JSON_STRING(stored))) "
            f"FROM `{self._name(table)}` AS stored WHERE `{table.partition_column}` = @day"
        )
        found = self._query(f"{self._name(table)} {day}", query, day=day)
        ((rows, content),) = (tuple(row.values()) for row in found)
        return f"{rows}:{content}" if rows else ""

    def ensure_views(self) -> tuple[str, ...]:
        """See ``Warehouse``."""
        return bigquery_views.ensure_views(self._client, self._dataset, self._retry)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def job_id(self, table: Table, day: str, generation: int) -> str:
        """Return the id of a claim's only job; the hash stands for project, data set and table."""
        target = hashlib.sha256(self._name(table).encode()).hexdigest()[:12]
        return f"backfill-{table.name}-{parse_day(day):%Y%m%d}-{generation}-{target}"

    def _name(self, table: Table) -> str:
        return f"{self._dataset}.{table.name}"

    def _submit_uris(
        self, table: Table, name: str, files: Sequence[LoadFile], job_id: str, claim: str
    ) -> None:
        if len(files) > MAX_URIS:
            msg = (
                f"{name}: {len(files)} files, but a load job takes {MAX_URIS}: "
                "group the feeds into fewer files"
            )
            raise PermanentFailure(msg)
        self._client.load_table_from_uri(
            [file.name for file in files],
            name,
            job_id=job_id,
            location=self._location,
            job_config=self._load_config(table, claim),
            retry=self._retry,
            timeout=_REQUEST_SECONDS,
        )

    def _submit_upload(
        self, table: Table, day: str, name: str, files: Sequence[LoadFile], job_id: str, claim: str
    ) -> None:
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=self._scratch) as folder:
            path = Path(folder) / "partition.parquet"
            concatenate(table, day, files, path)
            with path.open("rb") as source:
                self._client.load_table_from_file(
                    source,
                    name,
                    size=path.stat().st_size,
                    num_retries=6,
                    job_id=job_id,
                    location=self._location,
                    job_config=self._load_config(table, claim),
                    timeout=_UPLOAD_SECONDS,
                )

    def _load_config(self, table: Table, claim: str) -> bigquery.LoadJobConfig:
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=[_field(column) for column in table.columns],
            labels={_CLAIM: claim},
        )
        config.job_timeout_ms = int(self._job_timeout_seconds * 1000)
        return config

    def _find(self, job_id: str) -> Any | None:
        try:
            return self._client.get_job(
                job_id, location=self._location, retry=self._retry, timeout=_REQUEST_SECONDS
            )
        except api.NotFound:
            return None

    def _occupy(self, job_id: str) -> bool:
        """Use up the id with a query over nothing, which is free; False if another client was faster."""
        try:
            self._client.query(
                "SELECT 'this generation was overtaken' AS reason",
                job_id=job_id,
                location=self._location,
                job_retry=None,
                retry=self._retry,
                timeout=_REQUEST_SECONDS,
            )
        except api.Conflict:
            return False
        return True

    def _settle(self, job: Any) -> None:
        """Wait until the job has ended, well or badly; cancel a job that takes too long."""
        deadline = time.monotonic() + self._job_timeout_seconds
        wait = _FIRST_WAIT_SECONDS
        while job.state != "DONE":
            if time.monotonic() > deadline:
                job.cancel(retry=self._retry, timeout=_REQUEST_SECONDS)
                msg = (
                    f"job {job.job_id} was not done after {self._job_timeout_seconds:g} s and was canceled: "
                    "run again, or raise warehouse.job_timeout_seconds"
                )
                raise TransientFailure(msg)
            time.sleep(wait)
            wait = min(_LONGEST_WAIT_SECONDS, wait * 1.5)
            job.reload(retry=self._retry, timeout=_REQUEST_SECONDS)


def open_client(project: str, location: str, endpoint: str) -> bigquery.Client:
    """Return a client for the service, or without credentials for a stand-in at ``endpoint``.

    Raises
    ------
    PermanentFailure
        There are no Google credentials.
    """
    with translated(f"BigQuery project {project}"):
        if endpoint:
            return bigquery.Client(
                project=project,
                location=location,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options=ClientOptions(api_endpoint=endpoint),
            )
        return bigquery.Client(project=project, location=location)


def open_bigquery(settings: BigQuerySettings) -> BigQueryWarehouse:
    """Return the warehouse of the settings."""
    project, dataset, location = (
        resolve(settings.project),
        resolve(settings.dataset),
        resolve(settings.location),
    )
    return BigQueryWarehouse(
        open_client(project, location, resolve(settings.endpoint)),
        f"{project}.{dataset}",
        location=location,
        job_timeout_seconds=settings.job_timeout_seconds,
        daily_loads=settings.load_jobs_per_table_and_day,
    )


def tables_of(settings: BigQuerySettings) -> frozenset[str]:
    """Return the names of the data set's tables, from one request; none if the data set does not exist.

    Raises
    ------
    PermanentFailure, TransientFailure
        The request fails.
    """
    with _looking(settings) as (client, dataset, retry):
        try:
            found = list(client.list_tables(dataset, retry=retry, timeout=_LOOK_SECONDS))
        except api.NotFound:
            return frozenset()
    return frozenset(table.table_id for table in found)


def partitions_of(settings: BigQuerySettings) -> dict[tuple[str, str], int]:
    """Return the rows of every partition by table and ``YYYYMMDD``; none if the data set does not exist.

    This is a query of ``INFORMATION_SCHEMA.PARTITIONS``, for which the service counts 10 MB.

    Raises
    ------
    PermanentFailure, TransientFailure
        The request fails.
    """
    with _looking(settings) as (client, dataset, retry):
        query = (
            "SELECT table_name, partition_id, total_rows "
            f"FROM `{dataset}.INFORMATION_SCHEMA.PARTITIONS` WHERE partition_id IS NOT NULL"
        )
        try:
            job = client.query(query, retry=retry, job_retry=None, timeout=_LOOK_SECONDS)
            rows = list(job.result(retry=retry, job_retry=None, timeout=_LOOK_SECONDS))
        except api.NotFound:
            return {}
    return {(table, partition): int(count or 0) for table, partition, count in (r.values() for r in rows)}


@contextmanager
def _looking(settings: BigQuerySettings) -> Iterator[tuple[bigquery.Client, str, Any]]:
    """Yield a client, the data set, and the retry limit of a request that a person waits for."""
    dataset = f"{resolve(settings.project)}.{resolve(settings.dataset)}"
    client = open_client(resolve(settings.project), resolve(settings.location), resolve(settings.endpoint))
    with closing(client), translated(dataset):
        yield client, dataset, bigquery.DEFAULT_RETRY.with_timeout(_LOOK_SECONDS)


def _as_arrow(rows: Any) -> pa.Table:
    # The storage API would need its own client and permission, and has its own price.
    return rows.to_arrow(create_bqstorage_client=False)


def _definition(table: Table, name: str) -> bigquery.Table:
    definition = bigquery.Table(name, schema=[_field(column) for column in table.columns])
    definition.description = table.description
    definition.time_partitioning = bigquery.TimePartitioning(
        type_=bigquery.TimePartitioningType.DAY, field=table.partition_column
    )
    if table.clustering:
        definition.clustering_fields = list(table.clustering)
    return definition


def _field(column: Column) -> bigquery.SchemaField:
    mode = "REQUIRED" if column.required else "NULLABLE"
    return bigquery.SchemaField(column.name, column.type, mode=mode, description=column.description)


def _column(field: bigquery.SchemaField) -> Column:
    kind: Any = _TYPES.get(field.field_type, field.field_type)
    return Column(field.name, kind, field.description or "", required=field.mode == "REQUIRED")


def _check_partitioning(table: Table, there: bigquery.Table, name: str) -> None:
    partitioning = there.time_partitioning
    if partitioning is None or (partitioning.type_, partitioning.field) != ("DAY", table.partition_column):
        msg = f"{name}: exists but is not partitioned by day on {table.partition_column}: rename or drop it"
        raise PermanentFailure(msg)


def _totals_query(table: Table, name: str) -> str:
    groups = [f"`{column}`" for column in table.group_by]
    time_us = f"UNIX_MICROS(`{table.time_column}`)" if table.time_column else "CAST(NULL AS INT64)"
    exact = [
        half
        for c in table.exact_sums
        for value in [f"UNIX_MICROS(`{c}`)" if table.column(c).type == "TIMESTAMP" else f"`{c}`"]
        for half in (f"SUM(DIV({value}, {_HALF}))", f"SUM(MOD({value}, {_HALF}))")
    ]
    values = [*groups, "COUNT(*)", f"MIN({time_us})", f"MAX({time_us})", *exact]
    values += [f"SUM({summed(f'`{column}`')})" for column in table.float_sums]
    columns = ", ".join(f"{value} AS v{i}" for i, value in enumerate(values))
    last = f"GROUP BY {', '.join(groups)}" if groups else "HAVING COUNT(*) > 0"
    return f"SELECT {columns} FROM `{name}` WHERE `{table.partition_column}` = @day {last}"


def _whole_sums(table: Table, row: Sequence[Any]) -> list[Any]:
    """Return a row of the totals query with its halves put together."""
    start = len(table.group_by) + 3
    end = start + 2 * len(table.exact_sums)
    halves = [int(value or 0) for value in row[start:end]]
    whole = [high * _HALF + low for high, low in zip(halves[::2], halves[1::2], strict=True)]
    return [*row[:start], *whole, *row[end:]]
