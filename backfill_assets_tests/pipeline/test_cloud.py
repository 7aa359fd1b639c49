"""The same days with the lake in a bucket and the tables in BigQuery, both reached over real HTTP."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from polars.testing import assert_frame_equal

import backfill_assets as ba
from backfill_assets.automation.due import due_days
from backfill_assets.days import shift, utc_now
from backfill_assets.lake.gcs import GcsStore
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.progress.stored_days import calendar, stored_day
from backfill_assets.quality.decisions import drop, retract
from backfill_assets.standins import faults
from backfill_assets.standins.bigquery import PROJECT, BigQueryStandin, serve
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse import ledger, presence
from backfill_assets.warehouse.catalog import TABLES as CATALOG
from backfill_assets_tests.emulators.gcs import gcs_server

pytestmark = pytest.mark.story

DAY_BEFORE, DAY = "2024-01-01", "2024-01-02"
TABLES = ("trades", "candles", "coverage", "quality", "instruments")
BUCKET = "lake-bucket"
BTC = "binance/trades/BTCUSDT"
#: For tests that make their own runs.
SMALL = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT", "ADA-USDT"]}]


@dataclass(frozen=True)
class Cloud:
    """A bucket and a BigQuery that reads it, both on loopback."""

    bigquery: BigQueryStandin
    client: Any


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    pytest.importorskip("bqemulator", reason="bqemulator is not installed (a dependency of the tests)")
    from google.cloud import bigquery

    with pytest.MonkeyPatch.context() as patch:
        # The other emulator reads gs:// from the server's folder of objects.
        home = tmp_path_factory.mktemp("cloud")
        patch.setattr(tempfile, "tempdir", str(home))
        with gcs_server(BUCKET) as gcs_url:
            patch.setattr(tempfile, "tempdir", None)
            patch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
            (objects,) = home.glob("backfill-gcs-*/objects")
            with serve(objects) as emulator:
                client = bigquery.Client(
                    project=PROJECT,
                    credentials=AnonymousCredentials(),
                    client_options={"api_endpoint": emulator.url},
                )
                yield Cloud(emulator, client)
                client.close()


@pytest.fixture(scope="module")
def standin(market):
    """One cloud for all tests here, because they share pipelines."""
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as running:
        yield running


@dataclass
class InCloud:
    """A pipeline whose lake and warehouse are in the cloud."""

    pipeline: Any
    cloud: Cloud
    dataset: str

    def rows(self, table: str, day: str) -> pl.DataFrame:
        """The partition as another client sees it, sorted by all its columns."""
        found = self.cloud.client.query(
            f"SELECT * FROM `{self.dataset}.{table}` WHERE date = '{day}'", timeout=60
        ).result(timeout=60)
        return in_fixed_order(pl.from_arrow(found.to_arrow(create_bqstorage_client=False)))

    def published(self, table: str, day: str) -> ledger.Published:
        entry = ledger.entry(self.pipeline.store, table, day)
        assert entry is not None
        assert entry.published is not None
        return entry.published

    def load_job(self, table: str, day: str) -> Any:
        """The job that loaded the partition's present content."""
        job_id = self.published(table, day).job.rsplit(".", 1)[1]
        return self.cloud.client.get_job(job_id, timeout=60)


def in_fixed_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(sorted(frame.columns)).rechunk()


@pytest.fixture
def in_cloud(make_pipeline, standin, cloud) -> Iterator[Callable[..., InCloud]]:
    """Makes pipelines with a data set and a part of the bucket each."""

    def make(name: str, **changes: Any) -> InCloud:
        dataset = f"d_{uuid4().hex[:10]}"
        cloud.client.create_dataset(dataset, timeout=60)
        pipeline = make_pipeline(
            standin,
            name=name,
            lake={"uri": f"gs://{BUCKET}/{dataset}"},
            warehouse={
                "kind": "bigquery",
                "project": PROJECT,
                "dataset": dataset,
                "endpoint": cloud.bigquery.url,
                "job_timeout_seconds": 60,
            },
            **changes,
        )
        return InCloud(pipeline, cloud, dataset)

    cloud.bigquery.arm()
    yield make
    cloud.bigquery.arm()
    standin.faults.clear()


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """Pipelines that ran both days in order; the first test that needs one fills it."""
    return {}


@pytest.fixture
def both_days(shared, in_cloud) -> InCloud:
    """The pipeline in the cloud after both days; tests must not change it."""
    if "cloud" not in shared:
        made = in_cloud("in-order")
        shared["results"] = [made.pipeline.run(day) for day in (DAY_BEFORE, DAY)]
        shared["cloud"] = made
    return shared["cloud"]


@pytest.fixture
def embedded(shared, make_pipeline, standin) -> Any:
    """The same two days with a lake in a folder and the embedded warehouse."""
    if "embedded" not in shared:
        made = make_pipeline(standin, name="embedded")
        assert all(made.run(day).success for day in (DAY_BEFORE, DAY))
        shared["embedded"] = made
    return shared["embedded"]


def loads_of(result) -> int:
    metadata = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    return sum(found["loads"].value for found in metadata if "loads" in found)


def test_a_day_goes_from_the_bucket_into_bigquery_and_every_check_is_green(both_days, shared, checks_of):
    for result in shared["results"]:
        assert result.success
        checks = checks_of(result)
        assert len(checks) == 24
        assert [name for name, check in checks.items() if not check.passed] == []
    assert both_days.pipeline.settled(DAY).scores.state == "published"


def test_rows_leave_bigquery_with_the_last_feed_of_their_type(in_cloud):
    entry = {"exchanges": ["binance-futures"], "symbols": ["BTC-USDT"], "data_types": ["trades", "quotes"]}
    made = in_cloud("dropped", universe=[{**entry, "instrument_types": ["perpetual"]}])
    assert made.pipeline.run(DAY).success
    assert made.rows("quotes", DAY).height > 0
    feed, thresholds = "binance-futures/quotes/BTCUSDT", made.pipeline.settings.thresholds
    [found] = [f for f in made.pipeline.settled(DAY).feeds if str(f.feed) == feed]
    retract(made.pipeline.store, DAY, feed, found.accepted.content, "another market's", thresholds)
    drop(made.pipeline.store, DAY, feed, "another market's", thresholds)
    assert made.pipeline.run(DAY).success
    assert (made.rows("quotes", DAY).height, made.rows("trades", DAY).height > 0) == (0, True)


def test_the_tables_are_partitioned_by_date_clustered_and_described(both_days):
    for table in TABLES:
        wanted = next(t for t in CATALOG if t.name == table)
        found = both_days.cloud.client.get_table(f"{both_days.dataset}.{table}", timeout=60)
        assert (found.time_partitioning.type_, found.time_partitioning.field) == ("DAY", "date")
        assert found.clustering_fields == list(wanted.clustering)
        assert found.clustering_fields[0] == "exchange"
        assert found.description == wanted.description
        assert [(f.name, f.description) for f in found.schema] == [
            (c.name, c.description) for c in wanted.columns
        ]
        assert all(f.description for f in found.schema)


def test_ticks_and_instruments_are_loaded_from_the_bucket_and_what_is_computed_is_uploaded(both_days):
    lake = both_days.pipeline.store.uri
    for table, files in (("trades", 9), ("instruments", 3)):
        uris = both_days.load_job(table, DAY).source_uris
        assert len(uris) == files
        assert all(uri.startswith(f"{lake}/") and uri.endswith(".parquet") for uri in uris)
    for table in ("candles", "coverage", "quality"):
        uris = both_days.load_job(table, DAY).source_uris or []
        assert not any(uri.startswith("gs://") for uri in uris)


@pytest.mark.parametrize("table", TABLES)
def test_bigquery_holds_the_rows_of_the_embedded_warehouse(both_days, embedded, table):
    for day in (DAY_BEFORE, DAY):
        here = in_fixed_order(embedded.table(table, day))
        there = both_days.rows(table, day)
        assert there.columns == here.columns
        assert there.height == here.height > 0
        for column in here.columns:
            assert there[column].equals(here[column]), column


@pytest.mark.parametrize("source", ["warehouse", "lake"])
def test_python_reads_from_bigquery_and_the_bucket_what_it_reads_from_the_embedded_warehouse(
    both_days, embedded, source
):
    cloud, here = ba.open(both_days.pipeline.file, source=source), ba.open(embedded.file)
    market = ("binance", "BTC-USDT")
    for of_cloud, of_here in (
        [data.candles(*market, "5m", DAY, on_gap="warn") for data in (cloud, here)],
        [data.candles(*market, "1m", DAY, fill=True, on_gap="warn") for data in (cloud, here)],
        [data.trades(*market, f"{DAY}T06:00", f"{DAY}T07:00", on_gap="warn") for data in (cloud, here)],
        [data.days(DAY_BEFORE, shift(DAY, 1)) for data in (cloud, here)],
    ):
        assert of_here.to_polars().height
        assert of_cloud.to_polars().equals(of_here.to_polars())
        assert of_cloud.days == of_here.days


def test_a_rerun_downloads_nothing_and_loads_nothing(both_days):
    before = {table: both_days.published(table, day) for table in TABLES for day in (DAY_BEFORE, DAY)}
    both_days.pipeline.standin.forget_requests()
    result = both_days.pipeline.run(DAY)
    assert result.success
    assert both_days.pipeline.downloads == []
    assert loads_of(result) == 0
    after = {table: both_days.published(table, day) for table in TABLES for day in (DAY_BEFORE, DAY)}
    assert after == before


def test_days_in_another_order_end_in_the_same_rows(both_days, in_cloud):
    backwards = in_cloud("backwards")
    for day in (DAY, DAY_BEFORE):
        assert backwards.pipeline.run(day).success
    for table in ("candles", "coverage", "quality"):
        for day in (DAY_BEFORE, DAY):
            assert backwards.rows(table, day).equals(both_days.rows(table, day)), (table, day)


def test_a_missing_feed_is_left_out_until_it_heals_and_a_failed_load_changes_nothing(in_cloud, standin):
    """One pipeline for the whole story, because each run takes seconds."""
    made = in_cloud("story", universe=SMALL)
    made.pipeline.with_fault(BTC, DAY, Fault(always=faults.not_found()))
    assert made.pipeline.run(DAY).success
    without = {table: made.rows(table, DAY) for table in TABLES}
    assert made.pipeline.settled(DAY).scores.state == "degraded"
    for table in ("trades", "candles"):
        assert set(without[table]["symbol"]) == {"ETH-USDT", "ADA-USDT"}
    quality = without["quality"].filter(symbol="BTC-USDT")
    assert (quality["verdict"].to_list(), quality["published"].to_list()) == (["missing"], [False])

    made.pipeline.heal()
    made.cloud.bigquery.arm(load_errors=[{"reason": "invalid", "message": "refused as armed"}] * 9)
    failed = made.pipeline.run(DAY)
    assert not failed.success
    assert all(
        "refused as armed" in event.step_failure_data.error.to_string()
        for event in failed.all_events
        if event.is_step_failure
    )
    assert made.rows("instruments", DAY).equals(without["instruments"])
    for table in ("trades", "candles", "quality"):
        assert made.rows(table, DAY).equals(without[table]), table
        assert ledger.entry(made.pipeline.store, table, DAY).state == "intent"

    made.cloud.bigquery.arm()
    standin.forget_requests()
    healed = made.pipeline.run(DAY)
    assert healed.success
    assert made.pipeline.downloads == [], "the failed run has fetched the feed already"
    assert made.pipeline.settled(DAY).scores.state == "published"
    for table in ("trades", "candles"):
        now = made.rows(table, DAY)
        assert set(now["symbol"]) == {"BTC-USDT", "ETH-USDT", "ADA-USDT"}
        assert now.filter(pl.col("symbol") != "BTC-USDT").equals(without[table]), table
    assert made.rows("instruments", DAY).equals(without["instruments"])


def test_a_table_that_somebody_changed_fails_its_asset_alone_and_keeps_its_rows(in_cloud):
    from google.cloud import bigquery

    made = in_cloud("changed", universe=SMALL)
    name = f"{PROJECT}.{made.dataset}.candles"
    strange = bigquery.Table(
        name, [bigquery.SchemaField("date", "DATE"), bigquery.SchemaField("open", "STRING")]
    )
    strange.time_partitioning = bigquery.TimePartitioning(type_="DAY", field="date")
    made.cloud.client.create_table(strange, timeout=60)
    result = made.pipeline.run(DAY)
    assert not result.success
    failed = {event.step_key for event in result.all_events if event.is_step_failure}
    assert failed == {"bigquery__candles"}
    assert made.rows("trades", DAY)["symbol"].n_unique() == 3
    assert made.rows("quality", DAY).height == 3


def test_a_day_whose_table_was_dropped_is_not_good_until_its_next_run(in_cloud):
    """The service is asked once a minute, so the clock is moved."""
    made = in_cloud("dropped", universe=SMALL)
    store, settings = made.pipeline.store, made.pipeline.settings
    assert made.pipeline.run(DAY).success
    assert stored_day(store, settings, DAY).outcome == "published"
    made.cloud.client.delete_table(f"{made.dataset}.candles", timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence, "utc_now", lambda: utc_now() + timedelta(minutes=2))
        lost = stored_day(store, settings, DAY)
        assert (lost.outcome, "candles" in str(lost.reasons)) == ("missing", True)
        assert {day.outcome for day in calendar(store, settings, DAY, DAY)} == {"missing"}
        assert made.pipeline.run(DAY).success
    assert len(made.rows("candles", DAY)) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence, "utc_now", lambda: utc_now() + timedelta(minutes=4))
        assert stored_day(store, settings, DAY).outcome == "published"


@contextmanager
def later(minutes: int) -> Iterator[None]:
    """Answers of bucket and service are kept for minutes, so the clock is moved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence, "utc_now", lambda: utc_now() + timedelta(minutes=minutes))
        yield


def looks(made: InCloud) -> tuple[set[str], list[str], int]:
    """Outcomes of the day in calendar and statuses, the schedule's days, the plan's number of good days."""
    store, settings = made.pipeline.store, made.pipeline.settings
    shown = {day.outcome for day in calendar(store, settings, DAY, DAY)}
    due = due_days(store, date(2024, 1, 3), settings)
    plan = make_plan(store, settings, backfill_request({"start": DAY, "end": DAY}))
    return {*shown, stored_day(store, settings, DAY).outcome}, [d for d in due if d == DAY], plan.days_good


def test_partitions_and_objects_that_are_lost_are_seen_without_a_run_and_brought_back(in_cloud):
    made = in_cloud("lost", universe=SMALL)
    assert made.pipeline.run(DAY).success
    good, lost = ({"published"}, [], 1), ({"missing"}, [DAY], 0)
    asked = []
    with pytest.MonkeyPatch.context() as patch, later(1):
        sizes = GcsStore.sizes
        patch.setattr(GcsStore, "sizes", lambda self, prefix: asked.append(prefix) or sizes(self, prefix))
        assert looks(made) == looks(made) == good
    # Three feeds, the instruments of an exchange, candles and coverage.
    assert (len(asked), len(set(asked)), {prefix[-5:] for prefix in asked}) == (6, 6, {"2024-"})
    bucket = storage.Client(project=PROJECT, credentials=AnonymousCredentials()).bucket(BUCKET)
    before = {table: made.rows(table, DAY) for table in TABLES}

    def delete_rows() -> None:
        query = f"DELETE FROM `{made.dataset}.trades` WHERE date = '{DAY}'"
        made.cloud.client.query(query, timeout=60).result(timeout=60)

    def blob(prefix: str) -> Any:
        found = bucket.list_blobs(prefix=f"{made.dataset}/{prefix}", timeout=60)
        return next(one for one in found if one.name.endswith(".parquet"))

    ticks, candles = f"ticks/{BTC}/{DAY}/", f"candles/date={DAY}/"
    harms = {
        "trades": delete_rows,
        candles: lambda: blob(candles).delete(timeout=60),
        ticks: lambda: blob(ticks).upload_from_string(b"cut", timeout=60),
    }
    store, settings = made.pipeline.store, made.pipeline.settings
    for number, (name, harm) in enumerate(harms.items()):
        harm()
        with later(6 * (number + 1)):
            assert looks(made) == lost
            assert any(name in reason for reason in stored_day(store, settings, DAY).reasons)
    with later(24):
        assert made.pipeline.run(DAY).success
    with later(30):
        assert looks(made) == good
    assert all(made.rows(table, DAY).equals(before[table]) for table in TABLES)


def test_the_views_of_bigquery_say_what_those_of_the_embedded_warehouse_say(both_days, embedded):
    import duckdb

    for view in ("days", "candles_final", "candles_with_state", "candles_filled", "trades_final"):
        query = f"SELECT * FROM `{both_days.dataset}.{view}`"
        found = both_days.cloud.client.query(query, timeout=60).result(timeout=60)
        there = in_fixed_order(pl.from_arrow(found.to_arrow(create_bqstorage_client=False)))
        with duckdb.connect(str(embedded.folder / "warehouse" / "warehouse.duckdb"), read_only=True) as db:
            db.execute("SET TimeZone = 'UTC'")
            here = in_fixed_order(pl.DataFrame(db.sql(f"SELECT * FROM {view}").to_arrow_table()))
        assert there.columns == here.columns
        assert there.height == here.height
        for column in here.columns:
            assert there[column].equals(here[column]), (view, column)


RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize(
    ("title", "here", "there"),
    re.findall(
        r"^## (.*?)$.*?```sql duckdb\n(.*?)```.*?```sql bigquery\n(.*?)```",
        RECIPES.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    ),
    ids=lambda text: text if "\n" not in text else "",
)
def test_each_recipe_gives_the_same_rows_in_both_warehouses(both_days, embedded, title, here, there):
    """BigQuery's dialect as the emulator runs it, through DuckDB."""
    import duckdb

    query = there.replace("crypto_market_data.", f"{both_days.dataset}.")
    found = both_days.cloud.client.query(query, timeout=60).result(timeout=60)
    of_cloud = pl.from_arrow(found.to_arrow(create_bqstorage_client=False))
    with duckdb.connect(str(embedded.folder / "warehouse" / "warehouse.duckdb"), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        of_here = pl.DataFrame(db.sql(here).to_arrow_table())
    assert of_here.height, title
    assert_frame_equal(of_cloud, of_here, check_dtypes=False, rel_tol=1e-9)
