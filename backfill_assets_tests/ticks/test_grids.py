"""The price steps of a day's feeds are those of its instruments, old and new on the day of a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backfill_assets.columns import arrow_schema
from backfill_assets.feeds import Feed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake.listing import store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.ticks.grids import price_grids

DAY = "2024-01-02"
SCHEMA = pa.schema([field.with_nullable(True) for field in arrow_schema(INSTRUMENT_COLUMNS)])
BTC = Feed("kraken", "trades", "XBT-USDT")
SPOT = Feed("kraken", "trades", "SPOT")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def listed(store: Store, *rows: dict[str, Any], exchange: str = "kraken") -> None:
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    store_instruments(store, exchange, DAY, table, "instruments")


def test_texts_of_the_files_get_the_steps_of_their_instruments(store: Store) -> None:
    listed(
        store,
        {"dataset_symbol": "XBT-USDT", "price_increment": 0.1},
        {"dataset_symbol": "ADA-USDT", "price_increment": 0.01, "price_increment_end": 0.0001},
        {"dataset_symbol": "NEW-USDT"},
    )
    expected = {
        BTC: {"XBT/USDT": "BTC-USDT"},
        SPOT: {"XBT/USDT": "BTC-USDT", "ADA/USDT": "ADA-USDT", "NEW/USDT": "NEW-USDT", "NO/USDT": "NO-USDT"},
    }
    assert price_grids(store, DAY, expected) == {
        BTC: {"XBT/USDT": (0.1,)},
        SPOT: {"XBT/USDT": (0.1,), "ADA/USDT": (0.01, 0.0001)},
    }


def test_without_instruments_there_are_no_grids(store: Store) -> None:
    listed(store, {"dataset_symbol": "XBT-USDT", "price_increment": 0.1}, exchange="coinbase")
    assert price_grids(store, DAY, {BTC: {"XBT/USDT": "BTC-USDT"}}) == {BTC: {}}


def test_instruments_stored_without_the_step_of_the_days_end_have_the_one_they_know(store: Store) -> None:
    columns = [name for name in SCHEMA.names if name != "price_increment_end"]
    table = pa.Table.from_pylist([{"dataset_symbol": "XBT-USDT", "price_increment": 0.1}], schema=SCHEMA)
    store_instruments(store, "kraken", DAY, table.select(columns), "instruments")
    assert price_grids(store, DAY, {BTC: {"XBT/USDT": "BTC-USDT"}}) == {BTC: {"XBT/USDT": (0.1,)}}
