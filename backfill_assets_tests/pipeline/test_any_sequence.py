"""Random sequences of possible events of days, on two pipelines: the tables are alike after each step.

In the calm pipeline each run ends and is alone. In the rough one runs are killed at any step of writing and
run again, repeated, or run twice at once. A model knows for each file which rows may be published: those of
good versions and of approved ones, and none of a version with a gap that was retracted.
"""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import yaml
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.lake import paths
from backfill_assets.warehouse import ledger
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline
from backfill_assets_tests.pipeline.test_kill import DayForks
from backfill_assets_tests.times import TIMES

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
FEEDS = {"binance/trades/BTCUSDT": "BTC-USDT", "binance/trades/ETHUSDT": "ETH-USDT"}
TABLES = ("trades", "candles", "coverage", "quality", "instruments")
#: Number of events in one sequence.
STEPS = 20
FIRST_SEED = int(os.environ.get("BACKFILL_SEED", "0"))

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]


def with_a_gap(lines: list[str]) -> list[str]:
    return lines[:1000] + lines[1200:]


def with_another_gap(lines: list[str]) -> list[str]:
    return lines[:500] + lines[900:]


def with_a_corrected_side(lines: list[str]) -> list[str]:
    sides = {"buy": "sell", "sell": "buy"}
    cells = lines[700].split(",")
    cells[5] = sides.get(cells[5], "buy")
    return [*lines[:700], ",".join(cells), *lines[701:]]


#: Files that the vendor may serve, and whether their rows are good enough to count without an approval.
VARIANTS: dict[str, tuple[Callable[[list[str]], list[str]], bool]] = {
    "whole": (list, True),
    "corrected": (with_a_corrected_side, True),
    "gap": (with_a_gap, False),
    "another gap": (with_another_gap, False),
}


@dataclass
class World:
    """Both pipelines, and the model's knowledge."""

    calm: Pipeline
    rough: Pipeline
    forks: DayForks
    dice: random.Random
    #: By day and feed: rows that the vendor serves now, and those that may be published.
    served: dict[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)
    may: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(lambda: {0}))
    good: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    history: list[str] = field(default_factory=list)

    def serve(self, day: str, feed: str, variant: str) -> None:
        change, good = VARIANTS[variant]
        rows = []
        self.calm.serve_changed(feed, day, lambda lines: rows.append(len(change(lines))) or change(lines))
        self.served[day, feed] = (rows[0], good)

    def fetched(self, day: str, *feeds: str) -> None:
        """Record that the vendor's rows came into the lake."""
        for feed in feeds:
            if (day, feed) not in self.served:
                self.serve(day, feed, "whole")
            rows, good = self.served[day, feed]
            if good:
                self.good[day, feed].add(rows)
                self.may[day, feed].add(rows)

    def run(self, day: str) -> None:
        self.fetched(day, *FEEDS)
        self.calm.run_apart(day)
        how = self.dice.choice(["plain", "killed", "killed", "twice", "at once"])
        self.history.append(f"run {day}, {how}")
        if how == "killed":
            for _ in range(self.dice.randint(1, 2)):
                code, _, _ = self.forks.run(self.rough, day, kill_at_write=self.dice.randint(1, 120))
                assert code in (-signal.SIGKILL, 0, 1)
        if how == "at once":
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self.rough.run_apart, [day, day]))
        for _ in range(2 if how == "twice" else 1):
            self.rough.run_apart(day)

    def refresh(self, day: str) -> None:
        feeds = self.dice.sample(sorted(FEEDS), self.dice.randint(1, 2))
        self.history.append(f"refresh {day} {feeds}")
        self.fetched(day, *FEEDS)
        for pipeline, times in ((self.calm, 1), (self.rough, self.dice.randint(1, 2))):
            for _ in range(times):
                Pipeline(pipeline.file, pipeline.standin).run(day, refresh=True, feeds=feeds)

    def decide(self, verb: str) -> None:
        """Approve a version that waits, or retract one that counts, if there is one; then run its day."""
        known = [day for day in DAYS if (self.calm.folder / "lake" / paths.settled_day(day)).exists()]
        found = [
            (day, str(feed.feed), version)
            for day in known
            for feed in self.calm.settled(day).feeds
            if (version := feed.candidate if verb == "approve" else feed.accepted) is not None
        ]
        if not found:
            return
        day, feed, version = self.dice.choice(found)
        words = [verb, "--date", day, "--feed", feed, "--content", version.content[:12], "--reason", "a test"]
        for pipeline in (self.calm, self.rough):
            done = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words)
            assert done.exit_code == 0, done.output
        if verb == "approve":
            self.may[day, feed].add(version.rows)
        elif version.rows not in self.good[day, feed]:
            self.may[day, feed].discard(version.rows)
        self.history.append(f"{verb} {day} {feed} {version.rows} rows")
        self.run(day)

    def hold_below(self, share: float) -> None:
        self.history.append(f"hold_below {share}")
        for pipeline in (self.calm, self.rough):
            content = yaml.safe_load(pipeline.file.read_text())
            pipeline.file.write_text(yaml.safe_dump({**content, "thresholds": {"hold_below": share}}))

    def step(self) -> None:
        day, feed = self.dice.choice(DAYS), self.dice.choice(sorted(FEEDS))
        is_known = any(line.startswith(f"run {day}") for line in self.history)
        kind = self.dice.choice(
            ["serve", "serve", "run", "refresh", "approve", "approve", "retract", "settings"]
        )
        if kind == "run" or not is_known:
            self.run(day)
        elif kind == "serve":
            variant = self.dice.choice(sorted(VARIANTS))
            self.history.append(f"serve {day} {feed}: {variant}")
            self.serve(day, feed, variant)
            self.refresh(day)
        elif kind == "refresh":
            self.refresh(day)
        elif kind == "settings":
            self.hold_below(self.dice.choice([0.4, 0.5, 0.6]))
            self.run(day)
        else:
            self.decide(kind)

    def compare(self) -> None:
        """Both pipelines have the same tables of allowed rows, and no claim is open."""
        for table in TABLES:
            assert self.rough.partition_bytes(table) == self.calm.partition_bytes(table), (
                table,
                self.history,
            )
        for day in DAYS:
            trades = self.rough.table("trades", day)
            for feed, symbol in FEEDS.items():
                rows = trades.filter(symbol=symbol).height if trades.width else 0
                assert rows in self.may[day, feed], (day, feed, rows, self.history)
            for table in TABLES:
                entry = ledger.entry(self.rough.store, table, day)
                assert entry is None or (entry.open, entry.loading) == ((), ()), self.history


@pytest.fixture(scope="module")
def forks() -> Iterator[DayForks]:
    running = DayForks()
    yield running
    running.close()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + TIMES))
def test_after_every_step_the_tables_are_those_of_a_calm_life(
    make_pipeline: MakePipeline, standin: object, forks: DayForks, seed: int
) -> None:
    entry = {"exchanges": ["binance"], "symbols": sorted(FEEDS.values()), "data_types": ["trades"]}
    calm, rough = (make_pipeline(standin, name=name, universe=[entry]) for name in ("calm", "rough"))
    world = World(calm, rough, forks, random.Random(seed))
    while len(world.history) < STEPS:
        world.step()
        world.compare()
    assert any("killed" in line for line in world.history)
