"""``backfill-assets candles``: three formats of the same candles, and what is said where there are none."""

from __future__ import annotations

import io
import subprocess
from datetime import UTC, datetime

import polars as pl
import pytest
import yaml

from backfill_assets.candles.query import TABLE_COLUMNS, market_candles, write_candles
from backfill_assets.definitions import build_definitions
from backfill_assets.feeds import Feed
from backfill_assets.lake.store import open_store
from backfill_assets.settings import load_settings
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.tardis import TardisStandin

DAY = "2024-01-01"


@pytest.fixture(scope="module")
def lake_of_one_day(tmp_path_factory, market):
    """A settings file whose lake has one day of one market."""
    folder = tmp_path_factory.mktemp("filled")
    file = folder / "settings.yaml"
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin:
        content = {
            "tardis": {
                "datasets_endpoint": f"{standin.url}/v1/datasets",
                "api_endpoint": f"{standin.url}/v1",
            },
            "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
        }
        file.write_text(yaml.safe_dump(content))
        job = build_definitions(str(file)).resolve_job_def("day")
        quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        assert job.execute_in_process(partition_key=DAY, run_config=quiet).success
    return file


@pytest.fixture
def filled(desk, lake_of_one_day):
    return desk.set(BACKFILL_ENV=str(lake_of_one_day)), load_settings(lake_of_one_day)


def arguments(timeframe: str = "1h", form: str = "table", **changes: str) -> list[str]:
    options = {
        "date": DAY,
        "exchange": "binance",
        "symbol": "BTC-USDT",
        "timeframe": timeframe,
        "format": form,
    }
    return ["candles", *(word for k, v in {**options, **changes}.items() for word in (f"--{k}", v))]


def invoke(environment, words):
    from click.testing import CliRunner

    from backfill_assets.cli import main

    return CliRunner(env=environment).invoke(main, words)


def test_the_three_formats_hold_the_same_candles(filled, tmp_path):
    desk, settings = filled
    stored = pl.DataFrame(market_candles(open_store(settings.lake), DAY, "binance", "BTC-USDT", "1h"))
    assert stored.height == 24

    with (tmp_path / "c.parquet").open("wb") as file:
        command = desk.command(*arguments(form="parquet"))
        subprocess.run(command, cwd=desk.folder, env=desk.environment, stdout=file, check=True, timeout=120)
    assert pl.read_parquet(tmp_path / "c.parquet").equals(stored)

    text = desk.run(*arguments(form="csv")).out
    schema = {
        name: pl.String if isinstance(dtype, pl.Datetime) else dtype for name, dtype in stored.schema.items()
    }
    parsed = pl.read_csv(io.StringIO(text), schema=schema).with_columns(
        pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ", time_unit="us", time_zone="UTC")
        for name, dtype in stored.schema.items()
        if isinstance(dtype, pl.Datetime)
    )
    assert parsed.equals(stored), "CSV keeps every digit and every microsecond"

    lines = desk.run(*arguments()).out.splitlines()
    assert lines[0].split() == ["time", "(UTC)", *TABLE_COLUMNS[1:]]
    assert len(lines) == 1 + stored.height
    for line, row in zip(lines[1:], stored.select(TABLE_COLUMNS).iter_rows(), strict=True):
        time, *numbers = line.rsplit(maxsplit=len(TABLE_COLUMNS) - 1)
        assert time.strip() == row[0].strftime("%Y-%m-%d %H:%M")
        assert [float(number) for number in numbers] == pytest.approx(row[1:], rel=1e-9)


def test_a_timeframe_that_is_not_stored_is_rolled_up(filled):
    desk, _ = filled
    result = invoke(desk.environment, arguments("2h", "csv"))
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + 12


def test_prices_of_any_size_keep_their_digits_in_the_table(filled):
    _, settings = filled
    candles = market_candles(open_store(settings.lake), DAY, "binance", "BTC-USDT", "1d")
    odd = pl.DataFrame(candles).with_columns(
        open=pl.lit(104_283.58), low=pl.lit(0.00001234), volume=pl.lit(123_456_789.125)
    )
    out = io.BytesIO()
    write_candles(odd.to_arrow(), "table", out)
    text = out.getvalue().decode()
    assert "104283.58" in text
    assert "1.234e-05" in text
    assert "123456789.1" in text
    assert "…" not in text


@pytest.mark.parametrize("form", ["csv", "table"])
def test_a_reader_who_has_seen_enough_is_no_error(filled, form):
    desk, _ = filled
    process = subprocess.Popen(
        desk.command(*arguments("1m", form)),
        cwd=desk.folder,
        env=desk.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(timeout=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbol": "BTC-USD"}, "unknown symbol 'BTC-USD' on 2024-01-01: did you mean BTC-USDT?"),
        ({"symbol": "XYZ"}, "unknown symbol 'XYZ' on 2024-01-01: it has BTC-USDT"),
        ({"exchange": "binanc"}, "unknown exchange 'binanc' on 2024-01-01: did you mean binance?"),
    ],
)
def test_what_the_day_does_not_have_is_named_with_what_it_has(filled, changes, message):
    desk, _ = filled
    result = invoke(desk.environment, arguments(**changes))
    assert (result.exit_code, result.stderr, result.stdout) == (1, f"Error: {message}\n", "")


@pytest.mark.parametrize("command", ["candles", "coverage"])
def test_a_timeframe_that_there_is_not_is_a_wrong_call(desk, command):
    words = (
        arguments(timeframe="7m")
        if command == "candles"
        else ["coverage", "--date", "2024-01-01", "--timeframe", "7m"]
    )
    result = invoke(desk.environment, words)
    known = "1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d"
    message = f"Error: '7m' is no timeframe: choose from {known}\n"
    assert (result.exit_code, result.stderr, result.stdout) == (2, message, "")


def test_a_market_without_candles_is_told_why(desk, settings_file, standin):
    feed = Feed.parse("binance/trades/ETHUSDT")
    standin.faults.put_dataset(feed, DAY, Fault(always=not_found()))
    universe = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"]}]
    file = str(settings_file(standin.url, universe=universe))
    job = build_definitions(file).resolve_job_def("day")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(partition_key=DAY, run_config=quiet, raise_on_error=False)
    desk.set(BACKFILL_ENV=file)
    assert desk.run(*arguments()).err == ""
    for form in ("table", "csv"):
        answer = desk.run(*arguments(form=form, symbol="ETH-USDT"))
        assert (answer.code, len(answer.out.splitlines())) == (0, 1)
        said = f"no candles of binance ETH-USDT on {DAY}: {feed} does not count ("
        assert answer.err.startswith(said), answer.err
        assert "HTTP 404" in answer.err


def test_a_day_that_was_not_run_is_no_empty_table(filled):
    desk, settings = filled
    answer = desk.run(*arguments(date="2024-01-03"))
    assert answer.code == 1
    assert answer.error == f"the lake {settings.lake.uri} has no candles of 2024-01-03: run the day first"


def test_looking_makes_no_lake(desk):
    assert (
        invoke({**desk.environment, "BACKFILL_DATA": str(desk.folder / "data")}, arguments()).exit_code == 1
    )
    assert desk.left == []
