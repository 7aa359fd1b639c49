"""Published data is lost or changed outside the pipeline: the day reports it, and recovers."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from backfill_assets.automation.due import due_days
from backfill_assets.cli import main
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.progress.stored_days import calendar, stored_day, summarized_day
from backfill_assets.report import publish
from backfill_assets.report.month import DaySummary, page_problem
from backfill_assets.report.publish import current_page, write_day
from backfill_assets_tests.obstacles import put_in_the_way
from backfill_assets_tests.pipeline.conftest import Pipeline

DAY = "2024-01-02"
ONE_FEED = {"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}


@pytest.fixture
def pipeline(make_pipeline, standin) -> Pipeline:
    """A day of one feed that was published."""
    made: Pipeline = make_pipeline(standin, universe=[ONE_FEED])
    made.begin_after(DAY)
    return made


def tick_file(pipeline: Pipeline) -> Path:
    [file] = (pipeline.folder / "lake/ticks").rglob("*.parquet")
    return file


def partition(pipeline: Pipeline, table: str) -> Path:
    return pipeline.folder / "warehouse" / table / f"{DAY}.parquet"


def plan(pipeline: Pipeline) -> Any:
    return make_plan(pipeline.store, pipeline.settings, backfill_request({"start": DAY, "end": DAY}))


def outcomes(pipeline: Pipeline) -> set[str]:
    """The outcome of the day in calendar, statuses and page."""
    store, settings = pipeline.store, pipeline.settings
    [shown] = calendar(store, settings, DAY, DAY)
    stored, summarized = stored_day(store, settings, DAY), summarized_day(store, settings, DAY)
    return {shown.outcome, stored.outcome, summarized.outcome}


def is_due(pipeline: Pipeline) -> bool:
    return DAY in due_days(pipeline.store, date(2024, 1, 4), pipeline.settings)


def command(pipeline: Pipeline, *words: str) -> Result:
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words)


def lose_partition(pipeline: Pipeline) -> str:
    partition(pipeline, "candles").unlink()
    return "not in the warehouse: candles"


def cut_partition(pipeline: Pipeline) -> str:
    file = partition(pipeline, "trades")
    file.write_bytes(file.read_bytes()[:-1])
    return "not in the warehouse: trades"


def lose_warehouse(pipeline: Pipeline) -> str:
    shutil.rmtree(pipeline.folder / "warehouse")
    return "not in the warehouse: instruments, trades, candles, coverage, quality"


def lose_ticks(pipeline: Pipeline) -> str:
    tick_file(pipeline).unlink()
    return "not in the lake: ticks/binance/trades/BTCUSDT"


def cut_ticks(pipeline: Pipeline) -> str:
    tick_file(pipeline).write_bytes(b"")
    return "not in the lake: ticks/binance/trades/BTCUSDT"


def lose_candles(pipeline: Pipeline) -> str:
    shutil.rmtree(pipeline.folder / "lake/candles")
    return "not in the lake: candles/date=2024-01-02"


def empty_coverage(pipeline: Pipeline) -> str:
    [file] = (pipeline.folder / "lake/coverage").rglob("*.parquet")
    file.write_bytes(b"")
    return "not in the lake: coverage/date=2024-01-02"


def cut_candles(pipeline: Pipeline) -> str:
    return cut(pipeline, "candles/date=2024-01-02")


def cut_instruments(pipeline: Pipeline) -> str:
    return cut(pipeline, "instruments/binance/2024-01-02")


def cut(pipeline: Pipeline, folder: str) -> str:
    [file] = (pipeline.folder / "lake" / folder).rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    return f"not in the lake: {folder}"


def folder_for_partition(pipeline: Pipeline) -> str:
    put_in_the_way(partition(pipeline, "candles"), "a folder")
    return "not in the warehouse: candles"


def fifo_for_partition(pipeline: Pipeline) -> str:
    put_in_the_way(partition(pipeline, "trades"), "a FIFO")
    return "not in the warehouse: trades"


def fifo_for_ticks(pipeline: Pipeline) -> str:
    put_in_the_way(tick_file(pipeline), "a FIFO")
    return "not in the lake: ticks/binance/trades/BTCUSDT"


def other_ticks(pipeline: Pipeline) -> str:
    """Put a whole file under the name of another one."""
    [other] = (pipeline.folder / "lake/partials").rglob("*.parquet")
    shutil.copyfile(other, tick_file(pipeline))
    return "not in the lake: ticks/binance/trades/BTCUSDT"


def other_ledger_entry(pipeline: Pipeline) -> str:
    ledger = pipeline.folder / "lake/publications"
    shutil.copyfile(ledger / f"trades/{DAY}.json", ledger / f"candles/{DAY}.json")
    return "not in the warehouse: candles"


LOSSES = (
    lose_partition, cut_partition, lose_warehouse, lose_ticks, cut_ticks, lose_candles, empty_coverage,
    cut_candles, cut_instruments, folder_for_partition, fifo_for_partition, fifo_for_ticks, other_ticks,
    other_ledger_entry,
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("lose", LOSSES)
def test_a_day_that_lost_its_data_is_not_good_and_its_next_run_brings_it_back(
    pipeline: Pipeline, lose: Any
) -> None:
    assert (outcomes(pipeline), is_due(pipeline), plan(pipeline).days_good) == ({"published"}, False, 1)
    before = pipeline.table("candles", DAY), pipeline.table("trades", DAY)
    reason = lose(pipeline)
    assert outcomes(pipeline) == {"missing"}
    assert any(reason in text for text in stored_day(pipeline.store, pipeline.settings, DAY).reasons)
    assert plan(pipeline).days_to_run == (DAY,)
    assert plan(pipeline).files == (1 if "ticks/" in reason else 0)
    assert is_due(pipeline)
    assert pipeline.run(DAY).success
    assert (outcomes(pipeline), is_due(pipeline), plan(pipeline).days_good) == ({"published"}, False, 1)
    after = pipeline.table("candles", DAY), pipeline.table("trades", DAY)
    assert all(one.equals(other) for one, other in zip(before, after, strict=True))
    assert command(pipeline, "verify", "--date", DAY).exit_code == 0


@pytest.mark.timeout(120)
def test_candles_of_a_day_that_cannot_be_written_stop_no_day_beside(pipeline: Pipeline) -> None:
    folder = pipeline.folder / "lake/candles" / f"date={DAY}"
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where a folder should be")
    assert pipeline.run("2024-01-03").success
    assert not pipeline.table("candles", "2024-01-03").is_empty()
    assert not pipeline.run(DAY).success
    folder.unlink()
    assert pipeline.run(DAY).success


def cut_page(page: Path) -> None:
    page.write_bytes(page.read_bytes()[:-1])


def flip_page(page: Path) -> None:
    data = bytearray(page.read_bytes())
    data[len(data) // 2] = 0xFF
    page.write_bytes(data)


def folder_for_page(page: Path) -> None:
    page.unlink()
    page.mkdir()


@pytest.mark.parametrize("harm", [Path.unlink, cut_page, folder_for_page, flip_page])
def test_the_page_of_a_day_that_was_damaged_is_noticed_shown_whole_and_made_anew(
    pipeline: Pipeline, harm: Any
) -> None:
    store, settings = pipeline.store, pipeline.settings
    page = pipeline.folder / "lake" / paths.day_report(DAY)
    before = page.read_bytes()
    harm(page)
    if harm is not flip_page:
        assert plan(pipeline).days_to_run == (DAY,)
        assert any(str(page) in note for note in plan(pipeline).notes)
        assert is_due(pipeline)
    assert outcomes(pipeline) == {"published"}, "its data are there"
    found = command(pipeline, "verify", "--date", DAY)
    assert (found.exit_code, str(page) in found.output) == (1, True)
    assert current_page(store, settings, DAY) == before.decode()
    assert pipeline.run(DAY).success
    assert page.read_bytes() == before
    assert (plan(pipeline).days_good, is_due(pipeline)) == (1, False)
    assert command(pipeline, "verify", "--date", DAY).exit_code == 0


def test_the_page_of_a_summary_that_does_not_know_it_counts_while_it_has_a_byte(pipeline: Pipeline) -> None:
    file = pipeline.folder / "lake" / paths.day_summary(DAY)
    former = json.loads(file.read_bytes())
    del former["page_bytes"], former["page_content"]
    file.write_text(json.dumps(former))
    assert plan(pipeline).days_good == 1
    assert command(pipeline, "verify", "--date", DAY).exit_code == 0
    (pipeline.folder / "lake" / paths.day_report(DAY)).write_bytes(b"")
    assert plan(pipeline).days_good == 1, "nobody knows its size"
    assert command(pipeline, "verify", "--date", DAY).exit_code == 1


def turn_a_side(pipeline: Pipeline) -> str:
    file = partition(pipeline, "trades")
    pl.read_parquet(file).with_columns(side=pl.col("side").shuffle(seed=1)).write_parquet(file)
    return "trades is not what was published: rows are not those that were published"


def flip_ticks(pipeline: Pipeline) -> str:
    return flip(tick_file(pipeline))


def flip_partials(pipeline: Pipeline) -> str:
    return flip(next((pipeline.folder / "lake/partials").rglob("*.parquet")))


def flip_coverage(pipeline: Pipeline) -> str:
    return flip(next((pipeline.folder / "lake/coverage").rglob("*.parquet")))


def flip_instruments(pipeline: Pipeline) -> str:
    return flip(next((pipeline.folder / "lake/instruments").rglob("*.parquet")))


def flip(file: Path) -> str:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return f"{file} does not have the bytes that its name says"


@pytest.mark.parametrize(
    "harm", [turn_a_side, flip_ticks, flip_partials, flip_coverage, flip_instruments, lose_ticks]
)
def test_verify_finds_what_no_plan_can_see_and_mending_lets_a_backfill_bring_it_back(
    pipeline: Pipeline, harm: Any
) -> None:
    whole = command(pipeline, "verify", "--start", "2024-01-01", "--end", "2024-01-03")
    assert whole.exit_code == 0, whole.output
    assert f"{DAY}  ok  5 files" in whole.output
    assert "5 partitions" in whole.output
    before = pipeline.partition_bytes("trades"), pipeline.partition_bytes("candles")
    said = harm(pipeline)
    found = command(pipeline, "verify", "--start", "2024-01-01", "--end", "2024-01-03")
    assert found.exit_code == 1
    assert said in found.output if harm is not lose_ticks else "is gone" in found.output
    days = "--start 2024-01-01 --end 2024-01-03"
    assert found.output.splitlines()[-1] == (
        f"Error: data of 1 day is damaged: 'backfill-assets verify {days} --mend' sets it aside, "
        f"'backfill-assets backfill {days}' then restores it"
    )
    assert command(pipeline, "verify", "--date", DAY).output.count("\n") == 2, "looking changed nothing"
    assert command(pipeline, "verify", "--date", DAY, "--mend").exit_code == 1
    assert plan(pipeline).days_to_run == (DAY,)
    assert pipeline.run(DAY).success
    again = command(pipeline, "verify", "--date", DAY)
    assert again.exit_code == 0, again.output
    assert (pipeline.partition_bytes("trades"), pipeline.partition_bytes("candles")) == before
    assert plan(pipeline).days_good == 1


def test_a_day_that_was_never_run_is_not_called_well(pipeline: Pipeline) -> None:
    found = command(pipeline, "verify", "--date", "2023-12-01")
    assert found.exit_code == 0
    assert found.output == "2023-12-01  no record: it was never run\n"


@pytest.mark.parametrize("words", [(), ("--start", DAY), ("--date", DAY, "--start", DAY, "--end", DAY)])
def test_verify_wants_a_day_or_a_range(pipeline: Pipeline, words: tuple[str, ...]) -> None:
    refused = command(pipeline, "verify", *words)
    assert refused.exit_code == 2
    assert "give either --date, or --start and --end" in refused.output


def test_a_page_that_an_earlier_version_wrote_and_that_is_gone_comes_back_with_the_next_run(
    pipeline: Pipeline,
) -> None:
    file = pipeline.folder / "lake" / paths.day_summary(DAY)
    former = json.loads(file.read_bytes())
    del former["page_bytes"], former["page_content"]
    file.write_text(json.dumps(former))
    page = pipeline.folder / "lake" / paths.day_report(DAY)
    before = page.read_bytes()
    page.unlink()
    assert command(pipeline, "verify", "--date", DAY).exit_code == 1
    assert pipeline.run(DAY).success
    assert page.read_bytes() == before
    assert json.loads(file.read_bytes())["page_bytes"] == len(before)


def test_two_runs_that_write_the_page_of_one_day_leave_it_with_its_summary(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the neighbor day writes page and summary between the page and the summary of this run."""
    page = pipeline.folder / "lake" / paths.day_report(DAY)
    page.write_bytes(b"so that it is written anew")
    write = publish._write_summary

    def late(store: Store, summary: DaySummary) -> None:
        monkeypatch.undo()
        page.write_bytes(b"as the other run has it")
        write(store, summary)

    monkeypatch.setattr(publish, "_write_summary", late)
    write_day(pipeline.store, pipeline.settings, DAY)
    assert page_problem(pipeline.store, DAY) == ""
    assert b"</html>" in page.read_bytes()
