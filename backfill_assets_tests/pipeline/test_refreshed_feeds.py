"""A run's tags choose which feeds are fetched again; the feeds can be watched while it runs."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from backfill_assets.definitions import build_definitions
from backfill_assets.feeds import Feed, FeedChoice
from backfill_assets.orchestration import live_key, refresh_of, refresh_tags
from backfill_assets_tests.pipeline.conftest import Pipeline

DAY = "2024-01-01"


def run_ticks(pipeline: Pipeline, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
    result = (
        build_definitions(str(pipeline.file))
        .resolve_job_def("day")
        .execute_in_process(
            partition_key=DAY,
            instance=pipeline.instance,
            asset_selection=[dg.AssetKey("instruments"), dg.AssetKey("ticks")],
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        )
    )
    assert result.success
    return result


def test_exactly_the_chosen_feeds_are_fetched_again(pipeline: Pipeline) -> None:
    run_ticks(pipeline, {})
    assert len(pipeline.downloads) == 9
    choice = FeedChoice(exchanges=("kraken", "binance"), symbols=("BTC-USDT",))
    result = run_ticks(pipeline, refresh_tags(choice))
    again = sorted(path.split("/")[-1] for path in pipeline.downloads[9:])
    assert again == ["BTCUSDT.csv.gz", "XBT-USDT.csv.gz"]
    [ticks] = result.asset_materializations_for_node("ticks")
    assert (ticks.metadata["feeds_fetched"].value, ticks.metadata["feeds_kept"].value) == (2, 7)
    assert 0 < int(str(ticks.metadata["fetched_bytes"].value)) < int(str(ticks.metadata["raw_bytes"].value))


def test_without_tags_nothing_is_fetched_again_and_with_an_open_choice_everything(pipeline: Pipeline) -> None:
    run_ticks(pipeline, {})
    run_ticks(pipeline, {"backfill_assets/exchanges": "kraken"})
    assert len(pipeline.downloads) == 9, "names without refresh choose nothing"
    run_ticks(pipeline, refresh_tags(FeedChoice()))
    assert len(pipeline.downloads) == 18


def test_the_run_leaves_its_progress_under_its_own_key(pipeline: Pipeline) -> None:
    run_id = run_ticks(pipeline, {}).run_id
    found = pipeline.instance.daemon_cursor_storage.get_cursor_values({live_key(run_id)})
    progress = json.loads(found[live_key(run_id)])
    assert (progress["done"], progress["total"], progress["states"]) == (9, 9, {"fetched": 9})


@pytest.mark.parametrize(
    "choice",
    [
        FeedChoice(),
        FeedChoice(("a", "b"), ("BTC-USDT",), ("trades", "quotes")),
        FeedChoice(symbols=("SPOT",)),
    ],
)
def test_a_choice_is_read_from_tags_as_it_was_written(choice: FeedChoice) -> None:
    assert refresh_of(refresh_tags(choice)) == choice
    assert refresh_of({}) is None


def test_a_choice_has_the_feeds_that_fit_every_part_of_it() -> None:
    bitcoin, grouped = Feed("kraken", "trades", "XBT-USDT"), Feed("kraken", "trades", "SPOT")
    assert FeedChoice().has(bitcoin, ["BTC-USDT"])
    assert FeedChoice(symbols=("BTC-USDT",)).has(bitcoin, ["BTC-USDT"])
    assert FeedChoice(symbols=("SPOT",)).has(grouped, ["BTC-USDT", "ETH-USDT"])
    assert FeedChoice(symbols=("ETH-USDT",)).has(grouped, ["BTC-USDT", "ETH-USDT"])
    assert not FeedChoice(symbols=("ETH-USDT",)).has(bitcoin, ["BTC-USDT"])
    assert not FeedChoice(exchanges=("binance",), symbols=("BTC-USDT",)).has(bitcoin, ["BTC-USDT"])
    assert not FeedChoice(data_types=("quotes",)).has(bitcoin, ["BTC-USDT"])
