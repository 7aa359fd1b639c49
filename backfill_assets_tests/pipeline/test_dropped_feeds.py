"""A past day no longer needs a feed: it is dropped on the record, and no run asks for it again."""

from __future__ import annotations

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from backfill_assets.automation.due import is_due
from backfill_assets.cli import main
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.progress.stored_days import calendar
from backfill_assets.quality.decisions import drop, retract
from backfill_assets.report.model import day_report
from backfill_assets.report.month import month_report
from backfill_assets.report.publish import current_page
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets_tests.pipeline.conftest import Pipeline, checks_of

DAY, FEED = "2024-01-02", "binance/trades/ADAUSDT"
UNIVERSE = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ADA-USDT"], "data_types": ["trades"]}]


@pytest.fixture
def pipeline(make_pipeline, standin) -> Pipeline:
    """A day of two feeds, one of which the vendor does not have."""
    made: Pipeline = make_pipeline(standin, universe=UNIVERSE)
    made.with_fault(FEED, DAY, Fault(always=not_found()))
    made.run(DAY)
    return made


def expect(pipeline: Pipeline, *words: str) -> Result:
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, ["expect", "--date", DAY, *words])


def is_planned(pipeline: Pipeline) -> bool:
    plan = make_plan(pipeline.store, pipeline.settings, backfill_request({"start": DAY, "end": DAY}))
    return DAY in plan.days_to_run


def asked(pipeline: Pipeline) -> int:
    return sum("ADAUSDT" in url for url in pipeline.downloads)


def test_a_day_that_stays_held_is_not_said_to_be_published(make_pipeline, standin) -> None:
    pipeline = make_pipeline(
        standin, universe=[{**UNIVERSE[0], "symbols": ["BTC-USDT", "ADA-USDT", "ETH-USDT"]}]
    )
    for symbol in ("ADAUSDT", "ETHUSDT", "BTCUSDT"):
        pipeline.with_fault(f"binance/trades/{symbol}", DAY, Fault(always=not_found()))
    pipeline.run(DAY)
    told = expect(pipeline, "--drop", FEED, "--reason", "delisted")
    assert told.exit_code == 0, told.output
    assert "publish" not in told.output.partition("; ")[2].replace("publishes nothing of it", "")
    assert f"{DAY} is held and a run publishes nothing of it: mend its other feeds" in told.output


def test_a_dropped_feed_is_asked_for_no_more_until_it_is_restored(pipeline: Pipeline) -> None:
    assert pipeline.settled(DAY).scores.state == "degraded"
    told = expect(pipeline, "--drop", FEED, "--reason", "delisted that  morning")
    assert (told.exit_code, told.output.split(";")[0]) == (0, f"{FEED} of {DAY}: dropped")
    before = asked(pipeline)
    assert pipeline.run(DAY).success
    found = pipeline.settled(DAY)
    assert (found.scores.state, [str(f.feed) for f in found.feeds]) == (
        "published",
        ["binance/trades/BTCUSDT"],
    )
    assert (asked(pipeline), is_planned(pipeline)) == (before, False)
    [kept] = day_report(pipeline.store, pipeline.settings, DAY).dropped
    assert (kept.feed, kept.reason) == (FEED, "delisted that morning")

    pipeline.heal()
    assert expect(pipeline, "--restore", FEED).exit_code == 0
    assert is_planned(pipeline)
    assert pipeline.run(DAY).success
    record = load_day_record(pipeline.store, DAY)
    assert record is not None
    assert (len(record.expected), record.dropped) == (2, ())
    assert {*pipeline.table("trades", DAY)["dataset_symbol"]} == {"BTCUSDT", "ADAUSDT"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--drop", FEED), "a decision needs a reason"),
        (
            ("--drop", "binance/trades/BTCUSDT", "--reason", "x"),
            "is accepted on 2024-01-02: withdraw it first",
        ),
        (("--drop", "binance/trades/XRPUSDT", "--reason", "x"), "is no feed of 2024-01-02: choose from"),
        (("--restore", FEED), "is not dropped on 2024-01-02 (none is): nothing to restore"),
        ((), "give either --drop or --restore"),
    ],
)
def test_a_drop_that_means_nothing_is_refused(pipeline: Pipeline, words: tuple[str, ...], said: str) -> None:
    refused = expect(pipeline, *words)
    assert refused.exit_code != 0
    assert said in refused.output
    record = load_day_record(pipeline.store, DAY)
    assert record is not None
    assert len(record.expected) == 2


BOTH_TYPES = [
    {
        "exchanges": ["binance-futures"],
        "symbols": ["BTC-USDT"],
        "data_types": ["trades", "quotes"],
        "instrument_types": ["perpetual"],
    }
]
TABLES = ("trades", "quotes", "candles", "coverage", "quality")


def withdraw(pipeline: Pipeline, *data_types: str) -> None:
    """Retract the accepted versions of the feeds of these types, and drop the feeds."""
    thresholds = pipeline.settings.thresholds
    for data_type in data_types:
        feed = f"binance-futures/{data_type}/BTCUSDT"
        found = next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == feed)
        assert found.accepted is not None
        retract(pipeline.store, DAY, feed, found.accepted.content, "another market's", thresholds)
        drop(pipeline.store, DAY, feed, "another market's", thresholds)


def heights(pipeline: Pipeline) -> dict[str, bool]:
    """Whether each table has rows of the day."""
    return {table: pipeline.table(table, DAY).height > 0 for table in TABLES}


def loads_of(result: dg.ExecuteInProcessResult) -> int:
    events = result.get_asset_materialization_events()
    found = [event.materialization.metadata.get("loads") for event in events]
    return sum(int(str(value.value)) for value in found if value is not None)


def test_rows_leave_the_table_with_the_last_feed_of_their_type(make_pipeline, standin) -> None:
    pipeline = make_pipeline(standin, universe=BOTH_TYPES)
    pipeline.run(DAY)
    assert all(heights(pipeline).values())
    withdraw(pipeline, "quotes")
    assert is_planned(pipeline)
    assert is_due(pipeline.store, pipeline.settings, DAY)
    assert pipeline.run(DAY).success
    assert heights(pipeline) == {**dict.fromkeys(TABLES, True), "quotes": False}
    assert not is_planned(pipeline)
    assert not is_due(pipeline.store, pipeline.settings, DAY)


def test_retracted_rows_of_a_dropped_feed_leave_a_held_day(make_pipeline, standin) -> None:
    universe = [{**BOTH_TYPES[0], "symbols": ["BTC-USDT", "ETH-USDT"]}]
    pipeline = make_pipeline(standin, universe=universe, thresholds={"hold_below": 0.7})
    pipeline.with_fault("binance-futures/quotes/ETHUSDT", DAY, Fault(always=not_found()))
    pipeline.run(DAY)
    assert heights(pipeline)["quotes"]
    withdraw(pipeline, "quotes")
    assert pipeline.settled(DAY).scores.state == "held"
    assert is_due(pipeline.store, pipeline.settings, DAY)
    pipeline.run(DAY)
    assert not heights(pipeline)["quotes"]


def test_a_day_of_which_everything_was_dropped_is_empty_and_says_so(make_pipeline, standin) -> None:
    pipeline = make_pipeline(standin, universe=BOTH_TYPES)
    pipeline.run(DAY)
    withdraw(pipeline, "quotes", "trades")
    assert is_planned(pipeline)
    result = pipeline.run(DAY)
    assert result.success
    assert [name for name, check in checks_of(result).items() if not check.passed] == []
    assert heights(pipeline) == dict.fromkeys(TABLES, False)

    again = pipeline.run(DAY)
    assert (again.success, loads_of(again)) == (True, 0)
    assert not is_planned(pipeline)
    assert not is_due(pipeline.store, pipeline.settings, DAY)
    assert "No feed is expected of this day." in (current_page(pipeline.store, pipeline.settings, DAY) or "")
    [shown] = calendar(pipeline.store, pipeline.settings, DAY, DAY)
    assert (shown.outcome, shown.feeds) == ("published", 0)
    assert month_report(pipeline.store, pipeline.settings, DAY[:7]).summaries[DAY].state == "published"
    verified = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, ["verify", "--date", DAY])
    assert verified.exit_code == 0, verified.output
