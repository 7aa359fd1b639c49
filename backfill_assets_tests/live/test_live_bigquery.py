"""The real BigQuery under the warehouse contract, and promises that no emulator can show.

``BACKFILL_LIVE_BIGQUERY=project.dataset python -m pytest backfill_assets_tests/live -m live`` runs them, with
Google credentials (``gcloud auth application-default login``) that may create data sets and run jobs in a
project with billing. Each test makes a data set ``dataset_<random>`` beside the named one, and deletes
its own; the named one is never touched and need not exist. ``BACKFILL_LIVE_BIGQUERY_LOCATION`` is its
location (``US``). With ``BACKFILL_LIVE_GCS=gs://bucket/prefix``, in the same location, files are loaded from
the bucket as well as by upload. ``BACKFILL_LIVE_BIGQUERY_ENDPOINT`` asks a stand-in instead, without
credentials.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import Conflict
from google.cloud import bigquery
from warehouse_samples import DAY, NEXT_DAY, TRADES, load_file, rows, write

from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.warehouse.test_views import *  # noqa: F403 - the shared tests
from backfill_assets_tests.warehouse.test_warehouse_contract import *  # noqa: F403 - the shared tests

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("BACKFILL_LIVE_BIGQUERY"),
        reason="asks the real BigQuery only with BACKFILL_LIVE_BIGQUERY=project.dataset",
    ),
]


def test_a_job_id_that_was_used_is_refused_with_409(bench: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet", rows())
    bench.warehouse.replace_partition(TRADES, DAY, [load_file(path)], 1)
    config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET)
    with path.open("rb") as file, pytest.raises(Conflict):
        bench.client.load_table_from_file(
            file,
            f"{bench.settings.dataset}.trades",
            job_id=bench.warehouse.job_id(TRADES, DAY, 1),
            location=bench.settings.location,
            job_config=config,
        )
    assert bench.read() == rows()


def test_an_emptied_partition_stays_empty_until_it_is_loaded_again(bench: Any, tmp_path: Path) -> None:
    for day in (DAY, NEXT_DAY):
        path = write(tmp_path / f"{day}.parquet", rows(day=day))
        bench.warehouse.replace_partition(TRADES, day, [bench.file(path)], 1)
    bench.warehouse.replace_partition(TRADES, DAY, [], 2)
    assert bench.warehouse.totals(TRADES, DAY) == ()
    path = write(tmp_path / "again.parquet", rows(price=5.5))
    bench.warehouse.replace_partition(TRADES, DAY, [bench.file(path)], 3)
    assert bench.read() == [*rows(price=5.5), *rows(day=NEXT_DAY)]


@pytest.mark.parametrize("place", ["upload", "gs"])
def test_every_data_type_is_read_as_the_lake_wrote_it(
    place: str, bigquery_settings: Any, run_day: Any, request: pytest.FixtureRequest
) -> None:
    if place == "gs" and not os.environ.get("BACKFILL_LIVE_GCS"):
        pytest.skip("loading from a bucket needs BACKFILL_LIVE_GCS=gs://bucket/prefix as well")
    lake = {"lake": {"uri": request.getfixturevalue("lake").uri}} if place == "gs" else {}
    types = ["trades", "quotes", "book_ticker", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2"]
    market = Market(rows={("binance-futures", "BTC-USDT"): 2_000})
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin:
        result = run_day(
            "2024-01-02",
            tardis={
                "datasets_endpoint": f"{standin.url}/v1/datasets",
                "api_endpoint": f"{standin.url}/v1",
                "api_key": "standin-key",
            },
            universe=[
                {
                    "exchanges": ["binance-futures"],
                    "symbols": ["BTC-USDT"],
                    "data_types": [*types, "derivative_ticker", "liquidations"],
                    "instrument_types": ["perpetual"],
                },
                {"exchanges": ["deribit"], "symbols": ["OPTIONS"], "data_types": ["options_chain"]},
            ],
            warehouse=bigquery_settings.model_dump(mode="json"),
            **lake,
        )
    assert result.success
    agree = {
        check.asset_key.to_user_string(): check.passed
        for check in result.get_asset_check_evaluations()
        if check.check_name == "equals_lake"
    }
    assert agree == {
        f"bigquery/{name}": True for name in ("candles", "coverage", "instruments", "quality", "ticks")
    }
