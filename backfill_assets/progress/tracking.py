"""A job's progress as a pure function of what was stored and what was read, without clock or Dagster.

What has ended within an attempt stays ended, and the percentage never goes back; only a retry starts days
again, under the next attempt's number. A day ends when its run has ended *and* lake and warehouse were asked
what came of it; failed blocking checks outweigh a run that Dagster calls a success.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from backfill_assets.progress.facts import BackfillFact, DayEvents, RunFact
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    RETRIED_DAY_STATES,
    UNFINISHED_DAY_STATES,
    BackfillRequest,
    DayProgress,
    DayState,
    DayStatus,
    DayTruth,
    Eta,
    Job,
    JobState,
    Links,
    Throughput,
)

#: Days that have ended before a time of arrival is named: one day has no spread.
DAYS_FOR_ETA: Final = 2
#: From this many durations on their quartiles are the range, below it the shortest and the longest.
DAYS_FOR_QUARTILES: Final = 8
#: The part of a day's percentage that its feeds make up while they are fetched; candles, checks and
#: publishing are the rest.
_SHARE_OF_FEEDS: Final = 0.7
#: Seconds; the shortest time of arrival that is named.
_SOON: Final = 30
#: Until the job has ended, however near the end it is.
_ALMOST: Final = 99.9
_BAD_DAYS_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class DayFacts:
    """What was read of one day since it was last stored; ``truth`` is None until its run has ended."""

    run: RunFact | None = None
    events: DayEvents | None = None
    truth: DayTruth | None = None
    live: DayProgress | None = None


def new_job(
    job_id: str,
    request: BackfillRequest,
    requester: str,
    days: Sequence[str],
    now: datetime,
    good: Mapping[str, DayTruth] | None = None,
) -> tuple[Job, list[DayStatus]]:
    """A job that was just asked for; the days in ``good`` are not run, and without others it has ended."""
    known = good or {}
    statuses = [
        DayStatus(day=day, state=known[day].outcome, skipped=True, truth=known[day])
        if day in known
        else DayStatus(day=day, state="waiting")
        for day in days
    ]
    over = len(known) == len(days)
    job = Job(
        job_id=job_id,
        request=request,
        requester=requester,
        state="succeeded" if over else "queued",
        revision=1,
        percent=100 if over else 0,
        created=now,
        updated=now,
        finished=now if over else None,
        total_days=len(days),
        finished_days=len(known),
        skipped_days=len(known),
        days_by_state=_by_state(statuses),
        throughput=Throughput(days=0),
        links=links(job_id, ""),
    )
    return job, statuses


def links(job_id: str, dagster_url: str, attempt: int = 1) -> Links:
    """Where to look further."""
    base = "/api/v1/backfill"
    return Links(
        self=f"{base}/status/{job_id}",
        events=f"{base}/{job_id}/events",
        dagster=f"{dagster_url.rstrip('/')}/runs/b/{backfill_id(job_id, attempt)}" if dagster_url else None,
        dagster_run=f"{dagster_url.rstrip('/')}/runs/{{run_id}}" if dagster_url else None,
    )


def backfill_id(job_id: str, attempt: int) -> str:
    """The id of Dagster's backfill of that attempt: the job's own for the first."""
    return job_id if attempt == 1 else f"{job_id}-{attempt}"


def retried(job: Job, days: Sequence[DayStatus], now: datetime) -> tuple[Job, list[DayStatus]]:
    """The job's next attempt: its failed, held, missing and cancelled days start again."""
    attempt = job.attempt + 1
    again = [
        DayStatus(day=d.day, state="waiting", attempt=attempt) if d.state in RETRIED_DAY_STATES else d
        for d in days
    ]
    finished = _finished(again)
    changed = job.model_copy(
        update={
            "state": "queued",
            "attempt": attempt,
            "percent": _percent(again),
            "updated": now,
            "finished": None,
            "finished_days": finished,
            "skipped_days": sum(d.skipped for d in again),
            "days_by_state": _by_state(again),
            "throughput": Throughput(days=0),
            "eta": None,
            "failure": None,
            "running": (),
        }
    )
    return changed, again


def day_after(day: DayStatus, facts: DayFacts, backfill: BackfillFact) -> DayStatus:
    """The day after what was read of it."""
    if day.state not in UNFINISHED_DAY_STATES:
        # Its neighbours may have sealed it, or changed its verdict.
        return day if facts.truth is None else _ended(day, facts.truth)
    run = facts.run
    if run is None:
        return _never_run(day, backfill)
    update: dict[str, object] = {"run_id": run.run_id, "started": run.started}
    if facts.events is not None:
        update |= {
            "assets": facts.events.assets,
            "failed_checks": facts.events.failed_checks,
            "failure": facts.events.failure,
            "rows": facts.events.rows,
            "raw_bytes": facts.events.raw_bytes,
        }
    day = day.model_copy(update=update)
    if is_over(run, backfill):
        if _was_cut_off(run, backfill):
            return day.model_copy(
                update={"state": "canceled", "ended": run.ended, "truth": facts.truth, "progress": None}
            )
        if facts.truth is not None:
            return _ended(
                day.model_copy(update={"ended": run.ended}), facts.truth, failed=run.state == "failed"
            )
        return day.model_copy(update={"state": "running"})
    state = "running" if run.state == "running" else "queued"
    return day.model_copy(update={"state": state, "progress": facts.live or day.progress})


def is_over(run: RunFact, backfill: BackfillFact) -> bool:
    """Whether the run has ended and Dagster will not start it again."""
    ended = run.state in ("succeeded", "failed", "canceled")
    return ended and not (run.state == "failed" and run.will_retry and backfill.state == "active")


def _was_cut_off(run: RunFact, backfill: BackfillFact) -> bool:
    """Whether the run did not end by itself; one that is cancelled in a library's call may end as failed."""
    canceling = backfill.state in ("canceling", "canceled")
    return run.state == "canceled" or (run.state == "failed" and canceling)


def job_after(
    job: Job, days: Sequence[DayStatus], backfill: BackfillFact, warnings: Sequence[str], now: datetime
) -> Job:
    """The job with these days; the same object if nothing has changed."""
    finished = _finished(days)
    state = _job_state(job.state, days, backfill)
    over = state in FINAL_JOB_STATES
    progressed = finished != job.finished_days
    speed = throughput(days, job.attempt) if progressed else job.throughput
    changed = job.model_copy(
        update={
            "state": state,
            "percent": 100.0 if over else max(job.percent, _percent(days)),
            "finished": now if over else None,
            "finished_days": finished,
            "days_by_state": _by_state(days),
            "throughput": speed,
            "eta": None if over else _eta(job, days, now, progressed=progressed),
            "failure": _failure(days, backfill) if state == "failed" else None,
            "warnings": () if over else tuple(warnings),
            "running": tuple(d for d in days if d.state == "running"),
        }
    )
    return job if changed == job else changed.model_copy(update={"updated": now})


def throughput(days: Sequence[DayStatus], attempt: int) -> Throughput:
    """Measured from the start of the first to the end of the last day that ran to its end in this attempt."""
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
    """When all days will have ended, were the others as long as those that have; None before two have.

    The range is that of the days' durations, over as many runs side by side as were seen on average; what the
    running days have done is taken off.
    """
    durations = sorted((end - start).total_seconds() for start, end, _ in _measured(days, attempt))
    left = [d for d in days if d.state in UNFINISHED_DAY_STATES]
    parallel = throughput(days, attempt).parallel_runs
    if len(durations) < DAYS_FOR_ETA or not left or parallel is None:
        return None
    if len(durations) >= DAYS_FOR_QUARTILES:
        short, _, long = statistics.quantiles(durations, n=4)
    else:
        short, long = durations[0], durations[-1]
    at_work = [(now - d.started).total_seconds() for d in left if d.state == "running" and d.started]
    side_by_side = max(1.0, min(parallel, len(left)))

    def seconds(duration: float) -> float:
        done = sum(min(spent, duration) for spent in at_work)
        return max(0.0, duration * len(left) - done) / side_by_side

    # Days that take longer than any before have no end in sight; soon is all that can be said.
    earliest, latest = (now + timedelta(seconds=max(_SOON, round(seconds(d)))) for d in (short, long))
    return Eta(earliest=earliest, latest=latest)


def _eta(job: Job, days: Sequence[DayStatus], now: datetime, *, progressed: bool) -> Eta | None:
    """Made anew when a day has ended or its time has come, and not with every look at the clock."""
    if progressed or (job.eta is not None and job.eta.earliest <= now):
        return eta(days, job.attempt, now)
    return job.eta


def _measured(days: Sequence[DayStatus], attempt: int) -> list[tuple[datetime, datetime, int]]:
    return [
        (d.started, d.ended, d.raw_bytes or 0)
        for d in days
        if d.attempt == attempt
        and d.state not in UNFINISHED_DAY_STATES | {"canceled"}
        and d.started is not None
        and d.ended is not None
    ]


def _never_run(day: DayStatus, backfill: BackfillFact) -> DayStatus:
    # While it is cancelling Dagster starts nothing more, and ends what was on its way.
    states: dict[str, DayState] = {
        "canceling": "canceled",
        "canceled": "canceled",
        "completed": "missing",
        "failed": "failed",
    }
    state = states.get(backfill.state)
    return day if state is None else day.model_copy(update={"state": state})


def _ended(day: DayStatus, truth: DayTruth, *, failed: bool | None = None) -> DayStatus:
    """The day with what came of it; ``failed`` says how its run ended, None that this was stored before."""
    if day.state == "canceled":
        return day.model_copy(update={"truth": truth})
    run_failed = day.state == "failed" if failed is None else failed
    blocked = any(check.blocking and check.severity == "ERROR" for check in day.failed_checks)
    if truth.outcome == "held":
        state: DayState = "held"
    elif run_failed or blocked:
        state = "failed"
    else:
        state = truth.outcome
    return day.model_copy(update={"state": state, "truth": truth, "progress": None})


def _job_state(before: JobState, days: Sequence[DayStatus], backfill: BackfillFact) -> JobState:
    states = {d.state for d in days}
    if not states & UNFINISHED_DAY_STATES:
        if "canceled" in states:
            return "canceled"
        return "failed" if backfill.state == "failed" or states & RETRIED_DAY_STATES else "succeeded"
    if before == "canceling" or backfill.state == "canceling":
        return "canceling"
    started = before == "running" or states - {"waiting"}
    return "running" if started and backfill.state != "absent" else "queued"


def _failure(days: Sequence[DayStatus], backfill: BackfillFact) -> str:
    bad = [d for d in days if d.state in RETRIED_DAY_STATES]
    named = [f"{d.day} {_why(d)}" for d in bad[:_BAD_DAYS_NAMED]]
    more = [f"and {len(bad) - _BAD_DAYS_NAMED} more"] if len(bad) > _BAD_DAYS_NAMED else []
    parts = [f"{len(bad)} of {len(days)} days: {', '.join([*named, *more])}"] if bad else []
    return "; ".join([*([f"Dagster: {backfill.error}"] if backfill.error else []), *parts])


def _why(day: DayStatus) -> str:
    blocking = [c.check for c in day.failed_checks if c.blocking and c.severity == "ERROR"]
    return f"{day.state} (check {blocking[0]})" if blocking else day.state


def _finished(days: Collection[DayStatus]) -> int:
    return sum(d.state not in UNFINISHED_DAY_STATES for d in days)


def _by_state(days: Collection[DayStatus]) -> dict[str, int]:
    return dict(sorted(Counter(d.state for d in days).items()))


def _percent(days: Sequence[DayStatus]) -> float:
    run = [d for d in days if not d.skipped]
    parts = _finished(run) + sum(
        _SHARE_OF_FEEDS * d.progress.done / d.progress.total
        for d in run
        if d.state == "running" and d.progress is not None and d.progress.total
    )
    return round(min(_ALMOST, 100 * parts / len(run)), 2)
