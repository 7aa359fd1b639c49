"""The scenario of many days: daemon and service work for long, and only their records grow.

Days are ordered in batches through the API. Between two batches no run is at work, and each of the lasting
processes is measured. The first third of the looks is warm-up (caches fill, libraries are loaded at first
use); the medians of the second and the last third are compared. Records grow, but by the same for each day.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from backfill_assets.days import day_range, shift, utc_now
from backfill_assets.rehearsal.deployment import Deployment
from backfill_assets.rehearsal.environment import FIRST_DAY
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.processes import pss_bytes
from backfill_assets.rehearsal.stage import Stage

#: One small feed, so that most of a day's work is that of daemon and service.
_MARKETS: Final = (("binance",), ("BTC-USDT",))
_QUICK_BATCH: Final = 4
#: A day takes some seconds; a batch that takes longer than this for each of its days counts as not published.
_MOST_SECONDS_OF_A_DAY: Final = 75.0
_FULL_BATCH: Final = 40
#: The largest growth that counts as flat.
MOST_GROWTH: Final = 0.05
#: The fewest looks in each of the three parts.
_FEWEST: Final = 3
_QUIET_SECONDS: Final = 20.0
_MB: Final = 2**20
_KB: Final = 1_000
#: Processes that daemon and service start once, by a part of their command.
_CHILDREN: Final = {"run server": "automation.run_server", "code server": "api grpc"}


@dataclass(frozen=True, slots=True)
class Look:
    """Measurements of the lasting processes and the records after a number of days.

    Attributes
    ----------
    memory, handles, threads
        For each lasting process: proportional set size in bytes, open files and sockets, threads.
    records
        Bytes of Dagster's records.
    """

    days: int
    memory: dict[str, int]
    handles: dict[str, int]
    threads: dict[str, int]
    records: int


def soak(stage: Stage) -> None:
    """Days back to back for minutes to a day; memory, threads, file handles and records per day stay flat."""
    looks: list[Look] = []
    with stage.house(markets=_MARKETS) as house, Deployment(house, is_quick=not stage.is_full) as deployment:
        until = time.monotonic() + 60 * stage.soak_minutes
        ordered = published = 0
        last = ""
        for first, last, is_new in _batches(_FULL_BATCH if stage.is_full else _QUICK_BATCH):
            job = deployment.order(first, last, refresh=not is_new)
            days = len(day_range(first, last))
            status = deployment.ended(job, days * _MOST_SECONDS_OF_A_DAY)
            ordered += days
            published += status.get("days_by_state", {}).get("published", 0)
            looks.append(_look(deployment, published))
            if time.monotonic() > until or published < ordered:
                break
        stage.check(
            Promise.RECOVERED,
            f"days back to back for {stage.soak_minutes:g} minutes: every day that is ordered is published",
            f"{published:,} of {ordered:,} days",
            kept=0 < published == ordered,
        )
        stage.has_all_trades(house, last, "the last day")
    judge(stage, looks)


def _batches(size: int) -> Iterator[tuple[str, str, bool]]:
    """First and last day of each batch, and whether the days are new: the whole market, again and again."""
    is_new = True
    while True:
        first, yesterday = FIRST_DAY, shift(utc_now().date().isoformat(), -1)
        while (last := shift(first, size - 1)) <= yesterday:
            yield first, last, is_new
            first = shift(last, 1)
        is_new = False


def _look(deployment: Deployment, days: int) -> Look:
    """Wait until no run is at work, then measure all lasting processes."""
    deployment.wait(lambda: not _lasting(deployment)[1], _QUIET_SECONDS)
    lasting, _ = _lasting(deployment)
    return Look(
        days,
        {name: pss_bytes(process) for name, process in lasting.items()},
        {name: process.num_fds() for name, process in lasting.items()},
        {name: process.num_threads() for name, process in lasting.items()},
        sum(_size(file) for file in deployment.home.rglob("*")),
    )


def _size(file: Path) -> int:
    """Size of a file; a journal of SQLite may disappear meanwhile."""
    with suppress(FileNotFoundError):
        return file.stat().st_size if file.is_file() else 0
    return 0


def _lasting(deployment: Deployment) -> tuple[dict[str, psutil.Process], list[psutil.Process]]:
    """Return the lasting processes by name, and the runs, which are forks of one of them."""
    lasting: dict[str, psutil.Process] = {}
    runs: list[psutil.Process] = []
    for name in ("daemon", "service"):
        lasting[name] = psutil.Process(deployment.process(name).pid)
        for child in lasting[name].children():
            # The process may end now, or may have ended without having been waited for.
            with suppress(psutil.NoSuchProcess):
                words = " ".join(child.cmdline())
                lasting |= {kind: child for kind, word in _CHILDREN.items() if word in words}
    if "run server" in lasting:
        runs = lasting["run server"].children(recursive=True)
    return lasting, runs


def judge(stage: Stage, looks: Sequence[Look]) -> None:
    """Compare the second third of the looks with the last."""
    part = len(looks) // 3
    if part < _FEWEST:
        why = f"{len(looks)} batches are too few to compare: give --soak-minutes more"
        stage.not_run((Promise.CONTAINED,), "nothing grows", why)
        return
    early, late = looks[-2 * part : -part], looks[-part:]
    days = f"from day {early[0].days:,} to day {late[-1].days:,}"
    for measure, unit, size in (("memory", "MB", _MB), ("handles", "handles", 1), ("threads", "threads", 1)):
        before, after = _medians(early, measure), _medians(late, measure)
        sums = sum(before.values()), sum(after.values())
        each = [_grown(before.get(name, 0) / size, now / size, name) for name, now in after.items()]
        stage.check(
            Promise.CONTAINED,
            f"{measure} of daemon and service grow by less than {MOST_GROWTH:.0%} {days}",
            f"{_grown(sums[0] / size, sums[1] / size, unit)}: {', '.join(each)}",
            kept=0 < sums[1] <= sums[0] * (1 + MOST_GROWTH),
        )
    first, then = _bytes_per_day([looks[-2 * part - 1], *early]), _bytes_per_day([early[-1], *late])
    stage.check(
        Promise.CONTAINED,
        f"Dagster's records grow by no more for each day at the end than before, {days}",
        f"{_grown(first / _KB, then / _KB, 'kB a day')}, {late[-1].records / _MB:.0f} MB in all",
        kept=0 < then <= first * (1 + MOST_GROWTH),
    )


def _grown(before: float, after: float, about: str) -> str:
    return f"{about} {before:.0f} to {after:.0f} ({f'{after / before - 1:+.1%}' if before else 'new'})"


def _medians(looks: Sequence[Look], measure: str) -> dict[str, float]:
    """The median of each process."""
    found: list[dict[str, int]] = [getattr(look, measure) for look in looks]
    return {name: statistics.median(each.get(name, 0) for each in found) for name in found[-1]}


def _bytes_per_day(looks: Sequence[Look]) -> float:
    return (looks[-1].records - looks[0].records) / (looks[-1].days - looks[0].days)
