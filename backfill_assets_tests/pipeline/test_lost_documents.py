"""Documents are deleted, or two are damaged together: published rows stay, also those of neighbor days."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.progress.stored_days import calendar
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline

BEFORE, DAY, AFTER = DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
FEED = "binance/trades/BTCUSDT"
OTHER = "binance/trades/ETHUSDT"
SMALL = {"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"], "data_types": ["trades"]}
MANIFEST = paths.ticks_manifest(Feed.parse(FEED), DAY)


@pytest.fixture
def small(make_pipeline: MakePipeline, standin: TardisStandin) -> Pipeline:
    made: Pipeline = make_pipeline(standin, universe=[SMALL])
    return made


@pytest.fixture
def published(small: Pipeline) -> Pipeline:
    """Three published days."""
    small.begin_after(*DAYS)
    assert trades(small) > 100
    return small


def settled(pipeline: Pipeline, day: str, feed: str = FEED) -> SettledFeed:
    found = pipeline.settled(day).settled.feed(Feed.parse(feed))
    assert found is not None
    return found


def trades(pipeline: Pipeline, day: str = DAY) -> int:
    frame = pipeline.table("trades", day)
    return len(frame.filter(symbol="BTC-USDT")) if len(frame) else 0


def lose(pipeline: Pipeline, path: str, how: str) -> None:
    file = pipeline.folder / "lake" / path
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])


def refresh(pipeline: Pipeline, day: str, change: Callable[[list[str]], list[str]] | None = None) -> bool:
    if change is not None:
        pipeline.serve_changed(FEED, day, change)
    success: bool = pipeline.run(day, refresh=True, feeds=[FEED]).success
    return success


def command(pipeline: Pipeline, *words: str) -> Result:
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words)


def good_days(pipeline: Pipeline) -> int:
    request = backfill_request({"start": BEFORE, "end": AFTER})
    good: int = make_plan(pipeline.store, pipeline.settings, request).days_good
    return good


def without_start(lines: list[str]) -> list[str]:
    return lines[5:]


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_manifest_and_the_days_document_lost_together_take_nothing_out(
    how: str, published: Pipeline
) -> None:
    before = trades(published)
    lose(published, MANIFEST, "cut")
    lose(published, paths.settled_day(DAY), how)
    assert refresh(published, AFTER, without_start)
    assert trades(published) == before
    failed = published.run(DAY)
    assert not failed.success
    [said] = [e for e in failed.all_events if e.is_step_failure]
    assert "refresh the feed" in str(said.step_failure_data.error)
    assert trades(published) == before
    assert refresh(published, DAY)
    assert published.run(DAY).success
    assert trades(published) == before


def late_and_joined() -> tuple[Callable[[list[str]], list[str]], Callable[[list[str]], list[str]]]:
    """Changes of two days in a row: the second begins late, and the ids of the first join it."""
    first: list[int] = []

    def late(lines: list[str]) -> list[str]:
        first.append(int(lines[900].split(",")[4]))
        return lines[900:]

    def joined(lines: list[str]) -> list[str]:
        cells = lines[-1].split(",")
        return [*lines[:-1], ",".join([*cells[:4], str(first[0] - 1), *cells[5:]])]

    return late, joined


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_day_beside_a_lost_document_keeps_its_trust(how: str, small: Pipeline) -> None:
    """The middle day begins late, and counts because the ids of the day before join."""
    late, joined = late_and_joined()
    small.serve_changed(FEED, DAY, late)
    assert small.run(DAY).success
    assert settled(small, DAY).accepted is None
    small.serve_changed(FEED, BEFORE, joined)
    for day in (BEFORE, AFTER):
        assert small.run(day).success
    before = trades(small)
    assert before > 100
    lose(small, paths.settled_day(BEFORE), how)
    assert refresh(small, AFTER, without_start)
    assert trades(small) == before


def test_ids_of_versions_that_are_dropped_are_known_to_the_day_beside(small: Pipeline) -> None:
    late, joined = late_and_joined()
    small.serve_changed(FEED, DAY, late)
    for day in (BEFORE, DAY):
        assert small.run(day).success
    assert refresh(small, BEFORE, joined)
    small.with_fault(FEED, BEFORE, Fault())
    assert refresh(small, BEFORE), "the vendor has returned to the version that counts"
    shown, before = settled(small, BEFORE).edges, trades(small)
    assert before > 100
    lose(small, paths.settled_day(BEFORE), "cut")
    assert small.run(BEFORE).success
    assert settled(small, BEFORE).edges == shown
    assert trades(small) == before


def test_a_lost_file_that_counts_is_fetched_though_a_newer_version_waits(published: Pipeline) -> None:
    before = published.partition_bytes("trades")
    assert refresh(published, DAY, lambda lines: lines[: len(lines) // 2])
    accepted = settled(published, DAY).accepted
    assert accepted is not None
    assert settled(published, DAY).candidate is not None
    published.heal()
    (published.folder / "lake" / paths.ticks_data(Feed.parse(FEED), DAY, accepted.content)).unlink()
    assert good_days(published) == 2
    assert published.run(DAY).success
    assert published.partition_bytes("trades") == before
    assert good_days(published) == 3


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_candles_of_a_day_follow_the_day_beside_though_their_document_is_lost(
    how: str, published: Pipeline
) -> None:
    before = published.table("candles", DAY)
    lose(published, paths.measures(DAY), how)
    assert refresh(published, AFTER, without_start)
    assert not published.table("candles", DAY).equals(before), "trades before midnight that arrived after it"


@pytest.mark.parametrize("vendor", ["has it", "has it no more"])
def test_a_manifest_that_is_gone_takes_nothing_out(vendor: str, published: Pipeline) -> None:
    before = trades(published)
    lose(published, MANIFEST, "gone")
    assert refresh(published, AFTER, without_start)
    assert trades(published) == before
    assert "is gone" in settled(published, DAY).unreadable
    if vendor == "has it no more":
        published.with_fault(FEED, DAY, Fault(always=not_found()))
    assert published.run(DAY).success
    assert trades(published) == before
    assert bool(settled(published, DAY).unreadable) == (vendor == "has it no more")


def test_a_retraction_outlives_the_manifest(published: Pipeline) -> None:
    accepted = settled(published, DAY).accepted
    assert accepted is not None
    which = ("--date", DAY, "--feed", FEED, "--content", accepted.content, "--reason", "wrong venue")
    assert command(published, "retract", *which).exit_code == 0
    assert published.run(DAY).success
    assert trades(published) == 0
    lose(published, MANIFEST, "gone")
    assert published.run(DAY).success
    assert trades(published) == 0


def test_a_day_whose_record_is_gone_does_not_stop_the_day_beside(published: Pipeline) -> None:
    lose(published, paths.day_record(DAY), "gone")
    before = trades(published)
    assert refresh(published, AFTER, without_start)
    assert trades(published) == before


@pytest.mark.parametrize(
    "path", [paths.publication("trades", DAY), paths.measures(DAY), paths.settled_day(DAY), MANIFEST]
)
def test_verify_names_what_it_cannot_look_at(path: str, published: Pipeline) -> None:
    assert command(published, "verify", "--date", DAY).exit_code == 0
    lose(published, path, "cut")
    said = command(published, "verify", "--date", DAY)
    assert said.exit_code == 1
    assert Path(path).name in said.output


def test_a_database_that_is_gone_is_made_again_by_the_next_run(published: Pipeline) -> None:
    database = published.folder / "warehouse" / "warehouse.duckdb"
    database.unlink()
    assert good_days(published) == 0
    found = {day.outcome for day in calendar(published.store, published.settings, BEFORE, AFTER)}
    assert found == {"missing"}
    assert published.run(DAY).success
    assert good_days(published) == 3


def test_a_feed_that_was_empty_first_is_published_when_it_is_healed(small: Pipeline) -> None:
    small.serve_changed(FEED, DAY, lambda _: [])
    assert small.run(DAY).success
    small.heal()
    assert refresh(small, DAY)
    assert settled(small, DAY).verdict.outcome == "publish"
    assert trades(small) > 100
    assert small.run(DAY).success


def test_a_published_feed_outlives_an_empty_file_and_a_corrected_one(published: Pipeline) -> None:
    before = trades(published)
    assert refresh(published, DAY, lambda _: [])
    assert trades(published) == before
    assert refresh(published, DAY, lambda lines: [*lines[:40], *lines[41:]])
    assert trades(published) >= before - 1


def test_two_files_without_a_row_are_approved_by_the_command_that_is_told(small: Pipeline) -> None:
    for feed in (FEED, OTHER):
        small.serve_changed(feed, DAY, lambda _: [])
    small.run(DAY)
    told = command(small, "approve", "--date", DAY, "--reason", "it was closed").output
    words = told[told.index("backfill-assets approve") :].split("--reason")[0].split()[1:]
    approved = command(small, *words, "--reason", "it was closed")
    assert approved.exit_code == 0, approved.output
    small.run(DAY)
    assert {settled(small, DAY, feed).accepted is not None for feed in (FEED, OTHER)} == {True}
