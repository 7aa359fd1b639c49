"""The records of one job: its runs and days as read so far, and how reading continues.

Only records that may have changed are read again: an ended run does not change, nor does a backfill whose
days have all ended. One thread at a time uses a job's records; they may be dropped and read anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from backfill_assets.days import shift
from backfill_assets.progress import tracking
from backfill_assets.progress.day_cache import DayCache
from backfill_assets.progress.facts import (
    BackfillFact,
    DayEvents,
    DayFact,
    RunFact,
    RunLog,
    day_events,
    succeeded_events,
)
from backfill_assets.progress.model import DayProgress, DayStatus, FailedCheck, StoredDay
from backfill_assets.progress.reader import Reader

#: Seconds between two full reads, in which only changed runs are read.
_SECONDS_BETWEEN_ALL: Final = 60.0
#: Reading the logs of failed runs stops after this many seconds, and the next request continues it. Only a
#: process that has just begun to read a job has more than a few such logs to read.
_SECONDS_FOR_LOGS: Final = 1.0
#: Most bad days that the job's summary names with their reason.
_REASONS_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """The days of a job as just read."""

    #: The same object as before while nothing has changed.
    days: tuple[DayStatus, ...]
    #: When the newest of the records was written.
    changed: datetime
    #: Why some stored days are not known.
    troubles: tuple[str, ...]
    #: Whether all requested logs were read.
    is_whole: bool


@dataclass(slots=True)
class _Runs:
    """The runs of one backfill, by day."""

    by_day: dict[str, list[RunFact]] = field(default_factory=dict)
    seen: datetime | None = None
    #: When all runs were read, by the monotonic clock.
    all_read: float | None = None
    #: Whether every day has ended, so that no later run counts.
    are_settled: bool = False

    def since(self) -> datetime | None:
        """Time from which to read; None for all, since change times come from Dagster's and SQL's clocks."""
        now = time.monotonic()
        if self.all_read is None or now - self.all_read > _SECONDS_BETWEEN_ALL:
            self.all_read = now
            return None
        return self.seen

    def take_in(self, facts: Sequence[RunFact]) -> None:
        """Add runs that are new or have changed."""
        for fact in facts:
            self.seen = fact.updated if self.seen is None else max(self.seen, fact.updated)
            of_day = self.by_day.get(fact.day, [])
            if fact not in of_day:
                others = [run for run in of_day if run.run_id != fact.run_id]
                self.by_day[fact.day] = sorted([*others, fact], key=lambda run: run.created)


@dataclass(slots=True)
class _Made:
    """The status of a day, the parts it was made of, and its JSON once that was requested."""

    parts: tuple[object, ...]
    status: DayStatus
    json: str = ""


class JobRecords:
    """The records of one job."""

    def __init__(self, reader: Reader, run_days: DayCache, skipped_days: DayCache) -> None:
        self._reader = reader
        self._run_days = run_days
        self._skipped_days = skipped_days
        #: Runs by backfill.
        self._runs: dict[str, _Runs] = {}
        # By run: the log, or for a successful run only the failed checks; and the run's last report on feeds,
        # if it wrote one.
        self._logs: dict[str, RunLog] = {}
        self._checks: dict[str, tuple[FailedCheck, ...]] = {}
        self._totals: dict[str, DayProgress | None] = {}
        #: By day: the records that the events were made of, and the events.
        self._events: dict[str, tuple[object, DayEvents]] = {}
        #: Statuses by day.
        self._made: dict[str, _Made] = {}
        self._days: tuple[DayStatus, ...] = ()
        #: The days, and the same days as a JSON list with its digest.
        self._json: tuple[tuple[DayStatus, ...], str, bytes] = ((), "[]", b"")

    def __len__(self) -> int:
        """Return how many days are kept."""
        return len(self._made)

    def read(self, attempts: Sequence[BackfillFact], now: datetime, *, in_full: bool) -> Seen:
        """Return the days as they are now.

        Parameters
        ----------
        attempts
            The job's backfills, the first one first.
        in_full
            Read the failed checks and failure of every day; otherwise only of running and the first bad days.
        """
        days = self._read_runs(attempts, now)
        skipped = [day for day in attempts[0].skipped if day not in days]
        left_out, troubles = self._read_stored(days, skipped, again=in_full)
        is_whole = self._read_logs(days, in_full=in_full)
        self._read_progress(days)
        names = sorted([*days, *skipped])
        has_changed = [self._make(name, days.get(name), left_out.get(name)) for name in names]
        latest = [day for day in days.values() if day.backfill is attempts[-1]]
        changed = tracking.changed_at(
            attempts[-1],
            [run for day in latest for run in day.runs],
            [day.events for day in latest if day.events],
            [day.progress for day in latest if day.progress],
        )
        if any(has_changed):
            self._days = tuple(self._made[name].status for name in names)
        return Seen(self._days, changed, tuple(troubles), is_whole)

    def json(self) -> tuple[str, bytes]:
        """Return the last read days as a JSON list, and a digest of it."""
        days, text, digest = self._json
        if days is not self._days:
            made = [self._made[day.day] for day in self._days]
            for day in made:
                day.json = day.json or day.status.model_dump_json()
            text = f"[{','.join(day.json for day in made)}]"
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            self._json = (self._days, text, digest)
        return text, digest

    def _make(self, name: str, day: DayFact | None, skipped: StoredDay | None) -> bool:
        """Make the day's status if its parts have changed; return whether the status has changed."""
        parts = day.parts() if day else (skipped,)
        before = self._made.get(name)
        if before is not None and before.parts == parts:
            return False
        status = tracking.day_status(day) if day else tracking.skipped_day(name, skipped)
        if before is not None and before.status == status:
            before.parts = parts
            return False
        self._made[name] = _Made(parts, status)
        return True

    def _read_runs(self, attempts: Sequence[BackfillFact], now: datetime) -> dict[str, DayFact]:
        """Return each day that is run, as in the latest attempt that runs it."""
        days: dict[str, DayFact] = {}
        for backfill in attempts:
            runs = self._runs.setdefault(backfill.backfill_id, _Runs())
            if not runs.are_settled:
                runs.take_in(self._reader.runs(backfill, runs.since()))
            of_backfill = {}
            without_run = tracking.state_without_run(backfill, now)
            for name in backfill.days:
                counted, over = tracking.counted_runs(runs.by_day.get(name, ()), backfill, now)
                of_backfill[name] = DayFact(name, backfill, counted, over, without_run)
            runs.are_settled = all(
                day.over or (day.run is None and without_run != "waiting") for day in of_backfill.values()
            )
            days |= of_backfill
        return days

    def _read_stored(
        self, days: Mapping[str, DayFact], skipped: Sequence[str], *, again: bool
    ) -> tuple[Mapping[str, StoredDay], list[str]]:
        """Read the stored days of ended and skipped days."""
        over = {name: day.run for name, day in days.items() if day.over and day.run}
        ends = {name: run.ended or run.updated for name, run in over.items()}
        # A neighbor that ends may seal a day or change its verdict.
        wanted = {
            name: max(ends.get(around, end) for around in (shift(name, -1), name, shift(name, 1)))
            for name, end in ends.items()
        }
        known, troubles = self._run_days.days(wanted, again=again)
        for name in known:
            days[name].stored = known[name]
        left_out, more = self._skipped_days.days(dict.fromkeys(skipped), again=again)
        return left_out, [*troubles, *more]

    def _read_logs(self, days: Mapping[str, DayFact], *, in_full: bool) -> bool:
        """Read the events of running days, and those of ended days as requested.

        Returns
        -------
        bool
            Whether there was time for all.
        """
        at_work = [day for day in days.values() if not day.over and day.run and day.run.state == "running"]
        over = [(day, day.run) for day in days.values() if day.over and day.run]
        good = [(day, run) for day, run in over if run.state == "succeeded"]
        bad = [day for day, run in over if run.state != "succeeded"]
        # Read the rest of a run seen running; a blocking check may also have failed in an earlier run.
        begun = [day for day, run in good if run.run_id in self._logs or len(day.runs) > 1]
        for day in (*at_work, *begun, *bad[:_REASONS_TOLD]):
            self._read_log(day)
        deadline = time.monotonic() + _SECONDS_FOR_LOGS
        late = bad[_REASONS_TOLD:] if in_full else []
        while late and time.monotonic() < deadline:
            self._read_log(late.pop(0))
        if in_full:
            self._read_checks([(day, run) for day, run in good if run.run_id not in self._logs])
        for name, day in days.items():
            day.events = self._events_of(name, day)
        return not late

    def _read_log(self, day: DayFact) -> None:
        for run in day.runs:
            log = self._logs.setdefault(run.run_id, RunLog())
            if not log.is_whole:
                self._reader.read_on(run, log)

    def _read_checks(self, good: Sequence[tuple[DayFact, RunFact]]) -> None:
        missing = [(day, run) for day, run in good if run.run_id not in self._checks]
        for backfill in {day.backfill.backfill_id: day.backfill for day, _ in missing}.values():
            runs = [run.run_id for day, run in missing if day.backfill is backfill]
            self._checks |= self._reader.failed_checks(runs, backfill.assets)

    def _events_of(self, name: str, day: DayFact) -> DayEvents | None:
        if day.run is None:
            return None
        logs = [self._logs[run.run_id] for run in day.runs if run.run_id in self._logs]
        checks = self._checks.get(day.run.run_id)
        of = tuple((run.run_id, log.cursor) for run, log in zip(day.runs, logs, strict=False)), checks
        made = self._events.get(name)
        if made is None or made[0] != (day.run.run_id, of):
            if logs or day.run.state != "succeeded":
                events = day_events(logs)
            else:
                events = succeeded_events(day.backfill.assets, checks or ())
            made = self._events[name] = ((day.run.run_id, of), events)
        return made[1]

    def _read_progress(self, days: Mapping[str, DayFact]) -> None:
        """Read the progress that the runs wrote: the furthest for a running day, the last for other days."""
        unfinished = [day for day in days.values() if not (day.over and day.stored)]
        live = self._reader.live([run.run_id for day in unfinished for run in day.runs])
        for day in unfinished:
            found = [live[run.run_id] for run in day.runs if run.run_id in live]
            day.progress = max(found, key=lambda progress: progress.share, default=None)
        over = [day for day in days.values() if day.over and day.stored and day.run]
        missing = [run.run_id for day in over for run in day.runs if run.run_id not in self._totals]
        if missing:
            found_totals = self._reader.live(missing)
            self._totals |= {run_id: found_totals.get(run_id) for run_id in missing}
        for day in over:
            totals = [self._totals[run.run_id] for run in day.runs]
            # The last run gives the totals, unless it was cut short or an earlier run had fetched the files.
            told = totals if totals[-1] is None or _was_ended(day) else totals[-1:]
            day.progress = max(filter(None, told), key=lambda progress: progress.share, default=None)


def _was_ended(day: DayFact) -> bool:
    return day.run is not None and day.run.state != "succeeded"
