"""A plan predicts the work of a backfill: exact where the lake knows it, else a range or unknown."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backfill_assets.automation.history import MeasuredRun, measured_runs
from backfill_assets.automation.run_order import backfill_places
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import ExpectedFeed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import (
    DayRecord,
)
from backfill_assets.progress.plan_day import DayListing
from backfill_assets.progress.plan_text import plan_text
from backfill_assets.quality.settled import HeldVersion, SettledDay, load_settled
from backfill_assets.warehouse import ledger
from backfill_assets_tests.progress.planned_lake import BTC, ETH, NOW, SIZES, SYMBOLS, TABLES, Lake
from backfill_assets_tests.quality.watched_stores import ReadOnlyStore


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_a_day_that_was_made_under_other_settings_is_not_good(lake: Lake) -> None:
    lake.run("2024-01-01")
    assert lake.plan().days_good == 1
    for changed in (
        {"thresholds": {"hold_below": 0.4}},
        {"candles": {"timeframes": ["1m", "1h"]}},
        {"warehouse": {"kind": "duckdb", "folder": "/elsewhere"}},
        {"ohlcv": {"url": "dagster"}},
    ):
        other = Lake(Path(lake.store.uri), **changed)
        assert other.plan().days_good == 0, changed
    # A setting that only tells the time and the origin is no reason to run the day again.
    assert Lake(Path(lake.store.uri), schedule={"look_back_days": 3}).plan().days_good == 1


def test_a_day_of_which_another_version_counts_since_is_not_good(lake: Lake) -> None:
    lake.run("2024-01-01")
    assert lake.plan().days_good == 1
    versions = {feed: lake.version(size) for feed, size in SIZES.items()}
    lake.settle("2024-01-01", {**versions, BTC: lake.version(SIZES[BTC], content="d")})
    assert lake.plan().days_good == 0


def test_good_days_are_planned_too_where_all_are_asked_for(lake: Lake) -> None:
    lake.run("2024-01-01")
    plan = lake.plan("2024-01-01", "2024-01-02", all_days=True)
    assert (plan.days_to_run, plan.days_good) == (("2024-01-01", "2024-01-02"), 1)
    assert "2 of 2 to run; 1 good already, run again" in plan_text(plan)
    assert "1 of 2 to run; 1 good already, skipped" in plan_text(lake.plan("2024-01-01", "2024-01-02"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_empty_lake_knows_files_and_load_jobs_and_says_what_it_does_not_know(lake: Lake) -> None:
    plan = lake.plan()
    assert (plan.days, plan.files, plan.days_unlisted) == (4, 8, 4)
    assert plan.days_to_run == ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04")
    assert (plan.expected_bytes, plan.lake_bytes, plan.rows, plan.seconds) == (None, None, None, None)
    text = plan_text(plan)
    assert "at most 8 to fetch" in text
    assert "download   unknown" in text
    assert "time       unknown" in text
    assert "4 days never run" in text


def test_good_days_are_skipped_and_days_that_lack_something_are_not(lake: Lake) -> None:
    lake.run("2024-01-01")
    lake.run("2024-01-02", tables=("instruments", "trades", "candles"))
    lake.run("2024-01-03", lacking=(ETH,))
    plan = lake.plan()
    assert plan.days_to_run == ("2024-01-02", "2024-01-03", "2024-01-04")
    assert (plan.days_good, plan.days_unlisted, plan.days_held) == (1, 1, 0)
    assert plan.files == 1 + 2, "one file of the 3rd, all of the 4th"


def test_a_day_without_a_file_that_the_vendor_may_have_by_now_is_run_to_ask_for_it(lake: Lake) -> None:
    lake.run("2024-01-01", state="degraded", absent=(ETH,))
    lake.run("2024-01-02")
    plan = lake.plan(end="2024-01-02")
    assert (plan.days_good, plan.files, plan.days_to_run) == (1, 0, ("2024-01-01",))
    assert (plan.days_lacking, plan.expected_bytes) == (1, 0), "nobody knows whether it brings bytes"
    text = plan_text(plan)
    assert "1 of 2 to run, 1 lacking a file; 1 good already, skipped" in text
    assert "1 day without 1 file that the vendor did not have when last asked" in text
    again = lake.plan(end="2024-01-02", exchanges=("binance",))
    assert (again.days_lacking, again.files) == (0, 4), "what is fetched anyway is counted as a file"


def test_versions_that_wait_are_told_with_their_command(lake: Lake) -> None:
    for number in range(1, 5):
        day = f"2024-01-0{number}"
        lake.run(day)
        settled = load_settled(lake.store, day)
        assert settled is not None
        waits = HeldVersion.of(lake.version(10, content=str(number)))
        feeds = (settled.feeds[0].model_copy(update={"candidate": waits}), *settled.feeds[1:])
        changed = settled.model_copy(update={"feeds": feeds})
        documents.update(lake.store, paths.settled_day(day), SettledDay, lambda _, c=changed: c)
    plan = lake.plan()
    told = [note for note in plan.notes if "wait" in note]
    command = f'backfill-assets approve --date 2024-01-01 --feed {BTC} --content 111111111111 --reason "…"'
    assert told[0] == f"a version waits for a decision: {command}"
    assert told[3:] == ["1 more wait: the reports of their days have the commands"]
    assert command in plan_text(plan)


def test_held_days_are_run_and_counted_as_such(lake: Lake) -> None:
    lake.run("2024-01-01", state="held", tables=("quality",))
    plan = lake.plan(end="2024-01-01")
    assert (plan.days_to_run, plan.days_held, plan.files) == (("2024-01-01",), 1, 0)
    assert "1 day held" in plan_text(plan)


def test_days_that_were_not_exported_when_last_asked_are_run(lake: Lake) -> None:
    record = DayRecord(day="2024-01-01", expected=(), awaiting_export=("binance",), recorded_at=NOW)
    documents.update(lake.store, paths.day_record("2024-01-01"), DayRecord, lambda _: record)
    assert lake.plan(end="2024-01-01").files == 2


def test_a_day_that_the_universe_has_outgrown_is_run_for_what_is_new(lake: Lake, tmp_path: Path) -> None:
    lake.run("2024-01-01")
    universe = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT", "ADA-USDT"]}]
    grown = Lake(tmp_path / "lake", universe=universe)
    assert grown.plan(end="2024-01-01").files == 1
    assert lake.plan(end="2024-01-01").files == 0


def test_a_changed_way_of_counting_fetches_everything_anew(lake: Lake, tmp_path: Path) -> None:
    lake.run("2024-01-01")
    changed = Lake(tmp_path / "lake", thresholds={"counting": {"spike_multiple": 12}})
    assert changed.plan(end="2024-01-01").files == 2


def test_a_choice_of_feeds_is_fetched_again_and_of_the_others_what_is_lacking(lake: Lake) -> None:
    lake.run("2024-01-01")
    lake.run("2024-01-02", lacking=(BTC,))
    plan = lake.plan(end="2024-01-02", symbols=("ETH-USDT",))
    assert (plan.files, plan.days_good, plan.refresh) == (1 + 2, 0, True)
    assert plan.expected_bytes == SIZES[ETH] * 2 + SIZES[BTC]
    assert lake.plan(end="2024-01-02", refresh=True).files == 4
    assert lake.plan(end="2024-01-02").files == 1


def test_sizes_are_medians_of_the_published_days_nearest_to_the_range(lake: Lake) -> None:
    for number in range(1, 10):
        lake.run(f"2024-02-{number:02d}", scale=1 if number < 8 else 100)
    lake.run("2024-01-31", tables=("trades",), scale=1000)
    ledger.claim(lake.store, "candles", "2024-01-31", "f")
    plan = lake.plan()
    assert plan.expected_bytes == 4 * 4_000_000
    assert plan.measured_over == tuple(f"2024-02-{n:02d}" for n in range(1, 8)), "nearest, and published"
    assert (plan.lake_bytes, plan.rows) == (8_000_000, 1_600_000)
    assert "about 16.0 MB" in plan_text(plan)
    later = lake.plan("2024-02-12", "2024-02-13")
    assert later.measured_over == tuple(f"2024-02-{n:02d}" for n in range(3, 10))
    assert later.expected_bytes == 2 * 4_000_000


def test_files_of_unknown_size_are_counted_and_make_the_bytes_a_lower_bound(
    lake: Lake, tmp_path: Path
) -> None:
    lake.run("2024-02-01", absent=(ETH,))
    plan = lake.plan(end="2024-01-01")
    assert (plan.expected_bytes, plan.files_of_unknown_size) == (SIZES[BTC], 1)
    assert "more than 3.0 MB" in plan_text(plan)
    assert "the size of 1 file is not known" in plan_text(plan)


def test_days_without_any_wanted_file_give_no_sizes(lake: Lake) -> None:
    lake.run("2024-02-01", absent=(BTC, ETH))
    plan = lake.plan(end="2024-01-01")
    assert (plan.expected_bytes, plan.measured_over) == (None, ())
    assert "no size is known" in plan_text(plan)
    assert "medians" not in plan_text(plan)


def run_of(day: str, start_second: float, seconds: float) -> MeasuredRun:
    started = NOW + timedelta(seconds=start_second)
    return MeasuredRun(day, started, started + timedelta(seconds=seconds))


def test_time_is_a_range_from_measured_runs_between_all_at_once_and_as_they_were(lake: Lake) -> None:
    lake.run("2024-02-01", fetched=NOW + timedelta(seconds=5))
    lake.run("2024-02-02", fetched=NOW + timedelta(seconds=15))
    runs = [run_of("2024-02-01", 0, 10), run_of("2024-02-02", 10, 20)]
    plan = lake.plan(runs=runs, runs_at_once=2)
    assert plan.expected_bytes == 16_000_000
    assert plan.seconds is not None
    # The files take 400 and 200 kB a second one after the other, and at best two at once.
    assert (plan.seconds.low, plan.seconds.high) == (20, 80)
    assert plan.speed_of_runs == 2
    one = lake.plan(runs=runs, runs_at_once=1)
    assert one.seconds is not None
    assert (one.seconds.low, one.seconds.high) == (40, 80)


PRICES = {
    "date": "2026-11-30",
    "download_per_gb": 100,
    "load_per_tb": 10_000,
    "storage_per_gb_month": 50,
    "machine_per_hour": 360,
}


def test_money_is_bytes_and_hours_at_the_prices_of_the_settings_and_says_what_costs_most(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path / "lake", prices=PRICES)
    lake.run("2024-02-01", fetched=NOW + timedelta(seconds=5))
    lake.run("2024-02-02", fetched=NOW + timedelta(seconds=15))
    runs = [run_of("2024-02-01", 0, 10), run_of("2024-02-02", 10, 20)]
    plan = lake.plan(runs=runs, runs_at_once=2)
    assert (plan.expected_bytes, plan.lake_bytes) == (16_000_000, 8_000_000)
    assert plan.money is not None
    costs = {cost.what: cost.amount and (cost.amount.low, cost.amount.high) for cost in plan.money.costs}
    # The runs take 40 to 80 s together, for every number of runs at work at once.
    assert costs == {
        "download": pytest.approx((1.6, 1.6)),
        "load": pytest.approx((0.08, 0.08)),
        "storage": pytest.approx((0.4, 0.4)),
        "machines": pytest.approx((4, 8)),
    }
    text = "5.68 to 9.68 USD (download 1.60, load 0.08, machines 4.00 to 8.00), 0.40 USD a month for storage"
    assert f"money      {text}; most is machines; prices of 2026-11-30" in plan_text(plan)
    one = lake.plan(runs=runs, runs_at_once=1)
    assert one.money == plan.money
    cheap = Lake(tmp_path / "lake", prices={**PRICES, "machine_per_hour": 1})
    found = cheap.plan(runs=runs, runs_at_once=2).money
    assert found is not None
    assert found.binds == "download"


def test_without_prices_no_money_is_told(lake: Lake) -> None:
    lake.run("2024-02-01")
    plan = lake.plan()
    assert plan.money is None
    assert "money" not in plan_text(plan)
    dated = Lake(Path(lake.store.uri), prices={"date": "2026-11-30"})
    assert dated.plan().money is None


def test_what_is_not_known_has_no_price(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", prices=PRICES)
    plan = lake.plan()
    assert plan.money is not None
    assert plan.money.binds is None
    said = "money      more than 0.00 USD (download unknown, load unknown, storage unknown, machines unknown)"
    assert f"{said}; prices of 2026-11-30" in plan_text(plan)
    lake.run("2024-02-01")
    assert "machines unknown), " in plan_text(lake.plan())


def test_runs_that_were_at_work_together_are_not_made_parallel_twice(lake: Lake) -> None:
    lake.run("2024-02-01", fetched=NOW + timedelta(seconds=5))
    lake.run("2024-02-02", fetched=NOW + timedelta(seconds=5))
    runs = [run_of("2024-02-01", 0, 10), run_of("2024-02-02", 0, 10)]
    plan = lake.plan(runs=runs, runs_at_once=2)
    assert plan.seconds is not None
    assert (plan.seconds.low, plan.seconds.high) == (20, 20)


def test_runs_that_fetched_nothing_measure_nothing(lake: Lake) -> None:
    lake.run("2024-02-01", fetched=NOW - timedelta(days=1))
    plan = lake.plan(runs=[run_of("2024-02-01", 0, 1)], runs_at_once=2)
    assert plan.seconds is None
    assert "no record of a run that fetched" in plan_text(plan)


@pytest.mark.parametrize("runs_at_once", [1, 4])
def test_no_plan_is_faster_than_the_vendor_may_be_asked(tmp_path: Path, runs_at_once: int) -> None:
    slow = Lake(tmp_path / "lake", tardis={"requests_per_minute": 1})
    slow.run("2024-02-01", fetched=NOW + timedelta(seconds=1))
    plan = slow.plan(runs=[run_of("2024-02-01", 0, 2)], runs_at_once=runs_at_once)
    assert plan.seconds is not None
    assert plan.seconds.low == plan.seconds.high == 8 * 60


def test_load_jobs_are_set_against_the_days_limit_and_what_was_used_of_it(tmp_path: Path) -> None:
    warehouse = {
        "kind": "bigquery",
        "project": "p",
        "dataset": "d",
        "load_jobs_per_table_and_day": 9,
    }
    lake = Lake(tmp_path / "lake", warehouse=warehouse)
    ledger.count_submission(lake.store, "candles", "2024-02-01", 1, 10, lambda: NOW)
    plan = lake.plan(end="2024-01-02")
    loads = {table.table: table for table in plan.loads}
    assert set(loads) == set(TABLES)
    assert (loads["trades"].jobs.low, loads["trades"].jobs.high, loads["trades"].utc_days) == (2, 2, 1)
    assert (loads["candles"].jobs.high, loads["candles"].used_today, loads["candles"].utc_days) == (6, 1, 1)
    assert "8 of 9 left today" in plan_text(plan)
    more = lake.plan(end="2024-01-03")
    assert {t.table: t.utc_days for t in more.loads}["candles"] == 2
    assert "candles: up to 9 loads, 1 today already, of 9 a day" in plan_text(more)
    assert plan.warehouse_bytes is None


def test_planning_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    lake.run("2024-01-01", lacking=(ETH,))
    before = files_of(tmp_path)
    plan = lake.plan(exchanges=("binance",))
    assert files_of(tmp_path) == before
    lake.store = ReadOnlyStore(Path(lake.store.uri))
    assert lake.plan(exchanges=("binance",)) == plan


@pytest.mark.parametrize(
    ("start", "end", "choice", "complaint"),
    [
        ("2024-01-02", "2024-01-01", {}, "swap them"),
        ("2019-01-01", "2024-01-01", {}, "2019-01-01 cannot be run"),
        ("2024-01-01", "2099-01-01", {}, "2099-01-01 cannot be run"),
        ("2024-01-01", "2024-01-01", {"exchanges": ("binanse",)}, "did you mean binance?"),
        ("2024-01-01", "2024-01-01", {"symbols": ("btc-usdt",)}, "did you mean BTC-USDT"),
        ("2024-01-01", "2024-01-01", {"data_types": ("quotes",)}, "choose from trades"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    lake: Lake, start: str, end: str, choice: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PermanentFailure) as refused:
        lake.plan(start, end, **choice)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_combination_that_no_entry_has_is_refused_though_each_name_is_known(tmp_path: Path) -> None:
    universe = [
        {"exchanges": ["binance"], "symbols": ["BTC-USDT"]},
        {"exchanges": ["kraken"], "symbols": ["ETH-USDT"]},
    ]
    lake = Lake(tmp_path / "lake", universe=universe)
    with pytest.raises(PermanentFailure, match="this combination"):
        lake.plan(exchanges=("kraken",), symbols=("BTC-USDT",))
    assert lake.plan(exchanges=("kraken",), symbols=("ETH-USDT",)).files == 8


def test_what_the_vendor_lists_takes_the_place_of_the_universe_where_it_is_asked(lake: Lake) -> None:
    listed = {"2024-01-01": [BTC], "2024-01-02": [BTC, ETH]}

    def listing(day: str) -> DayListing:
        return DayListing(
            [ExpectedFeed(f, ((f.dataset_symbol, SYMBOLS[f]),)) for f in listed.get(day, [])], {}
        )

    plan = lake.plan(end="2024-01-02", listing=listing)
    assert (plan.files, plan.days_unlisted) == (3, 0)
    assert "at most" not in plan_text(plan)


# --- Dagster's records -------------------------------------------------------------------------------------


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@dg.asset(partitions_def=dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-03-01"))
def fails_on_the_third(context: dg.AssetExecutionContext) -> None:
    if context.partition_key.endswith("-03"):
        raise ValueError


@dg.asset
def without_days() -> None:
    pass


def test_successful_runs_of_days_are_measured_and_no_others(instance: dg.DagsterInstance) -> None:
    for day in ("2024-01-02", "2024-01-03"):
        dg.materialize([fails_on_the_third], partition_key=day, instance=instance, raise_on_error=False)
    dg.materialize([without_days], instance=instance)
    [run] = measured_runs(instance)
    assert run.day == "2024-01-02"
    assert 0 < run.seconds < 60
    assert run.ended.tzinfo is UTC
    assert backfill_places(instance) == 1
