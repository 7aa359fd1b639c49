"""Costs of decoding for a process: imports, memory, threads, and compiled code in read-only places."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import backfill_assets
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks import jit

PACKAGE = Path(backfill_assets.__path__[0])

DECODER = """
import sys
from pathlib import Path
from backfill_assets.feeds import Feed
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.profile import ProfileParameters
def decoded():
    return decode(Path(sys.argv[1]), Path(sys.argv[2]), feed=Feed("binance", "trades", "BTCUSDT"),
                  day="2024-01-01", symbols={"BTCUSDT": "BTC-USDT"}, parameters=ProfileParameters())
"""

DECODE = f"""{DECODER}
found = decoded()
status = Path("/proc/self/status")  # getrusage would begin with the parent's peak
print(found.rows, *(line.split()[1] for line in status.open() if line.startswith("VmHWM")))
"""

#: Peak of a decode's malloc memory, in kB; mapped memory that is not touched costs nothing.
ALLOCATED = f"""{DECODER}
import tracemalloc
decoded()
tracemalloc.start()
decoded()
print(tracemalloc.get_traced_memory()[1] // 1024)
"""


#: Makes partial candles from the decoded files, and days of candles from them.
CANDLES = f"""{DECODER}
import backfill_assets
assert backfill_assets.__file__.startswith(sys.argv[3]), "another copy of the package"
from backfill_assets.candles.merge import day_of_candles
from backfill_assets.ticks.partials import partial_candles
found = decoded()
partials = partial_candles(Path(sys.argv[2]), exchange="binance", day="2024-01-01", seam_window_seconds=0,
                           numeric_ids=True)
(symbol,) = found.profile.symbols
print(found.rows, symbol.unique_ids, symbol.missing_ids,
      *day_of_candles("2024-01-01", [partials], ["1d"])["trade_count"].to_pylist())
"""


def run(code: str, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def trades(count: int, first: int = 1) -> str:
    return "".join(
        f"binance,BTCUSDT,{1704067200000000 + n},{1704067200000007 + n},{first + n},buy,{n % 500}.25,0.5\n"
        for n in range(count)
    )


def _tiny(folder: Path) -> tuple[str, str]:
    source = folder / "tiny.csv.gz"
    source.write_bytes(gzip.compress((csv_header("trades") + "\n" + trades(10)).encode()))
    return str(source), str(folder / "tiny.parquet")


def test_importing_decode_does_not_import_numba_or_polars_or_pandas() -> None:
    code = "import sys, backfill_assets.ticks.decode, backfill_assets.ticks.profile; print(*sys.modules)"
    assert not {"numba", "polars", "pandas", "dagster"} & set(run(code))


def _copied_package(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "backfill_assets", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "backfill_assets" / "ticks"


def test_decoding_and_candles_work_where_no_cache_can_be_written(tmp_path: Path) -> None:
    (_copied_package(tmp_path) / "__pycache__").write_text(
        "a file here makes the folder impossible, for root too"
    )
    (tmp_path / "home").write_text("so does this")
    home = str(tmp_path / "home")
    found = run(
        CANDLES, *_tiny(tmp_path), str(tmp_path), PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1",
        HOME=home, XDG_CACHE_HOME=home, PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    assert found == ["10", "10", "0", "10"]


#: A kernel whose machine code contains ``ADDED``.
SMALL = """
import numba as nb
from backfill_assets.ticks.jit import kernel
ADDED = {}
@kernel(nb.int64(nb.int64))
def plus(value):
    return value + ADDED
print(plus(0))
"""

#: Ends the process at a moment when the index of a kernel's machine code is new and the code is not.
KILLED = """
import os, signal
from numba.core.caching import IndexDataCacheFile
IndexDataCacheFile._save_data = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
import small_kernels
"""


def _small_kernel(folder: Path, added: int) -> str:
    (folder / "small_kernels.py").write_text(SMALL.format(added))
    return run("import small_kernels", PYTHONPATH=str(folder))[0]


def test_machine_code_of_another_source_is_never_run(tmp_path: Path) -> None:
    """Numba's own names would pair the new index with the old code, here and in every later process."""
    assert _small_kernel(tmp_path, 1) == "1"
    (tmp_path / "small_kernels.py").write_text(SMALL.format(22))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=280)
    assert killed.returncode == -signal.SIGKILL
    assert run("import small_kernels", PYTHONPATH=str(tmp_path)) == ["22"]


def test_a_change_of_shared_functions_changes_the_name_of_every_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jit.py", "shared_kernels.py", "book_kernels.py"):
        shutil.copy(PACKAGE / "ticks" / name, tmp_path)
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    name_of = jit._origin.__wrapped__
    before = name_of(str(tmp_path / "book_kernels.py"))
    with (tmp_path / "shared_kernels.py").open("a") as shared:
        shared.write("\n")
    assert name_of(str(tmp_path / "book_kernels.py")) != before


def test_machine_code_that_a_power_failure_emptied_is_compiled_again(tmp_path: Path) -> None:
    assert _small_kernel(tmp_path, 1) == "1"
    for pattern, size in (("*.nbc", 100), ("*.nbi", 0)):
        (stored,) = tmp_path.glob(f"__pycache__/{pattern}")
        stored.write_bytes(stored.read_bytes()[:size])
        assert run("import small_kernels", PYTHONPATH=str(tmp_path)) == ["1"]


def test_only_kernels_keep_machine_code() -> None:
    caching = [file.name for file in PACKAGE.rglob("*.py") if "cache=True" in file.read_text()]
    assert caching == ["jit.py"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    body = trades(100_000)
    peaks = []
    run(DECODE, *_tiny(tmp_path))  # so that no measured run compiles
    for copies in (8, 40):
        source = tmp_path / f"{copies}.csv.gz"
        with gzip.open(source, "wb", 1) as file:
            file.write((csv_header("trades") + "\n").encode())
            for _ in range(copies):
                file.write(body.encode())
        rows, peak = run(DECODE, str(source), str(tmp_path / "out.parquet"))
        assert int(rows) == copies * 100_000
        peaks.append(int(peak) // 1024)
    assert peaks[1] < peaks[0] + 60, peaks
    assert peaks[1] < 500, peaks


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (allocated,) = run(ALLOCATED, *_tiny(tmp_path))
    assert int(allocated) < 4 * 1024


def test_feeds_decode_side_by_side_with_the_result_of_one_after_the_other(decode_body: Any) -> None:
    bodies = [trades(20_000, first=n) for n in range(6)]
    alone = [decode_body("trades", body)[0] for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda body: decode_body("trades", body)[0], bodies))
    assert together == alone
    assert len({decoded.content for decoded in alone}) == 6
