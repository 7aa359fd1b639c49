"""A plan compared with the runs that follow: files, bytes, loads, and days that are good afterwards."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from backfill_assets.automation.history import measured_runs
from backfill_assets.cli import main
from backfill_assets.lake.manifests import load_day_record, load_manifest
from backfill_assets.progress.plan import LOADS_WITH_NEIGHBOURS, make_plan, vendor_listing
from backfill_assets.progress.request import backfill_request
from backfill_assets.settings import UniverseEntry
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.tardis.client import TardisClient

DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
NEW = "2024-01-05"


@pytest.fixture
def pipeline(make_pipeline, standin):
    entry = {"exchanges": ["binance", "kraken"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}
    return make_pipeline(standin, universe=[entry])


def plan(pipeline, start, end, **more):
    runs = measured_runs(pipeline.instance)
    request = backfill_request({"start": start, "end": end})
    return make_plan(pipeline.store, pipeline.settings, request, runs=runs, **more)


def command(pipeline, *words):
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file), "DAGSTER_HOME": None}).invoke(main, words)


def raw_bytes(pipeline, day):
    feeds = load_day_record(pipeline.store, day).expected_feeds
    return sum(load_manifest(pipeline.store, e.feed, day).newest.source.raw_bytes for e in feeds)


def test_runs_do_what_was_planned_and_leave_nothing_to_plan(pipeline):
    online = vendor_listing(TardisClient(pipeline.settings.tardis), pipeline.settings)
    assert plan(pipeline, DAYS[0], NEW, listing=online).files == 8
    loads = Counter()
    for day in DAYS:
        result = pipeline.run(day)
        assert result.success
        for event in result.get_asset_materialization_events():
            for row in getattr(event.materialization.metadata.get("partitions"), "records", ()):
                loads[row.data["table"], row.data["day"]] += row.data["state"] == "published"
    most = {table: max(n for (t, _), n in loads.items() if t == table) for table, _ in loads}
    assert most["trades"] == most["instruments"] == 1
    assert 1 < most["quality"] <= LOADS_WITH_NEIGHBOURS
    assert most["candles"] <= LOADS_WITH_NEIGHBOURS

    after = plan(pipeline, DAYS[0], NEW)
    assert (after.days_to_run, after.days_good, after.files) == ((NEW,), 3, 2)
    assert after.seconds is not None
    assert after.seconds.low > 0
    pipeline.run(NEW)
    assert after.expected_bytes == pytest.approx(raw_bytes(pipeline, NEW), rel=0.1)
    table = pipeline.folder / "warehouse"
    written = sum(file.stat().st_size for file in table.glob(f"*/{NEW}.parquet"))
    assert after.warehouse_bytes == pytest.approx(written, rel=0.3)
    assert plan(pipeline, DAYS[0], NEW).days_to_run == ()


def test_the_command_prints_a_plan_for_people_or_for_machines(pipeline):
    pipeline.run(DAYS[0])
    text = command(pipeline, "plan", "--start", DAYS[0], "--end", NEW)
    assert text.exit_code == 0, text.output
    assert "3 of 4 to run; 1 good already" in text.output
    assert "at most 6 to fetch" in text.output
    assert "3 days never run" in text.output
    online = command(pipeline, "plan", "--start", DAYS[0], "--end", NEW, "--online", "--json")
    found = json.loads(online.stdout)
    assert (found["files"], found["days_unlisted"], found["days_good"]) == (6, 0, 1)
    again = command(pipeline, "plan", "--start", DAYS[0], "--end", DAYS[0], "--exchanges", "kraken, binance")
    assert "2 to fetch" in again.output


def test_an_exchange_that_does_not_answer_is_planned_whole_and_costs_no_other(pipeline):
    pipeline.standin.faults.put("/v1/exchanges/kraken", Fault(always=faults.not_found()))
    words = ("plan", "--start", DAYS[0], "--end", DAYS[0], "--online", "--json")
    found = json.loads(command(pipeline, *words).stdout)
    assert (found["files"], found["days_unlisted"]) == (2, 1)
    [note] = [note for note in found["notes"] if "kraken" in note]
    assert note.startswith("all feeds of kraken are counted on such days: ")


def test_an_exchange_that_lacks_a_symbol_is_planned_whole_and_costs_no_other(pipeline):
    universe = [*pipeline.settings.universe, UniverseEntry(exchanges=("kraken",), symbols=("BTC-USTD",))]
    settings = pipeline.settings.model_copy(update={"universe": tuple(universe)})
    listing = vendor_listing(TardisClient(settings.tardis), settings)
    request = backfill_request({"start": DAYS[0], "end": DAYS[0]})
    planned = make_plan(pipeline.store, settings, request, listing=listing)
    assert planned.files == 3
    [note] = [note for note in planned.notes if "kraken" in note]
    assert note.startswith("all feeds of kraken are counted on such days: unknown symbol 'BTC-USTD'")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--start", "2024-01-02", "--end", "2024-01-01"], "swap them"),
        (["--start", "2018-01-02", "--end", "2024-01-01"], "2018-01-02 cannot be run"),
        (["--start", DAYS[0], "--end", NEW, "--symbols", "BTC-USD"], "did you mean BTC-USDT?"),
        (["--start", DAYS[0], "--end", NEW, "--exchanges", "krakn"], "did you mean kraken?"),
    ],
)
def test_the_command_refuses_what_cannot_be_run_in_one_line(pipeline, words, complaint):
    refused = command(pipeline, "plan", *words)
    assert refused.exit_code == 2
    assert complaint in refused.output
    assert refused.output.count("\n") == 1
