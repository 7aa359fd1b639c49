"""A job as a pure function of Dagster's records, the stored days and the clock.

Within an attempt nothing goes back: the first run of a day that ends for good ends the day, even if the day
is run again later; the furthest progress that any of its runs has written counts; and a canceled backfill
takes no run made some seconds later. A day ends when its run has ended *and* the stored day was read; failed
blocking checks outweigh a run that Dagster calls a success. Only a retry starts days again, as the next
attempt.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from backfill_assets.progress.facts import BackfillFact, DayEvents, DayFact, RunFact
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    RETRIED_DAY_STATES,
    UNFINISHED_DAY_STATES,
    DayProgress,
    DayStatus,
    Eta,
    Job,
    JobDayState,
    JobState,
    Links,
    StoredDay,
    Throughput,
)
from backfill_assets.progress.request_tags import attempt_id

#: Days that must have ended before an ETA is given: one day has no spread.
DAYS_FOR_ETA: Final = 2
#: From this many durations on, the range is their quartiles; below it, the shortest and the longest.
DAYS_FOR_QUARTILES: Final = 8
#: The part of a day's percentage for fetching its feeds; candles, checks and publishing are the rest.
_SHARE_OF_FEEDS: Final = 0.7
#: Seconds: the shortest ETA that is given, and how often an overdue one is updated.
_SOON: Final = 30
#: Seconds that Dagster may take to say whether a failed run is started again. The process that writes the
#: failure says so with its next write; if it was killed in between, the daemon does.
_SECONDS_TO_DECIDE: Final = 600
#: Seconds for which Dagster's daemon may still add runs to a backfill that was just canceled. Later runs are
#: not counted; the daemon ends them.
_SECONDS_OF_LATE_RUNS: Final = 5
#: Most percent before the job has ended.
_ALMOST: Final = 99.9
_BAD_DAYS_NAMED: Final = 3
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


# Days


def counted_runs(
    runs: Sequence[RunFact], backfill: BackfillFact, now: datetime
) -> tuple[list[RunFact], bool]:
    """Return the counted ones of a day's runs, oldest first, and whether the last has ended the day."""
    counted = list(runs)
    if backfill.canceled is not None:
        last = backfill.canceled + timedelta(seconds=_SECONDS_OF_LATE_RUNS)
        counted = [run for run in runs if run.created <= last]
    for number, run in enumerate(counted, 1):
        if _is_over(run, backfill, now, is_last=number == len(counted)):
            return counted[:number], True
    return counted, False


def _is_over(run: RunFact, backfill: BackfillFact, now: datetime, *, is_last: bool) -> bool:
    """Whether the run has ended and Dagster has not started the day again and will not."""
    if run.state != "failed":
        return run.state in ("succeeded", "canceled")
    if run.will_retry:
        return is_last and backfill.state != "active"
    if run.will_retry is not None or run.ended is None or backfill.state != "active":
        return True
    return now - run.ended > timedelta(seconds=_SECONDS_TO_DECIDE)


def day_status(found: DayFact) -> DayStatus:
    """Return the status of a day that is run."""
    run, events, progress = found.run, found.events or DayEvents(), found.progress
    if run is None:
        return DayStatus(day=found.day, state=found.state_without_run, attempt=found.backfill.attempt)
    state = _state(run, found.backfill, events, found.stored) if found.over else _at_work(run)
    is_unfinished = state in UNFINISHED_DAY_STATES
    all_fetched = progress is not None and progress.done == progress.total
    return DayStatus(
        day=found.day,
        state=state,
        attempt=found.backfill.attempt,
        run_id=run.run_id,
        started=run.started,
        ended=None if is_unfinished else run.ended,
        rows=progress.rows if progress and all_fetched else None,
        raw_bytes=progress.fetched_bytes if progress and all_fetched else None,
        assets=events.assets,
        failed_checks=events.failed_checks,
        # An earlier lost run may have left one.
        failure=None if run.state == "succeeded" else events.failure,
        stored=None if is_unfinished else found.stored,
        progress=progress if is_unfinished or state == "canceled" else None,
    )


def skipped_day(day: str, stored: StoredDay | None) -> DayStatus:
    """Return the status of a day of the request that is not run because it was already good."""
    return DayStatus(day=day, state=stored.outcome if stored else "waiting", skipped=True, stored=stored)


def _at_work(run: RunFact) -> JobDayState:
    return "running" if run.state == "running" else "queued"


def _state(run: RunFact, backfill: BackfillFact, events: DayEvents, stored: StoredDay | None) -> JobDayState:
    if _was_cut_off(run, backfill):
        return "canceled"
    if stored is None:
        return "running"
    if stored.outcome == "held":
        return "held"
    blocked = any(check.fails_the_day for check in events.failed_checks)
    return "failed" if run.state == "failed" or blocked else stored.outcome


def _was_cut_off(run: RunFact, backfill: BackfillFact) -> bool:
    """Whether the run did not end by itself; a run canceled inside a library's call may end as failed."""
    if run.state != "failed" or backfill.state not in ("canceling", "canceled"):
        return run.state == "canceled"
    return backfill.canceled is None or run.ended is None or run.ended >= backfill.canceled


def state_without_run(backfill: BackfillFact, now: datetime) -> JobDayState:
    """Return the state of the backfill's days without a run."""
    if backfill.state == "canceling" and backfill.canceled is not None:
        # This is known a minute before Dagster's daemon says so.
        is_late = now > backfill.canceled + timedelta(seconds=_SECONDS_OF_LATE_RUNS)
        return "canceled" if is_late else "waiting"
    states: dict[str, JobDayState] = {"canceled": "canceled", "completed": "missing", "failed": "failed"}
    return states.get(backfill.state, "waiting")


# Jobs


def job_of(
    attempts: Sequence[BackfillFact],
    days: Sequence[DayStatus],
    *,
    changed: datetime,
    warnings: Sequence[str] = (),
    dagster_url: str = "",
    now: datetime,
) -> Job:
    """Return the job with these days.

    Parameters
    ----------
    attempts
        The job's backfills, the first one first.
    days
        All days in order, each as in its latest attempt.
    changed
        When the newest of the job's records was written.
    """
    first, latest = attempts[0], attempts[-1]
    state = _job_state(days, latest)
    over = state in FINAL_JOB_STATES
    return Job(
        job_id=first.job_id,
        request=first.request,
        requester=first.requester,
        state=state,
        attempt=latest.attempt,
        revision=int(changed.timestamp() * 1000),
        percent=_percent(days, over=over),
        created=first.created,
        updated=changed,
        finished=_finished_at(days, latest) if over else None,
        total_days=len(days),
        finished_days=sum(d.state not in UNFINISHED_DAY_STATES for d in days),
        skipped_days=sum(d.skipped for d in days),
        days_by_state=dict(sorted(Counter(d.state for d in days).items())),
        throughput=throughput(days, latest.attempt),
        eta=None if over else eta(days, latest.attempt, now),
        failure=_failure(days, latest) if state == "failed" else None,
        warnings=() if over else tuple(warnings),
        running=tuple(d for d in days if d.state == "running"),
        links=links(first.job_id, dagster_url, latest.attempt),
    )


def links(job_id: str, dagster_url: str, attempt: int = 1) -> Links:
    """Return links to more detail."""
    base = "/api/v1/backfill"
    return Links(
        self=f"{base}/status/{job_id}",
        events=f"{base}/{job_id}/events",
        dagster=f"{dagster_url.rstrip('/')}/runs/b/{attempt_id(job_id, attempt)}" if dagster_url else None,
        dagster_run=f"{dagster_url.rstrip('/')}/runs/{{run_id}}" if dagster_url else None,
    )


def changed_at(
    backfill: BackfillFact,
    runs: Collection[RunFact],
    events: Collection[DayEvents],
    progress: Collection[DayProgress],
) -> datetime:
    """Return when the newest of these records was written.

    Dagster's own end of the backfill counts only if it ends the days: it comes up to a minute later.
    """
    by_backfill = backfill.ended if backfill.state == "failed" else None
    return max(
        backfill.created,
        backfill.canceled or _EPOCH,
        by_backfill or _EPOCH,
        *(run.ended or run.started or run.created for run in runs),
        *(found.at for found in events if found.at is not None),
        *(found.written for found in progress if found.written is not None),
    )


def throughput(days: Sequence[DayStatus], attempt: int) -> Throughput:
    """Measure from the start of the first to the end of the last day that ran to its end in this attempt."""
    measured = _measured(days, attempt)
    if not measured:
        return Throughput(days=0)
    starts, ends = [start for start, _, _ in measured], [end for _, end, _ in measured]
    seconds = (max(ends) - min(starts)).total_seconds()
    busy = sum((end - start).total_seconds() for start, end, _ in measured)
    if seconds <= 0:
        return Throughput(days=len(measured))
    return Throughput(
        days=len(measured),
        bytes_per_second=round(sum(size for _, _, size in measured) / seconds, 1),
        days_per_hour=round(len(measured) * 3600 / seconds, 2),
        parallel_runs=round(max(1.0, busy / seconds), 2),
    )


def eta(days: Sequence[DayStatus], attempt: int, now: datetime) -> Eta | None:
    """Return when all days will have ended, if the rest take as long as the ended ones; None before two have.

    The ETA is updated when a day ends, not with every look at the clock; once overdue, every half minute.
    """
    ends = [end for _, end, _ in _measured(days, attempt)]
    if len(ends) < DAYS_FOR_ETA:
        return None
    made = _eta(days, attempt, max(ends))
    if made is None or made.earliest > now:
        return made
    return _eta(days, attempt, datetime.fromtimestamp(now.timestamp() // _SOON * _SOON, UTC))


def _eta(days: Sequence[DayStatus], attempt: int, at: datetime) -> Eta | None:
    """Return the ETA as seen at a time.

    The range is that of the days' durations, divided by the average number of parallel runs, minus the time
    that running days have already spent.
    """
    durations = sorted((end - start).total_seconds() for start, end, _ in _measured(days, attempt))
    left = [d for d in days if d.state in UNFINISHED_DAY_STATES]
    parallel = throughput(days, attempt).parallel_runs
    if not left or parallel is None:
        return None
    if len(durations) >= DAYS_FOR_QUARTILES:
        short, _, long = statistics.quantiles(durations, n=4)
    else:
        short, long = durations[0], durations[-1]
    at_work = [(at - d.started).total_seconds() for d in left if d.state == "running" and d.started]
    side_by_side = max(1.0, min(parallel, len(left)))

    def seconds(duration: float) -> float:
        done = sum(min(max(0.0, spent), duration) for spent in at_work)
        return max(0.0, duration * len(left) - done) / side_by_side

    # Days that take longer than all before have no known end; "soon" is the best estimate.
    earliest, latest = (at + timedelta(seconds=max(_SOON, round(seconds(d)))) for d in (short, long))
    return Eta(earliest=earliest, latest=latest)


def _measured(days: Sequence[DayStatus], attempt: int) -> list[tuple[datetime, datetime, int]]:
    return [
        (d.started, d.ended, d.raw_bytes or 0)
        for d in days
        if d.attempt == attempt
        and d.state not in UNFINISHED_DAY_STATES | {"canceled"}
        and d.started is not None
        and d.ended is not None
    ]


def _job_state(days: Sequence[DayStatus], latest: BackfillFact) -> JobState:
    states = {d.state for d in days}
    if not states & UNFINISHED_DAY_STATES:
        if "canceled" in states:
            return "canceled"
        return "failed" if latest.state == "failed" or states & RETRIED_DAY_STATES else "succeeded"
    if latest.state in ("canceling", "canceled"):
        return "canceling"
    begun = any(d.state != "waiting" for d in days if d.attempt == latest.attempt and not d.skipped)
    return "running" if begun else "queued"


def _finished_at(days: Sequence[DayStatus], latest: BackfillFact) -> datetime:
    of_attempt = [d for d in days if d.attempt == latest.attempt and not d.skipped]
    times = [d.ended for d in of_attempt if d.ended is not None] or [latest.created]
    if latest.canceled is not None:
        times.append(latest.canceled)
    if latest.ended is not None and any(d.run_id is None for d in of_attempt):
        times.append(latest.ended)
    return max(times)


def _failure(days: Sequence[DayStatus], latest: BackfillFact) -> str:
    bad = bad_days(days)
    named = [
        f"{d.day} {d.state}{f' (check {d.failing_check})' if d.failing_check else ''}"
        for d in bad[:_BAD_DAYS_NAMED]
    ]
    more = [f"and {len(bad) - _BAD_DAYS_NAMED} more"] if len(bad) > _BAD_DAYS_NAMED else []
    parts = [f"{len(bad)} of {len(days)} days: {', '.join([*named, *more])}"] if bad else []
    return "; ".join([*([f"Dagster: {latest.error}"] if latest.error else []), *parts])


def bad_days(days: Sequence[DayStatus]) -> list[DayStatus]:
    """Return the days that make a job fail."""
    return [d for d in days if d.state in RETRIED_DAY_STATES]


def retried_days(days: Sequence[DayStatus]) -> list[DayStatus]:
    """Return the days that a retry runs again: bad ones, and those without a file the vendor may now have."""
    return [d for d in days if d.state in RETRIED_DAY_STATES or (d.state == "degraded" and _lacks_a_file(d))]


def _lacks_a_file(day: DayStatus) -> bool:
    return day.stored is not None and day.stored.verdicts.get("missing", 0) > 0


def _percent(days: Sequence[DayStatus], *, over: bool) -> float:
    run = [d for d in days if not d.skipped]
    percent = 100 * sum(_share(day) for day in run) / max(1, len(run)) if run else 100.0
    return round(percent if over else min(_ALMOST, percent), 2)


def _share(day: DayStatus) -> float:
    """Return the finished part of the day's work: all, unless the day was canceled or has not ended."""
    if day.state not in UNFINISHED_DAY_STATES | {"canceled"}:
        return 1.0
    return _SHARE_OF_FEEDS * day.progress.share if day.progress else 0.0
