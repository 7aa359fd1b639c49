"""A feed that a past day need not have: it is dropped on the record, and nothing asks for it any more."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.report.model import day_report
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets_tests.pipeline.conftest import Pipeline

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
        pipeline.with_fault(f"binance/trades/{symbol}", DAY, not_found())
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
