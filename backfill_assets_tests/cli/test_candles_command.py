"""``backfill-assets candles``: the same candles as files in every format, and the answer without candles."""

from __future__ import annotations

import io
import subprocess
from datetime import UTC, datetime

import polars as pl
import pytest
import yaml

from backfill_assets.candles.query import candles_of
from backfill_assets.definitions import build_definitions
from backfill_assets.feeds import Feed
from backfill_assets.frames.output import TABLE_COLUMNS, table_text
from backfill_assets.lake.store import open_store
from backfill_assets.settings import load_settings
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.generated import GENERATED_PRICES

DAY, NEXT, MISSING = "2024-01-01", "2024-01-02", "2024-01-03"
READ = {"parquet": pl.read_parquet, "arrow": pl.read_ipc}


@pytest.fixture(scope="module")
def lake_of_two_days(tmp_path_factory, market):
    """A settings file whose lake has two days of two markets."""
    folder = tmp_path_factory.mktemp("filled")
    file = folder / "settings.yaml"
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin:
        content = {
            "tardis": {
                "datasets_endpoint": f"{standin.url}/v1/datasets",
                "api_endpoint": f"{standin.url}/v1",
                "api_key": "standin-key",
            },
            "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"]}],
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
        }
        file.write_text(yaml.safe_dump(content))
        job = build_definitions(str(file)).resolve_job_def("day")
        quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        for day in (DAY, NEXT):
            assert job.execute_in_process(partition_key=day, run_config=quiet).success
    return file


@pytest.fixture
def filled(desk, lake_of_two_days):
    return desk.set(BACKFILL_ENV=str(lake_of_two_days)), load_settings(lake_of_two_days)


def stored_candles(
    settings, timeframe: str = "1h", *days: str, symbol: str | None = "BTC-USDT"
) -> pl.DataFrame:
    """The rows of the lake's own files."""
    store = open_store(settings.lake)
    found = pl.concat([pl.DataFrame(candles_of(store, day, timeframe)) for day in days or (DAY,)])
    return found if symbol is None else found.filter(pl.col("symbol") == symbol)


def arguments(timeframe: str = "1h", form: str = "table", **changes: str) -> list[str]:
    options = {
        "date": DAY,
        "exchange": "binance",
        "symbol": "BTC-USDT",
        "timeframe": timeframe,
        "format": form,
    }
    return ["candles", *(word for k, v in {**options, **changes}.items() if v for word in (f"--{k}", v))]


def invoke(environment, words):
    from click.testing import CliRunner

    from backfill_assets.cli import main

    return CliRunner(env=environment).invoke(main, words)


def test_the_three_formats_hold_the_same_candles(filled, tmp_path):
    desk, settings = filled
    stored = stored_candles(settings)
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
    odd = stored_candles(settings, "1d").with_columns(
        open=pl.lit(104_283.58), low=pl.lit(0.00001234), volume=pl.lit(123_456_789.125)
    )
    text = table_text(odd)
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
    assert process.stderr.read().decode() in ("", f"{GENERATED_PRICES}\n")
    process.wait(timeout=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbol": "BTC-USD"}, "trades of 'BTC-USD' on binance; did you mean BTC-USDT"),
        ({"symbol": "XYZ"}, "trades of 'XYZ' on binance; they have BTC-USDT, ETH-USDT"),
        ({"exchange": "binanc"}, "trades of an exchange 'binanc'; did you mean binance?"),
        (
            {"output": "candles.xls"},
            "candles.xls: the end of the name sets the format: use .parquet or .csv or .arrow",
        ),
        ({"end": "2023-12-31"}, "the range ends (2023-12-31) before it starts (2024-01-01): swap them"),
    ],
)
def test_what_the_day_does_not_have_and_what_is_no_range_or_file_is_a_wrong_call(filled, changes, message):
    desk, _ = filled
    words = arguments(form="", **changes)
    result = invoke(desk.environment, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert desk.left == []


@pytest.mark.parametrize("command", ["candles", "coverage"])
def test_a_timeframe_that_there_is_not_is_a_wrong_call(desk, command):
    words = (
        arguments(timeframe="7m")
        if command == "candles"
        else ["coverage", "--date", "2024-01-01", "--timeframe", "7m"]
    )
    result = invoke(desk.environment, words)
    known = "1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d"
    message = f"Error: '7m' is not a timeframe: choose from {known}\n"
    assert (result.exit_code, result.stderr, result.stdout) == (2, message, "")


@pytest.mark.parametrize("end", ["parquet", "csv", "arrow"])
def test_a_range_of_every_market_is_written_to_a_file_that_is_whole(filled, end):
    desk, settings = filled
    file = desk.folder / f"candles.{end}"
    file.write_text("what was there before")
    words = ["candles", "--date", DAY, "--end", NEXT, "--exchange", "binance", "--all-symbols"]
    answer = desk.run(*words, "--timeframe", "5m", "--output", str(file))
    stored = stored_candles(settings, "5m", DAY, NEXT, symbol=None)
    assert stored["symbol"].n_unique() == 2
    told = f"{file}: {stored.height:,} rows of <binance all markets 5m candles, generated; days: 2 published>"
    assert (answer.code, answer.out, answer.err) == (0, "", f"{GENERATED_PRICES}\n{told}\n")
    if end == "csv":
        text = io.BytesIO()
        stored.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
        assert file.read_bytes() == text.getvalue()
    else:
        assert READ[end](file).equals(stored)
    assert desk.left == [file.name]


def test_a_day_that_falls_short_is_refused_told_or_left_out(filled):
    desk, settings = filled
    file = desk.folder / "candles.parquet"
    words = arguments(form="", end=MISSING, output=str(file))
    short = f"binance BTC-USDT 1h candles: 1 of 3 days fall short (1 missing): {MISSING} missing"
    refused = desk.run(*words)
    assert refused.code == 1
    assert refused.error.startswith(f"{short}; run backfill-assets run --date {MISSING}, or ")
    assert not file.exists(), "nothing was written"
    for choice in ("warn", "mask"):
        answer = desk.run(*words, "--on-gap", choice)
        assert answer.code == 0
        origin, *warnings, written = answer.err.splitlines()
        assert origin == GENERATED_PRICES
        assert warnings == ([f"Warning: {short}"] if choice == "warn" else [])
        assert written.endswith("days: 2 published, 1 missing>")
        assert pl.read_parquet(file).equals(stored_candles(settings, "1h", DAY, NEXT))


def test_a_table_of_every_market_names_them(filled):
    desk, _ = filled
    words = ["candles", "--date", DAY, "--exchange", "binance", "--all-symbols", "--timeframe", "1d"]
    lines = desk.run(*words).out.splitlines()
    assert lines[0].split()[:3] == ["symbol", "time", "(UTC)"]
    assert [line.split()[0] for line in lines[1:]] == ["BTC-USDT", "ETH-USDT"]


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(filled):
    desk, _ = filled
    answer = desk.run(*arguments(form="", output="there/is/none.csv"))
    assert answer.code == 1
    assert answer.error.startswith("there/is/none.csv: cannot be written (No such file or directory)")
    assert desk.left == []


@pytest.mark.parametrize("words", [["--symbol", "BTC-USDT", "--all-symbols"], []])
def test_one_market_or_all_of_them_must_be_asked_for(desk, words):
    result = invoke(desk.environment, ["candles", "--date", DAY, "--exchange", "binance", *words])
    assert result.exit_code == 2
    assert "give either --symbol or --all-symbols" in result.stderr


def test_a_market_without_candles_is_told_why(desk, settings_file, standin):
    feed = Feed.parse("binance/trades/ETHUSDT")
    standin.faults.put_dataset(feed, DAY, Fault(always=not_found()))
    universe = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"]}]
    file = str(settings_file(standin.url, universe=universe))
    job = build_definitions(file).resolve_job_def("day")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(partition_key=DAY, run_config=quiet, raise_on_error=False)
    desk.set(BACKFILL_ENV=file)
    refused = desk.run(*arguments(symbol="ETH-USDT"))
    assert refused.code == 1
    assert f"{DAY} left_out (" in refused.error
    assert "HTTP 404" in refused.error
    for form in ("table", "csv"):
        answer = desk.run(*arguments(form=form, symbol="ETH-USDT", **{"on-gap": "warn"}))
        assert (answer.code, len(answer.out.splitlines())) == (0, 1)
        assert "HTTP 404" in answer.err
    every = ["candles", "--date", DAY, "--exchange", "binance", "--all-symbols", "--timeframe", "1d"]
    answer = desk.run(*every, "--on-gap", "warn")
    assert len(answer.out.splitlines()) == 2
    assert "1 degraded" in answer.err
    assert "HTTP 404" in answer.err


def test_looking_makes_no_lake(desk):
    assert (
        invoke({**desk.environment, "BACKFILL_DATA": str(desk.folder / "data")}, arguments()).exit_code == 1
    )
    assert desk.left == []
