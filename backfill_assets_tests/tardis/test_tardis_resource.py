"""The Dagster resource gives a client with the settings of its environment."""

from __future__ import annotations

import dagster as dg
import pytest

from backfill_assets.failures import SettingsError
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.resource import TardisResource

DAY = "2024-01-01"


def test_an_asset_reaches_the_endpoint_of_the_environment(vendor, answer, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"tardis: {{api_endpoint: '{vendor.url}/v1'}}\n"
        "universe: [{exchanges: [x], symbols: [BTC-USDT]}]\n"
        "lake: {uri: lake}\n"
        "warehouse: {kind: duckdb, folder: warehouse}\n"
    )
    vendor.scripts["/v1/exchanges/x"] = [answer.json({"id": "x", "name": "X"})]

    @dg.asset
    def name(tardis: TardisResource) -> str:
        return tardis.client().exchange_details("x").name

    result = dg.materialize([name], resources={"tardis": TardisResource(environment=str(file))})
    assert result.output_for_node("name") == "X"


def test_making_the_resource_reads_nothing():
    resource = TardisResource(environment="no-such-environment")
    with pytest.raises(SettingsError, match="no-such-environment"):
        resource.client()


def test_without_an_environment_it_is_the_one_of_the_process(monkeypatch):
    monkeypatch.setenv("BACKFILL_ENV", "local")
    assert isinstance(TardisResource().client(), TardisClient)
