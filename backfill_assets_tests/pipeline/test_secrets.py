"""Everything that a run leaves behind is searched for the key that the vendor repeats in all its answers."""

from __future__ import annotations

import gzip
import logging
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from backfill_assets import orchestration
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.standins.faults import Fault, Refusal
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import Pipeline, write_settings

DAY = "2024-01-02"
KEY = "TD.planted+key/that_must=not-leak"
ECHO = f"the key {KEY} is odd"
FEEDS = ("BTCUSDT", "ETHUSDT", "ADAUSDT")


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_key_that_the_vendor_repeats_is_in_nothing_that_a_run_leaves(
    tmp_path, market, monkeypatch, caplog, capfd
):
    monkeypatch.setenv("TARDIS_API_KEY", KEY)
    monkeypatch.setattr(orchestration, "STEP_RETRY_SECONDS", 0.01)
    home, folder = tmp_path / "dagster", tmp_path / "pipeline"
    home.mkdir()
    folder.mkdir()
    clock = lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)  # noqa: E731
    with (
        caplog.at_level(logging.DEBUG),
        dg.DagsterInstance.local_temp(str(home)) as instance,
        TardisStandin(market, api_key=KEY, clock=clock) as standin,
    ):
        pipeline = Pipeline(write_settings(folder, standin), standin, instance)
        text = pipeline.file.read_text()
        pipeline.file.write_text(text.replace("standin-key", "${TARDIS_API_KEY}"))
        answers = (
            Fault(always=Refusal(400, 999, ECHO)),
            Fault(always=Refusal(503, 503, ECHO)),
            Fault(body=gzip.compress(f"{ECHO},symbol\n".encode())),
        )
        for symbol, fault in zip(FEEDS, answers, strict=True):
            pipeline.with_fault(f"binance/trades/{symbol}", DAY, fault)
        standin.faults.put("/v1/instruments/kraken", Fault(always=Refusal(400, 999, ECHO)))
        pipeline.run(DAY)
        for select in (["ticks"], ["candles", "bigquery/quality", "report"]):
            pipeline.run(DAY, select=select)
        reasons = [
            load_manifest(pipeline.store, Feed("binance", "trades", s), DAY).why_missing for s in FEEDS
        ]
    assert all("***" in reason for reason in reasons), reasons
    said = capfd.readouterr()
    left = {
        **everything_in(folder),
        **everything_in(home),
        Path("log"): caplog.text.encode(),
        Path("output"): (said.out + said.err).encode(),
    }
    assert len(left) > 20
    assert [path for path, content in left.items() if KEY.encode() in content] == []
