"""A folder of own files: which feeds they are, which have no place and why, and settings that run them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.settings import load_settings

COLUMNS = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files" / "instruments").mkdir(parents=True)
    return tmp_path / "files"


def put(folder: Path, name: str, exchange: str = "x", symbol: str = "x") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    at = 1_762_732_800_000_000  # 2025-11-10
    row = f"{exchange},{symbol},{at},{at + 50_000},1,buy,100.5,1"
    path.write_bytes(gzip.compress(f"{COLUMNS}\n{row}\n".encode()))


def imported(folder: Path, file: Path) -> Result:
    return CliRunner().invoke(main, ["import", str(folder), "--settings", str(file)])


def test_each_file_is_placed_or_told_why_it_has_no_place(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "kraken_quotes_2025-11-12_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "kraken_quotes_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "binance-delivery/trades/2025/11/10/BTCUSD_PERP.csv.gz", "binance-delivery", "BTCUSD_PERP")
    put(folder, "okex-swap/trades/2025/11/10/BTC-USDT-SWAP.csv.gz", "okex-swap", "BTC-USDT-SWAP")
    put(folder, "deribit/trades/2025/11/10/BTC-26DEC25.csv.gz", "deribit", "BTC-26DEC25")
    put(folder, "deribit/options_chain/2025/11/10/OPTIONS.csv.gz", "deribit", "BTC-26DEC25-1-C")
    put(folder, "gate-io/trades/2025/11/10/币安人生-USDT.csv.gz", "gate-io", "币安人生-USDT")
    put(folder, "odd/trades/2025/11/10/QQQQ.csv.gz", "odd", "QQQQ")
    put(folder, "odd/trade/2025/11/10/BTCUSDT.csv.gz")
    put(folder, "kraken_trades_2025-13-45_XBT-USDT.csv.gz")
    (folder / "notes.txt").write_text("mine")
    told = imported(folder, tmp_path / "own.yaml")
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert lines[: lines.index("5 files have no place:")] == [
        "binance-delivery/trades/BTCUSD_PERP as BTC-USD-PERP: 2025-11-10 to 2025-11-10",
        "deribit/trades/BTC-26DEC25 as BTC-26DEC25: 2025-11-10 to 2025-11-10",
        "gate-io/trades/币安人生-USDT as 币安人生-USDT: 2025-11-10 to 2025-11-10",
        "kraken/quotes/XBT-USDT as BTC-USDT: 2025-11-10 to 2025-11-12, 1 between them without a file",
        "kraken/trades/XBT-USDT as BTC-USDT: 2025-11-10 to 2025-11-10",
        "okex-swap/trades/BTC-USDT-SWAP as BTC-USDT-PERP: 2025-11-10 to 2025-11-10",
    ]
    unplaced = "\n".join(line for line in lines if line.startswith("  ") and ": " in line)
    for name, why in (
        ("deribit/options_chain/2025/11/10/OPTIONS.csv.gz", "nothing says which symbols it has"),
        ("kraken_trades_2025-13-45_XBT-USDT.csv.gz", "its name is not EXCHANGE/DATA_TYPE/YYYY/MM/DD"),
        ("notes.txt", "it is no .csv.gz file"),
        ("odd/trade/2025/11/10/BTCUSDT.csv.gz", "trade is no data type; did you mean trades?"),
        ("odd/trades/2025/11/10/QQQQ.csv.gz", "its currencies cannot be read off its name"),
    ):
        assert f"  {name}: {why}" in unplaced, unplaced
    expected = {
        (entry.exchanges, symbol, entry.data_types)
        for entry in load_settings(tmp_path / "own.yaml").universe
        for symbol in entry.symbols
    }
    assert (("kraken",), "BTC-USDT", ("quotes", "trades")) in expected
    assert len(expected) == 5


def test_instruments_beside_the_files_give_groups_and_odd_names_a_place(folder: Path, tmp_path: Path) -> None:
    put(folder, "odd/trades/2025/11/10/QQQQ.csv.gz", "odd", "QQQQ")
    put(folder, "odd/trades/2025/11/10/SPOT.csv.gz", "odd", "QQQQ")
    listed = {"id": "QQQQ", "exchange": "odd", "type": "spot", "availableSince": "2020-01-01T00:00:00Z"}
    instruments = [{**listed, "baseCurrency": "Q", "quoteCurrency": "USD"}]
    (folder / "instruments" / "odd.json").write_text(json.dumps(instruments))
    told = imported(folder, tmp_path / "own.yaml")
    assert told.output.splitlines()[:2] == [
        "odd/trades/QQQQ as Q-USD: 2025-11-10 to 2025-11-10",
        "odd/trades/SPOT as SPOT: 2025-11-10 to 2025-11-10",
    ]
    assert "no place" not in told.output


def test_settings_that_are_there_are_never_written_over(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    (tmp_path / "own.yaml").write_text("mine")
    refused = imported(folder, tmp_path / "own.yaml")
    assert (refused.exit_code, "is there already" in refused.output) == (2, True)
    assert (tmp_path / "own.yaml").read_text() == "mine"
    empty = imported(tmp_path / "nowhere", tmp_path / "other.yaml")
    assert empty.exit_code == 1
    assert not (tmp_path / "other.yaml").exists()


def test_the_command_that_is_printed_runs_the_last_day_without_a_vendor(folder: Path, tmp_path: Path) -> None:
    at = 1_762_732_800_000_000
    rows = [f"kraken,XBT/USDT,{at + n * 10**6},{at + n * 10**6 + 50_000},,buy,100.5,1" for n in range(86_400)]
    flat = folder / "kraken_trades_2025-11-10_XBT-USDT.csv.gz"
    flat.write_bytes(gzip.compress("\n".join([COLUMNS, *rows, ""]).encode(), 1))
    told = imported(folder, tmp_path / "own.yaml")
    command = told.output.splitlines()[-1].strip()
    binaries = str(Path(sys.executable).parent)
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "BACKFILL_STANDIN_URL")},
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "BACKFILL_DATA": str(tmp_path / "data"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    run = subprocess.run(command, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "data" / "warehouse" / "candles" / "2025-11-10.parquet").exists()
