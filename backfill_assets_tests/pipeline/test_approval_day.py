"""Approving and retracting by command: the next run of the day changes the tables accordingly.

Verdicts alone decide which rows are published, so neither publishing nor the schedule is told of a command.
"""

from __future__ import annotations

import polars as pl
import pytest
from click.testing import CliRunner

from backfill_assets.automation.due import is_due
from backfill_assets.cli import main
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request

DAY = "2024-01-02"
BTC, ETH = "binance/trades/BTCUSDT", "binance/trades/ETHUSDT"


def command(pipeline, *words):
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words)


def small(make_pipeline, standin, *symbols):
    entry = {"exchanges": ["binance"], "symbols": list(symbols), "data_types": ["trades"]}
    return make_pipeline(standin, universe=[entry])


def rows_of(pipeline, symbol, table="trades"):
    found = pipeline.table(table, DAY)
    return found.filter(symbol=symbol).height if found.width else 0


def quality_of(pipeline, symbol="BTC-USDT"):
    return pipeline.table("quality", DAY).filter(symbol=symbol).row(0, named=True)


def content(pipeline, name="content"):
    """The first digits of a version as the quality table has them."""
    return quality_of(pipeline)[name][:12]


def due(pipeline):
    """Whether the schedule judges the day to be due; a plan agrees on published days without judging them."""
    found = is_due(pipeline.store, pipeline.settings, DAY)
    plan = make_plan(pipeline.store, pipeline.settings, backfill_request({"start": DAY, "end": DAY}))
    assert plan.days_held or bool(plan.days_to_run) == found
    return found


def with_a_gap(lines):
    return lines[:1000] + lines[1200:]


def with_a_price_off(lines):
    cells = lines[1500].split(",")
    cells[6] = f"{float(cells[6]) * 1.05:.2f}"
    return [*lines[:1500], ",".join(cells), *lines[1501:]]


def test_a_left_out_feed_is_published_after_its_approval_and_taken_out_after_its_retraction(
    make_pipeline, standin
):
    pipeline = small(make_pipeline, standin, "BTC-USDT", "ETH-USDT")
    pipeline.serve_changed(BTC, DAY, with_a_gap)
    assert pipeline.run(DAY).success
    assert (rows_of(pipeline, "BTC-USDT"), rows_of(pipeline, "BTC-USDT", "candles")) == (0, 0)
    assert not due(pipeline)

    words = ("--date", DAY, "--content", content(pipeline))
    answer = command(pipeline, "approve", *words, "--reason", "the exchange confirms the pause")
    assert (answer.exit_code, answer.output.count("\n")) == (0, 2)
    assert answer.output.startswith(f"{BTC} of {DAY}: approved and accepted (")
    assert answer.output.endswith(f"dg launch -m backfill_assets.definitions --job day --partition {DAY}\n")
    assert due(pipeline)
    downloads = len(pipeline.downloads)
    assert pipeline.run(DAY).success
    assert len(pipeline.downloads) == downloads
    published = rows_of(pipeline, "BTC-USDT")
    assert published == quality_of(pipeline)["rows"] > 2_000
    assert rows_of(pipeline, "BTC-USDT", "candles") > 0
    row = quality_of(pipeline)
    assert (row["verdict"], row["published"], row["approved"]) == ("quarantine", True, True)
    assert row["approval_reason"] == "the exchange confirms the pause"
    assert quality_of(pipeline, "ETH-USDT")["approved"] is False
    assert not due(pipeline)

    words = ("--date", DAY, "--feed", BTC, "--content", content(pipeline))
    answer = command(pipeline, "retract", *words, "--reason", "it does not")
    assert answer.exit_code == 0
    assert answer.output.startswith(f"{BTC} of {DAY}: retracted, nothing counts now (")
    assert due(pipeline)
    assert pipeline.run(DAY).success
    assert (rows_of(pipeline, "BTC-USDT"), rows_of(pipeline, "BTC-USDT", "candles")) == (0, 0)
    assert rows_of(pipeline, "ETH-USDT") > 2_000
    row = quality_of(pipeline)
    assert (row["published"], row["approved"]) == (False, False)
    assert row["reasons"].endswith("retracted: it does not")
    assert not due(pipeline)


def test_a_restated_file_beyond_the_limits_waits_until_it_is_approved(make_pipeline, standin, checks_of):
    pipeline = small(make_pipeline, standin, "BTC-USDT", "ETH-USDT")
    assert pipeline.run(DAY).success
    before = pipeline.table("trades", DAY)
    pipeline.serve_changed(BTC, DAY, with_a_price_off)
    result = pipeline.run(DAY, refresh=True, feeds=[BTC])
    assert result.success
    assert pipeline.table("trades", DAY).equals(before)
    assert not due(pipeline)
    check = checks_of(result)["ticks:quality"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    (short,) = check.metadata["feeds_that_fall_short"].records
    assert short.data["feed"] == BTC
    assert "price of BTCUSDT differs by 5.00% at 2024-01-02" in short.data["pending"]
    (ticks,) = result.asset_materializations_for_node("ticks")
    told = {record.data["feed"]: record.data["restatement"] for record in ticks.metadata["feeds"].records}
    assert "pending: it restates more than the limits allow" in told[BTC]
    assert told[ETH] == ""
    row = quality_of(pipeline)
    assert (row["published"], row["pending"], row["verdict"]) == (True, True, "publish")
    assert "price by up to 5.00" in row["restatement"]

    words = ("--date", DAY, "--feed", BTC, "--content", content(pipeline, "pending_content"))
    assert command(pipeline, "approve", *words, "--reason", "a real print").exit_code == 0
    assert due(pipeline)
    result = pipeline.run(DAY)
    assert result.success
    after = pipeline.table("trades", DAY)
    key = ["symbol", "id"]
    moved = before.join(after, on=key).filter(pl.col("price") != pl.col("price_right"))
    assert (moved.height, after.height) == (1, before.height)
    assert checks_of(result)["ticks:quality"].passed
    assert quality_of(pipeline)["pending"] is False


def test_what_is_retracted_leaves_a_day_that_is_held_because_of_it(make_pipeline, standin):
    pipeline = small(make_pipeline, standin, "BTC-USDT")
    assert pipeline.run(DAY).success
    assert rows_of(pipeline, "BTC-USDT") > 2_000
    words = ("--date", DAY, "--feed", BTC, "--content", content(pipeline))
    answer = command(pipeline, "retract", *words, "--reason", "not ours to publish")
    assert answer.output.splitlines()[-1].startswith(f"{DAY} is held; remove it from the tables: ")
    assert due(pipeline)
    pipeline.run(DAY)
    assert (rows_of(pipeline, "BTC-USDT"), rows_of(pipeline, "BTC-USDT", "candles")) == (0, 0)
    row = quality_of(pipeline)
    assert (row["day_state"], row["published"]) == ("held", False)
    assert not due(pipeline)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("approve", "--date", DAY, "--reason", "why"),
            1,
            f"nothing is recorded of {DAY}: run the day first",
        ),
        (("approve", "--date", DAY, "--reason", " "), 2, "a decision needs a reason"),
        (("retract", "--date", DAY, "--feed", BTC, "--reason", "why"), 1, f"nothing is recorded of {DAY}"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_one_line(pipeline, words, code, message):
    answer = command(pipeline, *words)
    assert answer.exit_code == code
    assert message in answer.output
    assert answer.output.count("\n") == 1
