"""Jobs as they are now, read from Dagster's records and the stored days on request.

Nothing is stored. To save reading, the process keeps a limited number of jobs as it read them, and answers
with a job that it read less than ``seconds`` ago. All answers follow from the records, so any number of
processes give the same answers.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.orchestration import database_failures
from backfill_assets.progress import tracking
from backfill_assets.progress.facts import BackfillFact
from backfill_assets.progress.model import FINAL_JOB_STATES, DayStatus, Job
from backfill_assets.progress.reader import DAEMON_SECONDS, Reader
from backfill_assets.progress.records import JobRecords
from backfill_assets.progress.request_tags import attempt_id
from backfill_assets.readable_numbers import plural

#: Most days of jobs that are kept, each about six kilobytes. For other jobs only the summary is kept, and for
#: ended ones also the last answer, compressed.
_MOST_DAYS: Final = 20_000
_START_DAEMON: Final = (
    "run 'dagster-daemon run -m backfill_assets.definitions' on the same DAGSTER_HOME or database"
)
#: How long the last answer about an ended job is repeated if its days are not kept; a cold read of 800 days
#: takes about 0.3 s of processor time.
_SECONDS_OF_ANSWER: Final = 60.0
_MOST_JOBS: Final = 1_000
_BACKFILLS_PER_PAGE: Final = 50
#: How long a look at Dagster's queue is valid, as a multiple of ``seconds``.
_ANSWERS_PER_QUEUE: Final = 5
#: How many of the newest jobs are searched for unfinished ones.
_LOOKED_AT: Final = 20
#: How many attempts of a job beyond the known ones are looked up.
_ATTEMPTS_BEYOND: Final = 4
#: Seconds between two readings of the stored days of an ended job.
_SECONDS_OF_ENDED: Final = 10.0
#: Seconds between two such readings of any jobs, so that a poll of many ended jobs need not wait for all.
_SECONDS_BETWEEN_ENDED: Final = 0.25
_LONG_AGO: Final = float("-inf")
_NEVER: Final = float("inf")


class UnknownJob(PermanentFailure):
    """Raised for an unknown job; the caller adds where jobs are listed."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id[:50]!r}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The last answer about an ended job with all its days."""

    compressed: bytes
    tag: str
    #: When the stored days in the answer were read.
    whole_at: float


@dataclass(slots=True)
class _Known:
    """A job as last read."""

    looking: threading.Lock = field(default_factory=threading.Lock)
    looked: float = _LONG_AGO
    attempts: tuple[BackfillFact, ...] = ()
    job: Job | None = None
    #: None if only the summary is kept.
    days: tuple[DayStatus, ...] | None = None
    records: JobRecords | None = None
    in_full: bool = False
    #: When the stored days were read, if nothing else was left to read; otherwise long ago.
    whole_at: float = _LONG_AGO
    answer: _Answer | None = None


class Statuses:
    """The jobs of one instance and one lake; safe to share among threads.

    Parameters
    ----------
    records
        Makes empty records of a job.
    seconds
        How long an answer about a job is repeated without reading.
    dagster_url
        Address of the Dagster UI, for links.

    Raises
    ------
    UnknownJob
        Every method that takes a job's id raises it if the job does not exist.
    TransientFailure
        Every method raises it if Dagster's database does not answer.
    """

    def __init__(
        self,
        reader: Reader,
        records: Callable[[], JobRecords],
        seconds: Callable[[], float],
        dagster_url: Callable[[], str],
    ) -> None:
        self._reader = reader
        self._records = records
        self._seconds = seconds
        self._dagster_url = dagster_url
        #: Jobs in the order of their last request, the latest last.
        self._known: dict[str, _Known] = {}
        self._changing = threading.Lock()
        self._listing = threading.Lock()
        self._listed: tuple[float, int, list[tuple[BackfillFact, ...]]] = (_LONG_AGO, 0, [])
        self._heartbeat: tuple[float, datetime | None] = (_LONG_AGO, None)
        #: When Dagster's queue was read, its places if all are taken, and how many of them lost runs hold.
        self._queue: tuple[float, int, int] = (_LONG_AGO, 0, 0)
        #: When the database last failed, and how.
        self._failed: tuple[float, str] = (_LONG_AGO, "")
        #: When the stored days of any ended job were last read again.
        self._read_ended = _LONG_AGO

    def job(self, job_id: str, *, at_once: bool = False) -> Job:
        """Return the job without its days; ``at_once`` reads it now, because it was just changed."""
        if at_once:
            self._listed = (_LONG_AGO, 0, [])
        return self._summary(job_id, at_once=at_once)

    def with_days(self, job_id: str, *, in_full: bool = True) -> tuple[Job, tuple[DayStatus, ...]]:
        """Return the job and its days; ``in_full`` with the failed checks and failure of each."""
        asked = time.monotonic()
        with self._one(job_id) as known:
            job, days, _ = self._look(known, job_id, asked, in_full=in_full)
            return job, days

    def as_json(self, job_id: str) -> tuple[str, str]:
        """Return the job with its days in full as JSON, and a tag that changes with it."""
        asked = time.monotonic()
        with self._one(job_id) as known:
            kept = known.answer
            may_repeat = known.records is None and kept and kept.whole_at > asked - _SECONDS_OF_ANSWER
            if kept and may_repeat and self._is_settled(known, self._attempts(job_id, known)):
                return zlib.decompress(kept.compressed).decode(), kept.tag
            job, _, records = self._look(known, job_id, asked, in_full=True)
            days, digest = records.json()
            head = job.model_dump_json()
            tag = hashlib.blake2b(head.encode() + digest, digest_size=12).hexdigest()
            text = f'{head[:-1]},"days":{days}}}'
            if job.state not in FINAL_JOB_STATES:
                known.answer = None
            elif kept is None or kept.tag != tag:
                known.answer = _Answer(zlib.compress(text.encode(), level=1), tag, known.whole_at)
            else:
                known.answer = replace(kept, whole_at=known.whole_at)
            return text, tag

    def newest(self, limit: int) -> Iterator[Job]:
        """Yield jobs, the newest first."""
        for attempts in self._list(limit):
            yield self._summary(attempts[0].job_id, attempts)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not over, the newest first.

        Dagster may call a backfill completed before its runs have ended, as ``dagster job backfill`` does;
        such jobs are found among the newest ones.
        """
        with self._passing():
            ids = {fact.job_id for fact in self._reader.unfinished()}
        jobs = [*(self.job(job_id) for job_id in ids), *self.newest(_LOOKED_AT)]
        left = {job.job_id: job for job in jobs if job.state not in FINAL_JOB_STATES}
        return sorted(left.values(), key=lambda job: job.created, reverse=True)

    def daemon_trouble(self) -> str | None:
        """Return why no day will be run: the daemon gives no sign of life."""
        if time.monotonic() - self._heartbeat[0] >= self._seconds():
            with self._passing():
                self._heartbeat = (time.monotonic(), self._reader.daemon_seen())
        seen = self._heartbeat[1]
        if seen is None:
            return f"no Dagster daemon has run yet: {_START_DAEMON}"
        if (utc_now() - seen).total_seconds() > DAEMON_SECONDS:
            moment = seen.isoformat(timespec="seconds")
            return f"the Dagster daemon gave no sign of life since {moment}: {_START_DAEMON}"
        return None

    def _queue_trouble(self, *, is_at_work: bool) -> str | None:
        """Return why no further day of a job begins: lost runs or runs of others fill the queue."""
        if time.monotonic() - self._queue[0] >= _ANSWERS_PER_QUEUE * self._seconds():
            with self._passing():
                self._queue = (time.monotonic(), *self._reader.full_queue(utc_now()))
        _, places, lost = self._queue
        runs = plural(places, "run")
        if places and lost:
            return (
                f"Dagster's queue is full, and the processes of {lost} of its {runs} are gone: the sensor "
                "lost_runs ends these within a minute if it is on and a daemon runs"
            )
        if places and not is_at_work:
            return f"Dagster's queue is full with {runs} of others: no day begins until they end"
        return None

    # The kept jobs

    @contextmanager
    def _one(self, job_id: str) -> Iterator[_Known]:
        """Yield the job to one thread at a time; threads that wait for it get the job as just read."""
        asked = time.monotonic()
        with self._changing:
            known = self._known.pop(job_id) if job_id in self._known else _Known()
            self._known[job_id] = known
        try:
            with known.looking, self._passing(asked):
                yield known
        finally:
            with self._changing:
                if known.job is None:
                    self._known.pop(job_id, None)
                self._bound()

    def _bound(self) -> None:
        """If too many days are kept, drop those of the jobs requested longest ago."""
        for job_id in list(self._known)[:-_MOST_JOBS]:
            del self._known[job_id]
        days = sum(len(known.records) for known in self._known.values() if known.records)
        for known in list(self._known.values())[:-1]:
            if days <= _MOST_DAYS:
                return
            if known.records and known.looking.acquire(blocking=False):
                days -= len(known.records)
                known.records = known.days = None
                known.looking.release()

    @contextmanager
    def _passing(self, asked: float = _NEVER) -> Iterator[None]:
        """Raise the database's failure; raise at once if a call failed after this request was made.

        A call takes many seconds to fail, and requests that wait for one another would fail one by one.
        """
        if self._failed[0] > asked:
            raise TransientFailure(self._failed[1])
        try:
            with database_failures():
                yield
        except TransientFailure as failure:
            self._failed = (time.monotonic(), str(failure))
            raise

    def _is_old(self, known: _Known, asked: float) -> bool:
        return known.looked <= asked - self._seconds()

    def _is_due(self, known: _Known, asked: float) -> bool:
        """Whether to read the stored days of an ended job again now."""
        if known.whole_at > asked - _SECONDS_OF_ENDED:
            return False
        with self._changing:
            if (
                known.whole_at > asked - _SECONDS_OF_ANSWER
                and self._read_ended > asked - _SECONDS_BETWEEN_ENDED
            ):
                return False
            self._read_ended = asked
        return True

    def _is_settled(self, known: _Known, attempts: tuple[BackfillFact, ...]) -> bool:
        """Whether the job had ended and has no new attempt."""
        job = known.job
        if job is None or job.state not in FINAL_JOB_STATES or attempts != known.attempts:
            return False
        return job.links == tracking.links(job.job_id, self._dagster_url(), job.attempt)

    # Looking

    def _look(
        self, known: _Known, job_id: str, asked: float, *, in_full: bool
    ) -> tuple[Job, tuple[DayStatus, ...], JobRecords]:
        """Return the job with its days, read again if the last reading is too old or lacks these details."""
        is_deep = known.days is not None and (known.in_full or not in_full)
        if self._is_old(known, asked) or not is_deep:
            attempts = self._attempts(job_id, known)
            if is_deep and self._is_settled(known, attempts) and not self._is_due(known, asked):
                known.looked = asked
            else:
                self._see(known, attempts, in_full=in_full)
        assert known.job is not None
        assert known.days is not None
        assert known.records is not None
        return known.job, known.days, known.records

    def _summary(
        self, job_id: str, attempts: tuple[BackfillFact, ...] | None = None, *, at_once: bool = False
    ) -> Job:
        asked = time.monotonic()
        with self._one(job_id) as known:
            if at_once or self._is_old(known, asked) or known.job is None:
                found = attempts or self._attempts(job_id, known)
                if self._is_settled(known, found):
                    known.looked = asked
                else:
                    self._see(known, found, in_full=False)
            assert known.job is not None
            return known.job

    def _see(self, known: _Known, attempts: tuple[BackfillFact, ...], *, in_full: bool) -> None:
        now, looked = utc_now(), time.monotonic()
        if known.records is None:
            known.records, known.in_full = self._records(), False
        in_full, deepens = in_full or known.in_full, in_full and not known.in_full
        seen = known.records.read(attempts, now, in_full=in_full)
        waits = any(d.state in ("waiting", "queued") for d in seen.days)
        is_at_work = any(d.state == "running" for d in seen.days)
        queue = self._queue_trouble(is_at_work=is_at_work) if waits else None
        job = tracking.job_of(
            attempts,
            seen.days,
            changed=seen.changed,
            warnings=[*filter(None, (self.daemon_trouble(), queue)), *seen.troubles],
            dagster_url=self._dagster_url(),
            now=now,
        )
        before = known.job
        if before is not None:
            is_same = before == job.model_copy(update={"revision": before.revision})
            # Details of ended days are not a change.
            if is_same and (deepens or seen.days is known.days or known.days is None):
                job = before
            else:
                job = job.model_copy(update={"revision": max(job.revision, before.revision + 1)})
        known.job, known.days, known.attempts = job, seen.days, attempts
        known.in_full, known.looked = in_full, looked
        known.whole_at = looked if seen.is_whole else _LONG_AGO

    def _attempts(self, job_id: str, known: _Known) -> tuple[BackfillFact, ...]:
        """Return the backfills of the job in order; a retry's id follows from the job's."""
        found: list[BackfillFact] = []
        last = len(known.attempts) + _ATTEMPTS_BEYOND
        while True:
            ids = [attempt_id(job_id, number) for number in range(len(found) + 1, last + 1)]
            of_job = [fact for fact in self._reader.backfills(ids) if fact.job_id == job_id]
            found += sorted(of_job, key=lambda fact: fact.attempt)
            if not found or found[0].attempt != 1:
                raise UnknownJob(job_id)
            if len(of_job) < len(ids):
                return tuple(found)
            last = len(found) + _ATTEMPTS_BEYOND

    def _list(self, limit: int) -> list[tuple[BackfillFact, ...]]:
        """Return the attempts of the newest jobs; attempts of a job are newer than the job itself."""
        asked = time.monotonic()
        with self._listing:
            read, length, listed = self._listed
            if read > asked - self._seconds() and length >= limit:
                return listed[:limit]
            read, listed = time.monotonic(), []
            retries: dict[str, list[BackfillFact]] = defaultdict(list)
            with self._passing(asked):
                for fact in self._reader.newest(min(limit, _BACKFILLS_PER_PAGE)):
                    if fact.attempt > 1:
                        retries[fact.job_id].insert(0, fact)
                    else:
                        listed.append((fact, *retries.pop(fact.job_id, ())))
                    if len(listed) == limit:
                        break
            self._listed = (read, limit, listed)
            return listed
