"""Every warehouse behind one interface, so that one suite can test them for the same promises."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

sys.path.insert(
    0, str(Path(__file__).parent)
)  # the samples serve the tests and the processes that they start

from warehouse_samples import DAY, TRADES, candle_rows, load_file, rows

from backfill_assets.lake.local import LocalStore
from backfill_assets.rehearsal.postgres import binaries, postgres_server
from backfill_assets.settings import BigQueryWarehouse as BigQuerySettings
from backfill_assets.settings import DuckDBWarehouse as DuckDBSettings
from backfill_assets.settings import OhlcvSettings
from backfill_assets.standins.bigquery import serve
from backfill_assets.warehouse.catalog import OHLCV
from backfill_assets.warehouse.ohlcv.warehouse import OhlcvWarehouse, open_ohlcv
from backfill_assets.warehouse.protocol import LoadFile, Warehouse, open_warehouse
from backfill_assets.warehouse.tables import Table


@dataclass
class Bench:
    """A warehouse, with ways to look at it and damage it from outside."""

    kind: str
    warehouse: Warehouse
    settings: BigQuerySettings | DuckDBSettings | OhlcvSettings
    #: The rows of the sample table as another client sees them.
    read: Callable[[], list[dict[str, Any]]]
    #: Remove one row of the day outside the publisher.
    tamper: Callable[[], None]
    #: Change values outside the publisher so that all totals stay.
    swap: Callable[[], None]
    #: Describes a local file to the warehouse.
    file: Callable[..., LoadFile] = load_file
    #: A sample table that fits the warehouse, and rows for it.
    table: Table = TRADES
    rows: Callable[..., list[dict[str, Any]]] = rows
    emulator: Any = None
    client: Any = None


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("bqemulator", reason="bqemulator is not installed (a dependency of the tests)")
    with serve(tmp_path_factory.mktemp("gcs")) as running:
        yield running


@pytest.fixture
def duckdb_bench(tmp_path: Path) -> Bench:
    import duckdb
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = tmp_path / "warehouse"

    def read() -> list[dict[str, Any]]:
        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql("SELECT * FROM trades ORDER BY ALL").to_arrow_table().to_pylist()

    def tamper() -> None:
        path = folder / "trades" / f"{DAY}.parquet"
        pq.write_table(pq.read_table(path).slice(1), path)

    def swap() -> None:
        path = folder / "trades" / f"{DAY}.parquet"
        rows = pq.read_table(path)
        turned = pc.invert(rows["is_maker"])
        column = rows.schema.get_field_index("is_maker")
        pq.write_table(rows.set_column(column, rows.schema.field(column), turned), path)

    settings = DuckDBSettings(kind="duckdb", folder=str(folder))
    return Bench("duckdb", open_warehouse(settings), settings, read, tamper, swap)


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
        lambda: run(f"UPDATE `{dataset}.trades` SET is_maker = FALSE WHERE date = '{DAY}'") and None,
        emulator=emulator,
        client=client,
    )
    emulator.arm()
    warehouse.close()
    client.close()


@dataclass
class OhlcvBench(Bench):
    """The OHLCV table of one database, and SQL on it as any client would run it."""

    warehouse: OhlcvWarehouse
    settings: OhlcvSettings

    def run(self, sql: str) -> list[dict[str, Any]]:
        with self.warehouse.engine.begin() as connection:
            result = connection.execute(sa.text(sql.replace("TABLE_NAME", self.settings.table)))
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def stored(self) -> list[dict[str, Any]]:
        """The rows with their times of writing, as the database has them."""
        return self.run("SELECT * FROM TABLE_NAME ORDER BY exchange, symbol, timeframe, open_time")


def ohlcv_bench(url: str) -> OhlcvBench:
    settings = OhlcvSettings(url=url, table=f"ohlcv_{uuid4().hex[:8]}", batch_rows=7)
    warehouse = open_ohlcv(settings)
    assert warehouse is not None

    def read() -> list[dict[str, Any]]:
        found = []
        for row in made.stored():
            at = row["open_time"]
            time = at if isinstance(at, datetime) else datetime.fromtimestamp(at / 1e6, UTC)
            given = {**row, "open_time": time.astimezone(UTC), "date": time.astimezone(UTC).date()}
            found.append({column.name: given[column.name] for column in OHLCV.columns})
        return sorted(found, key=lambda row: row["date"])

    def tamper() -> None:
        made.run("DELETE FROM TABLE_NAME WHERE trade_count = 1")

    def swap() -> None:
        other = "high + CASE WHEN trade_count = 1 THEN 0.5 ELSE -0.5 END"
        made.run(f"UPDATE TABLE_NAME SET high = {other} WHERE trade_count IN (1, 2)")

    made = OhlcvBench("ohlcv", warehouse, settings, read, tamper, swap, table=OHLCV, rows=candle_rows)
    return made


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    if binaries() is None:
        pytest.skip("Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)")
    with postgres_server() as url:
        yield url


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> OhlcvBench:
    return ohlcv_bench(f"sqlite:///{tmp_path / 'candles.db'}")


@pytest.fixture
def postgres_bench(postgres: str) -> OhlcvBench:
    return ohlcv_bench(postgres)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> OhlcvBench:
    """Each database in turn, without the OHLCV table."""
    made: OhlcvBench = request.getfixturevalue(f"{request.param}_bench")
    return made


def _with_table(request: pytest.FixtureRequest) -> Bench:
    kind, _, source = request.param.partition(" ")
    made: Bench = request.getfixturevalue(f"{kind}_bench")
    if source == "gs":
        bucket = f"b{uuid4().hex[:10]}"

        def to_bucket(path: Path, count: int | None = None) -> LoadFile:
            root: Path = made.emulator.gcs_root
            (root / bucket).mkdir(exist_ok=True)
            name = f"{uuid4().hex}.parquet"
            shutil.copy(path, root / bucket / name)
            return LoadFile(uri=f"gs://{bucket}/{name}", path=None, rows=load_file(path, count).rows)

        made.file = to_bucket
    made.warehouse.ensure_table(made.table)
    return made


#: BigQuery with files from here and from a bucket.
WIDE = ("duckdb", "bigquery upload", "bigquery gs")


@pytest.fixture(params=WIDE)
def wide(request: pytest.FixtureRequest) -> Bench:
    """Each warehouse that takes any table, with the table made."""
    return _with_table(request)


@pytest.fixture(params=[*WIDE, "sqlite", "postgres"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each warehouse in turn, with its sample table made."""
    return _with_table(request)


@pytest.fixture(params=["duckdb", "bigquery", "sqlite", "postgres"])
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
