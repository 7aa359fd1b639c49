"""A folder of a user's files: their feeds, files without a place and why, and settings that run them."""

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
from backfill_assets.days import day_range, end_us, shift, start_us, utc_now
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.quality.remedies import run_day
from backfill_assets.settings import load_settings, own_files_command
from backfill_assets.standins.file_names import METADATA_LAYOUT
from backfill_assets.tardis.columns import csv_header

REPOSITORY = Path(__file__).parents[2]
COLUMNS = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files" / "instruments").mkdir(parents=True)
    return tmp_path / "files"


def put(folder: Path, name: str, exchange: str = "x", symbol: str = "x") -> Path:
    """A file with the header of its data type and one row of a trade, for every type."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    at = 1_762_732_800_000_000  # 2025-11-10
    row = f"{exchange},{symbol},{at},{at + 50_000},1,buy,100.5,1"
    [header, *_] = [csv_header(t) for t in DATA_TYPES if f"/{t}/" in name or f"_{t}_" in name] or [COLUMNS]
    path.write_bytes(gzip.compress(f"{header}\n{row}\n".encode()))
    return path


def reasons(told: Result) -> dict[str, str]:
    """The files that have no place, and why."""
    assert told.exit_code == 0, told.output
    lines = [line.strip() for line in told.output.splitlines() if line.startswith("  ")]
    return dict(line.split(": ", 1) for line in lines if ".csv" in line.split(": ")[0])


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
        ("kraken_trades_2025-13-45_XBT-USDT.csv.gz", "2025-13-45 is not a day"),
        ("notes.txt", "it is not a .csv.gz file"),
        ("odd/trade/2025/11/10/BTCUSDT.csv.gz", "trade is not a data type; did you mean trades?"),
        ("odd/trades/2025/11/10/QQQQ.csv.gz", "its currencies cannot be read from its name"),
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
    assert (refused.exit_code, "already exists" in refused.output) == (2, True)
    assert (tmp_path / "own.yaml").read_text() == "mine"
    empty = imported(tmp_path / "nowhere", tmp_path / "other.yaml")
    assert empty.exit_code == 1
    assert f"there is no directory {tmp_path / 'nowhere'}" in empty.output
    assert "--datasets" not in empty.output
    assert not (tmp_path / "other.yaml").exists()


def command_environment(tmp_path: Path) -> dict[str, str]:
    """A clean environment with the commands in its path, and no way to a vendor."""
    ours = ("DAGSTER_", "BACKFILL_", "TARDIS_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BACKFILL_DATA": str(tmp_path / "data"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }


def run(command: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**command_environment(tmp_path), **variables}
    return subprocess.run(
        command, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500
    )


def a_day(folder: Path, day: str = "2025-11-10") -> Path:
    """A file with a trade every ten seconds."""
    rows = [
        f"kraken,XBT/USDT,{at},{at + 50_000},,buy,100.5,1"
        for at in range(start_us(day), end_us(day), 10_000_000)
    ]
    flat = folder / f"kraken_trades_{day}_XBT-USDT.csv.gz"
    flat.write_bytes(gzip.compress("\n".join([COLUMNS, *rows, ""]).encode(), 1))
    return flat


#: Two consecutive days, and one behind a day without any file.
DAYS = ["2025-11-10", "2025-11-11", "2025-11-13"]


@pytest.mark.timeout(600)
def test_the_commands_that_are_printed_run_without_a_vendor_and_no_other_reaches_the_lake(
    folder: Path, tmp_path: Path
) -> None:
    folder = folder.rename(tmp_path / "it's mine")
    for day in DAYS:
        a_day(folder, day)
    told = imported(folder, tmp_path / "own.yaml")
    last, every = [line.strip() for line in told.output.splitlines() if line.startswith("  BACKFILL_ENV=")]
    served, command = last.split(" -- ", 1)
    own = f"BACKFILL_ENV={tmp_path / 'own.yaml'}"
    for wrong in (f"{own} {command}", f"{own} backfill-assets standins -- {command}"):
        refused = run(wrong, tmp_path)
        assert refused.returncode != 0
        assert f"run your command as '{served} -- COMMAND'" in refused.stderr
    tables = tmp_path / "data" / "own" / "warehouse" / "candles"
    assert not tables.exists(), "generated prices reach no lake of own files"
    done = run(last, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in tables.glob("2025*.parquet")] == ["2025-11-13.parquet"]
    page = (tmp_path / "data" / "own" / "lake" / "reports" / "2025-11-13.html").read_text()
    assert "Generated" not in page
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    done = run(every, tmp_path, DAGSTER_HOME=str(home))
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert sorted(path.stem for path in tables.glob("2025*.parquet")) == DAYS
    assert "2025-11-12" not in done.stdout, "a day without any file is not run"
    shown = done.stdout.splitlines()
    assert {f"{day} ✓ published" for day in DAYS[:2]} <= {*shown}, "the last one is good already"
    assert len(shown) < 20, "the daemon's words are elsewhere"


@pytest.mark.timeout(400)
def test_a_cut_file_is_named_and_not_asked_for_again(folder: Path, tmp_path: Path) -> None:
    flat = a_day(folder)
    flat.write_bytes(flat.read_bytes()[:-100])
    [command] = [x for x in imported(folder, tmp_path / "own.yaml").output.splitlines() if "standins" in x]
    done = run(command, tmp_path)
    assert done.returncode != 0
    assert "kraken/trades/XBT-USDT 2025-11-10 (XBT-USDT.csv.gz): damaged gzip after " in done.stderr
    assert "STEP_UP_FOR_RETRY" not in done.stderr


def test_advice_names_the_command_that_runs_under_settings_of_own_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    imported(folder, tmp_path / "own.yaml")
    served = f"BACKFILL_ENV={tmp_path / 'own.yaml'} backfill-assets standins --datasets {folder} -- "
    assert own_files_command(load_settings(tmp_path / "own.yaml")) == served
    monkeypatch.setenv("BACKFILL_ENV", str(tmp_path / "own.yaml"))
    assert run_day("2025-11-10").startswith(f"{served}dg launch ")
    monkeypatch.setenv("BACKFILL_ENV", "local")
    assert run_day("2025-11-10").startswith("dg launch ")
    assert run_day("2025-11-10", generated=True).startswith("backfill-assets standins -- dg ")


def test_files_of_another_folder_are_not_read_into_the_lake(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("files", "others"):
        put(tmp_path / name, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    imported(folder, tmp_path / "own.yaml")
    monkeypatch.setenv("BACKFILL_ENV", str(tmp_path / "own.yaml"))
    ran = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    wrong = CliRunner().invoke(main, ["standins", "--datasets", str(tmp_path / "others"), "--", *ran])
    assert wrong.exit_code == 2
    assert f"these settings read {folder}, not {tmp_path / 'others'}: run your command as '" in wrong.output
    assert not (tmp_path / "ran").exists()
    assert CliRunner().invoke(main, ["standins", "--datasets", str(folder), "--", *ran]).exit_code == 0
    assert (tmp_path / "ran").exists()


def test_own_files_have_a_lake_of_their_own_and_are_not_asked_for_long(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    imported(folder, tmp_path / "mine.yaml")
    settings = load_settings(tmp_path / "mine.yaml")
    assert settings.lake.uri == "${BACKFILL_DATA:-./data}/mine/lake"
    assert getattr(settings.warehouse, "folder", "") == "${BACKFILL_DATA:-./data}/mine/warehouse"
    assert settings.tardis.retry_budget_seconds <= 5


def test_more_days_than_one_backfill_takes_are_allowed_for(folder: Path, tmp_path: Path) -> None:
    days = day_range("2022-01-01", "2024-06-30")
    for day in days:
        put(folder, f"kraken_trades_{day}_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    assert "for days in 2022-01-01/2024-06-30; do" in imported(folder, tmp_path / "own.yaml").output
    assert load_settings(tmp_path / "own.yaml").serve.max_days == len(days)


@pytest.mark.parametrize("name", ["own.txt", "own", "own.yaml.bak"])
def test_settings_that_no_command_would_find_are_not_written(folder: Path, tmp_path: Path, name: str) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    refused = imported(folder, tmp_path / name)
    assert refused.exit_code == 2
    assert "the name of a settings file ends in .yaml: give one with --settings" in refused.output
    assert not (tmp_path / name).exists()


def test_of_two_files_of_one_feed_and_day_the_one_that_is_not_read_is_named(
    folder: Path, tmp_path: Path
) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "kraken/trades/2025/11/10/XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    told = imported(folder, tmp_path / "own.yaml")
    assert reasons(told) == {
        "kraken_trades_2025-11-10_XBT-USDT.csv.gz": "kraken/trades/2025/11/10/XBT-USDT.csv.gz has the same "
        "feed and day, and is read: remove one of them"
    }
    assert "1 file has no place:" in told.output


def test_rivals_for_one_pair_are_named(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "kraken_trades_2025-11-10_XBTUSDT.csv.gz", "kraken", "XBTUSDT")
    alone = imported(folder, tmp_path / "own.yaml")
    assert alone.exit_code == 1
    said = "BTC-USDT on kraken stands for several instruments (XBT-USDT, XBTUSDT): keep the files of one"
    assert said in alone.output
    put(folder, "kraken_trades_2025-11-10_ETH-USDT.csv.gz", "kraken", "ETH/USDT")
    assert [why.startswith(said) for why in reasons(imported(folder, tmp_path / "own.yaml")).values()] == [
        True,
        True,
    ]


def test_a_file_that_is_not_compressed_is_told_how_to_be(folder: Path, tmp_path: Path) -> None:
    (folder / "kraken_trades_2025-11-10_XBT-USDT.csv").write_text(f"{COLUMNS}\n")
    (folder / "kraken_trades_2025-11-11_XBT-USDT.csv").write_text(f"{COLUMNS}\n")
    said = f"it is not compressed: gzip {folder}/*.csv"
    alone = imported(folder, tmp_path / "own.yaml")
    assert alone.exit_code == 1
    assert f"kraken_trades_2025-11-10_XBT-USDT.csv and 1 other file: {said}" in alone.output
    put(folder, "kraken_trades_2025-11-12_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    assert {*reasons(imported(folder, tmp_path / "own.yaml")).values()} == {said}


def test_names_that_are_nearly_right_are_told_the_right_ones(folder: Path, tmp_path: Path) -> None:
    tomorrow = shift(utc_now().date().isoformat(), 1)
    put(folder, "krakn_trades_2025-11-10_ETH-USDT.csv.gz", "krakn", "ETH/USDT")
    put(folder, "kraken_trade_2025-11-10_XBT-USDT.csv.gz")
    put(folder, "kraken_trades_2025-13-10_XBT-USDT.csv.gz")
    put(folder, "kraken/trades/2025/02/30/XBT-USDT.csv.gz")
    put(folder, "below/kraken_trades_2025-11-10_XBT-USDT.csv.gz")
    put(folder, "kraken_trades_2025-11-10_xbt-usdt.csv.gz")
    put(folder, f"kraken_trades_{tomorrow}_XBT-USDT.csv.gz")
    told = imported(folder, tmp_path / "own.yaml")
    assert reasons(told) == {
        "below/kraken_trades_2025-11-10_XBT-USDT.csv.gz": f"files with such names belong in {folder}",
        "kraken/trades/2025/02/30/XBT-USDT.csv.gz": "2025-02-30 is not a day",
        "kraken_trade_2025-11-10_XBT-USDT.csv.gz": "trade is not a data type; did you mean trades?",
        "kraken_trades_2025-11-10_xbt-usdt.csv.gz": "the vendor writes its symbol XBT-USDT: rename the file",
        "kraken_trades_2025-13-10_XBT-USDT.csv.gz": "2025-13-10 is not a day",
        f"kraken_trades_{tomorrow}_XBT-USDT.csv.gz": f"{tomorrow} is not over: a day is read from 06:00 UTC "
        "of the next one on",
    }
    assert "krakn is not a known exchange; did you mean kraken?" in told.output


def test_a_link_to_nothing_has_no_place_and_hides_no_other_file(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_ETH-USDT.csv.gz", "kraken", "ETH/USDT")
    name = "kraken_trades_2025-11-10_XBT-USDT.csv.gz"
    (folder / name).symlink_to(tmp_path / "nowhere")
    told = imported(folder, tmp_path / "own.yaml")
    assert reasons(told) == {name: "it cannot be read: No such file or directory"}
    assert told.output.startswith("kraken/trades/ETH-USDT as ETH-USDT: ")


def test_a_folder_above_that_of_the_exchanges_is_told_the_right_one(folder: Path, tmp_path: Path) -> None:
    put(folder, "datasets/v1/kraken/trades/2025/11/10/XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    said = f"its exchange lies in {folder / 'datasets' / 'v1'}: give that folder"
    assert said in imported(folder, tmp_path / "own.yaml").output
    assert imported(folder / "datasets" / "v1", tmp_path / "own.yaml").exit_code == 0


def test_broken_files_have_no_place(folder: Path, tmp_path: Path) -> None:
    good = put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT").read_bytes()
    names = [f"kraken_trades_2025-11-1{n}_XBT-USDT.csv.gz" for n in range(1, 6)]
    contents = (b"", COLUMNS.encode(), good[:-12], good[:10] + b"\xff" * 40, gzip.compress(b"a,b\n1,2\n"))
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    found = reasons(imported(folder, tmp_path / "own.yaml"))
    assert [found[name] for name in names] == [
        "it is empty: download it again",
        "it is not a gzip file: download it again, or gzip it",
        "it is cut off: download it again",
        "its gzip is damaged: download it again",
        "its header is not that of trades, but 'a,b'",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("exchanges/kraken.json", "{}", "id: Field required"),
        ("exchanges/kraken.json", "[]", "does not hold a description of an exchange"),
        ("exchanges/kraken.json", "{", "is not JSON"),
        ("exchanges/kraken.json", '{"id": "binance"}', "is of binance"),
        ("exchanges/kraken.json", '{"id": "kraken"}', "lists no data sets"),
        ("exchanges/kraken.json", '{"id": "kraken", "datasets": 5}', "datasets: "),
        ("instruments/kraken.json", "{}", "does not hold a list of instruments"),
        ("instruments/kraken.json", "[]", "lists no instruments"),
        (
            "instruments/kraken.json",
            '[{"id": "XBT/USDT", "exchange": "bitmex", "type": "spot", "availableSince": "2020-01-01"}]',
            "is of bitmex",
        ),
        ("instruments/kraken.json", "nonsense", "is not JSON"),
        ("instruments/kraken.json", '[{"id": "XBT/USDT"}, 5]', "type: Field required"),
    ],
)
def test_metadata_that_cannot_be_used_is_told_by_file_and_fault(
    folder: Path, tmp_path: Path, name: str, content: str, said: str
) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    refused = imported(folder, tmp_path / "own.yaml")
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: {folder / name}"), refused.output
    assert said in refused.output
    assert refused.output.rstrip().endswith("save the vendor's answer there, or remove the file")
    assert "update backfill_assets" not in refused.output


def test_metadata_that_no_file_needs_is_named(folder: Path, tmp_path: Path) -> None:
    put(folder, "v1/kraken/trades/2025/11/10/XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    for name in ("instruments/krakn.json", "instruments/kraken", "v1/instruments/kraken.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("[]")
    told = imported(folder, tmp_path / "own.yaml")
    found = [line.strip() for line in told.output.splitlines() if "instruments/" in line]
    said = METADATA_LAYOUT
    assert found == [
        f"instruments/kraken: {said}",
        f"instruments/krakn.json: {said}",
        f"v1/instruments/kraken.json: {said}",
    ]


def test_metadata_that_lacks_a_file_is_named_as_the_reason(folder: Path, tmp_path: Path) -> None:
    put(folder, "kraken_trades_2025-11-10_XBT-USDT.csv.gz", "kraken", "XBT/USDT")
    put(folder, "kraken_trades_2025-11-10_ETH-USDT.csv.gz", "kraken", "ETH/USDT")
    listed = {
        "id": "ETH/USDT",
        "exchange": "kraken",
        "type": "spot",
        "availableSince": "2020-01-01T00:00:00Z",
    }
    currencies = {"baseCurrency": "ETH", "quoteCurrency": "USDT"}
    file = folder / "instruments" / "kraken.json"
    file.write_text(json.dumps([{**listed, **currencies}]))
    name = "kraken_trades_2025-11-10_XBT-USDT.csv.gz"
    told = reasons(imported(folder, tmp_path / "own.yaml"))
    assert told == {
        name: "instruments/kraken.json does not list it: save the vendor's answer again, or remove that file"
    }
    file.unlink()
    (folder / "exchanges").mkdir()
    symbols = [{**listed, "id": "ETH-USDT", "dataTypes": ["trades"]}]
    details = {"id": "kraken", "datasets": {"exportedUntil": "2025-12-01T00:00:00Z", "symbols": symbols}}
    (folder / "exchanges" / "kraken.json").write_text(json.dumps(details))
    told = reasons(imported(folder, tmp_path / "two.yaml"))
    assert told == {
        name: "exchanges/kraken.json does not list it: save the vendor's answer again, or remove that file"
    }
