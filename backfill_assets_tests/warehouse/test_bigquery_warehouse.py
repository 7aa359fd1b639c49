"""Behavior of BigQuery alone: jobs that run on without us, reasons for failures, quotas, lost answers."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from warehouse_samples import DAY, TRADES, load_file, rows, write

from backfill_assets.failures import PermanentFailure, Superseded, TransientFailure
from backfill_assets.orchestration import failures_as_dagster
from backfill_assets.warehouse.bigquery import MAX_URIS, BigQueryWarehouse, open_client
from backfill_assets.warehouse.bigquery_failures import failed_job
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets.warehouse.tables import Table

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def bigquery(bigquery_bench: Any) -> Any:
    bigquery_bench.warehouse.ensure_table(TRADES)
    return bigquery_bench


def _load(bench: Any, folder: Path, price: float, generation: int) -> None:
    path = write(folder / f"{generation}.parquet", rows(price=price))
    bench.warehouse.replace_partition(TRADES, DAY, [load_file(path)], generation)


def test_the_table_is_partitioned_by_day_clustered_and_described(bigquery: Any) -> None:
    table = bigquery.client.get_table(f"{bigquery.settings.dataset}.trades", timeout=30)
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("DAY", "date")
    assert table.clustering_fields == ["exchange", "symbol"]
    assert table.description == TRADES.description
    assert [(f.name, f.mode, f.description) for f in table.schema[:3]] == [
        ("date", "REQUIRED", "Day of the file"),
        ("exchange", "REQUIRED", "Venue"),
        ("symbol", "NULLABLE", "Canonical symbol, the customer's"),
    ]


def test_a_table_that_is_not_partitioned_by_day_is_refused(bigquery: Any) -> None:
    bigquery.client.query(f"CREATE TABLE `{bigquery.settings.dataset}.flat` (date DATE)", timeout=30).result(
        timeout=30
    )
    from google.cloud.bigquery import SchemaField
    from google.cloud.bigquery import Table as RealTable

    name = f"test-project.{bigquery.settings.dataset}.flat2"
    bigquery.client.create_table(RealTable(name, [SchemaField("date", "DATE", "REQUIRED")]), timeout=30)
    flat = Table("flat2", "", TRADES.columns[:1], (), group_by=())
    with pytest.raises(PermanentFailure, match="not partitioned by day on date"):
        bigquery.warehouse.ensure_table(flat)


def test_the_job_id_says_table_day_and_generation_and_differs_between_data_sets(bigquery: Any) -> None:
    job_id = bigquery.warehouse.job_id(TRADES, DAY, 7)
    assert job_id.startswith("backfill-trades-20240101-7-")
    other = BigQueryWarehouse(bigquery.client, "test-project.other").job_id(TRADES, DAY, 7)
    assert other.rsplit("-", 1)[0] == job_id.rsplit("-", 1)[0]
    assert other != job_id


def test_a_fence_stops_a_load_that_is_running(bigquery: Any, tmp_path: Path) -> None:
    _load(bigquery, tmp_path, 1.5, 1)
    bigquery.emulator.arm(load_delay_seconds=20)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_load, bigquery, tmp_path, 2.5, 2)
        while bigquery.warehouse._find(bigquery.warehouse.job_id(TRADES, DAY, 2)) is None:
            pass
        bigquery.warehouse.fence(TRADES, DAY, [2])
        with pytest.raises(Superseded):
            loading.result(timeout=30)
    assert bigquery.read() == rows(price=1.5)


def test_a_load_that_nobody_stops_takes_its_time_and_succeeds(bigquery: Any, tmp_path: Path) -> None:
    bigquery.emulator.arm(load_delay_seconds=0.5)
    _load(bigquery, tmp_path, 1.5, 1)
    assert bigquery.read() == rows(price=1.5)


def test_a_load_that_takes_too_long_is_cancelled(bigquery: Any, tmp_path: Path) -> None:
    bigquery.emulator.arm(load_delay_seconds=20)
    bigquery.warehouse._job_timeout_seconds = 0.3
    with pytest.raises(TransientFailure, match="was not done after"):
        _load(bigquery, tmp_path, 1.5, 1)
    bigquery.warehouse._job_timeout_seconds = 30
    bigquery.warehouse.fence(TRADES, DAY, [1])
    assert bigquery.read() == []


@pytest.mark.parametrize("upload", [True, False])
def test_a_submission_whose_answer_was_lost_is_found_again(
    bigquery: Any, tmp_path: Path, upload: bool
) -> None:
    path = write(tmp_path / "1.parquet", rows())
    file = load_file(path)
    if not upload:
        bucket = bigquery.emulator.gcs_root / bigquery.settings.dataset
        bucket.mkdir()
        path.rename(bucket / "1.parquet")
        file = LoadFile(f"gs://{bucket.name}/1.parquet", None, 3)
    bigquery.emulator.arm(lost_answers=1)
    bigquery.warehouse.replace_partition(TRADES, DAY, [file], 1)
    assert bigquery.read() == rows()


def test_an_id_that_another_load_took_is_not_taken_for_ours(bigquery: Any, tmp_path: Path) -> None:
    _load(bigquery, tmp_path, 1.5, 1)
    with pytest.raises(Superseded, match="taken by another publisher"):
        _load(bigquery, tmp_path, 1.5, 1)


def test_an_id_that_somebody_used_a_moment_before_is_not_taken_for_ours(
    bigquery: Any, tmp_path: Path
) -> None:
    bigquery.emulator.arm(used_ids=["trades"])
    with pytest.raises(Superseded, match="taken by another publisher"):
        _load(bigquery, tmp_path, 1.5, 1)
    assert bigquery.emulator.armed().used_ids == []
    _load(bigquery, tmp_path, 1.5, 2)
    assert bigquery.read() == rows(price=1.5)


def test_a_service_that_is_away_for_some_requests_is_asked_again(bigquery: Any, tmp_path: Path) -> None:
    bigquery.emulator.arm(unavailable=2)
    _load(bigquery, tmp_path, 1.5, 1)
    assert bigquery.emulator.armed().unavailable == 0
    assert bigquery.read() == rows(price=1.5)


def test_faults_of_one_table_concern_no_other(bigquery: Any, tmp_path: Path) -> None:
    error = {"table": "candles", "reason": "invalid", "message": "as armed"}
    bigquery.emulator.arm(
        load_delay_seconds=60, slow_tables=["candles"], used_ids=["candles"], load_errors=[error]
    )
    _load(bigquery, tmp_path, 1.5, 1)
    left = bigquery.emulator.armed()
    assert (left.slow_tables, left.used_ids, left.load_errors) == (["candles"], ["candles"], [error])
    assert bigquery.read() == rows(price=1.5)


def test_a_slow_load_is_the_next_one_of_its_table(bigquery: Any, tmp_path: Path) -> None:
    bigquery.emulator.arm(load_delay_seconds=20, slow_tables=["trades"])
    bigquery.warehouse._job_timeout_seconds = 0.3
    with pytest.raises(TransientFailure, match="was not done after"):
        _load(bigquery, tmp_path, 1.5, 1)
    _load(bigquery, tmp_path, 2.5, 2)
    assert bigquery.read() == rows(price=2.5)


def test_a_quota_of_the_day_is_not_asked_for_again_within_the_run() -> None:
    failure = failed_job("trades", "j", {"reason": "quotaExceeded", "message": ""})
    assert isinstance(failure, TransientFailure)
    assert failure.retry_after_seconds == 86_400
    with pytest.raises(dg.Failure) as failed, failures_as_dagster():
        raise failure
    assert not failed.value.allow_retries
    other = failed_job("trades", "j", {"reason": "rateLimitExceeded", "message": ""})
    with pytest.raises(dg.RetryRequested), failures_as_dagster():
        raise other


@pytest.mark.parametrize(
    ("reason", "kind", "text"),
    [
        ("backendError", TransientFailure, "run again"),
        ("rateLimitExceeded", TransientFailure, "run again"),
        ("quotaExceeded", TransientFailure, "waits for tomorrow"),
        ("accessDenied", PermanentFailure, "grant this account"),
        ("notFound", PermanentFailure, "make the data set"),
        ("invalid", PermanentFailure, "do not fit the table"),
        ("somethingNew", PermanentFailure, "correct what the message names"),
    ],
)
def test_the_reason_of_a_failed_load_decides_and_the_previous_rows_stay(
    bigquery: Any, tmp_path: Path, reason: str, kind: type[Exception], text: str
) -> None:
    _load(bigquery, tmp_path, 1.5, 1)
    bigquery.emulator.arm(load_errors=[{"reason": reason, "message": "as armed"}])
    with pytest.raises(kind, match=text) as caught:
        _load(bigquery, tmp_path, 2.5, 2)
    assert "\n" not in str(caught.value)
    assert "as armed" in str(caught.value)
    assert bigquery.read() == rows(price=1.5)


def test_a_cancelled_job_means_that_somebody_else_took_over() -> None:
    assert isinstance(failed_job("trades", "j", {"reason": "stopped", "message": ""}), Superseded)
    assert not isinstance(failed_job("trades", "j", {"reason": "internalError", "message": ""}), Superseded)


def test_a_missing_data_set_is_named_with_the_remedy(bigquery: Any) -> None:
    with pytest.raises(PermanentFailure, match=r"test-project\.nowhere\.trades.*make the data set"):
        BigQueryWarehouse(bigquery.client, "test-project.nowhere").ensure_table(TRADES)


def test_more_files_than_a_job_takes_are_refused(bigquery: Any) -> None:
    files = [LoadFile(f"gs://b/{i}.parquet", None, 1) for i in range(MAX_URIS + 1)]
    with pytest.raises(PermanentFailure, match="a load job takes 10000"):
        bigquery.warehouse.replace_partition(TRADES, DAY, files, 1)


def test_a_service_that_does_not_answer_is_transient() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    client = open_client("test-project", "US", url)
    warehouse = BigQueryWarehouse(client, "test-project.d", retry_seconds=0.5)
    with pytest.raises(TransientFailure, match="does not answer"):
        warehouse.ensure_table(TRADES)
    warehouse.close()


def test_missing_credentials_are_permanent_and_say_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(PermanentFailure, match="gcloud auth application-default login"):
        open_client("test-project", "US", "")


def test_the_dagster_resource_opens_the_warehouse_of_the_settings(bigquery: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    universe = [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}]
    lake, warehouse = {"uri": str(tmp_path)}, bigquery.settings.model_dump()
    file.write_text(yaml.safe_dump({"universe": universe, "lake": lake, "warehouse": warehouse}))
    path = write(tmp_path / "1.parquet", rows())
    with WarehouseResource(environment=str(file)).open() as opened:
        opened.replace_partition(TRADES, DAY, [load_file(path)], 1)
    assert bigquery.read() == rows()
