"""The findings of a rehearsal: outcomes by scenario and promise, and the measurements of each scenario.

Plain values that ``report`` shows; ``scenarios`` finds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from backfill_assets.failures import printable


class Promise(StrEnum):
    """A promise of the pipeline that holds for a day under any fault."""

    DETECTED = "detected"
    CONTAINED = "contained"
    RECOVERED = "recovered"
    NOTHING_LOST = "nothing_lost"
    NOTHING_WRONG_PUBLISHED = "nothing_wrong_published"
    NO_SECRET_IN_LOGS = "no_secret_in_logs"
    SOMEBODY_TOLD = "somebody_told"
    WITHIN_LIMITS = "within_limits"


#: The meaning of each promise, for people who read a report.
MEANINGS: dict[Promise, str] = {
    Promise.DETECTED: "the run, the state of the day or the verdict of a feed shows the fault",
    Promise.CONTAINED: "the fault spreads to no other feed, day or process",
    Promise.RECOVERED: "after the fault a run ends in the tables of an undisturbed run",
    Promise.NOTHING_LOST: "every row that the vendor serves is in the tables in the end",
    Promise.NOTHING_WRONG_PUBLISHED: "no published row differs from the vendor's or from an undisturbed run",
    Promise.NO_SECRET_IN_LOGS: "the API key is in no log, report, document or record",
    Promise.SOMEBODY_TOLD: "a message and an incident name the day while it is bad, and its end is reported",
    Promise.WITHIN_LIMITS: "the scenario takes no more time, memory or requests than its limits allow",
}

State = Literal["kept", "broken", "not run", "not judged"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One expectation of a scenario, with the observation.

    Attributes
    ----------
    kept
        None if the scenario could not be run; ``seen`` then gives the reason.
    """

    scenario: str
    promise: Promise
    expected: str
    seen: str
    kept: bool | None

    @property
    def line(self) -> str:
        """The outcome as one line, safe for a terminal."""
        words = f"{self.scenario}, {self.promise}: expected {self.expected}; seen: {self.seen}"
        return printable(words)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The resources and requests that a scenario used.

    Attributes
    ----------
    seconds, cpu_seconds
        Wall-clock time, and the processor time of all its processes.
    peak_mb
        Largest sampled sum of the proportional set sizes (PSS) of its processes, in 2**20 bytes.
    bytes_fetched
        Bytes that the answers of the stand-in announced.
    requests, retries
        Requests at the stand-in, and those that repeat a path within a run.
    rows
        Rows in the published tables at the end.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    bytes_fetched: int = 0
    requests: int = 0
    retries: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Trend:
    """A measure of a scenario beside those of earlier rehearsals.

    Attributes
    ----------
    former
        Values of earlier rehearsals, the oldest first.
    is_regression
        Whether the value is much worse than their median.
    """

    measure: str
    now: float
    median: float
    former: tuple[float, ...]
    is_regression: bool

    @property
    def change(self) -> str:
        """The difference from the median, as a percentage of it."""
        return f"{self.now / self.median - 1:+.0%}" if self.median else "–" if not self.now else "new"


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """A scenario after its run; ``trends`` is empty while there are too few earlier ones."""

    scenario: str
    summary: str
    outcomes: tuple[Outcome, ...]
    measured: Measurement = field(default_factory=Measurement)
    trends: tuple[Trend, ...] = ()

    def of(self, promise: Promise) -> tuple[Outcome, ...]:
        """Its outcomes for one promise."""
        return tuple(outcome for outcome in self.outcomes if outcome.promise is promise)

    def state(self, promise: Promise) -> State:
        """Broken if one expectation was not met; a promise without a result is never kept."""
        kept = {outcome.kept for outcome in self.of(promise)}
        if False in kept:
            return "broken"
        if None in kept:
            return "not run"
        return "kept" if kept else "not judged"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All scenarios of one call.

    Attributes
    ----------
    day
        The UTC day that was rehearsed.
    mode
        ``quick`` or ``full``.
    seconds
        Wall-clock time of the whole rehearsal.
    """

    day: str
    mode: str
    seconds: float
    results: tuple[ScenarioResult, ...]

    def broken(self) -> Iterator[Outcome]:
        """Every expectation that was not met."""
        return (o for p in self.results for o in p.outcomes if o.kept is False)

    def regressions(self) -> Iterator[tuple[ScenarioResult, Trend]]:
        """Measures that are much worse than in earlier rehearsals."""
        return ((r, trend) for r in self.results for trend in r.trends if trend.is_regression)

    def not_run(self) -> Iterator[Outcome]:
        """Every expectation that could not be tried."""
        return (o for p in self.results for o in p.outcomes if o.kept is None)

    @property
    def exit_code(self) -> int:
        """1 if a promise is broken or nothing was judged, else 0."""
        judged = any(o.kept is not None for p in self.results for o in p.outcomes)
        return int(not judged or any(self.broken()))
