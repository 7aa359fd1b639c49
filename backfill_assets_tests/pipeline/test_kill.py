"""A day is killed again and again: no reader sees a partial state; the next run ends as if undisturbed."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backfill_assets.warehouse import ledger
from backfill_assets_tests.pipeline.restless_reader import RestlessReader, rows_of
from backfill_assets_tests.times import TIMES

ROOT = Path(__file__).parents[2]
DAY_BEFORE, DAY, DAY_AFTER = "2024-01-01", "2024-01-02", "2024-01-03"
TABLES = ("trades", "candles", "coverage", "quality", "instruments")
TIMED_KILLS = 4 * TIMES
KILLS_AT_WRITES = 8 * TIMES
STOPS = 2 * TIMES
SECONDS = 120

pytestmark = [pytest.mark.story, pytest.mark.timeout(300 * TIMES)]


class DayForks:
    """The process that runs days in forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("day_forks.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)

    def start(self, pipeline, day: str, at_write: int = 0, signal_name: str = "SIGKILL") -> int:
        """Start the day, which sends itself the signal at this step of writing; returns its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pipeline.file} {day} {at_write} {signal_name}\n")
        self._process.stdin.flush()
        return int(self._answers.get(timeout=SECONDS))

    def end(self) -> int:
        """The exit code of the started day."""
        return int(self._answers.get(timeout=SECONDS).split()[0])

    def run(self, pipeline, day: str, *, kill_after: float | None = None, kill_at_write: int = 0):
        """Run the day, killed after so many seconds or at this step of writing: exit code, seconds, steps."""
        pid = self.start(pipeline, day, kill_at_write)
        started = time.monotonic()
        try:
            end = self._answers.get(timeout=SECONDS if kill_after is None else kill_after)
        except queue.Empty:
            os.killpg(pid, signal.SIGKILL)
            end = self._answers.get(timeout=SECONDS)
        code, steps = end.split()
        return int(code), time.monotonic() - started, int(steps)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()


@pytest.fixture(scope="module")
def forks() -> Iterator[DayForks]:
    running = DayForks()
    yield running
    running.close()


@pytest.fixture(scope="module")
def others() -> Iterator[DayForks]:
    """Forks for a second run of a day beside one of ``forks``."""
    running = DayForks()
    yield running
    running.close()


@pytest.fixture(scope="module")
def of_undisturbed():
    """Filled by the first test."""
    return {}


@pytest.fixture
def undisturbed(make_pipeline, standin, forks, of_undisturbed):
    """A pipeline without kills: folder, rows and bytes of its two days, seconds and steps of the second."""
    undisturbed = of_undisturbed
    if not undisturbed:
        whole = make_pipeline(standin, name="undisturbed")
        code, _, _ = forks.run(whole, DAY_BEFORE)
        assert code == 0
        before = rows_of(whole.folder / "warehouse")
        code, undisturbed["seconds"], undisturbed["steps"] = forks.run(whole, DAY)
        assert code == 0
        after = rows_of(whole.folder / "warehouse")
        assert set(after) == {(table, day) for table in TABLES for day in (DAY_BEFORE, DAY)}
        undisturbed["rows"] = {key: {rows, before.get(key, rows)} for key, rows in after.items()}
        undisturbed["tables"] = bytes_of(whole)
        undisturbed["folder"] = whole.folder
    return undisturbed


@pytest.fixture
def killed(make_pipeline, standin, forks):
    """A pipeline that has one day already, so that the next one republishes a neighbor."""
    pipeline = make_pipeline(standin, name="killed")
    assert forks.run(pipeline, DAY_BEFORE)[0] == 0
    return pipeline


def bytes_of(pipeline):
    return {table: pipeline.partition_bytes(table) for table in TABLES}


def strata(count: int, seed: int) -> list[float]:
    """Random moments of [0, 1), one in each of ``count`` equal parts, in order."""
    dice = random.Random(seed)
    return [(i + dice.random()) / count for i in range(count)]


def ends_as_if_nothing_was(forks, pipeline, reader, undisturbed):
    assert forks.run(pipeline, DAY)[0] == 0
    reader.look()
    assert reader.wrong == []
    assert reader.seen == set(undisturbed["rows"])
    assert bytes_of(pipeline) == undisturbed["tables"]
    for table in ("candles", "coverage"):
        for day in (DAY_BEFORE, DAY):
            made = list((pipeline.folder / "lake" / table / f"date={day}").iterdir())
            assert len(made) == 1, "whoever reads the folder reads each row once"
    for table in TABLES:
        for day in (DAY_BEFORE, DAY):
            left = ledger.entry(pipeline.store, table, day)
            assert (left.state, left.open, left.loading) == ("done", (), ()), "no claim of the dead is open"


def test_a_day_killed_at_random_moments_ends_as_if_nothing_was(killed, forks, undisturbed):
    whole = undisturbed["seconds"]
    moments = strata(TIMED_KILLS, seed=1)
    random.Random(2).shuffle(moments)
    attempts = 0
    with RestlessReader(killed.folder, undisturbed["rows"]) as reader:
        while moments:
            attempts += 1
            assert attempts < 6 * TIMED_KILLS, "the runs end before they can be killed"
            code, seconds, _ = forks.run(killed, DAY, kill_after=moments[0] * whole)
            reader.look()
            assert reader.wrong == []
            if code == -signal.SIGKILL:
                moments.pop(0)
            else:
                # Less work was left, or the machine is faster now: the moments move closer.
                assert code == 0
                whole = seconds
        ends_as_if_nothing_was(forks, killed, reader, undisturbed)


def test_a_day_killed_in_the_middle_of_writing_ends_as_if_nothing_was(killed, forks, undisturbed):
    moments = [int(moment * undisturbed["steps"]) for moment in strata(KILLS_AT_WRITES, seed=3)]
    with RestlessReader(killed.folder, undisturbed["rows"]) as reader:
        done = 0
        for moment in moments:
            code, _, steps = forks.run(killed, DAY, kill_at_write=max(1, moment - done))
            assert code == -signal.SIGKILL, f"ended before its step {moment - done}, after {steps}"
            done = moment
            reader.look()
            assert reader.wrong == []
        ends_as_if_nothing_was(forks, killed, reader, undisturbed)


def stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


@pytest.fixture(scope="module")
def of_three():
    """Filled by the first test that asks for it."""
    return {}


@pytest.fixture
def tables_of_three(make_pipeline, standin, forks, of_three):
    """The tables of three days without kills."""
    if not of_three:
        whole = make_pipeline(standin, name="three")
        assert [forks.run(whole, day)[0] for day in (DAY_BEFORE, DAY, DAY_AFTER)] == [0, 0, 0]
        of_three.update(bytes_of(whole))
    return of_three


@pytest.mark.parametrize("moment", strata(STOPS, seed=5))
def test_a_run_that_goes_on_after_others_made_its_day_and_the_next_changes_nothing(
    moment, killed, forks, others, undisturbed, tables_of_three
):
    """The process of a node that the cluster has lost does not know the trades of the next day."""
    orphan = others.start(killed, DAY, max(1, int(moment * undisturbed["steps"])), "SIGSTOP")
    deadline = time.monotonic() + SECONDS
    while not stopped(orphan):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [forks.run(killed, day)[0] for day in (DAY, DAY_AFTER)] == [0, 0]
    assert bytes_of(killed) == tables_of_three
    os.kill(orphan, signal.SIGCONT)
    assert others.end() == 0
    assert bytes_of(killed) == tables_of_three
    for table in TABLES:
        left = ledger.entry(killed.store, table, DAY)
        assert (left.state, left.open, left.loading) == ("done", (), ())


def test_the_reader_names_each_kind_of_damage_and_calls_what_is_whole_whole(undisturbed):
    folder = undisturbed["folder"]
    reader = RestlessReader(folder, undisturbed["rows"])
    reader.look()
    assert reader.wrong == []
    data = sorted((folder / "lake" / "ticks").rglob("*.parquet"))
    partition = folder / "warehouse" / "trades" / f"{DAY_BEFORE}.parquet"
    manifest = data[1].with_name("manifest.json")
    for file, change, complaint in (
        (data[0], lambda b: b[:-1], "names"),
        (data[0], lambda b: bytes(len(b)), "is not what its name says"),
        (partition, lambda b: b[: len(b) // 2], "_partitions"),
        (manifest, lambda b: b[:-10], "JSONDecodeError"),
    ):
        whole = file.read_bytes()
        file.write_bytes(change(whole))
        reader.look()
        assert any(complaint in line for line in reader.wrong), reader.wrong
        file.write_bytes(whole)
        reader.wrong.clear()
        reader.look()
        assert reader.wrong == []
