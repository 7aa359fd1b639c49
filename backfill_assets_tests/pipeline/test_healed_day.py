"""A held day whose failed steps run again after its feed arrives: every reader calls it published."""

from __future__ import annotations

import pytest

from backfill_assets.automation.due import is_due
from backfill_assets.progress.plan_day import plan_day
from backfill_assets.progress.stored_days import calendar, stored_day, summarized_day
from backfill_assets.report.month import month_report
from backfill_assets.report.publish import current_page
from backfill_assets.standins.faults import Fault, not_found

DAY = "2024-01-01"
FEED = "kraken/trades/ETH-USDT"
FAILED = ["bigquery/instruments", "bigquery/ticks", "bigquery/candles", "bigquery/coverage"]


@pytest.fixture
def pipeline(make_pipeline, standin):
    universe = [{"exchanges": ["kraken"], "symbols": ["ADA-USDT", "ETH-USDT"], "data_types": ["trades"]}]
    return make_pipeline(standin, universe=universe, thresholds={"hold_below": 0.9})


def told(pipeline) -> dict[str, object]:
    """The outcome of the day at each reader."""
    store, settings = pipeline.store, pipeline.settings
    [of_calendar] = calendar(store, settings, DAY, DAY)
    page, _, _ = current_page(store, settings, DAY).partition('<details class="terms">')
    of_month = month_report(store, settings, DAY[:7]).summaries[DAY]
    planned = plan_day(store, settings, DAY, (), None, None)
    return {
        "warehouse": set(pipeline.table("quality", DAY)["day_state"]),
        "calendar": (of_calendar.outcome, of_calendar.quarantined),
        "job": stored_day(store, settings, DAY).outcome,
        "skipped": summarized_day(store, settings, DAY).outcome,
        "month": of_month.state,
        "page": {state for state in ("held", "published") if f">{state}<" in page},
        "plan": (planned.good, planned.held),
        "due": is_due(store, settings, DAY),
    }


def test_a_day_that_was_healed_step_by_step_is_published_everywhere(pipeline):
    pipeline.with_fault(FEED, DAY, Fault(always=not_found()))
    assert not pipeline.run(DAY).success
    held = told(pipeline)
    assert held["warehouse"] == {"held"}
    assert held["calendar"] == ("held", (FEED,))
    assert (held["job"], held["skipped"], held["month"]) == ("held", "held", "held")
    assert held["plan"] == (False, True)

    pipeline.heal()
    assert pipeline.run(DAY, ["ticks"]).success
    assert told(pipeline)["plan"] == (False, False), "nothing is published yet"
    assert told(pipeline)["due"]
    assert pipeline.run(DAY, ["candles"]).success
    assert pipeline.run(DAY, FAILED).success

    healed = told(pipeline)
    assert pipeline.table("trades", DAY)["dataset_symbol"].n_unique() == 2
    assert healed == {
        "warehouse": {"published"},
        "calendar": ("published", ()),
        "job": "published",
        "skipped": "published",
        "month": "published",
        "page": healed["page"],
        "plan": (True, False),
        "due": False,
    }
    assert healed["page"] != held["page"]
    assert pipeline.run(DAY, ["report"]).success
    assert told(pipeline) == healed, "its own page tells the same"


def test_a_day_whose_page_was_never_written_is_in_the_calendar(pipeline):
    everything = ["instruments", "ticks", "candles", *FAILED, "bigquery/quality"]
    assert pipeline.run(DAY, everything).success
    [found] = calendar(pipeline.store, pipeline.settings, DAY, DAY)
    assert (found.outcome, found.feeds) == ("published", 2)


def test_versions_that_were_fetched_and_not_published_make_no_good_day(pipeline):
    assert pipeline.run(DAY).success
    assert told(pipeline)["plan"] == (True, False)
    pipeline.serve_changed(FEED, DAY, lambda lines: lines[:-1])
    assert pipeline.run(DAY, ["ticks"], refresh=True).success
    assert told(pipeline)["plan"] == (False, False)
    assert told(pipeline)["due"]
