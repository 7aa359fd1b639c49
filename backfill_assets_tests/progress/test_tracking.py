"""A job's progress from what is read: never back within an attempt, bad days seen, honest times."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from backfill_assets.progress import tracking
from backfill_assets.progress.facts import BackfillFact, BackfillState, DayEvents, RunFact, RunState
from backfill_assets.progress.model import (
    BackfillRequest,
    DayProgress,
    DayStatus,
    DayTruth,
    FailedCheck,
    Job,
    Outcome,
)
from backfill_assets.progress.tracking import (
    DayFacts,
    day_after,
    eta,
    job_after,
    new_job,
    retried,
    throughput,
)

NOW = datetime(2024, 2, 10, 12, tzinfo=UTC)
ACTIVE, COMPLETED, CANCELED = BackfillFact("active"), BackfillFact("completed"), BackfillFact("canceled")


def made(days: int) -> tuple[Job, list[DayStatus]]:
    request = BackfillRequest(start=NOW.date(), end=NOW.date())
    return new_job("job", request, "me", [f"2024-01-{day:02d}" for day in range(1, days + 1)], NOW)


def run(state: RunState, *, will_retry: bool = False, day: str = "2024-01-01") -> RunFact:
    return RunFact("run", day, 1, state, will_retry, NOW, NOW, NOW, NOW + timedelta(seconds=10))


def check(*, blocking: bool, severity: str = "ERROR") -> DayEvents:
    return DayEvents(failed_checks=(FailedCheck(check="ticks:sane", severity=severity, blocking=blocking),))  # type: ignore[arg-type]


def ended(run_state: RunState, outcome: Outcome, events: DayEvents | None = None) -> str:
    _, [day] = made(1)
    return day_after(day, DayFacts(run(run_state), events, DayTruth(outcome=outcome)), ACTIVE).state


def live(done: int) -> DayProgress:
    return DayProgress(done=done, total=10, rows=0, raw_bytes=0, states={})


@pytest.mark.parametrize("outcome", ["published", "degraded", "missing", "held"])
def test_a_day_whose_run_succeeded_is_what_lake_and_warehouse_say(outcome: Outcome) -> None:
    assert ended("succeeded", outcome) == outcome


def test_a_failed_blocking_check_outweighs_a_run_that_dagster_calls_a_success() -> None:
    assert ended("succeeded", "published", check(blocking=True)) == "failed"


def test_a_failed_check_that_only_warns_or_does_not_block_is_named_and_no_more() -> None:
    assert ended("succeeded", "published", check(blocking=True, severity="WARN")) == "published"
    assert ended("succeeded", "degraded", check(blocking=False)) == "degraded"


def test_a_failed_run_is_failed_though_the_day_is_out_since_before_and_a_held_day_is_held() -> None:
    assert ended("failed", "published") == "failed"
    assert ended("failed", "held") == "held"


def test_a_day_has_not_ended_before_the_lake_was_asked() -> None:
    _, [day] = made(1)
    assert day_after(day, DayFacts(run("succeeded")), ACTIVE).state == "running"


def test_the_percentage_is_of_the_days_that_are_run() -> None:
    good = {"2024-01-01": DayTruth(outcome="published"), "2024-01-02": DayTruth(outcome="degraded")}
    request = BackfillRequest(start=NOW.date(), end=NOW.date())
    job, days = new_job("job", request, "me", [f"2024-01-0{day}" for day in range(1, 5)], NOW, good)
    assert (job.percent, job.finished_days, job.skipped_days) == (0, 2, 2)
    days[2] = days[2].model_copy(update={"state": "published"})
    job = job_after(job, days, ACTIVE, (), NOW)
    assert (job.percent, job.finished_days) == (50, 3)


def test_a_run_that_dagster_will_start_again_has_not_failed_yet() -> None:
    _, [day] = made(1)
    facts = DayFacts(run("failed", will_retry=True), None, DayTruth(outcome="missing"))
    assert day_after(day, facts, ACTIVE).state == "queued"
    assert day_after(day, facts, COMPLETED).state == "failed"


@pytest.mark.parametrize("outcome", ["published", "held"])
def test_a_run_that_fails_while_its_backfill_is_cancelled_was_cut_off(outcome: Outcome) -> None:
    _, [day] = made(1)
    facts = DayFacts(run("failed"), None, DayTruth(outcome=outcome))
    for state in ("canceling", "canceled"):
        assert day_after(day, facts, BackfillFact(state)).state == "canceled"
    done = DayFacts(run("succeeded"), None, DayTruth(outcome="published"))
    assert day_after(day, done, CANCELED).state == "published"


@pytest.mark.parametrize(
    ("backfill", "state"),
    [
        ("active", "waiting"),
        ("absent", "waiting"),
        ("canceling", "canceled"),
        ("canceled", "canceled"),
        ("completed", "missing"),
        ("failed", "failed"),
    ],
)
def test_a_day_without_run_is_what_becomes_of_its_backfill(backfill: BackfillState, state: str) -> None:
    _, [day] = made(1)
    assert day_after(day, DayFacts(), BackfillFact(backfill)).state == state


def finished(state: str, *, seconds: int = 10, after: int = 0, day: str = "2024-01-01") -> DayStatus:
    start = NOW + timedelta(seconds=after)
    return DayStatus(
        day=day, state=state, started=start, ended=start + timedelta(seconds=seconds), raw_bytes=1_000
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "job_state"),
    [
        (["published", "degraded"], "succeeded"),
        (["published", "held"], "failed"),
        (["published", "missing"], "failed"),
        (["failed", "canceled"], "canceled"),
        (["published", "running"], "running"),
        (["waiting", "waiting"], "queued"),
    ],
)
def test_a_job_is_as_good_as_its_worst_day(states: list[str], job_state: str) -> None:
    job, days = made(2)
    days = [day.model_copy(update={"state": state}) for day, state in zip(days, states, strict=True)]
    assert job_after(job, days, ACTIVE, [], NOW).state == job_state


def test_a_failed_job_says_which_days_and_why() -> None:
    job, days = made(5)
    blocked = check(blocking=True).failed_checks
    days = [day.model_copy(update={"state": "failed", "failed_checks": blocked}) for day in days]
    assert job_after(job, days, COMPLETED, [], NOW).failure == (
        "5 of 5 days: 2024-01-01 failed (check ticks:sane), 2024-01-02 failed (check ticks:sane), "
        "2024-01-03 failed (check ticks:sane), and 2 more"
    )
    broken = job_after(job, days[:1], BackfillFact("failed", "no such asset"), [], NOW)
    assert broken.failure is not None
    assert broken.failure.startswith("Dagster: no such asset; 1 of 1 days")


def test_nothing_new_leaves_the_job_as_it_is() -> None:
    job, days = made(2)
    assert job_after(job, days, ACTIVE, [], NOW + timedelta(hours=1)) is job
    assert job_after(job, days, ACTIVE, ["no daemon"], NOW).warnings == ("no daemon",)


def test_progress_never_goes_back_within_an_attempt_whatever_is_read() -> None:
    chance = random.Random(1)
    job, days = made(4)
    percent, done = 0.0, 0
    for _ in range(2_000):
        index = chance.randrange(4)
        state: RunState = chance.choice(["queued", "running", "running", "failed", "succeeded"])
        facts = DayFacts(
            run(state, will_retry=chance.random() < 0.9),
            None,
            DayTruth(outcome="published") if chance.random() < 0.1 else None,
            live(chance.randrange(11)) if chance.random() < 0.5 else None,
        )
        days[index] = day_after(days[index], facts, ACTIVE)
        job = job_after(job, days, ACTIVE, [], NOW)
        assert job.percent >= percent
        assert job.finished_days >= done
        assert (job.percent == 100) == (job.finished_days == 4)
        percent, done = job.percent, job.finished_days
    assert percent == 100


def test_a_retry_starts_the_bad_days_again_and_keeps_the_good_ones() -> None:
    job, days = made(4)
    states = ["published", "held", "failed", "degraded"]
    days = [day.model_copy(update={"state": state}) for day, state in zip(days, states, strict=True)]
    job = job_after(job, days, COMPLETED, [], NOW)
    again, days = retried(job, days, NOW)
    assert [day.state for day in days] == ["published", "waiting", "waiting", "degraded"]
    assert [day.attempt for day in days] == [1, 2, 2, 1]
    assert (again.state, again.attempt, again.percent, again.finished_days) == ("queued", 2, 50.0, 2)
    assert (again.failure, again.finished) == (None, None)


def test_a_finished_day_that_its_neighbour_sealed_is_sealed() -> None:
    _, [day] = made(1)
    day = day_after(day, DayFacts(run("succeeded"), None, DayTruth(outcome="published")), ACTIVE)
    day = day_after(day, DayFacts(truth=DayTruth(outcome="published", sealed=True)), ACTIVE)
    assert day.truth is not None
    assert (day.state, day.truth.sealed) == ("published", True)


def test_a_failed_day_does_not_turn_good_by_what_its_neighbour_does() -> None:
    _, [day] = made(1)
    day = day_after(day, DayFacts(run("failed"), None, DayTruth(outcome="published")), ACTIVE)
    assert (
        day_after(day, DayFacts(truth=DayTruth(outcome="published", sealed=True)), ACTIVE).state == "failed"
    )


def test_throughput_is_over_the_time_from_first_start_to_last_end() -> None:
    days = [finished("published"), finished("published", after=5), finished("canceled", seconds=900)]
    measured = throughput(days, 1)
    assert measured.days == 2
    assert measured.bytes_per_second == pytest.approx(2_000 / 15, abs=0.1)
    assert measured.days_per_hour == 480
    assert measured.parallel_runs == pytest.approx(20 / 15, abs=0.01)
    assert throughput(days, 2).days == 0, "another attempt's days say nothing of this one"


def test_no_time_of_arrival_is_named_before_two_days_have_ended() -> None:
    waiting = DayStatus(day="2024-01-09", state="waiting")
    assert eta([finished("published"), waiting], 1, NOW) is None
    assert eta([finished("published"), finished("held", after=10), waiting], 1, NOW) is not None


def test_the_time_of_arrival_is_a_range_by_the_spread_of_days_and_the_runs_side_by_side() -> None:
    waiting = [DayStatus(day=f"2024-01-1{n}", state="waiting") for n in range(10)]
    one_by_one = [finished("published", seconds=100), finished("published", seconds=300, after=100)]
    found = eta([*one_by_one, *waiting], 1, NOW)
    assert found is not None
    assert (found.earliest, found.latest) == (NOW + timedelta(seconds=1_000), NOW + timedelta(seconds=3_000))
    together = [finished("published", seconds=300), finished("published", seconds=300)]
    found = eta([*together, *waiting], 1, NOW)
    assert found is not None
    assert found.earliest == found.latest == NOW + timedelta(seconds=1_500)


def test_an_overdue_time_of_arrival_is_made_anew() -> None:
    job, days = made(3)
    days = [finished("published"), finished("published", after=10, day="2024-01-02"), days[2]]
    job = job_after(job, days, ACTIVE, [], NOW)
    assert job.eta is not None
    late = job.eta.earliest + timedelta(seconds=1)
    overdue = job_after(job, days, ACTIVE, [], late)
    assert overdue.eta is not None
    assert overdue.eta.earliest > late
    assert job_after(job, days, ACTIVE, [], job.eta.earliest - timedelta(seconds=1)) is job


def test_ids_of_later_attempts_fit_dagsters_column() -> None:
    assert tracking.backfill_id("abcdefgh", 1) == "abcdefgh"
    assert len(tracking.backfill_id("abcdefgh", 10**6)) <= 32
