"""Publish the sample partition in a separate process.

Usage: ``warehouse_publisher.py WAREHOUSE_JSON LAKE [PAUSE]``.

With ``PAUSE`` it stops for good after it has claimed the partition and read the lake, before it loads. Each
state is a line of output.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from backfill_assets.lake.store import open_store
from backfill_assets.settings import BigQueryWarehouse, DuckDBWarehouse, LakeSettings, OhlcvSettings
from backfill_assets.warehouse.catalog import OHLCV
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.protocol import open_warehouse
from backfill_assets.warehouse.publish import Partition, publish

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from warehouse_samples import DAY, TRADES, plan

    settings = TypeAdapter(BigQueryWarehouse | DuckDBWarehouse | OhlcvSettings).validate_json(sys.argv[1])
    if isinstance(settings, OhlcvSettings):
        table, warehouse = OHLCV, open_ohlcv(settings)
        assert warehouse is not None
    else:
        table, warehouse = TRADES, open_warehouse(settings)
    lake = Path(sys.argv[2])
    calls = 0

    def read_lake() -> Partition:
        global calls
        calls += 1
        result = plan(lake, table)
        if sys.argv[3:] == ["PAUSE"] and calls == 2:
            print("claimed", flush=True)
            while not (lake / "go").exists():
                time.sleep(0.02)
        return result

    store = open_store(LakeSettings(uri=str(lake)))
    print("ready", flush=True)
    print(publish(store, warehouse, table, DAY, read_lake).state, flush=True)
