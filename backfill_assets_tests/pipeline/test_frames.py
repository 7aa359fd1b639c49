"""The data of days that went well and badly, read with ``backfill_assets.open``."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

import backfill_assets as ba
from backfill_assets.cli import main
from backfill_assets.failures import BadInput
from backfill_assets.frames.data import Data
from backfill_assets.frames.states import DataGap, DataGapWarning
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets_tests.pipeline.conftest import Pipeline, write_settings

REPOSITORY = Path(__file__).parents[2]
GOOD, WITHOUT, HELD, MISSING, LAST = (f"2024-01-0{n}" for n in range(2, 7))
END = "2024-01-07"
MARKET = ("binance", "BTC-USDT")
#: Without the files of these feeds the day is held.
MOST = [
    *(f"coinbase/trades/{symbol}" for symbol in ("BTC-USDT", "ETH-USDT", "ADA-USDT")),
    *(f"kraken/trades/{symbol}" for symbol in ("XBT-USDT", "ETH-USDT", "ADA-USDT")),
]
TABLES = (CANDLES, COVERAGE, TICKS["trades"], QUALITY, INSTRUMENTS)


@pytest.fixture(scope="module")
def days(market, tmp_path_factory) -> Iterator[Pipeline]:
    """A good day, one without a feed, a held one, a day that was never run, and a good one again."""
    folder = tmp_path_factory.mktemp("frames")
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as standin:
        made = Pipeline(write_settings(folder, standin), standin)
        made.with_fault("binance/trades/BTCUSDT", WITHOUT, Fault(always=not_found()))
        for feed in MOST:
            made.with_fault(feed, HELD, Fault(always=not_found()))
        for day in (GOOD, WITHOUT, HELD, LAST):
            made.run_apart(day)
        yield made


@pytest.fixture(params=["warehouse", "lake"])
def data(days, request) -> Data:
    return ba.open(days.file, source=request.param)


def published(days: Pipeline, table: str, day: str) -> pl.DataFrame:
    """The market's rows as the embedded warehouse has them."""
    exchange, symbol = MARKET
    return days.table(table, day).filter(pl.col("exchange") == exchange, pl.col("symbol") == symbol)


def types_of(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def test_candles_are_those_of_the_warehouse_in_the_order_of_time(days, data):
    found = data.candles(*MARKET, "5m", GOOD)
    expected = published(days, "candles", GOOD).filter(pl.col("timeframe") == "5m").sort("open_time")
    assert found.to_polars().height > 100
    assert_frame_equal(found.to_polars(), expected)
    assert [(day.day, day.state) for day in found.days] == [(GOOD, "published")]


def test_a_range_within_days_is_half_open(data):
    found = data.candles(*MARKET, "1h", f"{GOOD}T03:00", f"{GOOD}T06:00").to_polars()
    assert [time.hour for time in found["open_time"]] == [3, 4, 5]


def test_a_timeframe_that_is_not_stored_is_made_of_minutes(data):
    found = data.candles(*MARKET, "2h", GOOD).to_polars()
    hours = data.candles(*MARKET, "1h", GOOD).to_polars()
    assert found.schema == hours.schema
    assert found["trade_count"].sum() == hours["trade_count"].sum()
    assert found["high"][0] == hours["high"][:2].max()
    assert found["close"].to_list() == hours["close"][1::2].to_list()


def test_filled_candles_stand_in_every_minute_that_is_proven_to_be_empty(data):
    plain = data.candles(*MARKET, "1m", GOOD).to_polars()
    filled = data.candles(*MARKET, "1m", GOOD, fill=True).to_polars()
    empty = data.coverage(*MARKET, "1m", GOOD).to_polars().filter(pl.col("state") == "proven_empty")
    assert empty.height
    assert filled.height == plain.height + empty["buckets"].sum()
    assert filled.schema == plain.schema
    flat = filled.filter(pl.col("trade_count") == 0)
    before = plain.filter(pl.col("open_time") < flat["open_time"][0])
    assert flat.row(0, named=True)["close"] == before["close"][-1]
    assert flat["volume"].sum() == 0


def test_trades_are_those_of_the_file_that_arrived_in_the_range(days, data):
    assert_frame_equal(data.trades(*MARKET, GOOD).to_polars(), published(days, "trades", GOOD))
    noon = datetime(2024, 1, 2, 12, tzinfo=UTC)
    morning = data.trades(*MARKET, GOOD, noon).to_polars()
    assert 0 < morning.height < published(days, "trades", GOOD).height
    assert morning["local_timestamp"].max() < noon


def test_a_day_without_the_market_a_held_and_a_missing_one_are_never_silent(data):
    with pytest.raises(DataGap) as caught:
        data.candles(*MARKET, "1m", GOOD, END)
    assert [day.state for day in caught.value.days] == [
        "published",
        "left_out",
        "held",
        "missing",
        "published",
    ]
    assert "3 of 5 days fall short (1 left_out, 1 held, 1 missing)" in str(caught.value)
    assert "404" in caught.value.days[1].reasons


def test_other_markets_of_a_day_without_one_are_degraded_and_may_be_taken(data):
    with pytest.warns(DataGapWarning, match="1 of 1 day falls short"):
        found = data.candles("kraken", "ETH-USDT", "1h", WITHOUT, on_gap="warn")
    with pytest.warns(DataGapWarning, match="1 of 1 day falls short") as warned:
        data.trades("kraken", "ETH-USDT", WITHOUT, on_gap="warn")
    assert [one.filename for one in warned] == [__file__], "a warning shows the line of its caller"
    assert found.to_polars().height == 24
    masked = data.candles("kraken", "ETH-USDT", "1h", GOOD, END, on_gap="mask")
    assert sorted(set(masked.to_polars()["date"].cast(pl.String))) == [GOOD, LAST]
    assert [day.state for day in masked.days][1] == "degraded"


def test_final_data_is_what_no_other_day_can_change(data):
    with pytest.raises(DataGap) as caught:
        data.candles(*MARKET, "1h", LAST, final=True)
    commands = " and ".join(f"backfill-assets run --date {day}" for day in (MISSING, END))
    assert f"({MISSING} was not run; {END} was not run); run {commands}, or" in str(caught.value)
    with pytest.raises(DataGap, match=f"{WITHOUT} has no file of BTC-USDT"):
        data.candles(*MARKET, "1h", GOOD, final=True)
    assert data.candles(*MARKET, "1h", LAST).to_polars().height == 24


def test_a_market_that_nobody_asked_for_is_told_with_its_neighbours(data):
    with pytest.raises(BadInput, match="'BTC-USTD' on binance; did you mean BTC-USDT"):
        data.candles("binance", "BTC-USTD", "1m", GOOD)
    with pytest.raises(BadInput, match="of an exchange 'binnance'; did you mean binance"):
        data.trades("binnance", "BTC-USDT", GOOD)
    with pytest.raises(BadInput, match="'1min' is not a timeframe"):
        data.candles(*MARKET, "1min", GOOD)
    with pytest.raises(BadInput, match="'trade' is not a data type; did you mean trades"):
        data.ticks("trade", *MARKET, GOOD)
    with pytest.raises(BadInput, match="no day of the range has quotes on binance; it has trades"):
        data.quotes(*MARKET, GOOD)
    with pytest.raises(BadInput, match="feeds of exchange 'binnance'; did you mean binance"):
        data.quality(GOOD, END, exchange="binnance")
    with pytest.raises(BadInput, match="feeds of exchange 'binnance'; did you mean binance"):
        data.instruments(GOOD, END, exchange="binnance")
    assert data.quality(MISSING, exchange="binnance").to_polars().is_empty(), "nothing is known of the day"


def test_days_and_quality_show_the_gaps_and_raise_none(days, data):
    found = data.days(GOOD, END)
    assert found.to_polars().select("date", "state").rows() == [
        (datetime.fromisoformat(day).date(), state)
        for day, state in ((GOOD, "published"), (WITHOUT, "degraded"), (HELD, "held"), (LAST, "published"))
    ]
    assert [day.state for day in found.days] == ["published", "degraded", "held", "missing", "published"]
    quality = data.quality(GOOD, END, exchange="binance", symbol="BTC-USDT")
    assert quality.to_polars()["published"].to_list() == [True, False, False, True]
    assert (
        data.instruments(GOOD, exchange="kraken")
        .to_polars()
        .equals(days.table("instruments", GOOD).filter(pl.col("exchange") == "kraken"))
    )


def test_every_library_gets_the_same_rows_and_types(data):
    frame = data.candles(*MARKET, "1h", GOOD)
    arrow, pandas = frame.to_arrow(), frame.to_pandas()
    assert types_of(arrow) == types_of(CANDLES.schema.empty_table())
    assert str(pandas["open_time"].dtype) == "datetime64[us, UTC]"
    assert pandas["close"].tolist() == frame.to_polars()["close"].to_list()
    assert frame.lazy().select("close").collect().height == len(pandas)
    assert frame.to_duckdb().aggregate("count(*), max(high)").fetchall() == [(24, pandas["high"].max())]
    assert pa.table(frame).equals(arrow)
    assert pl.DataFrame(frame).equals(frame.to_polars())
    assert repr(frame) == "<binance BTC-USDT 1h candles, generated; days: 1 published>"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_columns_and_types_are_those_of_the_documents_whether_or_not_there_are_rows(data, table):
    read = {
        "candles": lambda day: data.candles(*MARKET, "1m", day, on_gap="mask"),
        "coverage": lambda day: data.coverage(*MARKET, "1m", day, on_gap="mask"),
        "trades": lambda day: data.trades(*MARKET, day, on_gap="mask"),
        "quality": data.quality,
        "instruments": data.instruments,
    }[table.name]
    for day in (GOOD, MISSING):
        more = {"condition": "string"} if table is QUALITY else {}
        assert types_of(read(day).to_arrow()) == types_of(table.schema.empty_table()) | more


def test_importing_and_reading_need_nothing_of_dagster(days):
    code = (
        "import sys, backfill_assets as ba\n"
        "assert 'polars' not in sys.modules and 'pydantic' not in sys.modules\n"
        f"ba.open({str(days.file)!r}).candles('binance', 'BTC-USDT', '1h', '{GOOD}').to_polars()\n"
        "assert not [name for name in sys.modules if name.startswith('dagster')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_another_source_or_settings_are_told(days):
    with pytest.raises(BadInput, match="'bucket' is not a source; choose from warehouse, lake"):
        ba.open(days.file, source="bucket")  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_the_pages_runs(days, monkeypatch, page):
    """Drawing needs a library that the package does not need, so the line that draws is left out."""
    monkeypatch.setenv("BACKFILL_ENV", str(days.file))
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    code = "\n".join(line for line in "".join(blocks).splitlines() if ".plot(" not in line)
    names: dict[str, object] = {}
    exec(compile(code.replace("2024-01-01", GOOD), page, "exec"), names)
    assert repr(names["candles"]) == "<binance BTC-USDT 1h candles, generated; days: 1 published>"


def test_days_come_to_one_word_in_which_a_market_and_its_feed_agree(data):
    words = ["available", "missing", "pending", "missing", "available"]
    states = data.candles(*MARKET, "1h", GOOD, END, on_gap="mask").days
    assert [day.condition for day in states] == words
    rows = data.quality(GOOD, END, exchange=MARKET[0], symbol=MARKET[1]).to_polars()
    of_feed = dict(zip(rows["date"].cast(pl.String), rows["condition"], strict=True))
    assert [of_feed.get(day.day, "missing") for day in states] == words


def test_an_auditor_finds_the_vendors_file_and_its_ids(days, data):
    row = data.quality(GOOD, exchange=MARKET[0], symbol=MARKET[1]).to_polars().row(0, named=True)
    url = f"{days.standin.url}/v1/datasets/binance/trades/2024/01/02/BTCUSDT.csv.gz"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer standin-key"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert row["raw_sha256"] == hashlib.sha256(answer.read()).hexdigest()
    ids = published(days, "trades", GOOD)["id"].cast(pl.Int64)
    assert (row["first_id"], row["last_id"], row["rows"]) == (ids.min(), ids.max(), len(ids))
    page = (days.folder / "lake" / "reports" / f"{GOOD}.html").read_text(encoding="utf-8")
    assert row["raw_sha256"] in page
    assert f"ids {ids.min()} to {ids.max()}" in page


def test_generated_prices_are_said_to_be_generated_whatever_shows_them(days, data):
    frame = data.candles(*MARKET, "1h", GOOD, END, on_gap="mask")
    assert frame.is_generated
    assert [day.is_generated for day in frame.days] == [True, False, False, False, True]
    assert repr(frame).startswith("<binance BTC-USDT 1h candles, generated; days:")
    assert data.quality(GOOD).to_polars()["generated"].to_list() == [True] * 9
    assert data.days(GOOD).is_generated
    said = "Generated prices: they come from a stand-in for Tardis, not from a market."
    words = ["--date", GOOD, "--exchange", MARKET[0], "--symbol", MARKET[1]]
    run = CliRunner(env={"BACKFILL_ENV": str(days.file)})
    assert run.invoke(main, ["candles", *words, "--timeframe", "4h"]).stderr.splitlines() == [said]
    for command in ("coverage", "quality"):
        [line] = run.invoke(main, [command, *words, "--end", GOOD]).stdout.splitlines()
        assert "  generated" in line
        assert '"generated":true' in run.invoke(main, [command, *words, "--json"]).stdout
