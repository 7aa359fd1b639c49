"""Measurements of past days for a plan: file sizes, ratios of bytes, and the speed of runs.

Nothing is assumed: if the lake or Dagster's records have nothing to measure, the answer is None.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from backfill_assets.automation.history import MeasuredRun
from backfill_assets.days import is_day
from backfill_assets.feeds import ExpectedFeed
from backfill_assets.lake import paths
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.progress.plan_day import combination_of
from backfill_assets.progress.selection import Combination
from backfill_assets.quality.settled import HeldVersion, SettledDay, SettledFeed, load_settled
from backfill_assets.settings import DuckDBWarehouse, Settings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES

#: Days of a median; a week has every weekday once.
DAYS_PER_FEED: Final = 7
#: Most days searched for feeds that few days have; this limits the cost of an answer.
DAYS_CONSIDERED: Final = 28
#: Runs over which a speed is measured.
RUNS_CONSIDERED: Final = 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of files of the published days nearest to a range."""

    #: Median compressed bytes of a file.
    raw_bytes: dict[Combination, float]
    days: tuple[str, ...]
    #: Per compressed byte: Parquet bytes in the lake, rows, and bytes in the warehouse if it can be measured.
    lake_ratio: float | None = None
    rows_ratio: float | None = None
    warehouse_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of runs that fetched files: (low, high) are quartiles, or the extremes of few runs."""

    runs: int
    bytes_per_second: tuple[float, float]
    seconds_per_day: tuple[float, float]
    #: Average number of runs at once.
    overlap: float


@dataclass(slots=True)
class LakeHistory:
    """The history of the lake; reads each day at most once."""

    store: Store
    settings: Settings
    _days: dict[str, SettledDay | None] = field(default_factory=dict)

    def feeds(self, day: str) -> list[tuple[Combination, SettledFeed]]:
        """Return the day's settled feeds."""
        if day not in self._days:
            self._days[day] = load_settled(self.store, day)
        settled = self._days[day]
        return [
            (combination_of(ExpectedFeed(f.feed, f.symbols)), f) for f in (settled.feeds if settled else ())
        ]

    def sizes(self, start: str, end: str, wanted: Collection[Combination]) -> Sizes:
        """Return sizes of the wanted files on the published days nearest to the range."""
        samples: dict[Combination, list[int]] = {}
        versions: dict[str, list[HeldVersion]] = {}
        for day in self._nearest(start, end):
            if all(len(samples.get(one, ())) >= DAYS_PER_FEED for one in wanted):
                break
            accepted = {c: f.accepted for c, f in self.feeds(day) if f.accepted is not None}
            versions[day] = list(accepted.values())
            for combination, version in accepted.items():
                samples.setdefault(combination, []).append(version.raw_bytes)
        everything = [version for of_day in versions.values() for version in of_day]
        raw = sum(version.raw_bytes for version in everything)
        weighed = self._warehouse_bytes(versions)
        raw_bytes = {c: median(found[:DAYS_PER_FEED]) for c, found in samples.items() if c in wanted}
        return Sizes(
            raw_bytes=raw_bytes,
            days=tuple(sorted(versions)) if raw_bytes else (),
            lake_ratio=sum(v.bytes for v in everything) / raw if raw else None,
            rows_ratio=sum(v.rows for v in everything) / raw if raw else None,
            warehouse_ratio=weighed / raw if raw and weighed is not None else None,
        )

    def speed(self, runs: Sequence[MeasuredRun]) -> Speed | None:
        """Return the speed of the latest runs that fetched files; None if there are none."""
        measured = []
        for run in runs:
            raw = self._fetched_by(run)
            if raw and run.seconds > 0:
                measured.append((run, raw))
            if len(measured) == RUNS_CONSIDERED:
                break
        if not measured:
            return None
        return Speed(
            runs=len(measured),
            bytes_per_second=_spread([raw / run.seconds for run, raw in measured]),
            seconds_per_day=_spread([run.seconds for run, _ in measured]),
            overlap=_overlap([run for run, _ in measured]),
        )

    def _nearest(self, start: str, end: str) -> list[str]:
        """Return published days, the nearest to the range first; of two equally near, the later first."""
        prefix = paths.publication(CANDLES.name, start).removesuffix(f"{start}.json")
        names = (path.removeprefix(prefix).removesuffix(".json") for path in self.store.list(prefix))
        days = [name for name in names if is_day(name)]
        first, last = date.fromisoformat(start), date.fromisoformat(end)

        def distance(day: str) -> int:
            at = date.fromisoformat(day)
            return max((first - at).days, (at - last).days, 0)

        nearest = sorted(sorted(days, reverse=True), key=distance)[:DAYS_CONSIDERED]
        entries = parallel_map(
            lambda day: ledger.entry(self.store, CANDLES.name, day), nearest, self.store.parallel_reads
        )
        return [day for day, e in zip(nearest, entries, strict=True) if e and e.published is not None]

    def _fetched_by(self, run: MeasuredRun) -> int:
        versions = [
            version
            for _, feed in self.feeds(run.day)
            for version in (feed.accepted, feed.candidate)
            if version is not None and run.started <= version.fetched_at <= run.ended
        ]
        return sum(version.raw_bytes for version in versions)

    def _warehouse_bytes(self, days: Collection[str]) -> int | None:
        """Return the bytes of the days' partitions in the embedded warehouse; BigQuery is not asked."""
        warehouse = self.settings.warehouse
        if not isinstance(warehouse, DuckDBWarehouse):
            return None
        folder = Path(resolve(warehouse.folder))
        sizes = 0
        for file in (file for day in days for file in folder.glob(f"*/{day}.parquet")):
            with suppress(FileNotFoundError):  # replaced or removed since
                sizes += file.stat().st_size
        return sizes


def _spread(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = quantiles(values, n=4)
    return low, high


def _overlap(runs: Sequence[MeasuredRun]) -> float:
    """Return the seconds of all runs per second in which at least one of them was running."""
    total = covered = 0.0
    end = None
    for run in sorted(runs, key=lambda run: run.started):
        total += run.seconds
        if end is None or run.started >= end:
            covered += run.seconds
            end = run.ended
        elif run.ended > end:
            covered += (run.ended - end).total_seconds()
            end = run.ended
    return total / covered if covered else 1.0
