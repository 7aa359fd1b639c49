"""Files in the vendor's form, made in a temporary folder, and decoded by the real code."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import Decoded, decode
from backfill_assets.ticks.profile import ProfileParameters

DAY = "2024-01-01"
SYMBOLS = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}

DecodeBody = Callable[..., tuple[Decoded, pa.Table]]


@pytest.fixture(scope="session")
def decode_body(tmp_path_factory: pytest.TempPathFactory) -> DecodeBody:
    """Decode a CSV body (text, bytes, or already compressed with ``raw=True``); returns result and table."""
    folder = tmp_path_factory.mktemp("decode")

    def run(
        data_type: str,
        body: str | bytes,
        *,
        raw: bool = False,
        header: bool = True,
        day: str = DAY,
        feed: Feed | None = None,
        symbols: Mapping[str, str] = SYMBOLS,
        parameters: ProfileParameters | None = None,
        **options: Any,
    ) -> tuple[Decoded, pa.Table]:
        content = body.encode() if isinstance(body, str) else body
        if not raw:
            first = csv_header(data_type).encode() + b"\n" if header else b""
            content = gzip.compress(first + content, 1, mtime=0)
        work = folder / uuid4().hex
        work.mkdir()
        source, target = work / "BTCUSDT.csv.gz", work / "out" / "ticks.parquet"
        source.write_bytes(content)
        try:
            decoded = decode(
                source,
                target,
                feed=feed or Feed("binance", data_type, "BTCUSDT"),
                day=day,
                symbols=symbols,
                parameters=parameters or ProfileParameters(),
                **options,
            )
        finally:
            left = [p.name for p in target.parent.iterdir()] if target.parent.exists() else []
            assert set(left) <= {target.name}, "unfinished files are left behind"
        return decoded, pq.read_table(target)

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real captures; tests that need it are skipped without."""
    folder = os.environ.get("BACKFILL_REAL_DATA")
    if not folder:
        pytest.skip("BACKFILL_REAL_DATA is not set")
    return Path(folder)
