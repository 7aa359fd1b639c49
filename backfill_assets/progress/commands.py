"""The commands ``backfill``, ``status``, ``recent``, ``cancel`` and ``retry``: the service as text.

They call the same service as the API, in their own process, over the instance in ``DAGSTER_HOME``. They need
no server, only the daemon that runs the days. Text from outside (reasons, names, messages) goes through
``printable``, and nothing is treated as markup.
"""

from __future__ import annotations

import getpass
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from backfill_assets.alerts.incidents import Incidents
from backfill_assets.days import utc_now
from backfill_assets.failures import TransientFailure, printable
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    RETRIED_DAY_STATES,
    UNFINISHED_DAY_STATES,
    DayStatus,
    Job,
    JobStatus,
)
from backfill_assets.progress.page.view import JOB_STATES, STATES, days_words, eta_words
from backfill_assets.progress.service import Backfills
from backfill_assets.readable_numbers import bytes_text, plural

#: Exit codes of ``--wait``; click uses 2 for a wrong call, and shells use 130 for an interrupt.
EXIT_CODES: Final = {"succeeded": 0, "failed": 1, "canceled": 3}
INTERRUPTED: Final = 130
#: Most days that the status lists one by one.
_DAYS_TOLD: Final = 20
#: Seconds between two looks at a job while the database or the lake does not answer.
_SECONDS_OF_OUTAGE: Final = 5.0

Say = Callable[[str], None]


def requester() -> str:
    """Return the requester's name for the job's record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        user = "unknown"
    return f"{user}@{platform.node()}"


def started(job: Job, *, is_new: bool) -> str:
    """Return the line that confirms a new job, or names the job that the request already made."""
    skipped = f", {job.skipped_days} of them good already" if job.skipped_days else ""
    days = f"{_range(job)}, {plural(job.total_days, 'day')}{skipped}"
    if not is_new:
        return f"{job.job_id}: {days}; made before by this request_id, now {job.state}"
    return f"{job.job_id}: {days}"


def wait(service: Backfills, job_id: str, say: Say, console: Console) -> int:
    """Watch the job until it has ended; return the exit code.

    It shows a bar on a terminal, and elsewhere a line per ended day. An interrupt ends only the watching.
    """
    with _interrupt() as interrupted:
        job = _watch(service, job_id, say, console, interrupted)
    if job is None:
        say(
            f"{job_id} goes on without this command: backfill-assets status {job_id} watches it, "
            f"backfill-assets cancel {job_id} stops it"
        )
        return INTERRUPTED
    say(_outcome(job))
    return EXIT_CODES[job.state]


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets.

    An interrupt raised inside a library, for example in a finalizer, may get lost; a second Ctrl-C raises.
    """
    interrupted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            signal.default_int_handler(number, frame)
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(
    service: Backfills, job_id: str, say: Say, console: Console, interrupted: threading.Event
) -> JobStatus | None:
    """Return the job after its end; None if an interrupt ended the watching before."""
    told: set[str] = set()
    warned: set[str] = set()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(job_id, total=100, words="")
        show = bar.console.print if console.is_terminal else say
        while not interrupted.is_set():
            try:
                job = service.status(job_id)
            except TransientFailure as failure:
                if str(failure) not in warned:
                    warned.add(str(failure))
                    show(f"! {failure}")
                interrupted.wait(_SECONDS_OF_OUTAGE)
                continue
            for day in job.days:
                is_new = day.day not in told and day.attempt == job.attempt and not day.skipped
                if is_new and day.state not in UNFINISHED_DAY_STATES:
                    told.add(day.day)
                    show(f"{day.day} {STATES[day.state][0]} {day.state}{_why(day)}")
            for warning in set(job.warnings) - warned:
                warned.add(warning)
                show(f"! {printable(warning)}")
            _show(bar, task, job)
            if job.state in FINAL_JOB_STATES:
                return job
            interrupted.wait(service.settings.serve.refresh_seconds)
    return None


def _show(bar: Progress, task: TaskID, job: Job) -> None:
    words = f"{job.finished_days}/{plural(job.total_days, 'day')}"
    eta = eta_words(job, utc_now()) if job.eta else ""
    bar.update(task, completed=job.percent, words=f"{words} {eta}".strip())


def _why(day: DayStatus) -> str:
    if day.state == "published":
        return ""
    check = f"check {day.failing_check}" if day.failing_check else None
    reasons = (check, day.failure, *(day.stored.reasons if day.stored else ()))
    return next((f": {printable(reason)}" for reason in reasons if reason), "")


def _outcome(job: Job) -> str:
    why = f": {printable(job.failure)}" if job.failure else f": {days_words(job.days_by_state)}"
    hint = f"; backfill-assets retry {job.job_id} runs them again" if job.state == "failed" else ""
    return f"{job.job_id} {job.state}{why}{hint}"


def status_text(job: JobStatus) -> str:
    """Return the job as readable text."""
    lines = [f"{job.job_id}  {_range(job)}  {JOB_STATES[job.state]} {job.state}, {job.percent:g} %"]
    if job.attempt > 1:
        lines[0] += f", attempt {job.attempt}"
    lines.append(f"  days     {days_words(job.days_by_state)}")
    if left := eta_words(job, utc_now()):
        lines.append(f"  left     {left.removeprefix('time left: ').removesuffix(' left')}")
    if job.throughput.days_per_hour:
        speed = f"  speed    {job.throughput.days_per_hour:.3g} days an hour"
        rate = job.throughput.bytes_per_second
        lines.append(speed + (f", {bytes_text(rate)}/s" if rate else ""))
    by = f" by {printable(job.requester)}" if job.requester else ""
    lines.append(f"  started  {job.created:%Y-%m-%d %H:%M} UTC{by}")
    if job.request.reason:
        lines.append(f"  reason   {printable(job.request.reason)}")
    warnings = (*([job.failure] if job.failure else []), *job.warnings)
    lines += [f"  !        {printable(text)}" for text in warnings]
    for day in job.running:
        done = f"{day.progress.done} of {plural(day.progress.total, 'feed')}" if day.progress else "starting"
        lines.append(f"  {day.day} {STATES['running'][0]} running: {done}")
    bad = [day for day in job.days if day.state in RETRIED_DAY_STATES | {"degraded"}]
    for day in bad[:_DAYS_TOLD]:
        lines.append(f"  {day.day} {STATES[day.state][0]} {day.state}{_why(day)}")
        lines += (
            [f"    try first: {printable(day.stored.command)}"] if day.stored and day.stored.command else []
        )
    if len(bad) > _DAYS_TOLD:
        lines.append(f"  and {len(bad) - _DAYS_TOLD} more: --json has every day")
    return "\n".join(lines)


def show_recent(jobs: list[Job], console: Console) -> None:
    """Print a table of jobs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "days", "state", "%", "outcome", "started", "reason"):
        table.add_column(name, justify="right" if name == "%" else "left", overflow="fold")
    for job in jobs:
        table.add_row(
            job.job_id,
            _range(job),
            f"{JOB_STATES[job.state]} {job.state}",
            f"{job.percent:.0f}",
            days_words(job.days_by_state),
            f"{job.created:%Y-%m-%d %H:%M}",
            printable(job.request.reason),
        )
    console.print(table if jobs else "no backfill yet: backfill-assets backfill starts one")


def show_incidents(found: Incidents, now: datetime, console: Console, *, only_open: bool) -> None:
    """Print a table of incidents, and any failure to deliver messages."""
    shown = found.open if only_open else sorted(found.incidents, key=lambda i: i.opened)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("incident", "since", "lasts", "why", "to mend it"):
        table.add_column(name, overflow="fold")
    for incident in shown:
        age = incident.age(now) if incident.closed is None else f"ended after {incident.age(now)}"
        text = (printable(words) for words in (incident.text, incident.command))
        table.add_row(incident.name, f"{incident.opened:%Y-%m-%d %H:%M}", age, *text)
    console.print(table if shown else "no open incident" if only_open else "no incident")
    if found.trouble:
        since = f" since {found.failing:%Y-%m-%d %H:%M}" if found.failing else ""
        console.print(f"not delivered{since}: {found.trouble}")


def _range(job: Job) -> str:
    request = job.request
    return f"{request.start} to {request.end}" if request.start != request.end else f"{request.start}"
