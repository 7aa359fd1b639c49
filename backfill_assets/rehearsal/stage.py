"""What a scenario plays on: houses, the undisturbed run to compare with, and the list of outcomes.

Every outcome compares something measured with something expected; nothing here states a result.
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
from backfill_assets.rehearsal.house import ANSWER_SECONDS, House, Run, rehearsal_market
from backfill_assets.rehearsal.model import Measurement, Outcome, Promise
from backfill_assets.rehearsal.processes import MemorySampler
from backfill_assets.standins.market import Market

#: Differences that an outcome names one by one.
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The day without any fault: tables, requests, and bytes of the lake."""

    contents: tables.Contents
    requests: int
    lake_bytes: int


class Stage:
    """One scenario at work.

    Parameters
    ----------
    folder
        Where its houses are.
    day
        The UTC day that is rehearsed.
    """

    def __init__(
        self, scenario: str, folder: Path, day: str, undisturbed: Undisturbed, *, is_full: bool = False
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.day = day
        self.undisturbed = undisturbed
        self.is_full = is_full
        self.outcomes: list[Outcome] = []
        self._sampler = MemorySampler()
        self._houses: list[House] = []
        self._rows = 0

    @contextmanager
    def house(
        self,
        *,
        data_types: Sequence[str] = ("trades",),
        market: Market | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> Iterator[House]:
        """A house, whose files are searched for its key at the end."""
        folder, market = self.folder / "house", market or rehearsal_market()
        with House(folder, market, data_types, answer_seconds, self._sampler.add) as house:
            self._houses.append(house)
            yield house
            days = {file.stem for file in house.warehouse.glob("trades/*.parquet")}
            self._rows += sum(content.rows for content in house.published(*days).values())
        leaks = house.files_with_key()
        files = sum(file.is_file() for file in house.folder.rglob("*"))
        self.check(
            Promise.NO_SECRET_IN_LOGS,
            "the API key is in no file",
            _listed(leaks) or f"in none of {files} files",
            kept=not leaks and files > 0,
        )

    @property
    def peak_mb(self) -> float:
        """The largest memory of its processes so far, as ``Measurement`` has it."""
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

    def check(self, promise: Promise, expected: str, seen: str, *, kept: bool) -> None:
        """Note an outcome."""
        self.outcomes.append(Outcome(self.scenario, promise, expected, seen, kept))

    def not_run(self, promises: Sequence[Promise], expected: str, why: str) -> None:
        """Note that something could not be tried."""
        self.outcomes += [Outcome(self.scenario, promise, expected, why, None) for promise in promises]

    # Judgements that scenarios share

    def succeeded(self, promise: Promise, run: Run, about: str) -> None:
        """The run must end with exit code 0."""
        self.check(promise, f"{about}: exit code 0", f"exit code {run.code}", kept=run.code == 0)

    def is_harmless(self, house: House, about: str) -> None:
        """All market data that is published now is that of the undisturbed run."""
        found = house.published(self.day)
        wrong = tables.wrong(self.undisturbed.contents, found)
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
        outcome = house.state(self.day).outcome
        found = house.published(self.day)
        different = tables.differences(
            {group: c for group, c in self.undisturbed.contents.items() if group.table not in leave_out},
            {group: c for group, c in found.items() if group.table not in leave_out},
        )
        self.check(
            Promise.RECOVERED,
            f"{about}: published, with the tables of an undisturbed run",
            f"{outcome}, {_listed(different) or f'{len(found)} groups of rows alike'}",
            kept=outcome == "published" and not different,
        )
        self.has_all_trades(house, self.day, about)

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
        """A message and an open incident name a bad day; of a good one none is open, and its end was told."""
        wanted = (
            "a message and an open incident name"
            if bad
            else "no incident is open, and the end of each was told, of"
        )
        expected = f"{about}: {wanted} {day}"
        try:
            incidents = [incident for incident in house.incidents(day) if incident.day == day]
        except BackfillError as failure:
            self.check(Promise.SOMEBODY_TOLD, expected, f"the look failed: {failure}", kept=False)
            return
        messages = [message for message in house.inbox.messages if day in message]
        ended = [message for message in messages if "Ended after" in message]
        if bad:
            kept = bool(incidents) and len(messages) > len(ended)
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
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def undisturbed(folder: Path, day: str) -> Undisturbed:
    """Run the day without any fault.

    Raises
    ------
    BackfillError
        The run fails: there is nothing to compare with.
    BadInput
        The generated market is not whole on that day.
    """
    with House(folder, rehearsal_market()) as house:
        run = house.run(day)
        if run.code != 0:
            tail = " ".join(run.text.split())[-500:]
            msg = f"the undisturbed run of {day} ended with exit code {run.code}: mend that first: {tail}"
            raise BackfillError(msg)
        if (outcome := house.state(day).outcome) != "published":
            msg = f"{day} is {outcome} without any fault, so nothing can be compared: choose another day"
            raise BadInput(msg)
        size = sum(file.stat().st_size for file in house.lake.rglob("*") if file.is_file())
        return Undisturbed(house.published(day), len(house.standin.requests), size)
