"""The address of a table for a person, in the materializations."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml

from backfill_assets.failures import SettingsError
from backfill_assets.warehouse.resource import WarehouseResource

UNIVERSE = [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}]


def resource(folder, warehouse):
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"universe": UNIVERSE, "lake": {"uri": "./lake"}, "warehouse": warehouse}))
    return WarehouseResource(environment=str(file))


def test_a_bigquery_table_is_linked_to_its_page(tmp_path):
    warehouse = {"kind": "bigquery", "project": "my-project", "dataset": "${MARKET_DATASET:-market}"}
    link = resource(tmp_path, warehouse).link("trades")
    assert link == dg.MetadataValue.url(
        "https://console.cloud.google.com/bigquery?p=my-project&d=market&t=trades&page=table"
    )


def test_an_embedded_table_is_linked_to_its_folder(tmp_path):
    link = resource(tmp_path, {"kind": "duckdb", "folder": str(tmp_path / "warehouse")}).link("candles")
    assert link == dg.MetadataValue.path(tmp_path / "warehouse" / "candles")


def test_a_link_needs_the_variables_of_its_settings(tmp_path):
    warehouse = {"kind": "bigquery", "project": "${NO_SUCH_PROJECT_VARIABLE}", "dataset": "market"}
    with pytest.raises(SettingsError, match="NO_SUCH_PROJECT_VARIABLE"):
        resource(tmp_path, warehouse).link("trades")
