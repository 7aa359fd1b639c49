"""The order in which queued runs begin, with Dagster's daemon, the shipped ``dagster.yaml`` and schedules.

Each day waits until the test releases it, so that the test sees which run takes each free place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg
import pytest
import yaml

from backfill_assets.days import day_range, shift
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.service import Backfills
from backfill_assets.rehearsal.moved_clock import MovedClock
from backfill_assets.settings import load_settings
from backfill_assets_tests.automation import gated_days
from backfill_assets_tests.progress.rig import OURS, QUICK_DAEMON, REPOSITORY, Rig
from backfill_assets_tests.times import takes_minutes

LAST: Final = "2024-01-31"
BULK: Final = day_range(shift(LAST, -799), LAST)
#: Queued before all other days.
SLOW: Final = ["2024-02-01", "2024-02-02", "2024-02-03"]
AWAITED, CAUGHT_UP, YESTERDAY = "2024-02-05", "2024-02-08", "2024-02-09"
BEFORE_NINE: Final = datetime(2024, 2, 10, 8, 30, tzinfo=UTC)
NINE: Final = datetime(2024, 2, 10, 9, tzinfo=UTC)
#: Queued runs that Dagster reads at a time (its default is 100), and several times as many.
PAGE, MANY = 10, 40
_AT_WORK: Final = (dg.DagsterRunStatus.STARTED,)


@dataclass
class Queue:
    """The daemon, its queue, and the gates of the days."""

    rig: Rig
    instance: dg.DagsterInstance
    gates: Path
    clock: MovedClock
    service: Backfills

    def days(self, *statuses: dg.DagsterRunStatus) -> set[str]:
        runs = self.instance.get_runs(dg.RunsFilter(statuses=list(statuses)))
        return {run.tags["dagster/partition"] for run in runs}

    def at_work(self) -> set[str]:
        return self.days(*_AT_WORK)

    def ask(self, start: str, end: str, **more: object) -> str:
        asked = BackfillRequest.model_validate({"start": start, "end": end, "all_days": True, **more})
        return self.service.create(asked)[0].job_id

    def wait_for(self, *days: str, seconds: float = 90) -> None:
        """Wait until exactly these days are at work."""
        self.rig.wait(lambda: self.at_work() >= set(days), seconds=seconds)
        assert self.at_work() == set(days)

    def next_after(self, day: str) -> str:
        """Release the day; returns the day that takes its place."""
        before = self.at_work()
        (self.gates / day).touch()
        found: set[str] = self.rig.wait(lambda: self.at_work() - before, seconds=90)
        [begun] = found
        assert self.at_work() == before - {day} | {begun}
        return begun


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    home, gates = tmp_path / "home", tmp_path / "gates"
    for folder in (home, gates):
        folder.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    settings = tmp_path / "settings.yaml"
    content = {
        "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}],
        "lake": {"uri": str(tmp_path / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
        "serve": {"max_days": 1_000},
        "schedule": {"look_back_days": 2},
    }
    settings.write_text(yaml.safe_dump(content))
    clock = MovedClock(tmp_path / "clock", BEFORE_NINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {
        "DAGSTER_HOME": str(home),
        "BACKFILL_ENV": str(settings),
        "DAGSTER_RUN_QUEUE_PAGE_SIZE": str(PAGE),
        gated_days.GATES: str(gates),
        **clock.variables,
    }
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    rig = Rig(home, environment, standin=None)  # type: ignore[arg-type]
    with dg.DagsterInstance.get() as instance:
        service = Backfills(instance, gated_days.defs.resolve_asset_graph, lambda: load_settings(settings))
        try:
            rig.start("daemon", *QUICK_DAEMON, "run", "-m", gated_days.__name__)
            yield Queue(rig, instance, gates, clock, service)
        finally:
            rig.kill("daemon")
            service.close()


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(900)
def test_the_daily_run_begins_next_behind_800_days_and_a_backfill_keeps_its_number_and_order(
    queue: Queue,
) -> None:
    queue.ask(SLOW[0], SLOW[-1], at_once=1)
    queue.rig.wait(lambda: queue.days(*_AT_WORK, dg.DagsterRunStatus.QUEUED) >= set(SLOW))
    queue.ask(BULK[0], BULK[-1], order="newest")
    newest = BULK[:-6:-1]
    queue.rig.wait(lambda: len(queue.days(dg.DagsterRunStatus.QUEUED)) > MANY)
    # Backfills have four of five places; a backfill that runs one day at a time takes one of them.
    queue.wait_for(SLOW[0], *newest[:3])

    queue.clock.set(NINE)
    queue.wait_for(SLOW[0], *newest[:3], YESTERDAY, seconds=60)

    queue.ask(AWAITED, AWAITED)
    queue.rig.wait(lambda: {CAUGHT_UP, AWAITED} <= queue.days(dg.DagsterRunStatus.QUEUED))
    waiting = queue.days(dg.DagsterRunStatus.QUEUED)
    assert len(waiting) > MANY
    assert set(SLOW[1:]) <= waiting
    assert queue.next_after(newest[0]) == CAUGHT_UP
    assert queue.next_after(CAUGHT_UP) == AWAITED
    assert queue.next_after(AWAITED) == newest[3], "the second day of the other was made before"
    assert queue.next_after(SLOW[0]) == SLOW[1]
    assert queue.next_after(newest[1]) == newest[4]
