"""The models of the API: requests, jobs, days, feeds and problems, as frozen pydantic models.

``service`` makes and returns them, ``api`` publishes them in its OpenAPI document, and the page and the
command line read them. This module does no input or output. Field descriptions are the API's documentation.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure
from backfill_assets.quality.scores import DayState

JobState = Literal["queued", "running", "canceling", "canceled", "succeeded", "failed"]
#: States that a job leaves only by a retry.
FINAL_JOB_STATES: Final[frozenset[str]] = frozenset({"canceled", "succeeded", "failed"})

#: State of a day within a job: ``waiting`` (no run yet), ``queued`` and ``running`` (its run), ``failed``
#: (its run or a blocking check failed), ``canceled``, otherwise its state by the lake and the warehouse.
JobDayState = Literal[
    "waiting",
    "queued",
    "running",
    "published",
    "degraded",
    "held",
    "missing",
    "unreadable",
    "failed",
    "canceled",
]
#: State of a day by the lake and the warehouse; ``unreadable`` if one of its documents is damaged.
StoredState = DayState | Literal["unreadable"]
UNFINISHED_DAY_STATES: Final[frozenset[str]] = frozenset({"waiting", "queued", "running"})
#: States of the days that a retry runs again.
RETRIED_DAY_STATES: Final[frozenset[str]] = frozenset({"failed", "held", "missing", "unreadable", "canceled"})


AssetState = Literal["waiting", "running", "materialized", "failed", "skipped"]

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Names = Annotated[tuple[Name, ...], Field(max_length=1_000)]


#: Most characters of a malformed day that its refusal quotes.
_MOST_OF_A_DAY: Final = 50


class ApiModel(BaseModel):
    """Base of the models: immutable, and strict about field names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_written(value: object) -> object:
    """Refuse other values that pydantic accepts as dates: numbers of seconds, and times at midnight."""
    if isinstance(value, str):
        try:
            return parse_day(value[:_MOST_OF_A_DAY])
        except PermanentFailure as failure:
            raise ValueError(str(failure)) from failure
    if not isinstance(value, date):
        msg = "write a day as text, as YYYY-MM-DD, for example 2024-01-01"
        raise ValueError(msg)
    return value


def _storable(text: str) -> str:
    """Refuse NUL, the one character that Postgres cannot store in text."""
    if "\0" in text:
        msg = "has a NUL character: remove it"
        raise ValueError(msg)
    return text


#: A UTC day.
Day = Annotated[date, BeforeValidator(_as_written)]


class BackfillRequest(ApiModel):
    """The days to run and, optionally, the feeds to fetch again."""

    start: Day = Field(description="First day, in UTC.")
    end: Day = Field(description="Last day, included.")
    exchanges: Names = Field(default=(), description="Fetch only these exchanges' feeds again.")
    symbols: Names = Field(
        default=(), description="Fetch only these canonical symbols (or groups such as SPOT) again."
    )
    data_types: Names = Field(default=(), description="Fetch only these data types again.")
    refresh: bool = Field(
        default=False,
        description="Fetch again feeds that the lake has. A choice of feeds implies this for these feeds.",
    )
    all_days: bool = Field(
        default=False,
        description="Also run days that are already good: that checks the warehouse against the lake.",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="Most days of the job that run at once; null: as many as the queue allows.",
    )
    order: Literal["oldest", "newest"] = Field(
        default="oldest", description="Whether the oldest or the newest days run first."
    )
    reason: Annotated[str, StringConstraints(max_length=500), AfterValidator(_storable)] = Field(
        default="", description="The reason for the job, for later readers."
    )
    request_id: (
        Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")] | None
    ) = Field(default=None, description="Repeating an id returns the same job instead of a new one.")

    @property
    def is_subset(self) -> bool:
        """Whether only some feeds will be fetched again."""
        return bool(self.exchanges or self.symbols or self.data_types)


class _Kept(ApiModel):
    """Base of models in Dagster's storage, where a newer version of this package may have added fields."""

    model_config = ConfigDict(extra="ignore")


class FeedProgress(_Kept):
    """The outcome of one feed of a running day."""

    feed: str = Field(description="exchange/data_type/SYMBOL")
    state: str = Field(description="fetched, kept, absent, rejected, failed or unreadable")
    rows: int = 0
    raw_bytes: int = 0
    reason: str = ""


class DayProgress(_Kept):
    """The feeds of a day while its run fetches them; at most two seconds old."""

    done: int
    total: int
    rows: int
    raw_bytes: int = Field(description="Compressed bytes of the finished feeds, fetched or kept.")
    fetched_bytes: int = Field(default=0, description="Those of raw_bytes that were fetched.")
    written: AwareDatetime | None = Field(default=None, description="When the run wrote this.")
    states: dict[str, int] = Field(description="Feeds by state.")
    feeds: tuple[FeedProgress, ...] = Field(
        default=(), description="Failed feeds, and the latest of the others; none when all are done."
    )

    @property
    def share(self) -> float:
        """The share of feeds that are done."""
        return self.done / self.total if self.total else 0.0


class FailedCheck(ApiModel):
    """A check that failed in the day's runs of this attempt."""

    check: str = Field(description="asset:check")
    severity: Literal["WARN", "ERROR"]
    blocking: bool
    description: str = ""

    @property
    def fails_the_day(self) -> bool:
        """Whether the check makes the day fail, even if Dagster calls its run a success."""
        return self.blocking and self.severity == "ERROR"


class AssetStatus(ApiModel):
    """One asset of the day."""

    asset: str
    state: AssetState
    failed_checks: tuple[str, ...] = ()


class FeedVerdict(ApiModel):
    """A feed whose verdict is not ``publish``, or that has a version waiting."""

    feed: str
    outcome: str = Field(description="publish, quarantine, no_evidence or missing")
    accepted: bool = Field(description="Whether a version of the feed is merged and published.")
    pending: bool = Field(description="Whether a candidate waits, with or without an accepted version.")
    content: str = Field(default="", description="sha256 of the candidate, as given to approve.")
    reasons: tuple[str, ...] = ()
    heal: str = Field(default="", description="Command that asks the exchange for the feed's missing ids.")


class StoredDay(ApiModel):
    """The day by the lake and the warehouse alone; Dagster's runs do not affect it."""

    outcome: StoredState
    sealed: bool = False
    feeds: int = Field(default=0, description="Expected feeds.")
    verdicts: dict[str, int] = Field(default={}, description="Feeds by verdict.")
    completeness: float | None = None
    quality: float | None = None
    consistency: float | None = None
    notable: tuple[FeedVerdict, ...] = Field(
        default=(), description="Feeds that are not simply published: quarantined, missing or pending."
    )
    reasons: tuple[str, ...] = ()
    command: str = Field(default="", description="The command to try first if the day is not good.")

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Names of the feeds left out."""
        return tuple(f.feed for f in self.notable if f.outcome != "publish" and not f.accepted)

    @property
    def pending(self) -> tuple[str, ...]:
        """Names of the feeds with a waiting version."""
        return tuple(f.feed for f in self.notable if f.pending)


class DayStatus(ApiModel):
    """One day of a job."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    day: str
    state: JobDayState
    attempt: int = Field(default=1, description="The attempt of the job that ran, or will run, this day.")
    skipped: bool = Field(default=False, description="Already good when the job was made, so it was not run.")
    run_id: str | None = Field(default=None, description="The latest Dagster run of this attempt.")
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    rows: int | None = Field(default=None, description="Rows of the day's tick files.")
    raw_bytes: int | None = Field(default=None, description="Compressed bytes read for the day.")
    assets: tuple[AssetStatus, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    failure: str | None = Field(
        default=None, description="The message of the last failed step, or why Dagster ended the run."
    )
    # Clients of the API rely on the name "truth".
    stored: StoredDay | None = Field(
        default=None, alias="truth", description="Null until the day's run has ended."
    )
    progress: DayProgress | None = Field(
        default=None,
        description="Set while the run fetches feeds, and kept if the day is canceled meanwhile.",
    )

    @property
    def failing_check(self) -> str | None:
        """The first check that makes the day fail."""
        return next((check.check for check in self.failed_checks if check.fails_the_day), None)


class Throughput(ApiModel):
    """Speed of a job, measured over the finished days of the current attempt."""

    days: int = Field(description="Number of days measured.")
    bytes_per_second: float | None = None
    days_per_hour: float | None = None
    parallel_runs: float | None = Field(default=None, description="Average number of days that ran at once.")


class Eta(ApiModel):
    """The job's expected end as a range; updated when a day ends, and null until two days have ended."""

    earliest: AwareDatetime
    latest: AwareDatetime


class Links(ApiModel):
    """Links to more detail; addresses are relative to this server or begin with ``serve.dagster_url``."""

    self: str
    events: str
    dagster: str | None = Field(default=None, description="The backfill in the Dagster UI.")
    dagster_run: str | None = Field(default=None, description="A run in the Dagster UI; replace {run_id}.")


class Job(ApiModel):
    """A backfill without its days."""

    job_id: str = Field(
        description="The job's id, which is also that of Dagster's backfill (of the first attempt)."
    )
    request: BackfillRequest
    requester: str = ""
    state: JobState
    attempt: int = 1
    revision: int = Field(description="Grows with every change; the id of the job's events.")
    percent: float = Field(
        ge=0,
        le=100,
        description="Progress of the days that are run; it never goes back within an attempt.",
    )
    created: AwareDatetime
    updated: AwareDatetime
    finished: AwareDatetime | None = None
    total_days: int
    finished_days: int = Field(description="Days that have ended, including skipped ones.")
    skipped_days: int = Field(default=0, description="Days that were already good and are not run.")
    days_by_state: dict[str, int]
    throughput: Throughput
    eta: Eta | None = None
    failure: str | None = Field(default=None, description="Why the job failed, in one line.")
    warnings: tuple[str, ...] = Field(
        default=(), description="Warnings for a person, for example that no daemon is running."
    )
    running: tuple[DayStatus, ...] = Field(default=(), description="The days running now.")
    links: Links


class JobStatus(Job):
    """A backfill with each of its days."""

    days: tuple[DayStatus, ...]


class Jobs(ApiModel):
    """Jobs, the newest first."""

    jobs: tuple[Job, ...]


class IncidentStatus(ApiModel):
    """A problem that waits, or has waited, for a person."""

    rule: str
    day: str = Field(description="UTC day; empty if the incident belongs to no day.")
    subject: str = Field(description="A feed, a job or a folder; empty if the day is the subject.")
    text: str
    command: str = Field(description="The command that repairs the problem or shows more about it.")
    opened: AwareDatetime
    closed: AwareDatetime | None = None


class IncidentList(ApiModel):
    """Incidents, the oldest first, and whether messages about them are delivered."""

    incidents: tuple[IncidentStatus, ...]
    failure: str = Field(description="Why messages are not delivered; empty if they are.")
    failing: AwareDatetime | None = Field(default=None, description="When deliveries began to fail.")


class CalendarDay(ApiModel):
    """One day of the calendar, from any run."""

    day: str
    outcome: StoredState
    sealed: bool = False
    quarantined: tuple[str, ...] = Field(default=(), description="Feeds left out.")
    feeds: int = 0
    completeness: float | None = None
    quality: float | None = None
    report: str | None = Field(default=None, description="Address of the day's page, if it has one.")
    job_id: str | None = Field(default=None, description="The unfinished job with this day, if any.")
    job_state: JobDayState | None = Field(default=None, description="The day's state in that job.")


class Calendar(ApiModel):
    """Every day of a range, in order."""

    days: tuple[CalendarDay, ...]


class InvalidField(ApiModel):
    """An invalid part of a request."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name.")
    detail: str


class Problem(ApiModel):
    """RFC 9457 problem details; the media type is application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    errors: tuple[InvalidField, ...] = ()
