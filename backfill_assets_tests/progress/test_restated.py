"""A replaced file of the vendor that counts is told once: no reminder, no end, no second message."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.alerts.incidents import Incident, Incidents
from backfill_assets.lake import paths
from backfill_assets.progress import watch
from backfill_assets.progress.facts import Records
from backfill_assets.quality.settle import settle
from backfill_assets_tests.alerts.listener import Listener, listening
from backfill_assets_tests.progress.planned_lake import Lake
from backfill_assets_tests.quality.quality_samples import FEED, THRESHOLDS
from backfill_assets_tests.quality.settled_lake import (
    approve_pending,
    bring,
    compare,
    expect,
    ids,
    retract_accepted,
    version,
)

DAY, LONG_AGO = "2024-01-09", "2023-06-01"
NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOO_MUCH: dict[str, Any] = {"rows_before": 9_000, "rows_after": 5}


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


@pytest.fixture
def lake(tmp_path: Path, listener: Listener) -> Lake:
    return Lake(tmp_path / "lake", alerts={"urls": listener.url, "remind_hours": 2})


def run(lake: Lake, trades: int, at: datetime, day: str = DAY, **difference: Any) -> None:
    """Do the work of a run of the day that finds a file with so many trades."""
    if lake.store.read(paths.day_record(day)) is None:
        expect(lake.store, day)
    bring(lake.store, day, version(ids(day, 1, trades), at))
    compare(lake.store, day, **difference)
    settle(lake.store, day, THRESHOLDS)


def look(lake: Lake, now: datetime, *run_days: str) -> list[Incident]:
    """The open incidents of the rule after a look."""
    records = Records([], [], run_days=run_days)
    found: Incidents = watch.look(lake.store, lake.settings, lambda: now, lambda: records)
    return [incident for incident in found.open if incident.rule == "feed_restated"]


def told(listener: Listener) -> list[str]:
    return [text for text in listener.texts if "vendor replaced a file" in text]


def test_a_replaced_file_that_counts_is_told_once_and_shown_for_a_day(lake: Lake, listener: Listener) -> None:
    run(lake, 9_000, NOON - 5 * HOUR)
    assert look(lake, NOON - HOUR) == []
    run(lake, 9_050, NOON, rows_after=9_050)
    for hours in range(24):
        (found,) = look(lake, NOON + hours * HOUR)
    assert found.name == f"vendor replaced a file: {DAY} {FEED}"
    assert found.text.startswith("rows 9,000 → 9,050, ")
    assert found.text.endswith("it counts because it changes no more than the limits allow")
    for hours in range(24, 24 * 9, 12):
        assert look(lake, NOON + hours * HOUR) == []
    (text,) = told(listener)
    assert f"backfill-assets retract --date {DAY} --feed {FEED} --content " in text
    assert f"Report: {lake.store.uri_of(paths.day_report(DAY))}" in text


def test_a_file_that_waits_is_told_as_restated_when_somebody_approves_it(
    lake: Lake, listener: Listener
) -> None:
    now = datetime.now(UTC)  # Approvals have the machine's time.
    day = (now - timedelta(days=2)).date().isoformat()
    run(lake, 9_000, now - 3 * HOUR, day)
    run(lake, 9_050, now - 2 * HOUR, day, **TOO_MUCH)
    assert look(lake, now - HOUR) == []
    assert "version waits for approval" in listener.texts[-1]
    approve_pending(lake.store, day, str(FEED), "the vendor said so", THRESHOLDS)
    (found,) = look(lake, now + HOUR)
    assert found.text.endswith("it counts because it was approved: the vendor said so")


def test_a_withdrawn_file_ends_it_and_the_next_one_is_told_again(lake: Lake, listener: Listener) -> None:
    run(lake, 9_000, NOON - 5 * HOUR)
    run(lake, 9_050, NOON)
    assert len(look(lake, NOON)) == 1
    retract_accepted(lake.store, DAY, str(FEED), "worse than before", THRESHOLDS)
    assert look(lake, NOON + HOUR) == []
    run(lake, 9_060, NOON + 2 * HOUR)
    assert len(look(lake, NOON + 2 * HOUR)) == 1
    assert len(told(listener)) == 2
    assert not any("ended: vendor" in text for text in listener.texts)


def test_the_same_rows_fetched_again_are_no_other_file(lake: Lake, listener: Listener) -> None:
    run(lake, 9_000, NOON - 5 * HOUR)
    run(lake, 9_050, NOON)
    look(lake, NOON)
    look(lake, NOON + 25 * HOUR)
    recounted = version(ids(DAY, 1, 9_050), NOON + 26 * HOUR).model_copy(update={"profile_parameters": "q"})
    bring(lake.store, DAY, recounted)
    settle(lake.store, DAY, THRESHOLDS)
    assert look(lake, NOON + 27 * HOUR) == []
    assert len(told(listener)) == 1


def test_a_look_after_days_without_one_tells_it_and_after_more_than_a_week_does_not(lake: Lake) -> None:
    run(lake, 9_000, NOON - 5 * HOUR)
    run(lake, 9_050, NOON)
    assert len(look(lake, NOON + timedelta(days=6))) == 1
    (Path(lake.store.uri) / paths.incidents()).unlink()
    assert look(lake, NOON + timedelta(days=7, hours=1), DAY) == []


def test_days_before_the_look_back_are_looked_at_where_a_run_has_ended(lake: Lake) -> None:
    run(lake, 9_000, NOON - 5 * HOUR, LONG_AGO)
    run(lake, 9_050, NOON, LONG_AGO)
    assert look(lake, NOON) == []
    assert [found.day for found in look(lake, NOON, LONG_AGO, "2024-01-01")] == [LONG_AGO]
    # An open incident is checked at every look; nothing else of so old a day is.
    assert len(look(lake, NOON + HOUR)) == 1
    file = Path(lake.store.uri) / paths.settled_day(LONG_AGO)
    file.write_text("{")
    assert len(look(lake, NOON + 48 * HOUR)) == 1, "a day that cannot be read ends nothing"
