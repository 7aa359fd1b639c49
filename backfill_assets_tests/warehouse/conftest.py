"""Both warehouses behind one face, so that one suite can hold them to the same promises."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # the samples serve the tests and the processes that they start

from warehouse_samples import DAY, TRADES, load_file

from backfill_assets.lake.local import LocalStore
from backfill_assets.settings import BigQueryWarehouse as BigQuerySettings
from backfill_assets.settings import DuckDBWarehouse as DuckDBSettings
from backfill_assets.warehouse.protocol import LoadFile, Warehouse, open_warehouse


def _emulator_module() -> ModuleType:
    path = Path(__file__).parents[1] / "emulators" / "bigquery.py"
    spec = importlib.util.spec_from_file_location("bigquery_emulator_of_tests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Bench:
    """A warehouse, and how to look at it and harm it from outside."""

    kind: str
    warehouse: Warehouse
    settings: BigQuerySettings | DuckDBSettings
    #: The rows of the sample table as another client sees them.
    read: Callable[[], list[dict[str, Any]]]
    #: Remove one row of the day behind our back.
    tamper: Callable[[], None]
    #: How the warehouse is to be told of a local file.
    file: Callable[..., LoadFile] = load_file
    emulator: Any = None
    client: Any = None


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("bqemulator", reason="bqemulator is not installed (a dependency of the tests)")
    with _emulator_module().serve(tmp_path_factory.mktemp("gcs")) as running:
        yield running


@pytest.fixture
def duckdb_bench(tmp_path: Path) -> Bench:
    import duckdb
    import pyarrow.parquet as pq

    folder = tmp_path / "warehouse"

    def read() -> list[dict[str, Any]]:
        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql("SELECT * FROM trades ORDER BY ALL").to_arrow_table().to_pylist()

    def tamper() -> None:
        path = folder / "trades" / f"{DAY}.parquet"
        pq.write_table(pq.read_table(path).slice(1), path)

    settings = DuckDBSettings(kind="duckdb", folder=str(folder))
    return Bench("duckdb", open_warehouse(settings), settings, read, tamper)


@pytest.fixture
def bigquery_bench(emulator: Any) -> Iterator[Bench]:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    client = bigquery.Client(
        project="test-project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": emulator.url},
    )
    dataset = f"d_{uuid4().hex[:10]}"
    client.create_dataset(dataset, timeout=30)

    def run(sql: str) -> list[dict[str, Any]]:
        return [dict(row.items()) for row in client.query(sql, timeout=30).result(timeout=30)]

    settings = BigQuerySettings(
        kind="bigquery",
        project="test-project",
        dataset=dataset,
        endpoint=emulator.url,
        job_timeout_seconds=60,
    )
    warehouse = open_warehouse(settings)
    emulator.arm()
    yield Bench(
        "bigquery",
        warehouse,
        settings,
        lambda: run(f"SELECT * FROM `{dataset}.trades` ORDER BY date, symbol, timestamp, price"),
        lambda: run(f"DELETE FROM `{dataset}.trades` WHERE date = '{DAY}' AND id = {2**62}") and None,
        emulator=emulator,
        client=client,
    )
    emulator.arm()
    warehouse.close()
    client.close()


@pytest.fixture(params=["duckdb", "bigquery upload", "bigquery gs"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each warehouse in turn, with the table made; BigQuery with files from here and from a bucket."""
    made: Bench = request.getfixturevalue("duckdb_bench" if request.param == "duckdb" else "bigquery_bench")
    if request.param == "bigquery gs":
        bucket = f"b{uuid4().hex[:10]}"

        def to_bucket(path: Path, count: int | None = None) -> LoadFile:
            root: Path = made.emulator.gcs_root
            (root / bucket).mkdir(exist_ok=True)
            name = f"{uuid4().hex}.parquet"
            shutil.copy(path, root / bucket / name)
            return LoadFile(uri=f"gs://{bucket}/{name}", path=None, rows=load_file(path, count).rows)

        made.file = to_bucket
    made.warehouse.ensure_table(TRADES)
    return made


@pytest.fixture(params=["duckdb", "bigquery"])
def publishing(request: pytest.FixtureRequest) -> Bench:
    """Each warehouse in turn, without the table."""
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    return folder


@pytest.fixture
def store(lake: Path) -> LocalStore:
    return LocalStore(lake)
