"""Replace the sample day in a separate process, and stop for good within the transaction.

Usage: ``ohlcv_writer SETTINGS_JSON FILE``. It prints ``within`` after inserting two batches.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa

from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.catalog import OHLCV
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.protocol import LoadFile

if __name__ == "__main__":
    settings = OhlcvSettings.model_validate_json(sys.argv[1])
    warehouse = open_ohlcv(settings)
    assert warehouse is not None
    batches = itertools.count(1)

    @sa.event.listens_for(warehouse.engine, "after_cursor_execute")
    def pause(_: Any, __: Any, statement: str, *more: object) -> None:
        if statement.startswith(f"INSERT INTO {settings.table} ") and next(batches) == 2:
            print("within", flush=True)
            time.sleep(3600)

    file = Path(sys.argv[2])
    rows = pq.read_metadata(file).num_rows
    warehouse.replace_partition(OHLCV, "2024-01-01", [LoadFile(None, file, rows)], 2)
