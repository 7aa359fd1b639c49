"""The stage of a scenario: houses, the undisturbed run to compare with, and the list of outcomes.

Every outcome compares a measured value with an expected one; nothing here states a result.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backfill_assets.failures import BackfillError, BadInput
from backfill_assets.readable_numbers import plural
from backfill_assets.rehearsal import tables
from backfill_assets.rehearsal.cloud import Cloud
from backfill_assets.rehearsal.environment import MB, USUAL, Environment, size_bytes
from backfill_assets.rehearsal.house import ANSWER_SECONDS, House, Run, rehearsal_market
from backfill_assets.rehearsal.limits import Mode
from backfill_assets.rehearsal.model import Measurement, Outcome, Promise
from backfill_assets.rehearsal.processes import MemorySampler
from backfill_assets.rehearsal.replay import Replay
from backfill_assets.standins.market import Market

QUICK_SOAK_MINUTES: Final = 3.0
FULL_SOAK_MINUTES: Final = 60.0
#: The most differences that an outcome names one by one.
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The day without any fault: tables, requests, and bytes of the lake."""

    contents: tables.Contents
    requests: int
    lake_bytes: int
    #: Names of incidents that are open even without a fault; a generated day has none.
    incidents: frozenset[str] = frozenset()


class Stage:
    """One scenario at work.

    Parameters
    ----------
    folder
        Folder of its houses.
    day
        The UTC day that is rehearsed.
    replay
        The published day that every house serves, in place of a generated market.
    environment
        Limits, sources and markets.
    soak_minutes
        Duration of the scenario of many days.
    """

    def __init__(
        self,
        scenario: str,
        folder: Path,
        day: str,
        undisturbed: Undisturbed,
        *,
        is_full: bool = False,
        replay: Replay | None = None,
        environment: Environment = USUAL,
        soak_minutes: float = QUICK_SOAK_MINUTES,
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.day = day
        self.undisturbed = undisturbed
        self.is_full = is_full
        self.replay = replay
        self.environment = environment
        self.soak_minutes = soak_minutes
        self.outcomes: list[Outcome] = []
        self._sampler = MemorySampler()
        self._houses: list[House] = []
        self._rows = 0
        self._bytes = 0

    @contextmanager
    def house(
        self,
        *,
        data_types: Sequence[str] = ("trades",),
        market: Market | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        cloud: Cloud | None = None,
        markets: tuple[Sequence[str], Sequence[str]] | None = None,
        more: Mapping[str, object] | None = None,
        name: str = "house",
    ) -> Iterator[House]:
        """Return a house; its files are searched for its secrets at the end."""
        folder, started = self.folder / name, self._sampler.add
        given = self.environment.with_markets(*markets) if markets else self.environment
        market = market or rehearsal_market(environment=given)
        with (
            self.replay.house(folder, started, environment=given)
            if self.replay
            else House(
                folder, market, data_types, answer_seconds, started, cloud, environment=given, more=more
            )
        ) as house:
            self._houses.append(house)
            yield house
            if given.monitoring.metrics:
                (folder / "logs" / "metrics.txt").write_text(house.metrics(self.day), encoding="utf-8")
            self._bytes = max(self._bytes, house.size())
            days = {file.stem for file in house.tables_folder().glob("trades/*.parquet")}
            self._rows += sum(content.rows for content in house.published(*days).values())
        leaks = house.files_with_secrets()
        files = sum(file.is_file() for file in house.folder.rglob("*"))
        self.check(
            Promise.NO_SECRET_IN_LOGS,
            "the API key is in no file",
            _listed(leaks) or f"in none of {files} files",
            kept=not leaks and files > 0,
        )

    @property
    def mode(self) -> Mode:
        """The mode whose limits apply."""
        return "replay" if self.replay else "full" if self.is_full else "quick"

    @property
    def peak_mb(self) -> float:
        """The largest memory of its processes so far, as in ``Measurement``."""
        return self._sampler.peak_mb

    @contextmanager
    def measured(self) -> Iterator[list[Measurement]]:
        """Measure the block; the list has the measurement after it."""
        began, before, found = time.monotonic(), _cpu_seconds(), list[Measurement]()
        with self._sampler:
            yield found
        requests = [request for house in self._houses for request in house.standin.requests]
        found.append(
            Measurement(
                seconds=time.monotonic() - began,
                cpu_seconds=_cpu_seconds() - before,
                peak_mb=self._sampler.peak_mb,
                bytes_fetched=sum(request.bytes for request in requests),
                requests=len(requests),
                retries=sum(run.retries for house in self._houses for run in house.runs),
                rows=self._rows,
            )
        )

    def within_infrastructure(self) -> None:
        """Compare the resources used with the limits of the environment."""
        limits = self.environment.infrastructure
        for limit, taken, about in (
            (limits.memory, self.peak_mb * MB, "the processes of all runs take no more memory together"),
            (limits.disk, self._bytes, "lake, warehouse, records and logs take no more room together"),
        ):
            if limit is not None:
                kept = 0 < taken <= size_bytes(limit)
                self.check(Promise.WITHIN_LIMITS, f"{about} than {limit}", f"{taken / MB:.0f} MB", kept=kept)

    def check(self, promise: Promise, expected: str, seen: str, *, kept: bool) -> None:
        """Record an outcome."""
        self.outcomes.append(Outcome(self.scenario, promise, expected, seen, kept))

    def not_run(self, promises: Sequence[Promise], expected: str, why: str) -> None:
        """Record that an expectation could not be tried."""
        self.outcomes += [Outcome(self.scenario, promise, expected, why, None) for promise in promises]

    # Judgments that scenarios share

    def succeeded(self, promise: Promise, run: Run, about: str) -> None:
        """The run must end with exit code 0."""
        self.check(promise, f"{about}: exit code 0", f"exit code {run.code}", kept=run.code == 0)

    def is_harmless(self, house: House, about: str) -> None:
        """All market data that is published now is that of the undisturbed run."""
        found = house.published(self.day)
        # Only a replayed day has days beside it whose files hold some of its trades.
        partial = tables.partial_markets(house.tables_folder(), self.day) if self.replay else ()
        wrong = tables.wrong(self.undisturbed.contents, found, partial)
        self.check(
            Promise.NOTHING_WRONG_PUBLISHED,
            f"{about}: no other market data than an undisturbed run publishes",
            _listed(wrong) or f"{len(found)} groups of rows, all alike",
            kept=not wrong,
        )

    def ends_undisturbed(self, house: House, about: str, leave_out: frozenset[str] = frozenset()) -> None:
        """The day ends in the tables of the undisturbed run, with all rows of the vendor.

        Parameters
        ----------
        leave_out
            Tables that may differ.
        """
        self.ends_as(house, self.day, self.undisturbed.contents, about, leave_out)

    def ends_as(
        self,
        house: House,
        day: str,
        expected: tables.Contents,
        about: str,
        leave_out: frozenset[str] = frozenset(),
    ) -> None:
        """The day is published with these tables, and with all rows of the vendor."""
        outcome = house.state(day).outcome
        found = house.published(day)
        different = tables.differences(
            {group: c for group, c in expected.items() if group.table not in leave_out},
            {group: c for group, c in found.items() if group.table not in leave_out},
        )
        self.check(
            Promise.RECOVERED,
            f"{about}: {day} is published, with the tables of an undisturbed run",
            f"{outcome}, {_listed(different) or f'{len(found)} groups of rows alike'}",
            kept=outcome == "published" and not different,
        )
        self.has_all_trades(house, day, about)
        if self.replay is not None:
            said = self.replay.differences(house.store, leave_out)
            self.check(
                Promise.RECOVERED,
                f"{about}: the tables are as they were published",
                _listed(said) or f"{plural(len(self.replay.published), 'table')}, all alike",
                kept=not said,
            )

    def has_all_trades(
        self,
        house: House,
        day: str,
        about: str,
        served: Mapping[tables.MarketName, tables.Content] | None = None,
    ) -> None:
        """The published trades are exactly those of the vendor's files."""
        served = house.served(day) if served is None else served
        found = house.trades(day)
        lost = [f"{e} {s}: lacks rows" for (e, s), c in served.items() if _rows(found, (e, s)) < c.rows]
        other = [
            f"{e} {s}: {content.rows} rows that the vendor does not serve"
            for (e, s), content in found.items()
            if served.get((e, s)) != content and _rows(served, (e, s)) <= content.rows
        ]
        count = sum(content.rows for content in found.values())
        self.check(
            Promise.NOTHING_LOST,
            f"{about}: all {sum(c.rows for c in served.values()):,} trades of the vendor's files on {day}",
            _listed(lost) or f"{count:,} trades",
            kept=not lost,
        )
        self.check(
            Promise.NOTHING_WRONG_PUBLISHED,
            f"{about}: every trade is as the vendor's file has it",
            _listed(other) or f"{count:,} trades, all alike",
            kept=not other,
        )

    def is_told(self, house: House, day: str, about: str, *, bad: bool) -> None:
        """A message and an open incident name a bad day; a good day has none open, and ends are reported."""
        wanted = (
            "a message and an open incident name"
            if bad
            else "no incident is open, and the end of each was reported, of"
        )
        expected = f"{about}: {wanted} {day}"
        if not self.environment.monitoring.alerts:
            self.not_run((Promise.SOMEBODY_TOLD,), expected, "monitoring.alerts is off")
            return
        try:
            incidents = [incident for incident in house.incidents(day) if incident.day == day]
        except BackfillError as failure:
            self.check(Promise.SOMEBODY_TOLD, expected, f"the look failed: {failure}", kept=False)
            return
        messages = [message for message in house.inbox.messages if day in message]
        ended = [message for message in messages if "Ended after" in message]
        lasting = self.undisturbed.incidents
        if bad:
            kept = bool(incidents) and len(messages) > len(ended)
        elif lasting:
            kept = {incident.name for incident in incidents} == lasting
        else:
            kept = not incidents and bool(messages) == bool(ended)
        names = [f"{incident.name} ({incident.text[:120]})" for incident in incidents]
        sent = f"{plural(len(messages), 'message')}, {len(ended)} of an end"
        self.check(
            Promise.SOMEBODY_TOLD, expected, f"{_listed(names) or 'no open incident'}; {sent}", kept=kept
        )

    def keep_logs(self, target: Path) -> None:
        """Copy the logs of all runs."""
        for house in self._houses:
            shutil.copytree(house.folder / "logs", target / house.folder.name, dirs_exist_ok=True)


def _rows(contents: Mapping[tables.MarketName, tables.Content], market: tables.MarketName) -> int:
    content = contents.get(market)
    return content.rows if content else 0


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{'; '.join(texts[:_NAMED])}{more}"


def _cpu_seconds() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def undisturbed(
    folder: Path, day: str, replay: Replay | None = None, environment: Environment = USUAL
) -> Undisturbed:
    """Run the day without any fault.

    Raises
    ------
    BackfillError
        The run fails, so there is nothing to compare with.
    BadInput
        The generated market is not complete on that day.
    """
    market = rehearsal_market(environment=environment)
    with (
        replay.house(folder, environment=environment)
        if replay
        else House(folder, market, environment=environment)
    ) as house:
        run = house.run(day)
        if run.code != 0:
            tail = " ".join(run.text.split())[-500:]
            msg = f"the undisturbed run of {day} ended with exit code {run.code}: fix that first: {tail}"
            raise BackfillError(msg)
        if (outcome := house.state(day).outcome) != "published":
            msg = f"{day} is {outcome} without any fault, so nothing can be compared: choose another day"
            raise BadInput(msg)
        size = sum(file.stat().st_size for file in house.lake.rglob("*") if file.is_file())
        names = (
            frozenset(one.name for one in house.incidents(day) if one.day == day) if replay else frozenset()
        )
        return Undisturbed(house.published(day), len(house.standin.requests), size, names)
