"""Kernels and reference parser read or refuse mutated files alike; no kernel leaves its arrays."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_assets.days import start_us
from backfill_assets.failures import CorruptFeed
from backfill_assets.feeds import Feed
from backfill_assets.lake.local import LocalStore
from backfill_assets.tardis.client import Download
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks import fetch as fetch_module
from backfill_assets.ticks import parser as parser_module
from backfill_assets.ticks.jit import prove_indices
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets.ticks.stored import NAMES, Totals
from backfill_assets_tests.ticks.conftest import DAY

START = start_us(DAY)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=280, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "inputs"), [((), 500), (("--storm",), 2_000)])
def test_mutated_inputs_are_read_or_refused_within_bounds(mode: tuple[str, ...], inputs: int) -> None:
    fuzzing = ("-m", "backfill_assets_tests.ticks.fuzzing", *mode, "--inputs", str(inputs))
    done = python(*fuzzing, NUMBA_BOUNDSCHECK="1")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "inputs with bounds checks" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages")
def test_a_load_behind_a_guarded_array_ends_the_process() -> None:
    code = """
import ctypes, numpy as np
from backfill_assets_tests.ticks.fuzzing import guarded
array = guarded((100, 3), np.int64)
assert array.sum() == 0
print(ctypes.string_at(array.ctypes.data, array.nbytes) == bytes(2400), flush=True)
ctypes.string_at(array.ctypes.data, array.nbytes + 1)
"""
    done = python("-c", code)
    assert (done.stdout.strip(), done.returncode) == ("True", -signal.SIGSEGV)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_of_an_array_is_refused_before_a_kernel_runs(index: int) -> None:
    prove_indices(np.array([0, 2], np.int32), 3, "names")
    with pytest.raises(IndexError, match="names"):
        prove_indices(np.array([0, index], np.int32), 3, "names")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("time", "is_time"),
    [("253370764799999999", True), ("253370764800000000", False), ("999999999999999999", False)],
)
def test_a_time_that_no_date_can_show_is_no_time(
    time: str, is_time: bool, fast: bool, decode_body: Any
) -> None:
    line = f"binance,BTCUSDT,{START},{time},1,buy,1.5,2\n"
    if is_time:
        assert decode_body("trades", line, fast=fast)[0].profile.implausible_times == 1
        return
    with pytest.raises(CorruptFeed, match=r"line 2, column local_timestamp: .* is no time"):
        decode_body("trades", line, fast=fast)


def test_more_names_than_any_file_has_are_refused_and_as_many_are_read(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser_module, "MOST_NAMES", 300)
    lines = [f"binance,S{n},{START + n},{START + n},1,buy,1.5,2\n" for n in range(301)]
    profile = decode_body("trades", "".join(lines[:300] * 2))[0].profile
    assert [s.rows for s in profile.symbols] == [2] * 300
    with pytest.raises(CorruptFeed, match="line 302, column symbol: more than 300 different pairs"):
        decode_body("trades", "".join(lines))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("exchange", "symbol"), [("e" * 201, "S"), ("binance", "s" * 201)])
def test_a_name_of_hundreds_of_bytes_is_refused(
    exchange: str, symbol: str, fast: bool, decode_body: Any
) -> None:
    line = "{},{}," + f"{START},{START},1,buy,1.5,2\n"
    decode_body("trades", line.format(exchange[:200], symbol[:200]), fast=fast)
    with pytest.raises(CorruptFeed, match=r"line 2, column (exchange|symbol): .* has 201 bytes"):
        decode_body("trades", line.format(exchange, symbol), fast=fast)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thousands_of_symbols_take_memory_for_their_rows(tmp_path: Path) -> None:
    """A symbol has room for 2,050 prices and 512 arrivals, 50 kB; one row touches a few pages of it."""
    code = f"""
import gzip, sys
from pathlib import Path
from backfill_assets.feeds import Feed
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.profile import ProfileParameters
folder = Path(sys.argv[1])
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
def decoded(symbols):
    lines = "".join(f"binance,S{{n}},{START},{START},1,buy,1.5,2\\n" for n in range(symbols))
    (folder / "a.csv.gz").write_bytes(gzip.compress((csv_header("trades") + "\\n" + lines).encode()))
    made = decode(folder / "a.csv.gz", folder / "a.parquet", feed=Feed("binance", "trades", "SPOT"),
                  day="{DAY}", symbols={{}}, parameters=ProfileParameters())
    return len(made.profile.symbols), len(made.totals)
decoded(10)
before = peak()
print(*decoded(8_000), (peak() - before) // 8_000)
"""
    done = python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    symbols, totals, kilobytes = map(int, done.stdout.split())
    assert (symbols, totals) == (8_000, 8_000)
    assert kilobytes < 55


def test_totals_are_exact_by_symbol_whatever_the_times(decode_body: Any, tmp_path: Path) -> None:
    """The sum of some dozen late times does not fit 64 bits."""
    late = 253_370_764_799_999_999
    rows = [("ab"[n % 2], (START, late)[n % 3 == 0], f"{n}.5", str(n)) for n in range(200)]
    lines = "".join(f"binance,{s},{START},{arrived},1,buy,{price},{a}\n" for s, arrived, price, a in rows)
    decoded, table = decode_body("trades", lines, row_group_rows=64)
    totals = decoded.totals
    assert [t.dataset_symbol for t in totals] == ["a", "b"]
    # A reader of the file finds the same values.
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=64)
    read = Totals("trades")
    with pq.ParquetFile(tmp_path / "a.parquet", read_dictionary=[*NAMES]) as file:
        for group in range(file.num_row_groups):
            read.add(file.read_row_group(group))
    assert read.found() == totals
    for found in totals:
        own = [(n, row) for n, row in enumerate(rows) if row[0] == found.dataset_symbol]
        assert found.rows == len(own)
        assert found.exact == {"row": sum(n for n, _ in own), "local_timestamp": sum(r[1] for _, r in own)}
        assert found.floats["price"] == pytest.approx(sum(float(r[2]) for _, r in own), rel=1e-12)
        assert found.floats["amount"] == pytest.approx(sum(float(r[3]) for _, r in own), rel=1e-12)


@pytest.mark.parametrize(
    "error", [OverflowError("too large"), RecursionError("deep"), pa.ArrowInvalid("a\nb")]
)
def test_a_file_that_breaks_the_code_in_a_new_way_is_rejected_alone(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise error

    monkeypatch.setattr(fetch_module, "stored_file", breaks)
    feed, path = Feed("binance", "trades", "BTCUSDT"), tmp_path / "a.csv.gz"
    body = f"{csv_header('trades')}\nbinance,BTCUSDT,{START},{START},1,buy,1.5,2\n"
    path.write_bytes(gzip.compress(body.encode()))
    store = LocalStore(tmp_path / "lake")
    worker = fetch_module._Worker(store, DAY, {feed: {}}, {}, {}, ProfileParameters(), {feed: {}}, str)
    outcome = worker(feed, Download(path, "http://127.0.0.1/", path.stat().st_size))
    assert outcome.state == "rejected"
    assert type(error).__name__ in outcome.reason
    assert "\n" not in outcome.reason
    assert [file.suffix for file in (tmp_path / "lake" / "rejected").rglob("*") if file.is_file()]
