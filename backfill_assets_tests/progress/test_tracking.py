"""A job's progress from records: it never goes back within an attempt, shows bad days, and has true times."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backfill_assets.automation.backfills import new_backfill_id
from backfill_assets.progress.facts import BackfillFact, BackfillState, DayEvents, DayFact, RunFact, RunState
from backfill_assets.progress.model import (
    BackfillRequest,
    DayProgress,
    DayStatus,
    FailedCheck,
    Job,
    StoredDay,
)
from backfill_assets.progress.request_tags import attempt_id
from backfill_assets.progress.tracking import (
    counted_runs,
    day_status,
    eta,
    job_of,
    skipped_day,
    state_without_run,
    throughput,
)
from backfill_assets.quality.scores import DayState

NOW = datetime(2024, 2, 10, 12, tzinfo=UTC)
DAY = "2024-01-01"
PUBLISHED = StoredDay(outcome="published")


def backfill(state: BackfillState = "active", attempt: int = 1, **more: object) -> BackfillFact:
    request = BackfillRequest(start=NOW.date(), end=NOW.date())
    facts = {"request": request, "requester": "me", "days": (), "skipped": (), "assets": (), "created": NOW}
    return BackfillFact(attempt_id("job", attempt), "job", attempt, state, **{**facts, **more})  # type: ignore[arg-type]


ACTIVE, COMPLETED, CANCELED = backfill(), backfill("completed"), backfill("canceled")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def run(state: RunState, *, will_retry: bool | None = False, name: str = "run", at: float = 0) -> RunFact:
    """A run created and started at the same time, and ended ten seconds later."""
    return RunFact(name, DAY, state, will_retry, after(at), after(at), after(at), after(at + 10))


def decided(runs: list[RunFact], of: BackfillFact = ACTIVE, now: datetime = NOW) -> tuple[str | None, bool]:
    counted, over = counted_runs(runs, of, now)
    return (counted[-1].run_id if counted else None), over


def status_of(of: BackfillFact, latest: RunFact, *, over: bool = False, **more: object) -> DayStatus:
    return day_status(DayFact(DAY, of, [latest], over, **more))  # type: ignore[arg-type]


def waiting(count: int) -> list[DayStatus]:
    return [DayStatus(day=f"2024-01-{day:02d}", state="waiting") for day in range(1, count + 1)]


def job(days: list[DayStatus], *attempts: BackfillFact, now: datetime = NOW, **more: object) -> Job:
    return job_of(attempts or (ACTIVE,), days, now=now, **{"changed": NOW, **more})  # type: ignore[arg-type]


def check(*, blocking: bool, severity: str = "ERROR") -> DayEvents:
    return DayEvents(failed_checks=(FailedCheck(check="ticks:sane", severity=severity, blocking=blocking),))  # type: ignore[arg-type]


def ended(run_state: RunState, outcome: DayState, events: DayEvents | None = None) -> str:
    stored = StoredDay(outcome=outcome)
    return status_of(ACTIVE, run(run_state), over=True, stored=stored, events=events).state


def live(done: int) -> DayProgress:
    return DayProgress(done=done, total=10, rows=7, raw_bytes=9, fetched_bytes=8, states={})


@pytest.mark.parametrize("outcome", ["published", "degraded", "missing", "held"])
def test_a_day_whose_run_succeeded_is_what_lake_and_warehouse_say(outcome: DayState) -> None:
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
    day = status_of(ACTIVE, run("succeeded"), over=True)
    assert (day.state, day.ended) == ("running", None)


def test_rows_and_bytes_of_a_day_are_told_when_all_its_feeds_are_done() -> None:
    told = [status_of(ACTIVE, run("running"), progress=live(done)) for done in (9, 10)]
    assert [(day.rows, day.raw_bytes) for day in told] == [(None, None), (7, 8)]
    over = status_of(ACTIVE, run("succeeded"), over=True, stored=PUBLISHED, progress=live(10))
    assert (over.rows, over.raw_bytes, over.progress) == (7, 8, None)


def test_the_percentage_is_of_the_days_that_are_run() -> None:
    good = [skipped_day("2024-01-01", PUBLISHED), skipped_day("2024-01-02", StoredDay(outcome="degraded"))]
    days = [*good, *waiting(4)[2:]]
    assert (job(days).percent, job(days).finished_days, job(days).skipped_days) == (0, 2, 2)
    days[2] = days[2].model_copy(update={"state": "published"})
    assert (job(days).percent, job(days).finished_days) == (50, 3)


def test_a_cancelled_job_is_as_far_as_its_days_came() -> None:
    days = [day.model_copy(update={"state": "canceled"}) for day in waiting(4)]
    assert (job(days, CANCELED).state, job(days, CANCELED).percent) == ("canceled", 0)
    days[0] = days[0].model_copy(update={"state": "published"})
    days[1] = status_of(CANCELED, run("canceled"), over=True, stored=PUBLISHED, progress=live(5))
    assert (days[1].state, job(days, CANCELED).percent) == ("canceled", (1 + 0.7 * 0.5) / 4 * 100)


def test_a_run_that_dagster_will_start_again_has_not_failed_yet() -> None:
    lost, again = run("failed", will_retry=True), run("running", name="again", at=20)
    assert decided([lost]) == ("run", False)
    assert status_of(ACTIVE, lost).state == "queued"
    assert decided([lost, again]) == ("again", False)
    assert decided([lost], COMPLETED) == ("run", True)
    done = run("succeeded", name="again", at=20)
    assert decided([lost, done], COMPLETED) == ("again", True), "it was started again"


def test_a_run_has_not_failed_while_dagster_may_still_say_that_it_is_started_again() -> None:
    failed = run("failed", will_retry=None)
    for seconds in (11, 60, 300):
        assert decided([failed], now=after(seconds)) == ("run", False)
        assert status_of(ACTIVE, failed).state == "queued"
    late, again = run("failed", will_retry=True), run("running", name="again", at=300)
    assert decided([late, again], now=after(310)) == ("again", False), "the word came late"
    assert decided([failed], now=after(3600)) == ("run", True), "the word will not come"
    assert decided([failed], COMPLETED, after(11)) == ("run", True)


def test_a_day_that_has_ended_stays_so_whoever_runs_it_again() -> None:
    failed, again = run("failed"), run("running", name="again", at=20)
    assert decided([failed, again]) == ("run", True)
    assert decided([failed, run("succeeded", name="again", at=20)]) == ("run", True)


@pytest.mark.parametrize("outcome", ["published", "held"])
def test_a_run_that_fails_while_its_backfill_is_cancelled_was_cut_off(outcome: DayState) -> None:
    stored = StoredDay(outcome=outcome)
    for of in (backfill("canceling"), CANCELED, backfill("canceled", canceled=after(5))):
        assert status_of(of, run("failed"), over=True, stored=stored).state == "canceled"
    before = status_of(backfill("canceled", canceled=after(15)), run("failed"), over=True, stored=stored)
    assert before.state in ("failed", "held"), "it had failed before"
    assert status_of(CANCELED, run("succeeded"), over=True, stored=PUBLISHED).state == "published"


def test_a_run_that_is_made_after_the_cancellation_does_not_bring_the_day_back() -> None:
    canceling = backfill("canceling", canceled=NOW)
    assert state_without_run(canceling, after(60)) == "canceled"
    assert decided([run("running", at=20)], canceling, after(60)) == (None, False)
    assert state_without_run(canceling, after(1)) == "waiting", "Dagster may be adding runs just now"
    assert decided([run("running", at=1)], canceling, after(60)) == ("run", False)


@pytest.mark.parametrize(
    ("state", "day"),
    [
        ("active", "waiting"),
        ("canceling", "waiting"),
        ("canceled", "canceled"),
        ("completed", "missing"),
        ("failed", "failed"),
    ],
)
def test_a_day_without_run_is_what_becomes_of_its_backfill(state: BackfillState, day: str) -> None:
    assert state_without_run(backfill(state), NOW) == day


def finished(state: str, *, seconds: int = 10, at: int = 0, day: str = DAY) -> DayStatus:
    start = after(at)
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
    days = [day.model_copy(update={"state": s}) for day, s in zip(waiting(2), states, strict=True)]
    assert job(days).state == job_state


def test_a_failed_job_says_which_days_and_why() -> None:
    blocked = check(blocking=True).failed_checks
    days = [day.model_copy(update={"state": "failed", "failed_checks": blocked}) for day in waiting(5)]
    assert job(days, COMPLETED).failure == (
        "5 of 5 days: 2024-01-01 failed (check ticks:sane), 2024-01-02 failed (check ticks:sane), "
        "2024-01-03 failed (check ticks:sane), and 2 more"
    )
    broken = job(days[:1], backfill("failed", error="no such asset"))
    assert broken.failure is not None
    assert broken.failure.startswith("Dagster: no such asset; 1 of 1 days")


def test_the_clock_alone_changes_nothing() -> None:
    assert job(waiting(2), now=after(3600)) == job(waiting(2))
    assert job(waiting(2), warnings=["no daemon"]).warnings == ("no daemon",)


def test_progress_never_goes_back_within_an_attempt_whatever_is_recorded() -> None:
    """Days are run, lost, started again, canceled, and run once more by a person, in any order."""
    for seed in range(200):
        chance = random.Random(seed)
        of, now = ACTIVE, NOW
        runs: dict[str, list[RunFact]] = {day.day: [] for day in waiting(4)}
        furthest = dict.fromkeys(runs, 0)
        percent, done = 0.0, 0
        while True:
            now += timedelta(seconds=chance.randrange(1, 30))
            _happen(chance, runs[chance.choice(list(runs))], of, now)
            if chance.random() < 0.02 and of is ACTIVE:
                of = backfill("canceling", canceled=now)
            days = []
            for day, its_runs in runs.items():
                counted, over = counted_runs(its_runs, of, now)
                furthest[day] = min(10, furthest[day] + chance.randrange(3))
                without_run, progress = state_without_run(of, now), live(furthest[day])
                fact = DayFact(day, of, counted, over, without_run, PUBLISHED, progress=progress)
                days.append(day_status(fact))
            seen = job(days, of, now=now)
            assert seen.percent >= percent, seed
            assert seen.finished_days >= done, seed
            is_whole = all(day.state != "canceled" for day in days)
            assert (seen.percent == 100) == (seen.finished_days == 4 and is_whole)
            percent, done = seen.percent, seen.finished_days
            if done == 4:
                break


def _happen(chance: random.Random, runs: list[RunFact], of: BackfillFact, now: datetime) -> None:
    """Change a day: its latest run moves on, or another run is made."""
    latest = runs[-1] if runs else None
    if latest is None or latest.state not in ("queued", "running"):
        is_due = latest is None or latest.will_retry or chance.random() < 0.2
        if is_due and not (of is not ACTIVE and chance.random() < 0.7):
            runs.append(RunFact(f"{len(runs)}", DAY, "queued", None, now, now, None, None))
    elif latest.state == "queued" and chance.random() < 0.8:
        runs[-1] = replace(latest, state="running", started=now)
    else:
        end: RunState = chance.choice(["succeeded", "failed", "failed", "canceled"])
        will_retry = chance.choice([True, False]) if end == "failed" else None
        runs[-1] = replace(latest, state=end, will_retry=will_retry, ended=now)


def test_a_retry_starts_the_bad_days_again_and_keeps_the_good_ones() -> None:
    states = ["published", "held", "failed", "degraded"]
    days = [day.model_copy(update={"state": s}) for day, s in zip(waiting(4), states, strict=True)]
    assert job(days, COMPLETED).state == "failed"
    second = backfill(attempt=2)
    days[1:3] = [DayStatus(day=day.day, state="waiting", attempt=2) for day in days[1:3]]
    again = job(days, COMPLETED, second)
    assert (again.state, again.attempt, again.percent, again.finished_days) == ("queued", 2, 50.0, 2)
    assert (again.job_id, again.failure, again.finished) == ("job", None, None)


def test_a_failed_day_does_not_turn_good_by_what_its_neighbour_does() -> None:
    sealed = StoredDay(outcome="published", sealed=True)
    assert status_of(ACTIVE, run("failed"), over=True, stored=sealed).state == "failed"


def test_throughput_is_over_the_time_from_first_start_to_last_end() -> None:
    days = [finished("published"), finished("published", at=5), finished("canceled", seconds=900)]
    measured = throughput(days, 1)
    assert measured.days == 2
    assert measured.bytes_per_second == pytest.approx(2_000 / 15, abs=0.1)
    assert measured.days_per_hour == 480
    assert measured.parallel_runs == pytest.approx(20 / 15, abs=0.01)
    assert throughput(days, 2).days == 0, "another attempt's days say nothing of this one"


def test_no_time_of_arrival_is_named_before_two_days_have_ended() -> None:
    left = DayStatus(day="2024-01-09", state="waiting")
    assert eta([finished("published"), left], 1, NOW) is None
    assert eta([finished("published"), finished("held", at=10), left], 1, NOW) is not None


def test_the_time_of_arrival_is_a_range_by_the_spread_of_days_and_the_runs_side_by_side() -> None:
    left = [DayStatus(day=f"2024-01-1{n}", state="waiting") for n in range(10)]
    one_by_one = [finished("published", seconds=100), finished("published", seconds=300, at=100)]
    found = eta([*one_by_one, *left], 1, NOW)
    assert found is not None
    assert (found.earliest, found.latest) == (after(400 + 1_000), after(400 + 3_000))
    together = [finished("published", seconds=300), finished("published", seconds=300)]
    found = eta([*together, *left], 1, NOW)
    assert found is not None
    assert found.earliest == found.latest == after(300 + 1_500)


def test_an_overdue_time_of_arrival_is_made_anew_every_half_minute() -> None:
    days = [finished("published"), finished("published", at=10, day="2024-01-02"), waiting(3)[2]]
    made = eta(days, 1, NOW)
    assert made is not None
    assert eta(days, 1, made.earliest - timedelta(seconds=1)) == made
    late = made.earliest + timedelta(seconds=1)
    overdue = eta(days, 1, late)
    assert overdue is not None
    assert overdue.earliest > late
    assert eta(days, 1, late + timedelta(seconds=5)) == overdue


def test_ids_of_later_attempts_fit_dagsters_column() -> None:
    assert attempt_id("abcdefgh", 1) == "abcdefgh"
    longest = new_backfill_id("x" * 100)
    assert len(attempt_id(longest, 10**6)) <= 32
