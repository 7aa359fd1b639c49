"""Fixtures for the tests against real services: the address of the service, and separate places in it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "warehouse"))  # the folder of the contract's samples

from warehouse_samples import TRADES, rows

from backfill_assets.settings import BigQueryWarehouse, LakeSettings
from backfill_assets.warehouse.protocol import LoadFile, Warehouse, open_warehouse
from backfill_assets.warehouse.tables import Table

#: Also set if a data set is to be made outside the US.
LOCATION = os.environ.get("BACKFILL_LIVE_BIGQUERY_LOCATION", "US")
#: Only for a trial of these tests themselves, on a stand-in.
ENDPOINT = os.environ.get("BACKFILL_LIVE_BIGQUERY_ENDPOINT", "")


@dataclass
class Bench:
    """BigQuery with a data set for one test; the same interface as the warehouse contract's benches."""

    warehouse: Warehouse
    settings: BigQueryWarehouse
    client: Any
    read: Callable[[], list[dict[str, Any]]]
    tamper: Callable[[], None]
    file: Callable[..., LoadFile]
    kind: str = "bigquery"
    table: Table = TRADES
    rows: Callable[..., list[dict[str, Any]]] = rows


@pytest.fixture(scope="session")
def bigquery_client() -> Iterator[Any]:
    from backfill_assets.warehouse.bigquery import open_client

    project = os.environ["BACKFILL_LIVE_BIGQUERY"].partition(".")[0]
    client = open_client(project, LOCATION, ENDPOINT)
    yield client
    client.close()


@pytest.fixture
def bigquery_settings(bigquery_client: Any) -> Iterator[BigQueryWarehouse]:
    """A fresh data set, deleted with everything in it."""
    from google.cloud import bigquery

    project, _, prefix = os.environ["BACKFILL_LIVE_BIGQUERY"].partition(".")
    name = f"{prefix}_{uuid4().hex[:10]}"
    dataset = bigquery.Dataset(f"{project}.{name}")
    dataset.location = LOCATION
    bigquery_client.create_dataset(dataset, timeout=60)
    try:
        yield BigQueryWarehouse(
            kind="bigquery",
            project=project,
            dataset=name,
            location=LOCATION,
            endpoint=ENDPOINT,
            job_timeout_seconds=300,
        )
    finally:
        bigquery_client.delete_dataset(dataset, delete_contents=True, not_found_ok=True, timeout=60)


@pytest.fixture(params=["upload", "gs"])
def bench(
    request: pytest.FixtureRequest, bigquery_settings: BigQueryWarehouse, bigquery_client: Any
) -> Iterator[Bench]:
    """The bench with the contract's table; files come from here, and from the bucket if there is one."""
    from warehouse_samples import DAY, TRADES, load_file

    if request.param == "gs" and not os.environ.get("BACKFILL_LIVE_GCS"):
        pytest.skip("loading from a bucket needs BACKFILL_LIVE_GCS=gs://bucket/prefix as well")
    dataset = bigquery_settings.dataset

    def run(sql: str) -> list[dict[str, Any]]:
        return [dict(row.items()) for row in bigquery_client.query(sql, timeout=60).result(timeout=120)]

    def tamper() -> None:
        run(f"DELETE FROM `{dataset}.trades` WHERE date = '{DAY}' AND id = {2**62}")

    def to_bucket(path: Path, count: int | None = None) -> LoadFile:
        from backfill_assets.lake.store import open_store

        store = open_store(request.getfixturevalue("lake"))
        name = f"{uuid4().hex}.parquet"
        store.put_file(path, name)
        return LoadFile(uri=store.uri_of(name), path=None, rows=load_file(path, count).rows)

    warehouse = open_warehouse(bigquery_settings)
    warehouse.ensure_table(TRADES)
    yield Bench(
        warehouse,
        bigquery_settings,
        bigquery_client,
        lambda: run(f"SELECT * FROM `{dataset}.trades` ORDER BY date, symbol, timestamp, price"),
        tamper,
        to_bucket if request.param == "gs" else load_file,
    )
    warehouse.close()


@pytest.fixture
def wide(bench: Bench) -> Bench:
    """The bench itself: BigQuery takes any table."""
    return bench


@pytest.fixture
def publishing(bigquery_settings: BigQueryWarehouse, bigquery_client: Any) -> Iterator[Bench]:
    """The bench without any table, for tests that make their own."""
    from warehouse_samples import load_file

    warehouse = open_warehouse(bigquery_settings)
    yield Bench(warehouse, bigquery_settings, bigquery_client, list, lambda: None, load_file)
    warehouse.close()


@pytest.fixture
def lake() -> Iterator[LakeSettings]:
    """A prefix of its own in the bucket, emptied at the end."""
    from backfill_assets.lake.store import open_store

    settings = LakeSettings(uri=f"{os.environ['BACKFILL_LIVE_GCS'].rstrip('/')}/{uuid4().hex}")
    yield settings
    store = open_store(settings)
    for path in list(store.list("")):
        store.delete(path)


@pytest.fixture
def store(lake: LakeSettings) -> Any:
    """An empty lake's store."""
    from backfill_assets.lake.store import open_store

    return open_store(lake)


@pytest.fixture
def run_day(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs a day of real Dagster on a settings file with these sections (embedded warehouse by default)."""
    import dagster as dg

    from backfill_assets.definitions import build_definitions

    def run(day: str, **sections: Any) -> dg.ExecuteInProcessResult:
        content = {
            "lake": {"uri": str(tmp_path / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
            **sections,
        }
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(content))
        quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        job = build_definitions(str(file)).resolve_job_def("day")
        return job.execute_in_process(partition_key=day, run_config=quiet, raise_on_error=False)

    yield run
    shutil.rmtree(tmp_path / "lake", ignore_errors=True)
