"""Write the sample day in a process of its own.

Usage: ``ohlcv_writer SETTINGS_JSON COUNT CLOSE [PAUSE_AFTER]``: so many candles with that close. With
``PAUSE_AFTER`` it stops for good within the transaction, when so many batches have been inserted. Each state
is a line of output.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import sqlalchemy as sa

from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.ohlcv.target import open_target
from backfill_assets.warehouse.ohlcv.writing import insert_ohlcv_backfill
from backfill_assets_tests.warehouse.ohlcv.ohlcv_samples import DAY, candles, day_candles

if __name__ == "__main__":
    settings = OhlcvSettings.model_validate_json(sys.argv[1])
    target = open_target(settings)
    assert target is not None
    content = day_candles(candles(int(sys.argv[2]), close=float(sys.argv[3])))
    if sys.argv[4:]:
        batches = itertools.count(1)

        @sa.event.listens_for(target.engine, "after_cursor_execute")
        def pause(_: Any, __: Any, statement: str, *more: object) -> None:
            if statement.startswith(f"INSERT INTO {settings.table} ") and next(batches) == int(sys.argv[4]):
                print("within", flush=True)
                time.sleep(3600)

    print("ready", flush=True)
    sys.stdin.readline()
    done = insert_ohlcv_backfill(target, DAY, lambda: content, batch_rows=settings.batch_rows)
    print(f"{done.rows} {done.written} {done.deleted}", flush=True)
