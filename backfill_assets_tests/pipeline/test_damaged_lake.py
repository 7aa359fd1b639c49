"""A file of the lake loses its bytes: no table is made or published from it, and the day recovers."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_assets_tests.pipeline.conftest import Pipeline

DAY = "2024-01-02"
FEED = "binance/trades/BTCUSDT"


def flip(file: Path) -> None:
    """Change one bit in the middle; size and name stay."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def blank(file: Path) -> None:
    """Set every byte to zero, as some file systems do after a power cut."""
    file.write_bytes(bytes(file.stat().st_size))


def cut(file: Path) -> None:
    """Empty the file."""
    file.write_bytes(b"")


def file_of(pipeline: Pipeline, kind: str, day: str = DAY) -> Path:
    """The lake's one data file of this kind that belongs to the feed or to the day."""
    middle = FEED if kind in ("ticks", "partials") else "binance" if kind == "instruments" else ""
    day = f"date={day}" if kind in ("candles", "coverage") else day
    [file] = (pipeline.folder / "lake" / kind / middle / day).glob("*.parquet")
    return file


def failures(result) -> str:
    """The messages of the failed steps."""
    return "\n".join(
        event.event_specific_data.error.to_string()
        for event in result.all_events
        if event.event_type_value == "STEP_FAILURE"
    )


def lose_partition(pipeline: Pipeline, table: str) -> None:
    """Make publishing load the day's partition again."""
    (pipeline.folder / "warehouse" / table / f"{DAY}.parquet").unlink()


@pytest.mark.parametrize("harm", [flip, blank])
def test_a_damaged_tick_file_is_not_published_and_a_refresh_replaces_it(pipeline: Pipeline, harm) -> None:
    pipeline.begin_after(DAY)
    good = pipeline.table("trades", DAY)
    file = file_of(pipeline, "ticks")
    whole = file.read_bytes()
    harm(file)
    lose_partition(pipeline, "trades")
    refused = pipeline.run(DAY)
    assert not refused.success
    assert f"{file} does not have the bytes that its name says" in failures(refused)
    assert pipeline.table("trades", DAY).is_empty(), "no row of the damaged file came out"
    assert pipeline.run(DAY, refresh=True, feeds=[FEED]).success
    assert file.read_bytes() == whole
    assert pipeline.table("trades", DAY).equals(good)


@pytest.mark.parametrize("harm", [flip, blank, cut])
def test_damaged_partial_candles_are_made_anew_by_the_run_that_needs_them(pipeline: Pipeline, harm) -> None:
    pipeline.begin_after(DAY)
    good = pipeline.table("candles", DAY)
    file = file_of(pipeline, "partials")
    whole = file.read_bytes()
    harm(file)
    file_of(pipeline, "candles").unlink()
    lose_partition(pipeline, "candles")
    assert pipeline.run(DAY).success
    assert file.read_bytes() == whole
    assert pipeline.table("candles", DAY).equals(good)


def test_no_partial_candles_are_made_of_a_damaged_tick_file(pipeline: Pipeline) -> None:
    pipeline.begin_after(DAY)
    flip(file_of(pipeline, "ticks"))
    file_of(pipeline, "partials").unlink()
    refused = pipeline.run(DAY)
    assert not refused.success
    assert "does not have the bytes that its name says" in failures(refused)


@pytest.mark.parametrize("kind", ["candles", "coverage", "instruments"])
def test_a_damaged_file_of_any_kind_is_not_published(pipeline: Pipeline, kind: str) -> None:
    pipeline.begin_after(DAY)
    flip(file_of(pipeline, kind))
    lose_partition(pipeline, kind)
    refused = pipeline.run(DAY)
    assert not refused.success
    assert "does not have the bytes that its name says" in failures(refused)
    assert pipeline.table(kind, DAY).is_empty()


def test_a_damaged_file_is_not_in_the_way_of_a_newer_version(pipeline: Pipeline) -> None:
    pipeline.begin_after(DAY)
    flip(file_of(pipeline, "ticks"))
    pipeline.serve_changed(FEED, DAY, lambda lines: lines[:-1])
    result = pipeline.run(DAY, select=["ticks"], refresh=True, feeds=[FEED])
    assert result.success, failures(result)
    feed = next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == FEED)
    assert feed.candidate is not None, "it waits, because nobody can tell how much it changes"
    assert "not compared" in feed.excess
