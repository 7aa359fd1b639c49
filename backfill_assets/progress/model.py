"""What crosses the API: requests, jobs, days, feeds and problems, as frozen pydantic models.

``service`` makes and returns them, ``api`` publishes them in its OpenAPI document, the page and the command
line read them. Nothing here reads anything. Field descriptions are the API's documentation.
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
#: States that a job leaves by a retry only.
FINAL_JOB_STATES: Final[frozenset[str]] = frozenset({"canceled", "succeeded", "failed"})

#: Of a day within a job: ``waiting`` (no run yet), ``queued`` and ``running`` (its run), ``failed`` (its run
#: or a blocking check failed), ``canceled``, else what the lake and the warehouse say of it.
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
#: Of a day by the lake and the warehouse: ``unreadable`` where a document of it is damaged.
StoredState = DayState | Literal["unreadable"]
UNFINISHED_DAY_STATES: Final[frozenset[str]] = frozenset({"waiting", "queued", "running"})
#: What a retry runs again.
RETRIED_DAY_STATES: Final[frozenset[str]] = frozenset({"failed", "held", "missing", "unreadable", "canceled"})


AssetState = Literal["waiting", "running", "materialized", "failed", "skipped"]

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Names = Annotated[tuple[Name, ...], Field(max_length=1_000)]


#: Characters of a malformed day that its refusal quotes.
_MOST_OF_A_DAY: Final = 50


class ApiModel(BaseModel):
    """Immutable, and strict about the names of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_written(value: object) -> object:
    """Refuse what pydantic also takes for a date: numbers of seconds, and times at midnight."""
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
    """Refuse the one character that Postgres cannot store in a text."""
    if "\0" in text:
        msg = "has a NUL character: leave it out"
        raise ValueError(msg)
    return text


#: A UTC day.
Day = Annotated[date, BeforeValidator(_as_written)]


class BackfillRequest(ApiModel):
    """What is to be run: days, and optionally which of their feeds to fetch again."""

    start: Day = Field(description="First day, in UTC.")
    end: Day = Field(description="Last day, included.")
    exchanges: Names = Field(default=(), description="Fetch only these exchanges' feeds again.")
    symbols: Names = Field(
        default=(), description="Fetch only these canonical symbols (or groups such as SPOT) again."
    )
    data_types: Names = Field(default=(), description="Fetch only these data types again.")
    refresh: bool = Field(
        default=False,
        description="Fetch feeds again that the lake has. A choice of feeds implies it for these feeds.",
    )
    all_days: bool = Field(
        default=False,
        description="Run the days that are good already, too: that proves the warehouse against the lake.",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="At most so many of its days are at work; null: as many as there may be.",
    )
    order: Literal["oldest", "newest"] = Field(default="oldest", description="Which days run first.")
    reason: Annotated[str, StringConstraints(max_length=500), AfterValidator(_storable)] = Field(
        default="", description="Why, for whoever looks at the job later."
    )
    request_id: (
        Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")] | None
    ) = Field(default=None, description="The same id again gives the same job instead of another one.")

    @property
    def is_subset(self) -> bool:
        """Whether only some feeds are to be fetched again."""
        return bool(self.exchanges or self.symbols or self.data_types)


class _Kept(ApiModel):
    """Read back from Dagster's storage, where a newer version of this package may have written more."""

    model_config = ConfigDict(extra="ignore")


class FeedProgress(_Kept):
    """How one feed of a running day ended."""

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
    raw_bytes: int = Field(description="Compressed bytes of the feeds that are done, fetched or kept.")
    fetched_bytes: int = Field(default=0, description="Of these bytes, those that were fetched.")
    written: AwareDatetime | None = Field(default=None, description="When the run told this.")
    states: dict[str, int] = Field(description="Feeds by state.")
    feeds: tuple[FeedProgress, ...] = Field(
        default=(), description="Those that failed, and the latest of the others; none when all are done."
    )

    @property
    def share(self) -> float:
        """Of the feeds, those that are done."""
        return self.done / self.total if self.total else 0.0


class FailedCheck(ApiModel):
    """A check that failed in the day's runs of this attempt."""

    check: str = Field(description="asset:check")
    severity: Literal["WARN", "ERROR"]
    blocking: bool
    description: str = ""

    @property
    def fails_the_day(self) -> bool:
        """Whether the day counts as failed, although Dagster may call its run a success."""
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
    accepted: bool = Field(description="Whether a version of it is merged and published.")
    pending: bool = Field(description="Whether a candidate waits beside or instead of an accepted version.")
    content: str = Field(default="", description="sha256 of the candidate, as approve takes it.")
    reasons: tuple[str, ...] = ()
    heal: str = Field(default="", description="Command that asks the exchange for the feed's missing ids.")


class StoredDay(ApiModel):
    """The day by the lake and the warehouse alone; Dagster's runs do not count here."""

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
    command: str = Field(default="", description="What to try first where the day is not good.")

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Names of the feeds that are left out."""
        return tuple(f.feed for f in self.notable if f.outcome != "publish" and not f.accepted)

    @property
    def pending(self) -> tuple[str, ...]:
        """Names of the feeds with a version that waits."""
        return tuple(f.feed for f in self.notable if f.pending)


class DayStatus(ApiModel):
    """One day of a job."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    day: str
    state: JobDayState
    attempt: int = Field(default=1, description="The attempt of the job that ran, or will run, this day.")
    skipped: bool = Field(default=False, description="Good already when the job was made: it was not run.")
    run_id: str | None = Field(default=None, description="Dagster's run, the latest of this attempt.")
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    rows: int | None = Field(default=None, description="Rows of the day's tick files.")
    raw_bytes: int | None = Field(default=None, description="Compressed bytes that were read for the day.")
    assets: tuple[AssetStatus, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    failure: str | None = Field(
        default=None, description="What the last step that failed said, or why Dagster has ended the run."
    )
    # Clients of the API rely on the name "truth".
    stored: StoredDay | None = Field(
        default=None, alias="truth", description="Null until the day's run has ended."
    )
    progress: DayProgress | None = Field(
        default=None, description="While the run fetches feeds, and of a day that was cancelled meanwhile."
    )

    @property
    def failing_check(self) -> str | None:
        """The first check by which the day counts as failed."""
        return next((check.check for check in self.failed_checks if check.fails_the_day), None)


class Throughput(ApiModel):
    """Measured over the finished days of the current attempt."""

    days: int = Field(description="How many days it was measured over.")
    bytes_per_second: float | None = None
    days_per_hour: float | None = None
    parallel_runs: float | None = Field(
        default=None, description="Days that were at work at once, on average."
    )


class Eta(ApiModel):
    """When the job will have ended, as a range; made when a day ends, null until two days have."""

    earliest: AwareDatetime
    latest: AwareDatetime


class Links(ApiModel):
    """Where to look further; addresses are relative to this server, or begin with ``serve.dagster_url``."""

    self: str
    events: str
    dagster: str | None = Field(default=None, description="The backfill in the Dagster UI.")
    dagster_run: str | None = Field(
        default=None, description="A run in the Dagster UI, with {run_id} to be replaced."
    )


class Job(ApiModel):
    """A backfill as a whole."""

    job_id: str = Field(description="Also the id of Dagster's backfill (of the first attempt).")
    request: BackfillRequest
    requester: str = ""
    state: JobState
    attempt: int = 1
    revision: int = Field(description="Grows with every change; the id of the job's events.")
    percent: float = Field(
        ge=0,
        le=100,
        description="Of the days that are run, as far as each got; never goes back within an attempt.",
    )
    created: AwareDatetime
    updated: AwareDatetime
    finished: AwareDatetime | None = None
    total_days: int
    finished_days: int = Field(description="Days that have ended, skipped ones included.")
    skipped_days: int = Field(default=0, description="Days that were good already and are not run.")
    days_by_state: dict[str, int]
    throughput: Throughput
    eta: Eta | None = None
    failure: str | None = Field(default=None, description="Why the job failed, in one line.")
    warnings: tuple[str, ...] = Field(
        default=(), description="What a person should know, e.g. that no daemon is running."
    )
    running: tuple[DayStatus, ...] = Field(default=(), description="The days at work now.")
    links: Links


class JobStatus(Job):
    """A backfill with each of its days."""

    days: tuple[DayStatus, ...]


class Jobs(ApiModel):
    """Jobs, the newest first."""

    jobs: tuple[Job, ...]


class IncidentStatus(ApiModel):
    """Something that waits, or has waited, for a person."""

    rule: str
    day: str = Field(description="UTC day; empty where it is of none.")
    subject: str = Field(description="A feed, a job or a folder; empty where the day is meant.")
    text: str
    command: str = Field(description="What mends it, or shows more.")
    opened: AwareDatetime
    closed: AwareDatetime | None = None


class IncidentList(ApiModel):
    """Incidents, the oldest first, and whether people are told of them."""

    incidents: tuple[IncidentStatus, ...]
    failure: str = Field(description="Why messages are not delivered; empty where they are.")
    failing: AwareDatetime | None = Field(default=None, description="Since when they are not.")


class CalendarDay(ApiModel):
    """One day of the calendar, whoever ran it."""

    day: str
    outcome: StoredState
    sealed: bool = False
    quarantined: tuple[str, ...] = Field(default=(), description="Feeds that are left out.")
    feeds: int = 0
    completeness: float | None = None
    quality: float | None = None
    report: str | None = Field(default=None, description="Where the day's page is, if it has one.")
    job_id: str | None = Field(default=None, description="The unfinished job that has this day, if any.")
    job_state: JobDayState | None = Field(default=None, description="Its state in that job.")


class Calendar(ApiModel):
    """Every day of a range, in order."""

    days: tuple[CalendarDay, ...]


class InvalidField(ApiModel):
    """One part of a request that cannot be taken."""

    pointer: str = Field(description="Where: JSON pointer into the body, or the parameter's name.")
    detail: str


class Problem(ApiModel):
    """RFC 9457 problem details; the media type is application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    errors: tuple[InvalidField, ...] = ()
