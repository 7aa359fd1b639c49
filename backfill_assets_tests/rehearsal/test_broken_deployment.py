"""Promises that broken daemons, services, schedules and warehouses break; minutes each (`make storm`)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backfill_assets.rehearsal import clock_faults, deployment, service_faults
from backfill_assets.rehearsal.deployment import Deployment
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets_tests.rehearsal import mutant
from backfill_assets_tests.rehearsal.played import broken, result
from backfill_assets_tests.times import takes_minutes

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(900),
    takes_minutes,
]
#: Code locations with a broken component; their import breaks it in this process.
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("mutation", "scenario", "promise"),
    [
        (mutant.asks_again_for_the_same_bytes, "wrong-answers", Promise.CONTAINED),
        (mutant.takes_every_load_error_for_passing, "warehouse", Promise.CONTAINED),
        (mutant.keeps_rejected_files_outside_of_their_feeds, "poisoned-metadata", Promise.CONTAINED),
    ],
)
def test_a_broken_component_that_needs_minutes_to_show_breaks_its_promise_alone(
    mutation, scenario, promise, compared, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(House, "dagster", (sys.executable, mutant.__file__, mutation.__name__))
    assert broken(result(scenario, tmp_path, compared)) == {promise}


@pytest.mark.parametrize(
    ("mutation", "scenario", "promise"),
    [
        (mutant.tells_nobody, "service", Promise.SOMEBODY_TOLD),
        (mutant.is_ready_whatever_is_missing, "service", Promise.DETECTED),
        (mutant.counts_down, "service", Promise.CONTAINED),
        (mutant.says_no_time_to_ask_again, "database-away", Promise.DETECTED),
    ],
)
def test_a_broken_service_breaks_its_promise_alone(
    mutation, scenario, promise, compared, tmp_path, monkeypatch
) -> None:
    words = (mutant.__file__, mutation.__name__, "service")
    monkeypatch.setattr(Deployment, "quick_service", words)
    monkeypatch.setattr(service_faults, "_QUICK_TOLD_SECONDS", 40.0)
    assert broken(result(scenario, tmp_path, compared)) == {promise}


def test_a_job_does_not_go_on_where_nobody_looks_for_lost_runs(compared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Deployment, "definitions", ("-f", str(HERE / "blind.py")))
    monkeypatch.setattr(deployment, "JOB_SECONDS", 60.0)
    found = broken(result("service", tmp_path, compared))
    assert found >= {Promise.DETECTED, Promise.RECOVERED, Promise.NOTHING_LOST}
    assert Promise.NOTHING_WRONG_PUBLISHED not in found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("location", "promise"), [("early.py", Promise.CONTAINED), ("forgetful.py", Promise.SOMEBODY_TOLD)]
)
def test_a_schedule_that_asks_too_early_and_days_that_nobody_misses_are_seen(
    location, promise, compared, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(Deployment, "definitions", ("-f", str(HERE / location)))
    monkeypatch.setattr(clock_faults, "_odd_days", lambda stage: None)
    assert broken(result("clock", tmp_path, compared)) == {promise}


def test_a_daemon_that_goes_by_the_clock_alone_breaks_its_promise_when_the_clock_steps_back(
    compared, tmp_path, monkeypatch
) -> None:
    words = (mutant.__file__, mutant.goes_by_the_clock_alone.__name__, "daemon")
    monkeypatch.setattr(Deployment, "quick_daemon", words)
    monkeypatch.setattr(clock_faults, "_odd_days", lambda stage: None)
    found = result("clock", tmp_path, compared)
    assert broken(found) == {Promise.CONTAINED}
    # The day that runs then is seen again after the daemon was away.
    unmet = [outcome.expected for outcome in found.outcomes if outcome.kept is False]
    assert unmet[0].startswith("the clock steps back")
